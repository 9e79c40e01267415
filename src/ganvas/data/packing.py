"""Writes the files of a pack: has a source decoded, several chunks at once, and puts them down in order."""

import contextlib
import hashlib
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ganvas.data.chunks import FACTS, IMAGES, NAMES, PARTS, SUMS, THUMBS, Chunk, Item, joined
from ganvas.data.decoder import Decoders
from ganvas.data.facts import FACT, THUMB_PX
from ganvas.data.layout import Layout
from ganvas.data.source_base import Source, UnreadableError, listed
from ganvas.errors import DataError
from ganvas.files import write_whole

FORMAT_VERSION = 4

LABELS, MANIFEST = "labels.npy", "manifest.json"
HEADER_BYTES = 512                     # of each .npy here

_CHUNK_BYTES = 4 * 2**20               # decoded pixels in one task
_LOADED_BYTES = 8 * 2**20              # files in the hands of one thread, but for the last
_WORTH_PROCESSES = 500                 # images from which on processes of their own, a fifth of a second to start, are faster


def write_pack(folder: Path, source: Source, layout: Layout, skip_bad: bool, workers: int,
               progress: Callable[[int, int], None] | None) -> None:
    """Fills `folder` with a whole pack, synced to disk. Memory stays flat: each image goes straight to the files.

    Not through memory maps: on a full disk those kill the process, where writing raises OSError.
    """
    n, digests = len(source), {name: hashlib.sha256() for name in PARTS}
    kept, skipped = np.zeros(n, bool), list[tuple[str, str]]()
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context((folder / name).open("wb")) for name in digests}
        for name, file in files.items():
            if name != NAMES:
                file.write(bytes(HEADER_BYTES))
        done = 0
        for chunk in stack.enter_context(contextlib.closing(_chunks(source, layout, workers))):
            end = done + len(chunk.kept)
            skipped += chunk.skipped
            kept[done:end] = chunk.kept
            if skip_bad or not skipped:                    # else there will be no pack: only look for more bad ones
                for name, part in chunk.parts.items():
                    files[name].write(part)
                    digests[name].update(part)
            if progress is not None and (end // 16 > done // 16 or end == n):
                progress(end, n)
            done = end
        refuse_bad(source, skipped, skip_bad)
        count = int(kept.sum())
        if not count:
            raise DataError(f"{source.where}: none of its {n:,} images can be read.{listed(skipped, len(skipped))}")
        pixels = np.dtype(np.uint8)
        for name, dtype, shape in ((IMAGES, pixels, layout.shape), (FACTS, FACT, ()), (SUMS, np.dtype("<u4"), ()),
                                   (THUMBS, pixels, (THUMB_PX, THUMB_PX, 4))):
            files[name].seek(0)
            files[name].write(npy_header(dtype, (count, *shape)))
        for file in files.values():
            _sync(file)

    fingerprint = digests[IMAGES].copy()
    if source.labels is not None:
        labels = source.labels[kept].astype("<i8").tobytes()
        fingerprint.update(labels)
        digests[LABELS] = hashlib.sha256(labels)
        with (folder / LABELS).open("wb") as file:
            file.write(npy_header(np.dtype("<i8"), (count,)) + labels)
            _sync(file)
    manifest = {
        "format": FORMAT_VERSION, "source": source.name, "shape": [count, *layout.shape], "layout": asdict(layout),
        "has_labels": source.labels is not None, "class_names": source.class_names, "skipped": skipped,
        "fingerprint": fingerprint.hexdigest(), "checks": {name: digest.hexdigest() for name, digest in digests.items()},
    }
    write_whole(folder / MANIFEST, json.dumps(manifest | {"check": _check(manifest)}, indent=0))


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `write_pack` has noted of the pack in `folder`. Raises ValueError where that has changed since, and OSError."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT_VERSION:
        raise ValueError(f"it is not of format {FORMAT_VERSION}")
    if manifest.pop("check", "") != _check(manifest):
        raise ValueError(f"{MANIFEST} has changed on the disk")
    return manifest


def _check(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _chunks(source: Source, layout: Layout, workers: int) -> Generator[Chunk]:
    """All items as they are stored, in order; never more than a few chunks ahead of the reader."""
    size = max(1, min(64, _CHUNK_BYTES // int(np.prod(layout.shape)), len(source) // (4 * workers)))
    stop = threading.Event()
    decoders = Decoders(layout, workers - 1 if len(source) >= _WORTH_PROCESSES else 0)

    def work(start: int) -> Chunk:
        done: list[Chunk] = []
        items: list[Item] = []
        loaded = 0
        for index in range(start, min(start + size, len(source))):
            if stop.is_set():
                break
            items.append(_loaded(source, index))
            loaded += _bytes_of(items[-1])
            if loaded > _LOADED_BYTES:                     # photographs as cameras write them: not 64 of them at once
                done.append(decoders.decode(items))
                items, loaded = [], 0
        return joined([*done, decoders.decode(items)]) if done else decoders.decode(items)

    ahead: deque[Future[Chunk]] = deque()
    threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        for start in range(0, len(source), size):
            ahead.append(threads.submit(work, start))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:                                               # after Ctrl-C the pool waits only for the chunks in hand
        stop.set()
        threads.shutdown(cancel_futures=True)
        decoders.close()


def _bytes_of(item: Item) -> int:
    content = item.content
    return 0 if isinstance(content, UnreadableError) else len(content) if isinstance(content, bytes) else content.nbytes


def _loaded(source: Source, index: int) -> Item:
    name = source.item_name(index)
    try:
        content = source.load(index)
        return Item(name, content, ("", "", 1) if isinstance(content, bytes) else source.stored(index))
    except UnreadableError as error:
        return Item(name, error)
    except MemoryError:
        return Item(name, UnreadableError(name, "there is not enough memory to read it"))


def refuse_bad(source: Source, skipped: list[tuple[str, str]], skip_bad: bool) -> None:
    """Raises DataError where images cannot be read and the user has not said to leave them out."""
    if skipped and not skip_bad:
        which = listed(skipped, len(skipped))
        raise DataError(f"{source.where}: {len(skipped):,} of {len(source):,} images cannot be read.{which}\n"
                        "Mend or remove them, or pass --skip-bad to leave them out.")


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The header of a .npy (numpy.lib.format, version 1.0), of a length that does not hang on the number of images:
    how many are readable is known only at the end."""
    text = f"{{'descr': {dtype.descr if dtype.names else dtype.str!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    return b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little") + text.ljust(HEADER_BYTES - 11).encode() + b"\n"


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
