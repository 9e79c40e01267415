"""What is noted of each image while a pack is made: its size and kind, hashes of its content, a thumbnail to find twins by."""

import hashlib
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from ganvas.data.pixel_art import OPAQUE, colours_of
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
    ("content", "<u8"),                        # hash of size and visible pixels (see `measure`): equal = the same picture
    ("structure", "<u8"),                      # hash of where neighbouring pixels differ, whatever the palette; 0 = tells nothing
    ("structure_mirrored", "<u8"),             # that of the mirror image
])

Facts = npt.NDArray[Any]                       # (N,) of FACT
Thumbs = npt.NDArray[np.uint8]                 # (N, 16, 16, 4): premultiplied red, green, blue, and alpha

MEASURED_PIXELS = 512 * 512                    # larger ones are measured reduced; their structure is not: they are photographs
_HALF_OPAQUE = np.uint32(0x80000000)           # of `colours_of`
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


def measure(image: Image.Image, colours: npt.NDArray[Any] | None = None, lossy: bool = False) -> Measured:
    """The facts of an upright image in mode L, RGB or RGBA. colours: `colours_of(image)`, where the caller has them.

    lossy: it was a JPEG, in which no two neighbours are equal by intent: it has no structure.
    Of an image of more than MEASURED_PIXELS, every second pixel (third, ...) of every second row is measured: all of a photograph
    would take as long as decoding it, and pictures of one size in which a hundred thousand samples are equal are the same.
    """
    whole, size = image, image.size
    if large := _is_large(image):
        image, colours = _reduced(image), None
    if (lossy or large) and image.mode != "RGBA":
        thumb = thumbnail(image)
        grey = image.mode == "L" or (bool((thumb[..., :3] == thumb[..., :1]).all()) and _is_grey(colours_of(image)))
        values = (image.getchannel(0) if grey and image.mode == "RGB" else image).tobytes()
        return Measured(grey, False, 0.0, _hash(b"%d %d %d 0" % (*size, grey), values), 0, 0, thumb)
    if colours is None:
        colours = colours_of(image)
    transparent = image.mode == "RGBA" and bool(colours.min() < OPAQUE)
    if image.mode == "RGBA" and not transparent:
        image = image.convert("RGB")
    grey = image.mode == "L" or _is_grey(colours)
    clear_area = 1 - np.count_nonzero(colours >= _HALF_OPAQUE) / colours.size if transparent else 0.0

    # An opaque picture is the same with and without an alpha channel, a grey one with one channel and with three.
    plain = colours.data if transparent else colours.astype(np.uint8).data if grey else image.tobytes()
    content = _hash(b"%d %d %d %d" % (*size, grey, transparent), plain)
    if transparent and (box := whole.getbbox()) and box != (0, 0, *size):
        image = whole.crop(box)                                     # the same figure on a larger canvas is a twin too
        colours = colours_of(image) if large else colours[box[1]:box[3], box[0]:box[2]]
        if large := _is_large(image):
            image = _reduced(image)
    structure = (0, 0) if large else _structure(colours)
    return Measured(grey, transparent, clear_area, content, *structure, thumbnail(image))


def _is_large(image: Image.Image) -> bool:
    return image.width * image.height > MEASURED_PIXELS


def _reduced(image: Image.Image) -> Image.Image:
    """The middle pixel of each square block of a large image: at most MEASURED_PIXELS, and no fewer than a quarter of them."""
    step = math.isqrt(image.width * image.height // MEASURED_PIXELS) + 1
    return image.resize((max(1, image.width // step), max(1, image.height // step)), Image.Resampling.NEAREST)


def _is_grey(colours: npt.NDArray[Any]) -> bool:
    """Whether red, green and blue are equal everywhere."""
    for some in (colours.max(), colours[len(colours) // 2, colours.shape[1] // 2], colours):    # most colour pictures end early
        if ((some ^ some >> 8) & 0xFFFF).any():
            return False
    return True


def _hash(*parts: Any) -> int:
    """64 bits of SHA-1: no secret hangs on it, and processors have instructions for it."""
    digest = hashlib.sha1(usedforsecurity=False)
    for part in parts:
        digest.update(part)
    return int.from_bytes(digest.digest()[:8], "little")


def thumbnail(image: Image.Image) -> Pixels:
    """An image in mode L, RGB or RGBA as (16, 16, 4) uint8 with premultiplied alpha, its proportions given up."""
    size, symmetric = (THUMB_PX, THUMB_PX), Image.Resampling.HAMMING       # BOX gives a mirrored image another thumbnail
    step = min(image.size) // (2 * THUMB_PX)
    if image.mode == "RGBA":
        image = image.convert("RGBa")
    if step > 1:                                           # means over whole blocks first: half the time
        left, top = image.width % step // 2, image.height % step // 2
        image = image.reduce(step, (left, top, left + image.width // step * step, top + image.height // step * step))
    if image.mode == "RGBa":
        return np.asarray(image.resize(size, symmetric))
    thumb = np.full((THUMB_PX, THUMB_PX, 4), 255, np.uint8)
    thumb[..., :3] = np.asarray(image.resize(size, symmetric)).reshape(THUMB_PX, THUMB_PX, -1)
    return thumb


def _structure(colours: npt.NDArray[Any]) -> tuple[int, int]:
    """Hashes of which neighbours differ in colour, of the picture (H, W) and of its mirror image; 0 where that tells nothing."""
    across, down = colours[:, 1:] != colours[:, :-1], colours[1:] != colours[:-1]
    edges = int(np.count_nonzero(across)) + int(np.count_nonzero(down))
    if edges < _FEWEST_EDGES or not _EDGE_SHARE[0] <= edges / (across.size + down.size) <= _EDGE_SHARE[1]:
        return 0, 0
    size = b"%d %d" % colours.shape
    return (_hash(size, np.packbits(across).data, np.packbits(down).data),
            _hash(size, np.packbits(across[:, ::-1]).data, np.packbits(down[:, ::-1]).data))
