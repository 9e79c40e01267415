"""Pixels of every mode that a file can have become 8-bit grey, RGB or RGBA."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ganvas.data.source_base import Pixels
from ganvas.errors import DataError

_STRIP_PIXELS = 2**20                  # deep pixels are turned into 8 bits by strips: in float64, 8 MB at a time
_TIFF_BITS, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def to_plain_mode(image: Image.Image) -> Image.Image:
    """`image` in mode L, RGB, or RGBA where anything can be transparent. Raises ValueError where no rule is clear.

    Premultiplied colours (La, RGBa) are divided by their alpha. CMYK is mixed as if the inks were ideal: profiles are not
    applied. Grey of more than 8 bits: see `_grey_of_deep`. An image that is plain already is returned itself.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _grey_of_deep(image)
    if image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def image_of_array(array: Pixels) -> Image.Image:
    """`array` as L, RGB or RGBA: (H, W) or (H, W, C) uint8 with C of 1, 3 or 4. Raises DataError for any other."""
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise DataError(f"an array of shape {array.shape} and type {array.dtype} is no image: it must be (H, W) or "
                        "(H, W, C) with 1, 3 or 4 channels, and uint8.")
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def _grey_of_deep(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits (modes I, I;16, F) as L, or as RGBA if one of its values is declared transparent.

    Values up to 255 are taken as they are, else 65535 is white (4095 in a 12-bit TIFF); floats from 0 to 1 have white at 1.
    Raises ValueError for other ranges, and for NaN and infinity.
    """
    tags: Any = getattr(image, "tag_v2", {})               # of a TIFF
    extremes = np.array([(strip.min(), strip.max()) for _, strip in _strips(image)], dtype=np.float64)
    low, high = float(extremes[:, 0].min()), float(extremes[:, 1].max())
    if not np.isfinite(extremes).all():
        raise ValueError("some of its values are infinite or not a number (NaN); replace them and save it with 8 or 16 bits")
    if image.mode == "F" and low >= 0 and high <= 1:
        white = 1.0
    elif low >= 0 and high <= 255:
        white = 255.0
    elif image.mode != "F" and low >= 0 and high <= 65535:
        white = 4095.0 if tuple(tags.get(_TIFF_BITS, ())) == (12,) else 65535.0
    else:
        raise ValueError(f"grey values from {low:g} to {high:g} have no agreed black and white; save it with 8 or 16 bits")

    see_through = image.info.get("transparency")
    # Pillow turns round 8-bit grey whose zero is white, but not the deep modes.
    inverted = tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO
    grey = np.empty((image.height, image.width), dtype=np.uint8)
    alpha = np.empty_like(grey) if isinstance(see_through, int) else None
    for rows, strip in _strips(image):
        eight_bit = np.rint(strip * (255 / white) if white != 65535 else strip / 257)
        grey[rows] = 255 - eight_bit if inverted else eight_bit
        if alpha is not None:
            alpha[rows] = np.where(strip == see_through, 0, 255)
    level = Image.fromarray(grey)
    return level if alpha is None else Image.merge("RGBA", (level, level, level, Image.fromarray(alpha)))


def _strips(image: Image.Image) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
    """The rows of a deep image, a few at a time: where they lie, and their values (rows, W)."""
    height = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, height):
        end = min(top + height, image.height)
        strip = image if end - top == image.height else image.crop((0, top, image.width, end))
        yield slice(top, end), np.asarray(strip).astype(np.float64)
