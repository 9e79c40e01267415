"""Palettes: of a file or of training images, and pictures repainted in the colours of one."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ganvas.data.opening import open_image
from ganvas.data.source_base import UnreadableError
from ganvas.data.split import Subset
from ganvas.errors import ConfigError
from ganvas.rng import Purpose, permute

Colours = NDArray[np.uint8]            # (k, 3) sRGB, all different
Pictures = NDArray[np.uint8]           # (n, H, W, C): 1 = grey, 3 = RGB, 4 = RGBA with straight alpha

MOST_COLOURS = 256                     # of images: what one byte for a pixel can say
HALF = 128                             # alpha from which on a pixel is seen rather than not
_SAMPLED_IMAGES, _READ_PIXELS, _REDUCED_PIXELS = 1024, 2**24, 2**16      # where the images have more than MOST_COLOURS
_BLOCK_PIXELS, _COMPARED_AT_ONCE = 2**20, 2**22

# Ottosson 2020, "A perceptual color space for image processing": linear sRGB -> cone responses, their cube roots -> L, a, b.
_CONES = np.array([[0.4122214708, 0.5363325363, 0.0514459929],
                   [0.2119034982, 0.6806995451, 0.1073969566],
                   [0.0883024619, 0.2817188376, 0.6299787005]])
_LAB = np.array([[0.2104542553, 0.7936177850, -0.0040720468],
                 [1.9779984951, -2.4285922050, 0.4505937099],
                 [0.0259040371, 0.7827717662, -0.8086757660]])


def oklab(colours: Colours) -> NDArray[np.float64]:
    """(k, 3) sRGB bytes as OKLab (Ottosson 2020), float64: lightness 0 to 1, then green to red, blue to yellow.

    Equal distances look about equally different.
    """
    srgb = colours / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)      # IEC 61966-2-1
    lab: NDArray[np.float64] = np.cbrt(linear @ _CONES.T) @ _LAB.T
    return lab


def repaint(pictures: Pictures, palette: Colours) -> Pictures:
    """Each pixel in the palette's nearest colour, the first of equally near ones; alpha, and colour under alpha 0, as they were.

    Grey pictures become RGB, unless the palette is grey as well.
    """
    if pictures.shape[3] == 1:
        if (palette == palette[:, :1]).all():
            return repaint(pictures.repeat(3, axis=3), palette)[..., :1]
        pictures = pictures.repeat(3, axis=3)
    codes, where = np.unique(_codes(pictures), return_inverse=True)
    targets, chosen = oklab(palette), np.empty(len(codes), np.int64)
    squares = (targets**2).sum(axis=1)
    rows = max(1, _COMPARED_AT_ONCE // len(palette))
    for i in range(0, len(codes), rows):                       # |a - b|² less |a|², which is the same for all of a row
        chosen[i:i + rows] = (squares - 2 * oklab(_colours(codes[i:i + rows])) @ targets.T).argmin(axis=1)
    painted = pictures.copy()
    painted[..., :3] = palette[chosen][where.reshape(pictures.shape[:3])]
    if pictures.shape[3] == 4:
        painted[..., :3] = np.where(pictures[..., 3:] > 0, painted[..., :3], pictures[..., :3])
    return painted


def palette_of(images: Subset, seed: int) -> tuple[Colours, bool]:
    """(colours, exact): the colours seen in the images, dark to light, or MOST_COLOURS of them at most where there are more.

    Seen are pixels of at least half alpha. Of more colours those are taken that come nearest to the means which a median cut
    and k-means, Pillow's, find in a seeded sample of the images. Raises ConfigError where nothing can be seen.
    """
    found = np.empty(0, np.uint32)
    block = max(1, _BLOCK_PIXELS // (images.image_size[0] * images.image_size[1]))
    for i in range(0, len(images), block):
        seen = _seen(images.read(np.arange(i, min(i + block, len(images)))))
        found = np.unique(np.concatenate([found, seen]))
        if len(found) > MOST_COLOURS:
            return _reduced(images, seed), False
    if not len(found):
        raise ConfigError("--palette data: the run's images are clear all over and have no colours. Name a palette file.")
    return _sorted(_colours(found)), True


def read_palette(path: Path) -> Colours:
    """The colours of a GIMP palette (.gpl), or of a small image (.png) of at most MOST_COLOURS, in the order of the file.

    Raises ConfigError, which names the file, and in a GIMP palette the line.
    """
    kind = path.suffix.lower()
    if kind not in (".gpl", ".png"):
        raise ConfigError(f"--palette {path}: is neither a GIMP palette (.gpl) nor a picture (.png), nor the word data, for the "
                          "colours of the run's images.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"--palette {path}: cannot be read ({error.strerror}).") from error
    return _of_gpl(path, content) if kind == ".gpl" else _of_picture(path, content)


def _of_gpl(path: Path, content: bytes) -> Colours:
    """Lines of red, green, blue and a name, after `GIMP Palette`, `Name: …`, `Columns: …`, with blank ones and # between."""
    # Names are not read, so their encoding does not matter; BOM and line ends of other systems may be there.
    lines = [line.strip() for line in content.decode("utf-8-sig", errors="replace").split("\n")]
    if lines[0] != "GIMP Palette":
        raise ConfigError(f"--palette {path}, line 1: should read 'GIMP Palette', but reads {lines[0][:40]!r}. "
                          "Save it as a GIMP palette.")
    colours: list[tuple[int, ...]] = []
    values = 3
    for number, line in enumerate(lines[1:], start=2):
        if not line or line.startswith("#"):
            continue
        if not colours and not line[0].isdigit() and ":" in line:
            if line.replace(" ", "").lower() == "channels:rgba":           # Aseprite's: a fourth number is alpha
                values = 4
            continue
        words = line.split()[:values]
        if len(words) < values or not all(word.isdecimal() and len(word) <= 3 and int(word) <= 255 for word in words):
            raise ConfigError(f"--palette {path}, line {number}: {line[:40]!r} does not begin with {values} whole numbers from 0 "
                              "to 255. Each colour is a line: red green blue name.")
        if values == 3 or int(words[3]) > 0:
            colours.append(tuple(map(int, words[:3])))
    if not colours:
        raise ConfigError(f"--palette {path}: has no colours. Each is a line: red green blue name.")
    return np.array(list(dict.fromkeys(colours)), np.uint8)


def _of_picture(path: Path, content: bytes) -> Colours:
    try:
        image = open_image(content, str(path))
    except UnreadableError as error:
        raise ConfigError(f"--palette {path}: cannot be read as an image ({error.reason}). Name another palette.") from error
    pixels = np.asarray(image.convert("RGBA"))
    codes = _seen(pixels.transpose(2, 0, 1)[None])
    found, first = np.unique(codes, return_index=True)
    if not len(found):
        raise ConfigError(f"--palette {path}: is clear all over and has no colours.")
    if len(found) > MOST_COLOURS:
        raise ConfigError(f"--palette {path}: has {len(found):,} colours, a palette at most {MOST_COLOURS}. Reduce it, or name a "
                          "GIMP palette.")
    return _colours(found[np.argsort(first)])


def _reduced(images: Subset, seed: int) -> Colours:
    """MOST_COLOURS at most, of a sample that hangs on the seed alone."""
    height, width = images.image_size
    count = min(len(images), _SAMPLED_IMAGES, max(1, _READ_PIXELS // (height * width)))
    seen = _seen(images.read(np.sort(permute(np.arange(count), len(images), seed, Purpose.SUBSET, 3))))
    pixels = _colours(seen[::-(-len(seen) // _REDUCED_PIXELS)])
    reduced = Image.fromarray(pixels[None]).quantize(MOST_COLOURS, Image.Quantize.MEDIANCUT, kmeans=1)      # until it rests
    means = np.array(reduced.getpalette("RGB"), np.uint8).reshape(1, 1, -1, 3)
    own = repaint(means, np.unique(pixels, axis=0))            # means are blends that no artist has mixed
    return _sorted(np.unique(own.reshape(-1, 3), axis=0))


def _seen(images: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The colours, as codes, of all pixels of (n, C, H, W) that are at least half opaque, in their order."""
    if images.shape[1] == 1:
        images = images.repeat(3, axis=1)
    codes = _codes(images.transpose(0, 2, 3, 1))
    seen: NDArray[np.uint32] = codes[images[:, 3] >= HALF] if images.shape[1] == 4 else codes.ravel()
    return seen


def _codes(pictures: Pictures) -> NDArray[np.uint32]:
    """(…, C) with C of 3 or 4 to (…): red, green and blue in one number."""
    red, green, blue = (pictures[..., channel].astype(np.uint32) for channel in range(3))
    codes: NDArray[np.uint32] = red << np.uint32(16) | green << np.uint32(8) | blue
    return codes


def _colours(codes: NDArray[np.uint32]) -> Colours:
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.uint8)


def _sorted(colours: Colours) -> Colours:
    """Dark to light, as artists lay palettes out."""
    return colours[np.argsort(oklab(colours)[:, 0], kind="stable")]
