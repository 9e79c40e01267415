"""Pixel art that was enlarged by a whole factor: recognised, and brought back to its own size without loss."""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

LEAST_SIDE = 8                   # of the art at its own size: smaller is a pattern rather than a picture
_LEAST_CHANGES = (4, 14)         # along each axis, along both: 14 chance positions fit blocks of 2 once in 4,096 pictures
_BLOCK_PIXELS = 2**20
_SHOWING = np.uint32(1 << 24)     # the least number of `colours_of` with any alpha
OPAQUE = np.uint32(0xFF000000)   # the least of `colours_of` that hides what is behind it


def upscale_factor(image: Image.Image, colours: npt.NDArray[np.integer] | None = None) -> int:
    """The largest k such that `image` (L, RGB or RGBA) consists of k x k blocks of one colour; 1 if it does not.

    k is the greatest common divisor of both sides and of all distances between the positions at which the colour changes
    along rows, or along columns; so the blocks may begin anywhere, as in art that was shifted after its enlargement. What is
    fully transparent counts as one colour. To keep flags, discs and frames from passing as art, there must be 4 positions of
    change along each axis and 14 along both, and 8 pixels a side must remain. Art that was blurred or went through JPEG
    after its enlargement has no exact blocks and gives 1. colours: `colours_of(image)`, where the caller has them.
    """
    width, height = image.size
    factor = math.gcd(width, height)
    if factor == 1 or min(width, height) < 2 * LEAST_SIDE:
        return 1
    # One row and one column show nearly every other picture to be none, for a hundredth of the work.
    for line in _middle_lines(image) if colours is None else (colours[height // 2], colours[:, width // 2]):
        changes = line[1:] != line[:-1]
        if b"\1\1" in changes.tobytes():                   # two in a row: the step is 1
            return 1
        factor = _common_step(np.flatnonzero(changes), factor)
        if factor == 1:
            return 1

    across, down = np.zeros(width, dtype=bool), np.zeros(height, dtype=bool)         # where anything changes
    rows = height if colours is not None else max(1, _BLOCK_PIXELS // width)
    for top in range(0, height, rows):
        start = max(0, top - 1)                            # the row before: a change may lie between two blocks
        part = colours_of(image.crop((0, start, width, min(top + rows, height)))) if colours is None else colours
        across[1:] |= (part[:, 1:] != part[:, :-1]).any(axis=0)
        down[start + 1 : start + len(part)] |= (part[1:] != part[:-1]).any(axis=1)
    positions = np.flatnonzero(across), np.flatnonzero(down)
    each, both = _LEAST_CHANGES
    if min(map(len, positions)) < each or sum(map(len, positions)) < both:
        return 1
    factor = _common_step(positions[1], _common_step(positions[0], factor))
    return factor if min(width, height) // factor >= LEAST_SIDE else 1


def _common_step(positions: npt.NDArray[np.int64], factor: int) -> int:
    """The greatest common divisor of `factor` and the distances between `positions`."""
    return math.gcd(factor, *np.diff(positions).tolist())


def at_native_size(image: Image.Image, factor: int) -> Image.Image:
    """`image` reduced by `factor` to one pixel for each block; its mode is kept.

    Of blocks that do not begin in the corner, those cut in two by the edges are kept at one side and left out at the other.
    """
    return image.resize((image.width // factor, image.height // factor), Image.Resampling.NEAREST) if factor > 1 else image


def colours_of(image: Image.Image) -> npt.NDArray[np.integer]:
    """One number for each pixel of an image in mode L, RGB or RGBA, equal where they look the same: (H, W).

    uint8 of L; else uint32 with red in the lowest byte, alpha in the highest, and 0 for all that is fully transparent.
    """
    shape = image.height, image.width
    if image.mode == "L":
        return np.frombuffer(image.tobytes(), dtype=np.uint8).reshape(shape)
    # Pillow keeps RGB in four bytes too, so that this is a plain copy: a third of the time of three bytes put together.
    stored = np.frombuffer(image.tobytes("raw", "RGBX" if image.mode == "RGB" else "RGBA"), dtype="<u4").reshape(shape)
    if image.mode == "RGB":
        return stored | OPAQUE                             # the fourth byte is not always the same
    return stored * (stored >= _SHOWING)                   # half the time of numpy.where


def _middle_lines(image: Image.Image) -> Iterator[npt.NDArray[np.integer]]:
    """The colours of the middle row and of the middle column."""
    width, height = image.size
    yield colours_of(image.crop((0, height // 2, width, height // 2 + 1))).ravel()
    yield colours_of(image.crop((width // 2, 0, width // 2 + 1, height))).ravel()
