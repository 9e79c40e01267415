"""Decodes a source once into a memory-mapped uint8 array, cached by content and layout; training reads only packs."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs

from ganvas.data.decode import Layout, open_image, to_pixels
from ganvas.data.source_base import Labels, Pixels, Source, UnreadableError, stamp_of
from ganvas.errors import DataError
from ganvas.files import sync_folder, write_whole

FORMAT_VERSION = 1

_IMAGES, _LABELS, _MANIFEST = "images.npy", "labels.npy", "manifest.json"
_PARTIAL = ".partial"
_HEADER_BYTES = 128
_CHUNK_BYTES = 4 * 2**20               # decoded pixels in one task of the thread pool
_CHECKED_BYTES = 2**30                 # a cached pack up to this size is hashed when it is opened: about a second
_STALE_SEC = 24 * 3600


@dataclass(frozen=True)
class PackPlan:
    """Where a pack lies or will lie, and what making it costs."""

    path: Path
    bytes_needed: int                  # the pack's size on disk
    bytes_free: int                    # on the disk of the cache
    cached: bool                       # it is there already, whole as far as its sizes tell


class Pack:
    """Images as one memory-mapped (N, C, H, W) uint8 array, with their labels and names. Safe to read from threads."""

    def __init__(self, path: Path, *, from_cache: bool):
        """Opens the pack folder at `path`. Raises ValueError, OSError or KeyError where it is torn."""
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT_VERSION:
            raise ValueError(f"format {manifest['format']}, not {FORMAT_VERSION}")
        images: Pixels = np.load(path / _IMAGES, mmap_mode="r", allow_pickle=False)
        if list(images.shape) != manifest["shape"] or images.dtype != np.uint8 or not images.flags.c_contiguous:
            raise ValueError(f"{_IMAGES} holds {images.dtype} {images.shape}, not uint8 {manifest['shape']}")
        if (path / _IMAGES).stat().st_size != _HEADER_BYTES + images.nbytes:
            raise ValueError(f"{_IMAGES} has another size than its manifest says")
        labels: Labels | None = np.load(path / _LABELS, allow_pickle=False) if manifest["has_labels"] else None
        if labels is not None and (labels.shape != (len(images),) or labels.dtype != np.int64):
            raise ValueError(f"{_LABELS} holds {labels.dtype} {labels.shape}, not int64 ({len(images)},)")

        self.path = path
        self.from_cache = from_cache
        self.labels = labels                                         # (N,) int64 or None
        self.class_names = tuple(map(str, manifest["class_names"]))
        self.names = tuple(map(str, manifest["names"]))              # of the images kept, in their order
        self.skipped = [(str(name), str(reason)) for name, reason in manifest["skipped"]]
        self.fingerprint = str(manifest["fingerprint"])              # of pixels and labels: moved folders keep theirs
        self._images: Pixels | None = images
        self._shape = images.shape

    def __len__(self) -> int:
        return int(self._shape[0])

    @property
    def channels(self) -> int:
        return int(self._shape[1])

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width)."""
        return int(self._shape[2]), int(self._shape[3])

    def read(self, indices: npt.ArrayLike) -> Pixels:
        """The images at `indices` (n,) as a new (n, C, H, W) uint8 array."""
        if self._images is None:
            raise ValueError(f"{self.path}: this pack is closed")
        return np.array(self._images[np.asarray(indices, dtype=np.int64)])

    def is_intact(self) -> bool:
        """Whether pixels and labels still have the fingerprint they were stored with. Reads all of them."""
        digest = hashlib.sha256()
        for start in range(0, len(self), 1024):
            digest.update(self.read(np.arange(start, min(start + 1024, len(self)))).data)
        if self.labels is not None:
            digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest() == self.fingerprint

    def close(self) -> None:
        """Lets go of the file (Windows cannot delete or replace it before)."""
        self._images = None


def cache_root() -> Path:
    """The folder for all that can be made again: $GANVAS_CACHE, or the user's cache folder."""
    chosen = os.environ.get("GANVAS_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("ganvas", appauthor=False))


def plan_pack(source: Source, layout: Layout, cache_dir: Path | None = None) -> PackPlan:
    """Where the pack of `source` in `layout` lies, how large it is, and whether it is there already.

    cache_dir: the folder of packs; None = "packs" in `cache_root()`. Writes nothing.
    Raises DataError if the pack has to be made and its disk has no room for it.
    """
    folder = cache_root() / "packs" if cache_dir is None else cache_dir
    labels = b"" if source.labels is None else source.labels.astype("<i8").tobytes()
    key = stamp_of([FORMAT_VERSION, asdict(layout), source.name, source.stamp, source.class_names, labels])[:32]
    names = sum(len(source.item_name(index)) + 4 for index in range(len(source)))
    needed = len(source) * int(np.prod(layout.shape)) + len(labels) + names + 4096

    free = _free_bytes(folder)
    plan = PackPlan(folder / key, needed, free, cached=_open_cached(folder / key) is not None)
    if not plan.cached and needed > free:
        raise DataError(f"{folder}: the pack of {source.where} needs {_megabytes(needed)}, but only {_megabytes(free)} are "
                        "free there. Set GANVAS_CACHE to a folder on another disk, or choose a smaller size.")
    return plan


def build_pack(source: Source, layout: Layout, *, cache_dir: Path | None = None, skip_bad: bool = False,
               workers: int | None = None, progress: Callable[[int, int], None] | None = None) -> Pack:
    """The pack of `source` in `layout`: from the cache, or decoded now with `workers` threads (None = one per processor).

    Memory stays flat however large the source is. progress(done, total) is called from this thread after each few images.
    The folder appears whole or not at all, and several processes may build the same pack at once. A cached pack that
    is torn is made again; above 1 GiB only its sizes are checked, `Pack.is_intact` reads all of it.
    skip_bad: leave out what cannot be read (listed in `Pack.skipped`) instead of raising.
    Raises DataError: unreadable images (the first ten, with reasons), none readable, no room, cache not writable.
    """
    plan = plan_pack(source, layout, cache_dir)
    path, pack = plan.path, _open_cached(plan.path)
    if pack is not None and (plan.bytes_needed > _CHECKED_BYTES or pack.is_intact()):
        _refuse_bad(source, pack.skipped, skip_bad)
        return pack

    try:
        if pack is not None:
            pack.close()
            _discard(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path.parent)
        with _partial_folder(path) as partial:
            _write_pack(partial, source, layout, skip_bad, workers or os.cpu_count() or 1, progress)
            return _publish(partial, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"{path.parent}: the disk became full while {source.where} was packed. "
                            "Set GANVAS_CACHE to a folder on another disk.") from error
        raise DataError(f"{path.parent}: the pack of {source.where} cannot be written there "
                        f"({error.strerror or error}). Set GANVAS_CACHE to a folder that can be written.") from error


def _free_bytes(folder: Path) -> int:
    """Free bytes of the disk on which `folder` lies or will be made."""
    for existing in (folder, *folder.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(existing).free
    raise DataError(f"{folder}: there is no such disk. Set GANVAS_CACHE to a folder that can be written.")


def _open_cached(path: Path) -> Pack | None:
    """The pack at `path`, or None if there is none, or a torn one."""
    try:
        return Pack(path, from_cache=True)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def _write_pack(folder: Path, source: Source, layout: Layout, skip_bad: bool, workers: int,
                progress: Callable[[int, int], None] | None) -> None:
    """Fills `folder` with a whole pack, synced to disk. Pixels go straight to the file: a full disk is then an OSError,
    where writing through a memory map would kill the process."""
    digest = hashlib.sha256()
    kept: list[int] = []
    skipped: list[tuple[str, str]] = []
    with (folder / _IMAGES).open("wb") as file:
        file.write(_npy_header(0, layout))
        with contextlib.closing(_decoded(source, layout, workers)) as results:
            for index, result in enumerate(results):
                if isinstance(result, UnreadableError):
                    skipped.append((result.item, result.reason))
                elif skip_bad or not skipped:              # else there will be no pack: only look for more bad ones
                    file.write(result.data)
                    digest.update(result.data)
                    kept.append(index)
                if progress is not None and (index % 16 == 15 or index + 1 == len(source)):
                    progress(index + 1, len(source))
        _refuse_bad(source, skipped, skip_bad)
        if not kept:
            raise DataError(f"{source.where}: none of its {len(source):,} images can be read.{_listed(skipped)}")
        file.seek(0)
        file.write(_npy_header(len(kept), layout))
        _sync(file)

    if source.labels is not None:
        labels = source.labels[kept]
        digest.update(labels.astype("<i8").tobytes())
        with (folder / _LABELS).open("wb") as file:
            np.save(file, labels, allow_pickle=False)
            _sync(file)
    manifest = {
        "format": FORMAT_VERSION, "source": source.name, "shape": [len(kept), *layout.shape], "layout": asdict(layout),
        "has_labels": source.labels is not None, "class_names": source.class_names, "fingerprint": digest.hexdigest(),
        "skipped": skipped, "names": [source.item_name(index) for index in kept],
    }
    write_whole(folder / _MANIFEST, json.dumps(manifest, indent=0))


def _decoded(source: Source, layout: Layout, workers: int) -> Generator[Pixels | UnreadableError]:
    """Each item's (C, H, W) pixels, or why it has none, in order; never more than a few chunks ahead of the reader."""
    chunk = max(1, min(64, _CHUNK_BYTES // int(np.prod(layout.shape)), len(source) // (4 * workers)))
    stop = threading.Event()

    def decode(start: int) -> list[Pixels | UnreadableError]:
        end = min(start + chunk, len(source))
        return [_decode_one(source, index, layout) for index in range(start, end) if not stop.is_set()]

    ahead: deque[Future[list[Pixels | UnreadableError]]] = deque()
    threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        for start in range(0, len(source), chunk):
            ahead.append(threads.submit(decode, start))
            if len(ahead) > 2 * workers:
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()
    finally:                                               # after Ctrl-C the pool waits only for the images in hand
        stop.set()
        threads.shutdown(cancel_futures=True)


def _decode_one(source: Source, index: int, layout: Layout) -> Pixels | UnreadableError:
    try:
        item = source.load(index)
        image = open_image(item, source.item_name(index)) if isinstance(item, bytes) else item
        return to_pixels(image, layout)
    except UnreadableError as error:
        return error
    except DataError as error:
        return UnreadableError(source.item_name(index), str(error))


def _refuse_bad(source: Source, skipped: list[tuple[str, str]], skip_bad: bool) -> None:
    if skipped and not skip_bad:
        raise DataError(f"{source.where}: {len(skipped):,} of {len(source):,} images cannot be read.{_listed(skipped)}\n"
                        "Mend or remove them, or pass --skip-bad to leave them out.")


def _listed(skipped: list[tuple[str, str]]) -> str:
    lines = [f"\n  {name}: {reason}" for name, reason in skipped[:10]]
    return "".join(lines) + (f"\n  ... and {len(skipped) - 10:,} more" if len(skipped) > 10 else "")


def _npy_header(count: int, layout: Layout) -> bytes:
    """The header of a .npy of `count` images (numpy.lib.format, version 1.0), of a length that does not hang on `count`:
    how many images are readable is known only at the end."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {(count, *layout.shape)}, }}"
    return b"\x93NUMPY\x01\x00" + (_HEADER_BYTES - 10).to_bytes(2, "little") + text.ljust(_HEADER_BYTES - 11).encode() + b"\n"


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def _partial_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, of this builder alone; removed again if it is still there at the end."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{_PARTIAL}")
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _publish(partial: Path, path: Path) -> Pack:
    """Renames `partial` to `path` and opens it; if another builder was first, theirs is opened instead."""
    for _ in range(20):
        try:
            partial.rename(path)
            sync_folder(path.parent)
            return Pack(path, from_cache=False)
        except OSError as error:
            refused = error
        pack = _open_cached(path)
        if pack is not None:
            return pack
        _discard(path)                                     # a torn one is in the way
        time.sleep(0.01)
    raise refused


def _discard(path: Path) -> None:
    """Deletes a torn pack, renamed first so that nobody finds it half deleted."""
    with contextlib.suppress(FileNotFoundError), _partial_folder(path) as aside:
        path.rename(aside / "torn")


def _remove_stale(folder: Path) -> None:
    """Removes what builders that were killed more than a day ago left in `folder`."""
    for left in folder.glob(f".*{_PARTIAL}"):
        with contextlib.suppress(OSError):
            newest = max(entry.stat().st_mtime for entry in (left, *left.iterdir()))
            if time.time() - newest > _STALE_SEC:
                shutil.rmtree(left, ignore_errors=True)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"
