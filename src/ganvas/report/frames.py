"""A run's pictures made small enough for one page: the progress grids, the real images, the nearest neighbours."""

import io
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ganvas.report.pages import data_uri

MOST_FRAMES = 60                       # more cannot be told apart by a slider on a phone
WIDEST_PX = 1100                       # as wide as the page on a good screen
_QUALITY = 82
_MOST_FACTOR = 32


class Shown(NamedTuple):
    """A picture in the text of the page, `nimg` real images into the run."""

    nimg: int
    uri: str
    width: int                         # as stored; pictures are enlarged by the page
    height: int


def frames(grids: Sequence[tuple[int, Path]], wanted: Collection[int], most_chars: int) -> list[Shown]:
    """At most MOST_FRAMES of the progress grids, (nimg, path), evenly spread, in at most `most_chars` characters.

    The first, the last and those nearest to the `wanted` nimg are always among them. The pictures are stored in their
    own pixels, without loss where all frames fit so, else as JPEG; where even two are too large, they are
    reduced. Files that cannot be read are left out.
    """
    grids = list(grids)
    last = None
    while grids and (last := _opened(grids[-1][1])) is None:
        grids.pop()
    if last is None:
        return []
    must = {min(range(len(grids)), key=lambda index: abs(grids[index][0] - nimg)) for nimg in wanted}
    n, factor = min(len(grids), MOST_FRAMES), 1
    lossless = n * len(_uri(last, lossless=True)) <= most_chars
    made: dict[int, Shown | None] = {}           # one decoded picture at a time: a long run has thousands
    while True:
        spread = {round(index * (len(grids) - 1) / max(1, n - 1)) for index in range(n)} | {len(grids) - 1}
        for index in sorted(spread | must):
            if index not in made:
                made[index] = _frame(*grids[index], factor, lossless)
        chosen = [shown for index in sorted(spread | must) if (shown := made[index]) is not None]
        chars = sum(len(shown.uri) for shown in chosen)
        if chars <= most_chars:
            return chosen
        if n > 2:
            n = max(2, min(n - 1, int(0.97 * n * most_chars / chars)))
        else:
            factor *= 2
            made.clear()


def _frame(nimg: int, path: Path, factor: int, lossless: bool) -> Shown | None:
    image = _opened(path)
    if image is None:
        return None
    image = image.reduce(factor)
    return Shown(nimg, _uri(image, lossless), *image.size)


def picture(path: Path, most_chars: int, widest_px: int = WIDEST_PX) -> Shown | None:
    """One picture, at most `widest_px` wide, in at most `most_chars` characters, without loss if it fits so.

    None where it cannot be read.
    """
    image = _opened(path, widest_px)
    if image is None:
        return None
    uri = _uri(image, lossless=True)
    while len(uri) > most_chars and min(image.size) > 1:
        uri = _uri(image, lossless=False)
        if len(uri) > most_chars:
            image = image.reduce(2)
    return Shown(0, uri, *image.size)


def _opened(path: Path, widest_px: int = WIDEST_PX) -> Image.Image | None:
    """The picture in its own pixels, at most `widest_px` wide; None where it is missing or torn."""
    try:
        with Image.open(path) as image:
            image.load()
            own = _own_pixels(image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGBA"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):      # Pillow's words for torn PNG files
        return None
    if own.width <= widest_px:
        return own
    return own.resize((widest_px, max(1, round(own.height * widest_px / own.width))), Image.Resampling.BOX)


def _own_pixels(image: Image.Image) -> Image.Image:
    """The picture before it was enlarged by a whole factor, as grids of small images are for people."""
    pixels = np.asarray(image)
    for factor in range(_MOST_FACTOR, 1, -1):
        if image.width % factor == 0 == image.height % factor:
            small = pixels[::factor, ::factor]
            if np.array_equal(small.repeat(factor, axis=0).repeat(factor, axis=1), pixels):
                return Image.fromarray(np.ascontiguousarray(small))
    return image


def _uri(image: Image.Image, lossless: bool) -> str:
    file = io.BytesIO()
    if lossless:
        image.save(file, format="PNG")
        return data_uri("png", file.getvalue())
    if image.mode == "RGBA":                     # JPEG knows no transparency
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    image.save(file, format="JPEG", quality=_QUALITY, subsampling=0)       # optimize=True fails on noise: a small buffer
    return data_uri("jpeg", file.getvalue())
