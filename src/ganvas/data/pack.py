"""A source decoded once into a memory-mapped uint8 array, cached by content and layout; training reads only packs."""

import contextlib
import errno
import hashlib
import json
import math
import mmap
import os
import shutil
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from ganvas.data.cache import (
    bytes_of,
    cache_root,
    local_copy,
    mark_used,
    megabytes,
    partial_folder,
    remove_folder,
    remove_stale,
)
from ganvas.data.chunks import FACTS, IMAGES, NAMES, SUMS, THUMBS
from ganvas.data.facts import FACT, THUMB_PX, Facts, Thumbs
from ganvas.data.layout import Layout
from ganvas.data.packing import (
    FORMAT_VERSION,
    HEADER_BYTES,
    LABELS,
    MANIFEST,
    npy_header,
    read_manifest,
    refuse_bad,
    write_pack,
)
from ganvas.data.source_base import Labels, Pixels, Source, stamp_of
from ganvas.errors import DataError
from ganvas.files import sync_folder
from ganvas.machine import usable_processors

_CHECKED_BYTES = 2**30                 # pixels up to this size are hashed when a pack is opened: about a second
_COPIES = 5                            # torn ones of a pack on a node's disk that are made again before it is given up
_TORN = (OSError, ValueError, KeyError, TypeError, EOFError)     # what opening a torn pack raises


@dataclass(frozen=True)
class PackPlan:
    """Where a pack lies or will lie, and what making it costs."""

    path: Path
    bytes_needed: int                  # the pack's size on disk, about
    cached: bool                       # it is there, and nothing in it has changed (above 1 GiB its pixels are not looked at)
    damage: str                        # what is wrong with the one that is there, for the user; "" if none is, or a whole one


class PackNames(Sequence[str]):
    """What the user calls each image of a pack, read from the pack's file when asked for: a million are 8 MB in memory."""

    def __init__(self, path: Path, count: int):
        """Raises ValueError where the file does not hold `count` names."""
        with path.open("rb") as file:
            self.text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)     # each name as JSON, on a line of its own
        ends = [np.flatnonzero(np.frombuffer(self.text[i:i + 2**24], np.uint8) == 10) + i + 1
                for i in range(0, len(self.text), 2**24)]
        self._starts = np.concatenate([[0], *ends])
        if len(self) != count:
            raise ValueError(f"{path.name} holds {len(self)} names, not {count}")

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return str(json.loads(self.text[int(self._starts[index]):int(self._starts[index + 1])]))

    def close(self) -> None:
        self.text.close()


class Pack:
    """Images as one memory-mapped (N, C, H, W) uint8 array, with their labels, names and facts. Safe to read from threads."""

    def __init__(self, path: Path, *, from_cache: bool):
        """Opens the pack folder at `path`. Raises ValueError, OSError or KeyError where it is torn."""
        manifest = read_manifest(path)
        shape = tuple(manifest["shape"])
        images: Pixels = _mapped(path / IMAGES, np.dtype(np.uint8), shape)
        labels: Labels | None = None
        if manifest["has_labels"]:
            labels = np.array(_mapped(path / LABELS, np.dtype("<i8"), shape[:1]), np.int64)

        self.path = path
        self.home = path                                             # in the cache, where `path` is a copy on the node's own disk
        self.from_cache = from_cache
        self.replaced = ""                                           # why it, or its copy, had to be made again, for the user
        self.labels = labels                                         # (N,) int64 or None
        self.class_names = tuple(map(str, manifest["class_names"]))
        self.layout = Layout(**manifest["layout"])
        self.skipped = [(str(name), str(reason)) for name, reason in manifest["skipped"]]
        self.fingerprint = str(manifest["fingerprint"])              # of pixels and labels: moved folders keep theirs
        self.facts: Facts = _mapped(path / FACTS, FACT, shape[:1])
        self.thumbs: Thumbs = _mapped(path / THUMBS, np.dtype(np.uint8), (shape[0], THUMB_PX, THUMB_PX, 4))
        self.names = PackNames(path / NAMES, shape[0])               # of the images kept, in their order
        self._checks: dict[str, str] = dict(manifest["checks"])
        self._sums = _mapped(path / SUMS, np.dtype("<u4"), shape[:1])
        self._checks_reads = images.nbytes > _CHECKED_BYTES          # smaller ones are hashed when they are opened
        self._images: Pixels | None = images
        self._shape = shape

    def __len__(self) -> int:
        return int(self._shape[0])

    @property
    def channels(self) -> int:
        return int(self._shape[1])

    @property
    def bytes(self) -> int:
        """Of its pixels."""
        return int(np.prod(self._shape))

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width)."""
        return int(self._shape[2]), int(self._shape[3])

    def read(self, indices: npt.ArrayLike) -> Pixels:
        """The images at `indices` (n,) as a new (n, C, H, W) uint8 array.

        Raises DataError where one of a pack over 1 GiB, which is not hashed when it is opened, has changed on the disk.
        """
        if self._images is None:
            raise ValueError(f"{self.path}: this pack is closed")
        wanted = np.asarray(indices, dtype=np.int64)
        images = np.array(self._images[wanted])
        if self._checks_reads:
            for index, image in zip(wanted, images, strict=True):
                if zlib.crc32(image.data) != self._sums[index]:
                    raise self._given_up(int(index))
        return images

    def is_intact(self, pixels: bool = True) -> bool:
        """Whether everything, or everything but the pixels, is still what was stored. Reads all of it."""
        if self._images is None:
            raise ValueError(f"{self.path}: this pack is closed")
        # What is mapped, not the files of these names: another process may have put a whole pack in the place of this one.
        parts: dict[str, Any] = {
            IMAGES: self._images, FACTS: self.facts, THUMBS: self.thumbs, SUMS: self._sums, NAMES: self.names.text,
            LABELS: None if self.labels is None else self.labels.astype("<i8")}
        return all(hashlib.sha256(parts[name]).hexdigest() == check
                   for name, check in self._checks.items() if pixels or name != IMAGES)

    def _given_up(self, index: int) -> DataError:
        """What to raise where image `index` is damaged; neither this pack nor the damaged one it is a copy of is used again."""
        text = f"{self.path}: {self.names[index]} is damaged in this pack. "
        damaged = [self.path]
        if self.home != self.path:
            with contextlib.suppress(*_TORN):              # of a torn one that is noticed when it is opened
                original = _mapped(self.home / IMAGES, np.dtype(np.uint8), self._shape)
                if zlib.crc32(original[index].data) != self._sums[index]:
                    damaged.append(self.home)
        for folder in damaged:
            try:
                (folder / MANIFEST).unlink(missing_ok=True)
            except OSError:
                return DataError(f"{text}Remove the folder {folder}: the same command then makes it anew.")
        return DataError(f"{text}It will not be used again: the same command makes it anew.")

    def close(self) -> None:
        """Lets go of the files (Windows cannot delete or replace them before)."""
        self._images = None
        self.facts, self.thumbs, self._sums = self.facts[:0].copy(), self.thumbs[:0].copy(), self._sums[:0].copy()
        self.names.close()


def _mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The .npy at `path`, memory-mapped. Raises ValueError where it does not hold just that."""
    # Not numpy.load: it parses the header as Python, which several threads at once cannot do in Python 3.11.
    with path.open("rb") as file:
        if file.read(HEADER_BYTES) != npy_header(dtype, shape):
            raise ValueError(f"{path.name} does not hold {dtype} {shape}")
    if path.stat().st_size != HEADER_BYTES + dtype.itemsize * math.prod(shape):
        raise ValueError(f"{path.name} has another size than its manifest says")
    return np.memmap(path, dtype, "r", HEADER_BYTES, shape)


def plan_pack(source: Source, layout: Layout, cache_dir: Path | None = None) -> PackPlan:
    """Where the pack of `source` in `layout` lies, how large it is, and whether it is there already and whole.

    cache_dir: the folder of packs; None = "packs" in `cache_root()`. Writes nothing. A pack that is there is hashed: about a
    second for a GiB. Raises DataError if the pack has to be made and its disk has no room for it.
    """
    folder = cache_root() / "packs" if cache_dir is None else cache_dir
    labels = b"" if source.labels is None else source.labels.astype("<i8").tobytes()
    key = stamp_of([FORMAT_VERSION, asdict(layout), source.name, source.stamp, source.class_names, labels])[:32]
    some = range(0, len(source), max(1, len(source) // 1000))
    name_bytes = sum(len(source.item_name(index)) + 8 for index in some) / max(1, len(some))
    each = int(np.prod(layout.shape)) + FACT.itemsize + THUMB_PX * THUMB_PX * 4 + 4 + name_bytes
    needed = int(len(source) * each) + len(labels) + 8192

    path = folder / key
    pack, damage = _open_cached(path) if path.exists() else (None, "")
    if pack is not None:
        pack.close()
        return PackPlan(path, needed, cached=True, damage="")
    free = _free_bytes(folder) + bytes_of(path)            # a damaged one goes first
    if needed > free:
        raise DataError(f"{folder}: the pack of {source.where} needs {megabytes(needed)}, but only {megabytes(free)} are "
                        "free there. Set GANVAS_CACHE to a folder on another disk, or choose a smaller size.")
    return PackPlan(path, needed, cached=False, damage=damage)


def build_pack(source: Source, layout: Layout, *, cache_dir: Path | None = None, plan: PackPlan | None = None,
               skip_bad: bool = False, workers: int | None = None, progress: Callable[[int, int], None] | None = None) -> Pack:
    """The pack of `source` in `layout`: from the cache, or decoded now with `workers` threads (None = one per processor).

    Memory stays flat however large the source is. progress(done, total) is called from this thread after each few images.
    The folder appears whole or not at all, and several processes may build the same pack at once. A cached pack that
    is damaged is made again, and `Pack.replaced` says so; above 1 GiB each image is checked when it is read.
    With $GANVAS_SCRATCH set, the pack is copied there and read from there; the copy is checked in the same way.
    plan: what `plan_pack` has just said of the three arguments before it, which need not be found out again.
    skip_bad: leave out what cannot be read (listed in `Pack.skipped`) instead of raising.
    Raises DataError: unreadable images (the first ten, with reasons), none readable, no room, cache not writable.
    """
    plan = plan_pack(source, layout, cache_dir) if plan is None else plan
    path, found = plan.path, None
    if plan.cached:
        with contextlib.suppress(*_TORN):                  # of one that is removed in this moment: it is made anew
            found = Pack(path, from_cache=True)
        if found is not None:
            refuse_bad(source, found.skipped, skip_bad)
            mark_used(path)
            return _nearby(found)

    try:
        if plan.damage:
            with contextlib.suppress(FileNotFoundError):
                remove_folder(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(path.parent)
        with partial_folder(path) as partial:
            write_pack(partial, source, layout, skip_bad, workers or usable_processors(), progress)
            pack = _publish(partial, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"{path.parent}: the disk became full while {source.where} was packed. "
                            "Set GANVAS_CACHE to a folder on another disk.") from error
        raise DataError(f"{path.parent}: the pack of {source.where} cannot be written there "
                        f"({error.strerror or error}). Set GANVAS_CACHE to a folder that can be written.") from error
    pack.replaced = plan.damage
    return _nearby(pack)


def _nearby(pack: Pack) -> Pack:
    """The pack itself, or its copy on the node's own disk where $GANVAS_SCRATCH names one: a whole one, copied again if need be.

    Raises DataError, naming $GANVAS_SCRATCH, where no copy can be made there or none stays whole.
    """
    copy = local_copy(pack.path)
    if copy == pack.path:
        return pack
    pack.close()
    replaced, damage = pack.replaced, ""
    for _ in range(_COPIES):
        opened = _folder_number(copy)
        nearby, damage = _open_cached(copy)
        if nearby is not None:
            nearby.home, nearby.from_cache, nearby.replaced = pack.path, pack.from_cache, replaced
            return nearby
        if _folder_number(copy) == opened:                 # else another process has noticed it too, and put a new one there
            with contextlib.suppress(OSError):
                (copy / MANIFEST).unlink()                 # `local_copy` takes none without it for whole
        replaced = pack.replaced or f"its copy in GANVAS_SCRATCH: {damage}"
        copy = local_copy(pack.path)
    raise DataError(f"GANVAS_SCRATCH={os.environ['GANVAS_SCRATCH']}: copies of {pack.path} do not stay whole there ({damage}). "
                    f"Set GANVAS_SCRATCH to a folder on another disk, or unset it: {pack.path} is then read where it lies.")


def _folder_number(path: Path) -> int:
    """What tells a folder from another one of the same name; 0 if there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def _free_bytes(folder: Path) -> int:
    """Free bytes of the disk on which `folder` lies or will be made."""
    for existing in (folder, *folder.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(existing).free
    raise DataError(f"{folder}: there is no such disk. Set GANVAS_CACHE to a folder that can be written.")


def _open_cached(path: Path) -> tuple[Pack | None, str]:
    """The whole pack at `path`; or None, and what is wrong with the one that is there. Only pixels over 1 GiB are not hashed."""
    try:
        pack = Pack(path, from_cache=True)
    except FileNotFoundError as error:
        return None, f"{Path(error.filename or path).name} is missing"
    except _TORN as error:
        return None, str(error)
    if pack.is_intact(pixels=pack.bytes <= _CHECKED_BYTES):
        return pack, ""
    pack.close()                                           # before the folder is renamed: Windows refuses otherwise
    return None, "its content has changed on the disk"


def _publish(partial: Path, path: Path) -> Pack:
    """Renames `partial` to `path` and opens it; if another builder was first, theirs is opened instead."""
    for _ in range(20):
        try:
            partial.rename(path)
            sync_folder(path.parent)
            return Pack(path, from_cache=False)
        except OSError as error:
            refused = error
        pack, _ = _open_cached(path)
        if pack is not None:
            return pack
        with contextlib.suppress(FileNotFoundError):
            remove_folder(path)                            # a torn one is in the way
        time.sleep(0.01)
    raise refused
