"""Writes the files of a pack: decodes a source with threads, in order, and notes the facts of each image on the way."""

import contextlib
import hashlib
import json
import os
import sys
import threading
import zlib
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ganvas.data.decode import to_pixels
from ganvas.data.facts import FACT, MEASURED_PIXELS, THUMB_PX, measure
from ganvas.data.layout import Layout
from ganvas.data.modes import image_of_array
from ganvas.data.opening import Frames, Opened
from ganvas.data.pixel_art import at_native_size, colours_of, upscale_factor
from ganvas.data.source_base import Pixels, Source, UnreadableError
from ganvas.errors import DataError
from ganvas.files import write_whole

FORMAT_VERSION = 4

IMAGES, LABELS, FACTS, THUMBS, SUMS, NAMES = "images.npy", "labels.npy", "facts.npy", "thumbs.npy", "sums.npy", "names.jsonl"
MANIFEST = "manifest.json"
HEADER_BYTES = 512                     # of each .npy here

_CHUNK_BYTES = 4 * 2**20               # decoded pixels in one task of the thread pool
_LARGE_PIXELS = 8_000_000              # images beyond are decoded one at a time: a few of the largest would fill the memory
_ONE_LARGE = threading.Lock()
# Decoding small ones is a hundred short steps in which threads take Python's lock from each other: two threads together decode
# 1,190 characters of 64x64 a second, 1,710 faces of 96x96, where one alone decodes 1,760 and 2,470 (2 cores, Python 3.11).
_SMALL_PIXELS = 128 * 128
_ONE_SMALL = threading.Lock()
_HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()


class Prepared(NamedTuple):
    """One image as a pack stores it."""

    pixels: Pixels                     # (C, H, W)
    fact: tuple[Any, ...]              # a row of FACT
    thumb: Pixels                      # (16, 16, 4)


class Chunk(NamedTuple):
    """Consecutive images as a pack stores them, put together by the thread that decoded them: there is one that writes."""

    end: int                           # the index behind the last
    kept: list[int]
    skipped: list[tuple[str, str]]     # (name, reason)
    parts: dict[str, bytes | memoryview]     # of those kept: what is added to each file


def write_pack(folder: Path, source: Source, layout: Layout, skip_bad: bool, workers: int,
               progress: Callable[[int, int], None] | None) -> None:
    """Fills `folder` with a whole pack, synced to disk. Memory stays flat: each image goes straight to the files.

    Not through memory maps: on a full disk those kill the process, where writing raises OSError.
    """
    n, digests = len(source), {name: hashlib.sha256() for name in (IMAGES, FACTS, THUMBS, SUMS, NAMES)}
    kept, skipped = np.zeros(n, bool), list[tuple[str, str]]()
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context((folder / name).open("wb")) for name in digests}
        for name, file in files.items():
            if name != NAMES:
                file.write(bytes(HEADER_BYTES))
        done = 0
        for chunk in stack.enter_context(contextlib.closing(_chunks(source, layout, workers))):
            skipped += chunk.skipped
            kept[chunk.kept] = True
            if skip_bad or not skipped:                    # else there will be no pack: only look for more bad ones
                for name, part in chunk.parts.items():
                    files[name].write(part)
                    digests[name].update(part)
            if progress is not None and (chunk.end // 16 > done // 16 or chunk.end == n):
                progress(chunk.end, n)
            done = chunk.end
        refuse_bad(source, skipped, skip_bad)
        count = int(kept.sum())
        if not count:
            raise DataError(f"{source.where}: none of its {n:,} images can be read.{_listed(skipped)}")
        for name, dtype, shape in ((IMAGES, "|u1", layout.shape), (FACTS, FACT.descr, ()), (SUMS, "<u4", ()),
                                   (THUMBS, "|u1", (THUMB_PX, THUMB_PX, 4))):
            files[name].seek(0)
            files[name].write(_npy_header(dtype, (count, *shape)))
        for file in files.values():
            _sync(file)

    fingerprint = digests[IMAGES].copy()
    if source.labels is not None:
        labels = source.labels[kept].astype("<i8").tobytes()
        fingerprint.update(labels)
        digests[LABELS] = hashlib.sha256(labels)
        with (folder / LABELS).open("wb") as file:
            file.write(_npy_header("<i8", (count,)) + labels)
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

    def work(start: int) -> Chunk:
        return _decoded(source, range(start, min(start + size, len(source))), layout, stop)

    ahead: deque[Future[Chunk]] = deque()
    threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        for start in range(0, len(source), size):
            ahead.append(threads.submit(work, start))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:                                               # after Ctrl-C the pool waits only for the images in hand
        stop.set()
        threads.shutdown(cancel_futures=True)


def _decoded(source: Source, indices: range, layout: Layout, stop: threading.Event) -> Chunk:
    images = np.empty((len(indices), *layout.shape), np.uint8)
    kept, skipped = list[int](), list[tuple[str, str]]()
    facts, thumbs = list[tuple[Any, ...]](), list[bytes]()
    for index in indices:
        if stop.is_set():
            break
        result = _prepare(source, index, layout)
        if isinstance(result, UnreadableError):
            skipped.append((result.item, result.reason))
            continue
        images[len(kept)] = result.pixels
        facts.append(result.fact)
        thumbs.append(result.thumb.tobytes())
        kept.append(index)
    images = images[:len(kept)]
    return Chunk(indices.stop, kept, skipped, {
        IMAGES: images.data, FACTS: np.array(facts, FACT).tobytes(), THUMBS: b"".join(thumbs),
        SUMS: np.array([zlib.crc32(image.data) for image in images], "<u4").tobytes(),
        NAMES: b"".join(json.dumps(source.item_name(index)).encode() + b"\n" for index in kept)})


def _prepare(source: Source, index: int, layout: Layout) -> Prepared | UnreadableError:
    try:
        item = source.load(index)
        if not isinstance(item, bytes):
            return _noted(Opened(image_of_array(item), "", "", 1, False), layout)
        frames = Frames(item, source.item_name(index))             # has read the header only
        with _turn(frames.pixels):
            return _noted(frames.opened(), layout)
    except UnreadableError as error:
        return error
    except DataError as error:
        return UnreadableError(source.item_name(index), str(error))
    except MemoryError:
        return UnreadableError(source.item_name(index), "there is not enough memory to decode it")


def _turn(pixels: int) -> contextlib.AbstractContextManager[object]:
    """What a thread holds while it decodes an image of so many pixels."""
    if pixels > _LARGE_PIXELS:
        return _ONE_LARGE
    return _ONE_SMALL if pixels <= _SMALL_PIXELS and _HAS_GIL else contextlib.nullcontext()


def _noted(opened: Opened, layout: Layout) -> Prepared:
    image = opened.image
    colours = colours_of(image) if image.width * image.height <= MEASURED_PIXELS else None
    factor = upscale_factor(image, colours)
    native = at_native_size(image, factor)
    seen = measure(native, colours if factor == 1 else None)     # so that a picture and the same one enlarged are twins
    fact = (image.width, image.height, opened.format, opened.mode, opened.frames, opened.turned, seen.grey, seen.transparent,
            seen.clear_area, factor, seen.content, seen.structure, seen.structure_mirrored)
    return Prepared(to_pixels(native if layout.native else image, layout), fact, seen.thumb)


def refuse_bad(source: Source, skipped: list[tuple[str, str]], skip_bad: bool) -> None:
    """Raises DataError where images cannot be read and the user has not said to leave them out."""
    if skipped and not skip_bad:
        raise DataError(f"{source.where}: {len(skipped):,} of {len(source):,} images cannot be read.{_listed(skipped)}\n"
                        "Mend or remove them, or pass --skip-bad to leave them out.")


def _listed(skipped: list[tuple[str, str]]) -> str:
    lines = [f"\n  {name}: {reason}" for name, reason in skipped[:10]]
    return "".join(lines) + (f"\n  ... and {len(skipped) - 10:,} more" if len(skipped) > 10 else "")


def _npy_header(dtype: Any, shape: tuple[int, ...]) -> bytes:
    """The header of a .npy (numpy.lib.format, version 1.0), of a length that does not hang on the number of images:
    how many are readable is known only at the end."""
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    return b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little") + text.ljust(HEADER_BYTES - 11).encode() + b"\n"


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
