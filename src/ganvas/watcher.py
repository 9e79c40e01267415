"""Who hears what a long call does: a progress display, a notebook, or nobody."""

from collections.abc import Mapping
from typing import Any


class Watcher:
    """Hears what a call does, for a progress display; this one prints the lines and draws nothing."""

    def tell(self, text: str) -> None:
        """A line for the user."""
        print(text)

    def opening(self, done: int, total: int) -> None:
        """So many sprite sheets, or images of a dataset, are looked through."""

    def packing(self, done: int, total: int) -> None:
        """So many images of the source are decoded."""

    def comparing(self, done: int, total: int) -> None:
        """So much of the search for twins is done."""

    def working(self, what: str, done: int, total: int) -> None:
        """So much of `what`, a step of an evaluation in a word or two, is done."""

    def training(self, nimg: int, goal: int, epoch: float, row: Mapping[str, Any] | None) -> None:
        """A step is done; `row` where a row of statistics was written."""


class Silent(Watcher):
    """Hears nothing."""

    def tell(self, text: str) -> None:
        pass


def seen(nimg: int) -> str:
    """How many images that are, for people: `850 images`, `12.3 kimg`."""
    return f"{nimg / 1000:,.1f} kimg" if nimg >= 1000 else images(nimg)


def images(count: int) -> str:
    """`1 image`, `1,209 images`."""
    return f"{count:,} image" + ("" if count == 1 else "s")


def duration(seconds: float) -> str:
    """"45 s", "12 min 5 s", "2 h"."""
    whole = round(seconds)
    parts = [f"{whole // 3600:,} h", f"{whole // 60 % 60} min", f"{whole % 60} s" if whole < 3600 else "0 s"]
    return " ".join(part for part in parts if not part.startswith("0 ")) or "0 s"
