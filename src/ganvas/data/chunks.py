"""Decodes some images of a source into what a pack stores of them."""

import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ganvas.data.decode import to_pixels
from ganvas.data.facts import FACT, MEASURED_PIXELS, measure
from ganvas.data.layout import Layout
from ganvas.data.modes import image_of_array
from ganvas.data.opening import LARGE_PIXELS, Frames, Opened, one_large_at_a_time
from ganvas.data.pixel_art import at_native_size, colours_of, upscale_factor
from ganvas.data.source_base import Pixels, UnreadableError
from ganvas.errors import DataError

IMAGES, FACTS, THUMBS, SUMS, NAMES = "images.npy", "facts.npy", "thumbs.npy", "sums.npy", "names.jsonl"
PARTS = (IMAGES, FACTS, THUMBS, SUMS, NAMES)


class Item(NamedTuple):
    """One item of a source, loaded."""

    name: str
    content: bytes | Pixels | UnreadableError      # an encoded image, pixels (H, W, C), or why it could not be loaded
    stored: tuple[str, str, int] = ("", "", 1)     # format, mode and frames of the file that pixels were taken from


class Chunk(NamedTuple):
    """Consecutive images as a pack stores them."""

    kept: list[bool]                   # of each item
    skipped: list[tuple[str, str]]     # (name, reason)
    parts: dict[str, bytes]            # of those kept: what is added to each file


def joined(chunks: Sequence[Chunk]) -> Chunk:
    """Chunks that follow each other as one."""
    return Chunk([kept for chunk in chunks for kept in chunk.kept], [each for chunk in chunks for each in chunk.skipped],
                 {name: b"".join(chunk.parts[name] for chunk in chunks) for name in PARTS})


class LargeImageError(Exception):
    """An image that is to be decoded where all that are being decoded are known of."""


def decode(items: Iterable[Item], layout: Layout, large: bool = True) -> Chunk:
    """The items as a pack stores them. large: False = raise LargeImageError where one takes much memory to decode."""
    kept, skipped = list[bool](), list[tuple[str, str]]()
    images, facts, thumbs, names, sums = list[bytes](), list[tuple[Any, ...]](), list[bytes](), list[bytes](), list[int]()
    for item in items:
        try:
            pixels, fact, thumb = _decoded(item, layout, large)
        except (DataError, MemoryError) as error:
            skipped.append((item.name, _reason(error)))
            kept.append(False)
            continue
        data = pixels.tobytes()
        images.append(data)
        sums.append(zlib.crc32(data))
        facts.append(fact)
        thumbs.append(thumb.tobytes())
        names.append(json.dumps(item.name).encode() + b"\n")
        kept.append(True)
    return Chunk(kept, skipped, {
        IMAGES: b"".join(images), FACTS: np.array(facts, FACT).tobytes(), THUMBS: b"".join(thumbs),
        SUMS: np.array(sums, "<u4").tobytes(), NAMES: b"".join(names)})


def _decoded(item: Item, layout: Layout, large: bool) -> tuple[Pixels, tuple[Any, ...], Pixels]:
    """(C, H, W) pixels, a row of FACT and a thumbnail (16, 16, 4)."""
    if isinstance(item.content, UnreadableError):
        raise item.content
    if not isinstance(item.content, bytes):
        with one_large_at_a_time(item.content.shape[0] * item.content.shape[1]):
            return _noted(Opened(image_of_array(item.content), *item.stored, False), layout)
    frames = Frames(item.content, item.name)               # has read the header only
    if frames.pixels > LARGE_PIXELS and not large:
        raise LargeImageError
    with one_large_at_a_time(frames.pixels):
        return _noted(frames.opened(), layout)


def _noted(opened: Opened, layout: Layout) -> tuple[Pixels, tuple[Any, ...], Pixels]:
    image = opened.image
    lossy = opened.format in ("JPEG", "MPO")
    colours = colours_of(image) if not lossy and image.width * image.height <= MEASURED_PIXELS else None
    factor = upscale_factor(image, colours)
    native = at_native_size(image, factor)
    seen = measure(native, colours if factor == 1 else None, lossy)      # so that a picture and the same one enlarged are twins
    fact = (image.width, image.height, opened.format, opened.mode, opened.frames, opened.turned, seen.grey, seen.transparent,
            seen.clear_area, factor, seen.content, seen.structure, seen.structure_mirrored)
    return to_pixels(native if layout.native else image, layout), fact, seen.thumb


def _reason(error: DataError | MemoryError) -> str:
    if isinstance(error, UnreadableError):
        return error.reason
    return str(error) if isinstance(error, DataError) else "there is not enough memory to decode it"
