"""A sheet that puts samples beside the training images nearest to them, for eyes to judge whether they are copies."""

from bisect import bisect_right
from collections.abc import Sequence
from math import ceil

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ganvas.report.grid import Picture

Pixels = npt.NDArray[np.uint8]         # (R, C, H, W)
Flags = npt.NDArray[np.bool_]

READABLE_PX = 112      # images are enlarged by the whole number that brings their width near to it
SHEET_PX = 1200        # width that the columns of rows fill
GAP_PX, MARGIN_PX = 6, 20
FONT_PX = 13
CHECKER_PX = 8
CHECKER = (255, 232)   # greys that show through transparent images
HEADINGS = ("sample", "nearest, features", "nearest, pixels")
INK, PAPER, ALARM = (40, 40, 40), (255, 255, 255), (200, 60, 20)


def telling_rows(suspicion: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    """Which of M samples to show: half of `count` the most suspicious, the others evenly chosen among the rest, in their order.

    suspicion: (M,), small = suspicious. Returns (min(count, M),).
    """
    order = np.argsort(suspicion, kind="stable")
    count = min(count, len(order))
    worst, rest = order[:-(-count // 2)], np.sort(order[-(-count // 2):])
    even = rest[(np.arange(count // 2) * len(rest)) // max(1, count // 2)]
    return np.concatenate([worst, even])


def draw_neighbours(samples: Pixels, by_features: Pixels, by_pixels: Pixels, captions: Sequence[str], *,
                    mirrored_features: Flags | None = None, mirrored_pixels: Flags | None = None, alarm: Flags | None = None,
                    columns: int | None = None) -> Picture:
    """R rows of sample | nearest training image by features | by pixels, each row with its caption; (H', W', 3) uint8.

    The three: (R, C, H, W) uint8 with C of 1, 3 or 4, R >= 1. captions: R lines, cut in the middle where too long.
    mirrored_*: (R,), training images that resemble the sample when mirrored: so they are shown, with a mark. alarm: (R,), rows
    whose sample counts as a copy: framed. columns: of rows side by side; None = as many as make a sheet about 1,200 wide.
    """
    if samples.dtype != np.uint8 or samples.ndim != 4 or samples.shape[1] not in (1, 3, 4) or not len(samples) \
            or not samples.shape == by_features.shape == by_pixels.shape or len(captions) != len(samples):
        raise ValueError(f"expected three arrays of uint8 images (R, 1|3|4, H, W) and R captions, got {samples.shape}, "
                         f"{by_features.shape}, {by_pixels.shape} and {len(captions)}")
    rows, height, width = len(samples), *samples.shape[2:]
    scale = max(1, round(READABLE_PX / width))
    height, width = height * scale, width * scale
    font = ImageFont.load_default(FONT_PX)
    line = FONT_PX + 6
    triple_wide, triple_high = 3 * width + 2 * GAP_PX, height + line + GAP_PX
    columns = min(rows, columns or max(1, (SHEET_PX - MARGIN_PX) // (triple_wide + MARGIN_PX)))
    deep = -(-rows // columns)
    sheet = Image.new("RGB", (MARGIN_PX + columns * (triple_wide + MARGIN_PX), MARGIN_PX + line + deep * triple_high), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column in range(columns):
        for place, heading in enumerate(HEADINGS):
            left = MARGIN_PX + column * (triple_wide + MARGIN_PX) + place * (width + GAP_PX)
            draw.text((left, MARGIN_PX // 2), _cut(heading, width, font), fill=INK, font=font)
    flags = (None, mirrored_features, mirrored_pixels)
    for row in range(rows):
        column, down = row // deep, row % deep
        left, top = MARGIN_PX + column * (triple_wide + MARGIN_PX), MARGIN_PX // 2 + line + down * triple_high
        for place, images in enumerate((samples, by_features, by_pixels)):
            flag = flags[place]
            mirrored = flag is not None and bool(flag[row])
            x = left + place * (width + GAP_PX)
            sheet.paste(Image.fromarray(_shown(images[row][..., ::-1] if mirrored else images[row], scale)), (x, top))
            if mirrored:
                _draw_arrow(draw, x, top)
        copied = alarm is not None and bool(alarm[row])
        if copied:
            draw.rectangle((left - 3, top - 3, left + width + 2, top + height + 2), outline=ALARM, width=3)
        draw.text((left, top + height + 2), _cut(captions[row], triple_wide, font), fill=ALARM if copied else INK, font=font)
    return np.asarray(sheet)


def _draw_arrow(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    """A double arrow, which the built-in font lacks, on paper, 16 by 11 pixels."""
    draw.rectangle((x, y, x + 15, y + 10), fill=PAPER)
    draw.line((x + 3, y + 5, x + 12, y + 5), fill=INK)
    draw.polygon(((x + 1, y + 5), (x + 5, y + 2), (x + 5, y + 8)), fill=INK)
    draw.polygon(((x + 14, y + 5), (x + 10, y + 2), (x + 10, y + 8)), fill=INK)


def _shown(image: Pixels, scale: int) -> Picture:
    """(C, H, W) enlarged, as (H', W', 3); transparency lets a light checker through."""
    pixels = image.transpose(1, 2, 0).repeat(scale, axis=0).repeat(scale, axis=1)
    if pixels.shape[2] == 1:
        return pixels.repeat(3, axis=2)
    if pixels.shape[2] == 3:
        return np.ascontiguousarray(pixels)
    y, x = np.indices(pixels.shape[:2]) // CHECKER_PX
    behind = np.array(CHECKER)[(x + y) % 2][..., None]
    alpha = pixels[..., 3:].astype(np.float64) / 255
    composed: Picture = (pixels[..., :3] * alpha + behind * (1 - alpha)).round().astype(np.uint8)
    return composed


def _cut(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """The text, with its middle left out where it is wider than `width` pixels: names differ at their ends."""
    if font.getlength(text) <= width:
        return text
    def shorter(kept: int) -> str:
        return text[:kept // 2] + "…" + text[len(text) - (kept - kept // 2):]

    return shorter(bisect_right(range(1, len(text)), width, key=lambda kept: ceil(font.getlength(shorter(kept)))))
