"""How many of the classes a generator makes, and how evenly: modes and KL of Stacked MNIST and its like.

Stacked MNIST has 1,000 modes (three digits as red, green and blue); 26,000 samples are sorted by a classifier (Metz et al. 2017,
section 3.3.1; Srivastava et al. 2017, section 4.2).
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import DataError

FLOOR_DRAWS = 200


class Modes(NamedTuple):
    """Samples sorted into classes, beside what as many fresh reals would give."""

    n: int                                # samples
    modes: int                            # classes that the reals have
    hit: int                              # of those, with at least one sample
    hit_often: int                        # of those, with at least `often` samples
    outside: float                        # share of the samples in classes that no real is of
    kl: float                             # KL(samples' classes ‖ reals') in nats, of the samples in the reals' classes
    hit_expected: float                   # `hit` of n fresh reals, mean
    kl_floor: float                       # `kl` of n fresh reals, mean
    kl_floor_range: tuple[float, float]   # 5 % to 95 % of it


def mode_coverage(labels: NDArray[Any], reference: NDArray[Any], often: int = 2, seed: int = 0) -> Modes:
    """labels: (n,), the samples' classes, from 0. reference: (K,), the reals' class counts, or ones for all classes alike.

    The floor is drawn: classes of n fresh images from the reals' distribution. That is a multinomial draw and not resampling with
    replacement: no image is drawn, so none comes twice; counting the reals' own subsets instead would fall to 0 as n grows to all
    of them. For small n / K it is near (K - 1) / 2n: .0194 for 26,000 samples of 1,000 even modes, which no generator can beat.
    Raises DataError without samples, and for classes outside 0 .. K - 1.
    """
    labels, shares = np.asarray(labels), np.asarray(reference, dtype=np.float64)
    if not len(labels):
        raise DataError("there are no samples to sort into classes. Give some.")
    if labels.min() < 0 or labels.max() >= len(shares):
        raise DataError(f"samples are of classes {labels.min()} to {labels.max()}, but there are {len(shares):,} classes "
                        "(from 0). Use the classes of the extractor that sorted the samples.")
    if not np.isfinite(shares).all() or shares.min() < 0 or shares.sum() == 0:
        raise DataError("the reals' class counts must not be negative, and one must be above 0. Give labelled reals.")
    shares /= shares.sum()
    known = shares > 0
    counts = np.bincount(labels, minlength=len(shares))
    inside = int(counts[known].sum())
    fresh = np.random.Generator(np.random.Philox(seed)).multinomial(len(labels), shares[known], size=FLOOR_DRAWS)
    floors = np.array([_kl(row, shares[known]) for row in fresh])
    low, high = np.quantile(floors, [0.05, 0.95])
    return Modes(n=len(labels), modes=int(known.sum()), hit=int((counts[known] > 0).sum()),
                 hit_often=int((counts[known] >= often).sum()), outside=1 - inside / len(labels),
                 kl=_kl(counts[known], shares[known]) if inside else float("inf"),
                 hit_expected=float((fresh > 0).sum(axis=1).mean()), kl_floor=float(floors.mean()),
                 kl_floor_range=(float(low), float(high)))


def _kl(counts: NDArray[Any], shares: NDArray[np.float64]) -> float:
    some = counts > 0
    found = counts[some] / counts.sum()
    return max(0.0, float((found * np.log(found / shares[some])).sum()))
