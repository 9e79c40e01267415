"""The folders for all that can be made again: packs, downloaded sets, and copies on a node's own disk."""

import contextlib
import json
import math
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import platformdirs

from ganvas.errors import DataError

Kind = Literal["packs", "downloads", "scratch"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MANIFEST = "manifest.json"            # in a pack
DOWNLOADED = ".ganvas-download.json"  # in a downloaded set: that folder, and no other of that name, is ours to clean

_PARTIAL = re.compile(r"\..+\.[0-9a-f]{12}\.partial")
_STALE_SEC = 24 * 3600
_UNFINISHED = "(unfinished)"


@dataclass(frozen=True)
class CacheEntry:
    """One pack, downloaded set or local copy, or what a killed process left of one (`whole` is False)."""

    kind: Kind
    name: str                          # the images' name as the user knows it
    shape: tuple[int, ...] | None      # (N, C, H, W) of a pack
    path: Path
    bytes: int
    used_at: float                     # seconds since 1970; of an unfinished one, when it last grew
    whole: bool = True


@dataclass
class Cleaned:
    """What `clean` did."""

    removed: list[CacheEntry] = field(default_factory=list)
    kept: list[tuple[CacheEntry, str]] = field(default_factory=list)   # meant to go, with the reason why it could not

    @property
    def freed(self) -> int:
        """Bytes."""
        return sum(entry.bytes for entry in self.removed)


def cache_root() -> Path:
    """The folder for all that can be made again: $GANVAS_CACHE, or the user's cache folder."""
    chosen = os.environ.get("GANVAS_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("ganvas", appauthor=False))


def scratch_root() -> Path | None:
    """The folder for copies on this node's own disk, inside $GANVAS_SCRATCH; None where that is not set."""
    chosen = os.environ.get("GANVAS_SCRATCH")
    return Path(chosen).expanduser() / "ganvas" if chosen else None


def section(kind: Kind) -> Path | None:
    """The folder of one kind of entries; None for scratch where $GANVAS_SCRATCH is not set. It may not exist yet."""
    return scratch_root() if kind == "scratch" else cache_root() / kind


def mark_used(path: Path) -> None:
    """Makes the entry at `path` the one used last. A cache that cannot be written stays as it is."""
    with contextlib.suppress(OSError):
        os.utime(path)


def entries() -> list[CacheEntry]:
    """Everything in the cache, by kind, the one used last first.

    Only what Ganvas made is listed, and so cleaned: $GANVAS_CACHE may be a folder that holds other things too.
    """
    found = []
    for kind in KINDS:
        folder = section(kind)
        children = [] if folder is None else _folders_in(folder)
        found += sorted(filter(None, (_entry(kind, child) for child in children)), key=lambda entry: -entry.used_at)
    return found


def select(kind: Kind | None = None, older_than_days: float | None = None, name: str | None = None) -> list[CacheEntry]:
    """The entries of one `kind`, of one `name` (the images' or the folder's), not used for so many days; None = any."""
    used_before = math.inf if older_than_days is None else time.time() - older_than_days * 24 * 3600
    return [entry for entry in entries()
            if kind in (None, entry.kind) and name in (None, entry.name, entry.path.name) and entry.used_at < used_before]


def clean(kind: Kind | None = None, older_than_days: float | None = None, name: str | None = None) -> Cleaned:
    """Removes the entries that `select` gives for the same arguments.

    What another process is making now stays: an unfinished folder, or a set with one inside, that grew within a day. What
    the system does not let go of, such as a file that is open on Windows, is listed in `kept` and not raised.
    """
    done = Cleaned()
    for entry in select(kind, older_than_days, name):
        if _in_the_making(entry):
            done.kept.append((entry, "it may be in the making: it changed within a day"))
            continue
        try:
            remove_folder(entry.path)
            done.removed.append(entry)
        except OSError as error:
            done.kept.append((entry, f"the system does not let go of it ({error.strerror or error})"))
    return done


def local_copy(path: Path) -> Path:
    """The pack at `path` as a copy on this node's own disk where $GANVAS_SCRATCH names one, else `path` itself.

    A copy holds the manifest and the files that it names, and nothing else that was put beside them. It appears whole or not
    at all and is used again while its manifest and sizes are the same; what is in its files is not looked at here.
    Several processes may ask at once. Raises DataError, naming $GANVAS_SCRATCH: no room, not writable, or `path` unreadable.
    """
    root = scratch_root()
    if root is None or path.resolve().is_relative_to(root.resolve()):
        return path
    target = root / path.name
    if _same(path, target):
        mark_used(target)
        return target

    chosen = os.environ["GANVAS_SCRATCH"]
    where = f"GANVAS_SCRATCH={chosen}"
    remedy = f"Set GANVAS_SCRATCH to a folder on another disk, or unset it: {path} is then read where it lies."
    try:
        root.mkdir(parents=True, exist_ok=True)
        remove_stale(root)
        sizes, free = _sizes_of_pack(path), shutil.disk_usage(root).free
        needed = sum(sizes.values())
        if needed > free:
            raise DataError(f"{where}: the copy of {path} needs {megabytes(needed)}, but only {megabytes(free)} "
                            f"are free there. Make room with `ganvas data cache clean --kind scratch`. {remedy}")
        with partial_folder(target) as partial:
            for name in sizes:
                shutil.copyfile(path / name, partial / name)
            return _publish(partial, path, target)
    except OSError as error:
        reason = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
        raise DataError(f"{where}: {path} cannot be copied there ({reason}). {remedy}") from error


@contextlib.contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, of this process alone; removed again if it is still there at the end."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def bytes_of(folder: Path) -> int:
    """Of all files in `folder`; 0 if it is not there."""
    return sum(state.st_size for _, state in _files_in(folder))


def remove_folder(path: Path) -> None:
    """Removes the folder `path`, renamed first so that nobody finds it half removed. Raises OSError where it cannot be."""
    if _PARTIAL.fullmatch(path.name):
        shutil.rmtree(path)
        return
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    path.rename(aside)
    shutil.rmtree(aside)


def megabytes(count: int) -> str:
    """"12.3 MB", or "4.5 GB"."""
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"


def _entry(kind: Kind, path: Path) -> CacheEntry | None:
    """The entry whose folder `path` is; None for a folder that Ganvas did not make, or that is gone by now."""
    try:
        if _PARTIAL.fullmatch(path.name):
            return CacheEntry(kind, _UNFINISHED, None, path, bytes_of(path), _grew_at(path), whole=False)
        about = json.loads((path / (DOWNLOADED if kind == "downloads" else MANIFEST)).read_text(encoding="utf-8"))
        shape = None if kind == "downloads" else tuple(int(side) for side in about["shape"])
        if kind != "downloads" and "fingerprint" not in about:
            return None
        return CacheEntry(kind, str(about["source"]), shape, path, bytes_of(path), path.stat().st_mtime)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _in_the_making(entry: CacheEntry) -> bool:
    unfinished = [entry.path] if not entry.whole else [
        child for child in _folders_in(entry.path) if _PARTIAL.fullmatch(child.name)]
    return any(time.time() - _grew_at(folder) < _STALE_SEC for folder in unfinished)


def remove_stale(folder: Path) -> None:
    """Removes what processes that were killed more than a day ago left in `folder`."""
    for child in _folders_in(folder):
        if _PARTIAL.fullmatch(child.name) and time.time() - _grew_at(child) > _STALE_SEC:
            shutil.rmtree(child, ignore_errors=True)


def _same(original: Path, copy: Path) -> bool:
    """Whether `copy` is a whole copy: the same manifest, and every file that it names of the same size."""
    try:
        return ((original / MANIFEST).read_bytes() == (copy / MANIFEST).read_bytes()
                and _sizes_of_pack(original) == _sizes_of_pack(copy))
    except OSError:
        return False


def _sizes_of_pack(folder: Path) -> dict[str, int]:
    """The bytes of each file that belongs to the pack in `folder`. Raises OSError where one of them is missing."""
    names = [*json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["checks"], MANIFEST]
    return {name: (folder / name).stat().st_size for name in names}


def _publish(partial: Path, original: Path, target: Path) -> Path:
    """Renames `partial` to `target`; if another process was first, its copy is taken instead."""
    for _ in range(20):
        try:
            partial.rename(target)
            return target
        except OSError as error:
            refused = error
        if _same(original, target):
            return target
        with contextlib.suppress(OSError):                # an older or torn copy is in the way
            remove_folder(target)
        time.sleep(0.01)
    raise refused


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(child for child in folder.iterdir() if child.is_dir() and not child.is_symlink())
    except OSError:
        return []


def _files_in(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """All files under `folder`, with their state. Files that vanish meanwhile are left out."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with contextlib.suppress(FileNotFoundError):
                yield path, path.stat()


def _grew_at(folder: Path) -> float:
    """When a file under `folder` was last written; now, if it is gone."""
    try:
        return max([folder.stat().st_mtime, *(state.st_mtime for _, state in _files_in(folder))])
    except FileNotFoundError:
        return time.time()
