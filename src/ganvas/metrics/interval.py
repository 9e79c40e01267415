"""How sure a number is, and what reals themselves would get: repetitions with fresh fakes, half of the reals against the other.

Resampling with replacement (the bootstrap) is wrong for these metrics. A resampled set holds only 63 % different images: its
covariance has a lower rank and FID's bias grows as if there were fewer images; and copies are each other's nearest neighbours at
distance 0, so that the balls of precision, recall, density and coverage shrink. The bootstrap's interval then need not even
hold the number that it is of. Here every set that is measured holds different images only.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import DataError

Metric = Callable[[NDArray[Any], NDArray[Any]], float]      # (reference (n, d), candidate (m, d)) -> number

ENOUGH_FOR_QUANTILES = 20


class Interval(NamedTuple):
    """The middle and the ends of a metric's repetitions."""

    value: float            # median
    low: float
    high: float
    kind: str               # what low and high are, in words


class Measured(NamedTuple):
    """A metric of fakes beside its floor, the same metric of other reals at the same n."""

    fakes: Interval
    floor: Interval
    reference_n: int        # reals in half A
    n: int                  # fakes, and reals of half B, in each repetition


def measure(metric: Metric, reals: NDArray[Any], fake_sets: Sequence[NDArray[Any]], seed: int) -> Measured:
    """A metric in len(fake_sets) repetitions, each with a set of fakes of its own and a division of the reals of its own.

    reals: (N, d), N from 4; fake_sets: arrays (M, d), best made from different seeds. In repetition i the reals are divided at
    random into halves A and B; n = the least of |B| and all M; `metric(A, n fakes)` is the number, `metric(A, n of B)` its
    floor: what a perfect generator gets. Subsets are drawn without replacement. Repetitions share the reals, so an interval says
    how far the number moves with the draw of fakes and reals, not how another set of reals of this size would differ.
    """
    if not len(fake_sets):
        raise DataError("an interval needs at least one set of fakes. Give some.")
    n = min(len(reals) // 2, *(len(fakes) for fakes in fake_sets))
    if len(reals) < 4 or n < 2:
        raise DataError(f"{len(reals):,} reals in two halves and {min(map(len, fake_sets)):,} fakes are too few to compare. "
                        "Give at least 4 reals and 2 fakes.")
    values, floors, reference_n = [], [], len(reals) - len(reals) // 2
    for index, fakes in enumerate(fake_sets):
        a, b = halves(len(reals), seed, index)
        chosen = _generator(seed, index, 1).permutation(len(fakes))[:n]
        values.append(metric(reals[a], fakes[np.sort(chosen)]))
        floors.append(metric(reals[a], reals[b[:n]]))
    return Measured(interval(values), interval(floors), reference_n, n)


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
    order = _generator(seed, repetition, 0).permutation(n)
    return order[: n - n // 2], order[n - n // 2 :]


def _generator(seed: int, repetition: int, purpose: int) -> np.random.Generator:
    """Philox with the seed as key and the repetition as counter: streams that never meet."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, repetition, purpose]))
