"""The kernel distance between two sets of features: the unbiased squared maximum mean discrepancy with the cubic kernel.

k(x, y) = (xᵀy / d + 1)³   (Bińkowski et al. 2018, section 4; MMD²: Gretton et al. 2012, eq. 3). Unlike FID its expectation does
not depend on the number of images, so that it is to be trusted with few; it may come out below 0. float64, because it is a
small difference of large means.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganvas.metrics.checks import checked_pair

BLOCK_ROWS = 2048


class Kid(NamedTuple):
    """A kernel distance and how sure it is."""

    value: float
    error: float            # standard error of `value`
    estimator: str          # how both came about, in words
    spread: float | None    # standard deviation between subsets, which tables often print as ±; None without subsets


def kid(real: NDArray[Any], fake: NDArray[Any], subset_size: int = 1000, subsets: int = 100, seed: int = 0) -> Kid:
    """The mean over random subsets of `subset_size` reals and as many fakes, as published figures are made.

    real: (n, d), fake: (m, d). Subsets of one round are disjoint (a shuffle of each side is cut up), and rounds follow until
    there are `subsets`. Subsets of different rounds share images, so only the deviation within rounds tells the error:
    √(mean over rounds of variance / subsets in a round). With fewer than two disjoint subsets: `kid_of_all`.
    """
    real, fake = checked_pair(real, fake)
    in_round = min(len(real), len(fake)) // subset_size
    if in_round < 2:
        return kid_of_all(real, fake)
    rng = np.random.Generator(np.random.Philox(seed))
    rounds = max(1, round(subsets / in_round))
    values = np.empty((rounds, in_round))
    for row in values:
        orders = rng.permutation(len(real)), rng.permutation(len(fake))
        for index in range(in_round):
            some = slice(index * subset_size, (index + 1) * subset_size)
            row[index] = _mmd2(real[orders[0][some]].astype(np.float64), fake[orders[1][some]].astype(np.float64))
    error = float(np.sqrt(values.var(axis=1, ddof=1).mean() / in_round))
    return Kid(float(values.mean()), error, f"mean of {values.size:,} subsets of {subset_size:,}, standard error of "
               f"{in_round} disjoint ones", float(values.std()))


def kid_of_all(real: NDArray[Any], fake: NDArray[Any]) -> Kid:
    """The U-statistic of all pairs, the least variable of unbiased estimators, with its jackknife standard error.

    real: (n, d), fake: (m, d), n and m from 3. Leaving out each image in turn needs only the kernel's row sums (Arvesen 1969).
    The error is true where the sets differ, and too large by up to √2 where they do not.
    """
    real, fake = checked_pair(real, fake, least=3)
    n, m = len(real), len(fake)
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    within_real, within_fake = _own_sums(real), _own_sums(fake)                   # (n,), (m,): without the pair with itself
    across_real, across_fake = _cross_sums(real, fake)                            # (n,), (m,)
    rr, ff, rf = within_real.sum(), within_fake.sum(), across_real.sum()
    value = rr / (n * (n - 1)) + ff / (m * (m - 1)) - 2 * rf / (n * m)
    without_real = ((rr - 2 * within_real) / ((n - 1) * (n - 2)) + ff / (m * (m - 1)) - 2 * (rf - across_real) / ((n - 1) * m))
    without_fake = (rr / (n * (n - 1)) + (ff - 2 * within_fake) / ((m - 1) * (m - 2)) - 2 * (rf - across_fake) / (n * (m - 1)))
    variance = without_real.var() * (n - 1) + without_fake.var() * (m - 1)
    return Kid(float(value), float(np.sqrt(variance)), "U-statistic of all pairs, jackknife standard error", None)


def _mmd2(real: NDArray[np.float64], fake: NDArray[np.float64]) -> float:
    n, m = len(real), len(fake)
    across = _cross_sums(real, fake)[0].sum() / (n * m)
    return float(_own_sums(real).sum() / (n * (n - 1)) + _own_sums(fake).sum() / (m * (m - 1)) - 2 * across)


def _own_sums(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of k(x_i, x_j) over j != i, (n,). Each block of pairs is computed once and counted for both its sides."""
    sums = -_kernel(np.square(x).sum(axis=1), x.shape[1])
    for start in range(0, len(x), BLOCK_ROWS):
        rows = x[start : start + BLOCK_ROWS]
        for other in range(start, len(x), BLOCK_ROWS):
            block = _kernel(rows @ x[other : other + BLOCK_ROWS].T, x.shape[1])
            sums[start : start + BLOCK_ROWS] += block.sum(axis=1)
            if other > start:
                sums[other : other + BLOCK_ROWS] += block.sum(axis=0)
    return sums


def _cross_sums(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of k(x_i, y_j) over j (n,) and over i (m,)."""
    of_x, of_y = np.zeros(len(x)), np.zeros(len(y))
    for start in range(0, len(x), BLOCK_ROWS):
        for other in range(0, len(y), BLOCK_ROWS):
            block = _kernel(x[start : start + BLOCK_ROWS] @ y[other : other + BLOCK_ROWS].T, x.shape[1])
            of_x[start : start + BLOCK_ROWS] += block.sum(axis=1)
            of_y[other : other + BLOCK_ROWS] += block.sum(axis=0)
    return of_x, of_y


def _kernel(products: NDArray[np.float64], dim: int) -> NDArray[np.float64]:
    base = products / dim + 1
    return base * base * base
