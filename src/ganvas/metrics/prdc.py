"""Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020): how real, and how much of the reals.

Each set is a union of balls around its points, with radii to the k-th nearest of the other points of the same set.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import DataError
from ganvas.metrics.checks import checked_pair
from ganvas.metrics.nearest import inside_balls, k_nearest


class Prdc(NamedTuple):
    """All four. Density alone may exceed 1, and is 1 where both sets are of one distribution."""

    precision: float        # of the fakes, how many lie in a ball around a real
    recall: float           # of the reals, how many lie in a ball around a fake
    density: float          # in how many reals' balls a fake lies on the average, over k
    coverage: float         # of the reals, how many have a fake in their ball


def prdc(real: NDArray[Any], fake: NDArray[Any], k: int = 5) -> Prdc:
    """real: (n, d), fake: (m, d), more than k of each; memory grows with n + m, not with n m.

    A radius is the (k + 1)-th smallest distance where the point itself is counted at 0, and a ball has no surface (<), as in
    the authors' package. Raises DataError for k or fewer images and for NaN or infinity.
    """
    real, fake = checked_pair(real, fake)
    for name, vectors in (("reals", real), ("fakes", fake)):
        if len(vectors) <= k:
            raise DataError(f"{len(vectors):,} {name} have no {k}-th nearest neighbour among themselves. "
                            f"Give at least {k + 1:,} images, or fewer neighbours than {len(vectors):,}.")
    balls_of_fake, fakes_in_ball = inside_balls(fake, real, radii(real, k))
    balls_of_real, _ = inside_balls(real, fake, radii(fake, k))
    return Prdc(precision=float((balls_of_fake > 0).mean()), recall=float((balls_of_real > 0).mean()),
                density=float(balls_of_fake.mean() / k), coverage=float((fakes_in_ball > 0).mean()))


def radii(vectors: NDArray[Any], k: int) -> NDArray[np.float64]:
    """The distance of each point to the k-th nearest of the others: (n, d) to (n,)."""
    own = np.arange(len(vectors))
    distances, _ = k_nearest(vectors, vectors, k, exclude=(own, own))
    return distances[:, -1]
