"""Pictures made ready for game engines: hard edges, one sheet, and the JSON that says which picture lies where on it."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganvas import __version__
from ganvas.errors import ConfigError
from ganvas.palette import HALF
from ganvas.report.grid import Picture, tile

Pictures = NDArray[np.uint8]           # (n, H, W, C): 1 = grey, 3 = RGB, 4 = RGBA with straight alpha


def check_alpha(channels: int) -> None:
    """Raises ConfigError where there is no alpha that --hard-alpha could make hard."""
    if channels != 4:
        kind = "grey" if channels == 1 else "opaque"
        raise ConfigError(f"--hard-alpha: this run's pictures are {kind} and have no transparency. Leave it out, or train with "
                          "--transparency keep.")


def check_json(sheet: str | None, grid: str | None) -> None:
    """Raises ConfigError where there is no picture of all of which --json could say what lies where."""
    if sheet is None and grid is None:
        raise ConfigError("--json: says where each picture lies on a sheet or grid. Add --sheet FILE.png.")


def hard_alpha(pictures: Pictures) -> Pictures:
    """(n, H, W, 4) with each pixel opaque if its alpha is at least half, or else clear and black. Raises as `check_alpha`."""
    check_alpha(pictures.shape[3])
    opaque = pictures | np.array([0, 0, 0, 255], np.uint8)
    return np.where(pictures[..., 3:] >= HALF, opaque, np.uint8(0))


def sheet(pictures: Pictures) -> tuple[Picture, int]:
    """(picture, columns): all edge to edge in reading order, nearly square, (H, W, 4) with empty cells clear."""
    n, height, width, channels = pictures.shape
    columns = min(n, math.ceil(math.sqrt(n * height / width)))
    colours = pictures[..., :3] if channels > 1 else pictures.repeat(3, axis=3)
    alpha = pictures[..., 3:] if channels == 4 else np.full_like(pictures[..., :1], 255)
    whole = np.concatenate([colours, alpha], axis=3).transpose(0, 3, 1, 2)
    return tile(whole, columns, gap=0, background=(0, 0, 0, 0)), columns


def frames_json(
    image: Path, picture: Picture, cell: tuple[int, int], columns: int, gap: int, scale: int, frames: Sequence[dict[str, Any]],
) -> str:
    """Where each of `frames` lies on a picture of equal cells, as the JSON Array that Aseprite and TexturePacker write.

    image: the file of `picture`, in which every pixel is `scale` wide and high. cell: (height, width) of one of the frames,
    which lie `gap` apart in so many columns, in pixels of `picture`. frames: what else is said of each; engines read `filename`.
    """
    height, width = (side * scale for side in cell)
    entries = []
    for number, about in enumerate(frames):
        row, column = divmod(number, columns)
        at = {"x": column * (width + gap * scale), "y": row * (height + gap * scale), "w": width, "h": height}
        entries.append({
            **about, "frame": at, "rotated": False, "trimmed": False,
            "spriteSourceSize": {"x": 0, "y": 0, "w": width, "h": height}, "sourceSize": {"w": width, "h": height}})
    meta = {"app": "ganvas", "version": __version__, "image": image.name,
            "format": "RGBA8888" if picture.shape[2] == 4 else "RGB888" if picture.shape[2] == 3 else "I8",
            "size": {"w": picture.shape[1] * scale, "h": picture.shape[0] * scale},
            "scale": "1"}                                     # of the coordinates: engines divide them by it
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)          # a picture to a line
    return f'{{"frames": [\n{lines}\n],\n"meta": {json.dumps(meta, ensure_ascii=False)}}}\n'
