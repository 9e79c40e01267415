"""Which image sizes a DCGAN can make; plain arithmetic, without torch."""

from typing import NamedTuple

SMALLEST_BASE, LARGEST_BASE, MOST_DOUBLINGS = 3, 8, 8


class Stages(NamedTuple):
    """A height and width as (base_height, base_width) doubled `doublings` times."""

    base_height: int
    base_width: int
    doublings: int


def stages(height: int, width: int) -> Stages | None:
    """How a DCGAN reaches height x width: bases of 3 to 8 pixels, doubled equally often (1 to 8 times); None if it cannot.

    Where several ways exist, the one whose smaller base is nearest to the paper's 4 pixels (arXiv 1511.06434): 64 is 4 * 2**4.
    """
    ways = [
        Stages(height >> k, width >> k, k)
        for k in range(1, MOST_DOUBLINGS + 1)
        if height % (1 << k) == 0 and width % (1 << k) == 0
        and all(SMALLEST_BASE <= side >> k <= LARGEST_BASE for side in (height, width))
    ]
    return min(ways, key=lambda way: (abs(min(way.base_height, way.base_width) - 4), -way.doublings), default=None)


def nearest_size(height: int, width: int) -> tuple[int, int]:
    """The possible (height, width) nearest to the one wanted, by the larger of the two sides' relative changes."""
    sides = range(SMALLEST_BASE, LARGEST_BASE + 1)
    possible = [(a << k, b << k) for k in range(1, MOST_DOUBLINGS + 1) for a in sides for b in sides]
    def change(size: tuple[int, int]) -> tuple[float, float]:
        by_side = [max(got / wanted, wanted / got) for got, wanted in zip(size, (height, width), strict=True)]
        return max(by_side), sum(by_side)
    return min(possible, key=change)


def widths(channels: int, doublings: int) -> list[int]:
    """Maps of each stage from the largest image to the smallest: doubled each time, up to 8 times `channels`."""
    return [channels * min(1 << i, 8) for i in range(doublings)]
