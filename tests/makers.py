"""Small generated inputs for tests, and one who hears what a call says."""

from pathlib import Path

import numpy as np
from PIL import Image

from ganvas.watcher import Watcher


class Heard(Watcher):
    """Keeps the lines that a call tells."""

    def __init__(self):
        self.lines = []

    def tell(self, text):
        self.lines.append(text)


def image_folder(path: Path, n: int = 20, size: int = 24, seed: int = 0) -> Path:
    """A folder of `n` small colourful PNGs: a disc of one colour on another."""
    path.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    for i in range(n):
        centre, radius = rng.uniform(size / 3, 2 * size / 3, 2), rng.uniform(size / 6, size / 3)
        inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
        pixels = np.where(inside[..., None], rng.integers(0, 256, 3), rng.integers(0, 256, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path / f"{i:03d}.png")
    return path
