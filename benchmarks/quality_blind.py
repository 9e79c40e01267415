"""Two sides' samples as numbered pairs that do not tell whose is whose, and the count of what somebody has chosen."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from quality_judging import Pixels, on

from ganvas.errors import DataError
from ganvas.files import whole_file, write_whole
from ganvas.report.grid import tile

PER_PAGE, COLUMNS = 10, 2
CELL_PX = 224                          # of one side of a pair, at least
GAP_PX, HEAD_PX = 12, 26
SIDES = ("left", "right")


class Count(NamedTuple):
    """What was chosen. wins: {side: pairs}."""

    wins: dict[str, int]
    rows: list[tuple[str, str, str]]                           # pair, place, side
    p_value: float                                             # of so many or more for one side, were both alike

    @property
    def pairs(self) -> int:
        return len(self.rows)


def order_of(pair: int, seed: int, names: tuple[str, str]) -> dict[str, str]:
    """{place: side} of a pair, from a hash of seed and number."""
    turned = hashlib.sha256(f"{seed}:{pair}".encode()).digest()[0] % 2
    return dict(zip(SIDES, names[::-1] if turned else names, strict=True))


def write_sheet(folder: Path, key: Path, sides: Mapping[str, Pixels], pairs: int, block: int, seed: int) -> list[Path]:
    """Pages of pairs in `folder`, with choices.json to be filled in; which is which goes to the file `key` alone.

    sides: {side: samples (pairs * block², C, H, W)} of two sides; pair k has the same rows of both.
    """
    first, second = sides
    order = {pair: order_of(pair, seed, (first, second)) for pair in range(1, pairs + 1)}
    pages: list[Path] = []
    for start in range(1, pairs + 1, PER_PAGE):
        numbers = range(start, min(start + PER_PAGE, pairs + 1))
        cells = [[_cell(sides[order[pair][place]][(pair - 1) * block**2:pair * block**2], block) for place in SIDES]
                 for pair in numbers]
        pages.append(folder / f"page-{len(pages) + 1}.png")
        with whole_file(pages[-1]) as partial:
            _page(list(numbers), cells).save(partial, format="PNG", optimize=True)
    write_whole(folder / "choices.json", json.dumps({str(pair): "" for pair in order}, indent=1))
    write_whole(key, json.dumps({"seed": seed, "sides": [first, second], "order": order}, indent=1))
    return pages


def _cell(images: Pixels, block: int) -> NDArray[np.uint8]:
    picture = tile(on("white", images), block)
    scale = max(1, -(-CELL_PX // picture.shape[1]))
    return picture.repeat(3 // picture.shape[2], axis=2).repeat(scale, axis=0).repeat(scale, axis=1)


def _page(numbers: list[int], cells: list[list[NDArray[np.uint8]]]) -> Image.Image:
    height, width = cells[0][0].shape[:2]
    across, down = 2 * width + GAP_PX // 3 + 3 * GAP_PX, height + HEAD_PX + GAP_PX
    page = Image.new("RGB", (COLUMNS * across, -(-len(cells) // COLUMNS) * down), "#dddddd")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(18)
    for index, (number, pair) in enumerate(zip(numbers, cells, strict=True)):
        x, y = index % COLUMNS * across + GAP_PX, index // COLUMNS * down
        draw.text((x, y + 3), str(number), fill="black", font=font)
        for place, picture in enumerate(pair):
            page.paste(Image.fromarray(picture), (x + place * (width + GAP_PX // 3), y + HEAD_PX))
    return page


def count(key: Path, choices: Path) -> Count:
    """How often each side was chosen. Raises DataError where a pair has no choice, or one that is neither left nor right."""
    from scipy.stats import binomtest

    about, chosen = _read(key), _read(choices)
    order: dict[str, dict[str, str]] = about["order"]
    faults = [f"{pair}: {chosen.get(pair, '')!r}" for pair in order if chosen.get(pair) not in SIDES]
    faults += [f"{pair}: no such pair" for pair in chosen if pair not in order]
    if faults:
        raise DataError(f"{choices}: {', '.join(faults[:5])}{', ...' if len(faults) > 5 else ''}. Give each of the {len(order)} "
                        "pairs \"left\" or \"right\", whichever looks more like the real images.")
    rows = [(pair, chosen[pair], places[chosen[pair]]) for pair, places in order.items()]
    wins = {side: sum(row[2] == side for row in rows) for side in about["sides"]}
    return Count(wins, rows, float(binomtest(max(wins.values()), len(rows), alternative="greater").pvalue))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}). Make the sheet first, and fill in its choices.json."
                        ) from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no pairs, which look like {{\"1\": \"left\", \"2\": \"right\"}}.")
    return content
