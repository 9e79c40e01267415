"""Writes the files of a pack: decodes a source with threads, in order, and notes the facts of each image on the way."""

import contextlib
import hashlib
import json
import os
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
from ganvas.data.facts import FACT, THUMB_PX, measure
from ganvas.data.layout import Layout
from ganvas.data.modes import image_of_array
from ganvas.data.opening import Frames, Opened
from ganvas.data.pixel_art import at_native_size, upscale_factor
from ganvas.data.source_base import Pixels, Source, UnreadableError
from ganvas.errors import DataError
from ganvas.files import write_whole

FORMAT_VERSION = 2

IMAGES, LABELS, FACTS, THUMBS, SUMS, NAMES = "images.npy", "labels.npy", "facts.npy", "thumbs.npy", "sums.npy", "names.jsonl"
MANIFEST = "manifest.json"
HEADER_BYTES = 512                     # of each .npy here

_CHUNK_BYTES = 4 * 2**20               # decoded pixels in one task of the thread pool
_LARGE_PIXELS = 8_000_000              # images beyond are decoded one at a time: a few of the largest would fill the memory
_ONE_LARGE = threading.Lock()


class Prepared(NamedTuple):
    """One image as a pack stores it."""

    pixels: Pixels                     # (C, H, W)
    fact: tuple[Any, ...]              # a row of FACT
    thumb: Pixels                      # (16, 16, 4)


def write_pack(folder: Path, source: Source, layout: Layout, skip_bad: bool, workers: int,
               progress: Callable[[int, int], None] | None) -> None:
    """Fills `folder` with a whole pack, synced to disk. Memory stays flat: each image goes straight to the files.

    Not through memory maps: on a full disk those kill the process, where writing raises OSError.
    """
    n, pixels_digest = len(source), hashlib.sha256()
    digests = {name: hashlib.sha256() for name in (FACTS, THUMBS, SUMS, NAMES)}
    kept, skipped = np.zeros(n, bool), list[tuple[str, str]]()
    with contextlib.ExitStack() as files:
        def opened(name: str) -> Any:
            file = files.enter_context((folder / name).open("wb"))
            file.write(bytes(HEADER_BYTES))
            return file

        images, facts, thumbs, sums = map(opened, (IMAGES, FACTS, THUMBS, SUMS))
        names = files.enter_context((folder / NAMES).open("wb"))
        results = files.enter_context(contextlib.closing(_prepared(source, layout, workers)))
        for index, result in enumerate(results):
            if isinstance(result, UnreadableError):
                skipped.append((result.item, result.reason))
            elif skip_bad or not skipped:                  # else there will be no pack: only look for more bad ones
                images.write(result.pixels.data)
                pixels_digest.update(result.pixels.data)
                for name, file, part in (
                    (FACTS, facts, np.array([result.fact], FACT).tobytes()), (THUMBS, thumbs, result.thumb.tobytes()),
                    (SUMS, sums, zlib.crc32(result.pixels.data).to_bytes(4, "little")),
                    (NAMES, names, json.dumps(source.item_name(index)).encode() + b"\n"),
                ):
                    file.write(part)
                    digests[name].update(part)
                kept[index] = True
            if progress is not None and (index % 16 == 15 or index + 1 == n):
                progress(index + 1, n)
        refuse_bad(source, skipped, skip_bad)
        count = int(kept.sum())
        if not count:
            raise DataError(f"{source.where}: none of its {n:,} images can be read.{_listed(skipped)}")
        for file, dtype, shape in ((images, "|u1", layout.shape), (facts, FACT.descr, ()), (sums, "<u4", ()),
                                   (thumbs, "|u1", (THUMB_PX, THUMB_PX, 4))):
            file.seek(0)
            file.write(_npy_header(dtype, (count, *shape)))
        for file in (images, facts, thumbs, sums, names):
            _sync(file)

    if source.labels is not None:
        labels = source.labels[kept]
        pixels_digest.update(labels.astype("<i8").tobytes())
        with (folder / LABELS).open("wb") as file:
            np.save(file, labels, allow_pickle=False)
            _sync(file)
    manifest = {
        "format": FORMAT_VERSION, "source": source.name, "shape": [count, *layout.shape], "layout": asdict(layout),
        "has_labels": source.labels is not None, "class_names": source.class_names, "skipped": skipped,
        "fingerprint": pixels_digest.hexdigest(), "checks": {name: digest.hexdigest() for name, digest in digests.items()},
    }
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=0))


def _prepared(source: Source, layout: Layout, workers: int) -> Generator[Prepared | UnreadableError]:
    """Each item as it is stored, or why it cannot be, in order; never more than a few chunks ahead of the reader."""
    chunk = max(1, min(64, _CHUNK_BYTES // int(np.prod(layout.shape)), len(source) // (4 * workers)))
    stop = threading.Event()

    def work(start: int) -> list[Prepared | UnreadableError]:
        end = min(start + chunk, len(source))
        return [_prepare(source, index, layout) for index in range(start, end) if not stop.is_set()]

    ahead: deque[Future[list[Prepared | UnreadableError]]] = deque()
    threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        for start in range(0, len(source), chunk):
            ahead.append(threads.submit(work, start))
            if len(ahead) > 2 * workers:
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()
    finally:                                               # after Ctrl-C the pool waits only for the images in hand
        stop.set()
        threads.shutdown(cancel_futures=True)


def _prepare(source: Source, index: int, layout: Layout) -> Prepared | UnreadableError:
    try:
        item = source.load(index)
        if not isinstance(item, bytes):
            return _noted(Opened(image_of_array(item), "", "", 1, False), layout)
        frames = Frames(item, source.item_name(index))             # has read the header only
        with _ONE_LARGE if frames.pixels > _LARGE_PIXELS else contextlib.nullcontext():
            return _noted(frames.opened(), layout)
    except UnreadableError as error:
        return error
    except DataError as error:
        return UnreadableError(source.item_name(index), str(error))
    except MemoryError:
        return UnreadableError(source.item_name(index), "there is not enough memory to decode it")


def _noted(opened: Opened, layout: Layout) -> Prepared:
    image = opened.image
    factor = upscale_factor(image)
    native = at_native_size(image, factor) if factor > 1 else image
    seen = measure(native)                                 # so that a picture and the same one enlarged are twins
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
