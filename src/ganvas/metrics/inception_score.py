"""The Inception Score: how surely each image is of a class, and how evenly the classes come (Salimans et al. 2016, section 4).

It never sees the reals, so a generator that repeats one perfect image of each class has the best score there is.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import DataError
from ganvas.metrics.checks import checked


class InceptionScore(NamedTuple):
    """From 1 to the number of classes."""

    value: float            # mean over the splits
    spread: float           # standard deviation between the splits, which tables print as ±


def inception_score(probabilities: NDArray[Any], splits: int = 10, seed: int = 0) -> InceptionScore:
    """exp of the mean KL(p(y|x) ‖ p(y)), p(y) within each of `splits` equal parts of the shuffled images.

    probabilities: (n, K), rows that sum to 1, n at least 2 a split; the score rises with the images in a split, so compare
    scores of one n. Shuffled, because a folder may be sorted by class. Raises DataError for fewer images, for NaN, and for
    rows that are no probabilities.
    """
    rows = checked(probabilities, "images", 2 * splits).astype(np.float64)
    if (bad := int(((rows < 0).any(axis=1) | (np.abs(rows.sum(axis=1) - 1) > 1e-3)).sum())):
        raise DataError(f"the class probabilities of {bad:,} of {len(rows):,} images are negative or do not sum to 1. "
                        "Let the extractor give probabilities (after a softmax), not logits.")
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(rows))
    scores = [_score(rows[part]) for part in np.array_split(order, splits)]
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)))


def _score(rows: NDArray[np.float64]) -> float:
    marginal = rows.mean(axis=0)
    # 0 log 0 = 0; where the marginal is 0, so is every row.
    ratios = np.divide(rows, marginal, out=np.ones_like(rows), where=rows > 0)
    return float(np.exp((rows * np.log(ratios)).sum(axis=1).mean()))
