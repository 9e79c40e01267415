"""What is noted of each image while a pack is made: its size and kind, hashes of its content, a thumbnail to find twins by."""

import hashlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from ganvas.data.source_base import Pixels

THUMB_PX = 16

FACT = np.dtype([
    ("width", "<u4"), ("height", "<u4"),       # upright, before any resizing
    ("format", "S8"), ("mode", "S8"),          # as stored: PNG and P; "" and "" for arrays
    ("frames", "<u4"),                         # 1 for stills
    ("turned", "?"),                           # by its EXIF orientation
    ("grey", "?"),                             # all channels equal wherever anything shows
    ("transparent", "?"),                      # something less than opaque
    ("clear_area", "<f4"),                     # share of pixels that are less than half opaque
    ("factor", "<u2"),                         # whole number by which pixel art was enlarged; 1 = not
    ("content", "<u8"),                        # hash of size and visible pixels: equal = the same picture
    ("structure", "<u8"),                      # hash of where neighbouring pixels differ, whatever the palette; 0 = tells nothing
    ("structure_mirrored", "<u8"),             # that of the mirror image
])

Facts = npt.NDArray[Any]                       # (N,) of FACT
Thumbs = npt.NDArray[np.uint8]                 # (N, 16, 16, 4): premultiplied red, green, blue, and alpha

_HASHED_PIXELS = 1_000_000                     # structure is looked at up to this size: beyond are photographs
_EDGE_SHARE = (0.005, 0.5)                     # of neighbours that differ: blank pictures and photographs have no structure
_FEWEST_EDGES = 24


class Measured(NamedTuple):
    """The facts of one image, without those that only its file knows, and its thumbnail (16, 16, 4) uint8."""

    grey: bool
    transparent: bool
    clear_area: float
    content: int
    structure: int
    structure_mirrored: int
    thumb: Pixels


def measure(image: Image.Image) -> Measured:
    """The facts of an upright image in mode L, RGB or RGBA."""
    pixels = np.asarray(image)
    clear_area, transparent = 0.0, False
    if image.mode == "RGBA":
        alpha = pixels[..., 3]
        transparent = bool(alpha.min() < 255)
        if transparent:
            clear_area = 1 - np.count_nonzero(alpha & 128) / alpha.size
        else:
            image = image.convert("RGB")
            pixels = np.asarray(image)
    colours = _as_numbers(pixels)
    grey = pixels.ndim == 2 or _is_grey(pixels, colours)
    plain = pixels[..., 0] if grey and pixels.ndim == 3 and not transparent else colours
    digest = hashlib.blake2b(repr((plain.shape, transparent)).encode(), digest_size=8)
    digest.update(np.ascontiguousarray(plain).data)
    if transparent and (box := image.getchannel("A").getbbox()):
        image = image.crop(box)                                     # the same figure on a larger canvas is a twin too
        colours = colours[box[1]:box[3], box[0]:box[2]]
    structure, mirrored = _structure(colours) if colours.size <= _HASHED_PIXELS else (0, 0)
    return Measured(grey, transparent, clear_area, int.from_bytes(digest.digest(), "little"), structure, mirrored,
                    thumbnail(image))


def _as_numbers(pixels: Pixels) -> npt.NDArray[Any]:
    """(H, W): one number for each colour, to be compared at once; all fully transparent colours are one."""
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] == 4:
        colours = np.ascontiguousarray(pixels).view("<u4")[..., 0]
        return np.where(colours < 1 << 24, np.uint32(0), colours)   # alpha is the highest byte
    return pixels[..., 0].astype(np.uint32) << 16 | pixels[..., 1].astype(np.uint32) << 8 | pixels[..., 2]


def _is_grey(pixels: Pixels, colours: npt.NDArray[Any]) -> bool:
    first = pixels[len(pixels) // 2, pixels.shape[1] // 2]
    if first.shape == (3,) and not first[0] == first[1] == first[2]:
        return False                                                # most colour pictures end here
    red = colours & 255
    return bool(((colours >> 8 & 255) == red).all() and ((colours >> 16 & 255) == red).all())


def thumbnail(image: Image.Image) -> Pixels:
    """An image in mode L, RGB or RGBA as (16, 16, 4) uint8 with premultiplied alpha, its proportions given up."""
    size, box = (THUMB_PX, THUMB_PX), Image.Resampling.BOX
    if image.mode == "RGBA":
        return np.asarray(image.convert("RGBa").resize(size, box))
    thumb = np.full((THUMB_PX, THUMB_PX, 4), 255, np.uint8)
    thumb[..., :3] = np.asarray(image.resize(size, box)).reshape(THUMB_PX, THUMB_PX, -1)
    return thumb


def _structure(colours: npt.NDArray[Any]) -> tuple[int, int]:
    """Hashes of which neighbours differ in colour, of the picture (H, W) and of its mirror image; 0 where that tells nothing."""
    across, down = colours[:, 1:] != colours[:, :-1], colours[1:] != colours[:-1]
    edges = int(np.count_nonzero(across)) + int(np.count_nonzero(down))
    if edges < _FEWEST_EDGES or not _EDGE_SHARE[0] <= edges / (across.size + down.size) <= _EDGE_SHARE[1]:
        return 0, 0
    size = repr(colours.shape).encode()

    def hashed(across: npt.NDArray[np.bool_], down: npt.NDArray[np.bool_]) -> int:
        digest = hashlib.blake2b(size, digest_size=8)
        digest.update(np.packbits(across).data)
        digest.update(np.packbits(down).data)
        return int.from_bytes(digest.digest(), "little")

    return hashed(across, down), hashed(across[:, ::-1], down[:, ::-1])
