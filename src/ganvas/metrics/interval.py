"""How sure a number is, and what reals themselves would get: repetitions with fresh fakes, half of the reals against the other.

Resampling with replacement (the bootstrap) is wrong for these metrics. A resampled set holds only 63 % different images: its
covariance has a lower rank and FID's bias grows as if there were fewer images; and copies are each other's nearest neighbours at
distance 0, so that the balls of precision, recall, density and coverage shrink. The bootstrap's interval then need not even
hold the number that it is of. Here every set that is measured holds different images only.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import DataError

ENOUGH_FOR_QUANTILES = 20


class Interval(NamedTuple):
    """The middle and the ends of a metric's repetitions."""

    value: float            # median
    low: float
    high: float
    kind: str               # what low and high are, in words


def interval(values: Sequence[float]) -> Interval:
    """Median and least to greatest; 5 % to 95 % from 20 values on. One value is its own low and high, and says so."""
    if not len(values):
        raise DataError("an interval needs at least one value.")
    if len(values) >= ENOUGH_FOR_QUANTILES:
        low, high = np.quantile(values, [0.05, 0.95])
        kind = f"5 % to 95 % of {len(values):,} repetitions"
    else:
        low, high = min(values), max(values)
        kind = f"least to greatest of {len(values)} repetitions" if len(values) > 1 else "one repetition, no interval"
    return Interval(float(np.median(values)), float(low), float(high), kind)


def halves(n: int, seed: int, repetition: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """0 .. n-1 divided at random into A and B, the odd one in A; each in random order, so its first m are a random subset."""
    order = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, repetition, 0])).permutation(n)
    return order[: n - n // 2], order[n - n // 2 :]
