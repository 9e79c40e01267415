"""Are samples nearer to the training images than new reals are? The three-sample test of Meehan, Chaudhuri & Dasgupta 2020.

"A Non-Parametric Test to Detect Data-Copying in Generative Models". It sees copying that is spread over all samples, none of
which need stand out; `copies` names single ones.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ganvas import rng
from ganvas.errors import DataError
from ganvas.metrics.checks import checked, checked_pair
from ganvas.metrics.nearest import k_nearest

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

CELL = 20              # samples, and reals, that a cell needs: the U statistic is then nearly normal
USUAL_CELL = 60        # of the smaller side that a cell holds on average
MOST_CELLS = 20
FAR = 4.0              # standard deviations that C_T must be away from 0: new reals scatter by 1.0 to 1.2 of them
MOST_REALS = 5000      # training images that stand for a hold-out
FITTED = 20_000        # images that cells are made of
HIGHEST_SEED = 2**32


@dataclass(frozen=True)
class DataCopying:
    """Whether samples lie nearer to the training images than reals that were not trained on do."""

    c_t: float | None                  # mean Z of the cells, weighted by the reals in them; below 0 = copying; None: no cell
    scatter: float                     # standard deviation of C_T, or of Z where no cell is used, were the samples new reals
    z_global: float                    # the same without cells
    z_lowest: float | None             # of the cell that looks most like copying
    cells: int
    cells_used: int                    # with enough samples and reals
    samples: int
    reals: int                         # held-out ones; training images, where there are none
    by: Literal["holdout", "train"]
    verdict: Literal["copying", "none", "underfit"]
    text: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def data_copying(train: Floats, holdout: Floats | None, samples: Floats, *, train_groups: Indices | None = None,
                 cells: int | None = None, seed: int = 0) -> DataCopying:
    """The paper's C_T, from features of N training images, H held-out reals and M samples, each (., d).

    Space is divided by k-means of the training images, `cells` of them (None = by the number of reals and samples); where
    training images stand for held-out ones, by k-means of both. In each cell the distances of its samples to its nearest
    training image are ranked among those of its held-out reals: Z of the Mann-Whitney U statistic, 0 where both are alike.
    Cells that hold fewer than 20 of either are left out. The verdict is by C_T over its standard deviation, sqrt(sum w^2) of
    the cells' weights w, as each Z scatters by 1.
    holdout: None = training images stand for it, at most 5,000, each compared with the others but those of its group
    (train_groups: (N,) integers, equal for the same pixels; other twins stay, for new reals have such as well). Raises
    DataError for fewer than 20 samples or reals, or features that are not finite.
    """
    train, samples = checked_pair(train, samples, CELL)
    groups = np.arange(len(train)) if train_groups is None else np.asarray(train_groups)
    chosen = np.sort(rng.permute(np.arange(min(MOST_REALS, len(train))), len(train), seed, rng.Purpose.SUBSET, 3))
    own = groups[chosen] if holdout is None else None
    reals = train[chosen] if holdout is None else checked_pair(train, checked(holdout, "held-out reals"))[1]
    for count, what in ((len(reals), "held-out reals"), (len(samples), "samples")):
        if count < CELL:
            raise DataError(f"{count:,} {what}, but the data-copying test needs at least {CELL}. Hold out more, or leave it out.")
    cells = cells or max(1, min(MOST_CELLS, min(len(samples), len(reals)) // USUAL_CELL))
    # Cells that fit the training images alone lie closer around them than around new reals, and they are not to stand out.
    centres = _centres(train if holdout is not None else np.concatenate([train, samples]), cells, seed)
    of_train, of_reals, of_samples = (k_nearest(some, centres, 1)[1][:, 0] for some in (train, reals, samples))
    z_cells, weights = [], []
    for cell in range(len(centres)):
        t, r, s = of_train == cell, of_reals == cell, of_samples == cell
        if min(int(r.sum()), int(s.sum())) >= CELL and t.sum() >= 2:
            z_cells.append(_z(train[t], reals[r], samples[s], None if own is None else (own[r], groups[t])))
            weights.append(int(r.sum()))
    z_global = z_cells[0] if len(centres) == 1 and z_cells else _z(train, reals, samples, None if own is None else (own, groups))
    c_t = float(np.average(z_cells, weights=weights)) if z_cells else None
    told = c_t if c_t is not None else z_global
    scatter = sum(weight**2 for weight in weights)**0.5 / sum(weights) if weights else 1.0
    far = told / scatter
    verdict: Literal["copying", "none", "underfit"] = "copying" if far <= -FAR else "underfit" if far >= FAR else "none"
    meaning = {"copying": "samples lie nearer to the training images than other reals do: copying",
               "none": "samples lie as near to the training images as other reals do",
               "underfit": "samples lie farther from the training images than other reals do: no copying, nor real yet"}[verdict]
    figure = f"{told:+.1f} ± {scatter:.1f}, "
    figure = f"C_T {figure}{len(z_cells)} of {len(centres)} cells" if c_t is not None else f"Z {figure}cells too small"
    return DataCopying(c_t, scatter, z_global, min(z_cells) if z_cells else None, len(centres), len(z_cells), len(samples),
                       len(reals), "holdout" if holdout is not None else "train", verdict, f"{meaning} ({figure})")


def _centres(images: Floats, cells: int, seed: int) -> NDArray[np.float64]:
    """(at most cells, d): k-means of the images, or of every so manyth."""
    from sklearn.cluster import KMeans

    some = images[::-(-len(images) // FITTED)].astype(np.float64)
    cells = min(cells, len(np.unique(some, axis=0))) if len(some) <= 10 * cells else cells
    found: NDArray[np.float64] = KMeans(cells, n_init=1, random_state=seed % HIGHEST_SEED).fit(some).cluster_centers_
    return found


def _z(train: Floats, reals: Floats, samples: Floats, own: tuple[Indices, Indices] | None) -> float:
    """Z of the number of pairs in which the sample is farther from its nearest training image than the real from its own.

    own: groups of the reals and the training images, where these are the same images.
    """
    from scipy.stats import rankdata

    near_reals, near_samples = k_nearest(reals, train, 1, own)[0][:, 0], k_nearest(samples, train, 1)[0][:, 0]
    near_reals = near_reals[np.isfinite(near_reals)]                   # images of a cell that one group fills have no other
    m, n = len(near_samples), len(near_reals)
    if not n:
        return 0.0
    ranks = rankdata(np.concatenate([near_samples, near_reals]))
    u = ranks[:m].sum() - m * (m + 1) / 2
    _, ties = np.unique(ranks, return_counts=True)
    # Ties, all copies at distance 0, lessen the variance.
    variance = m * n / 12 * (m + n + 1 - float((ties.astype(np.float64)**3 - ties).sum()) / ((m + n) * (m + n - 1)))
    return float((u - m * n / 2) / variance**0.5) if variance > 0 else 0.0
