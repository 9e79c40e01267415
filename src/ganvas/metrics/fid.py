"""The Fréchet distance between two sets of features, seen as Gaussians: FID where the features are Inception's.

d² = |m1 - m2|² + tr Σ1 + tr Σ2 - 2 tr (Σ1 Σ2)^½   (Dowson & Landau 1982, eq. 4; Heusel et al. 2017, eq. 6)

With Σ1 = F1 F1ᵀ and Σ2 = F2 F2ᵀ the last trace is the nuclear norm of F1ᵀ F2, the sum of its singular values: real and never
negative, whatever the ranks. Any factor will do: with n <= d rows it is the centred rows themselves over √(n - 1), otherwise
Σ^½'s columns. Everything is float64: the covariance's small eigenvalues vanish in float32.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import DataError
from ganvas.metrics.checks import checked, checked_pair

Matrix = NDArray[np.float64]


class Moments(NamedTuple):
    """What a Gaussian is known by, gathered in one pass or from parts."""

    n: int
    mean: Matrix             # (d,)
    scatter: Matrix          # (d, d): sum of the centred rows' outer products

    @classmethod
    def of(cls, vectors: NDArray[Any]) -> "Moments":
        """vectors: (n, d), n from 1. Raises DataError for NaN or infinity."""
        centred = checked(vectors, "this part", 1).astype(np.float64)
        mean = centred.mean(axis=0)
        centred -= mean
        return cls(len(centred), mean, centred.T @ centred)    # numpy sees the symmetry here, and does half of the work

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both parts together (Chan, Golub & LeVeque 1983, eq. 2.1)."""
        n, difference = self.n + other.n, other.mean - self.mean
        return Moments(n, self.mean + difference * (other.n / n),
                       self.scatter + other.scatter + np.outer(difference, difference) * (self.n * other.n / n))

    @property
    def covariance(self) -> Matrix:
        """(d, d), unbiased: over n - 1. Raises DataError for one row."""
        if self.n < 2:
            raise DataError(f"a covariance needs at least 2 images, but here is {self.n}. Give more images.")
        return self.scatter / (self.n - 1)


class Reference(NamedTuple):
    """A set made ready to be compared with: its factor is the dear part, and is worth keeping."""

    n: int
    mean: Matrix             # (d,)
    trace: float             # of the covariance
    factor: Matrix           # (d, r) with factor @ factor.T = covariance

    @classmethod
    def of(cls, vectors: NDArray[Any], what: str = "reals") -> "Reference":
        """vectors: (n, d), n from 2. Raises DataError for fewer rows, for NaN or infinity, naming `what`."""
        n, d = checked(vectors, what).shape
        if n > d:
            return cls.from_moments(Moments.of(vectors))
        mean, factor = _centred_factor(vectors)
        return cls(n, mean, float(np.square(factor).sum()), factor)

    @classmethod
    def from_moments(cls, moments: Moments) -> "Reference":
        """The same from the moments alone, by an eigen decomposition of the covariance."""
        covariance = moments.covariance
        values, vectors = np.linalg.eigh(covariance)
        # Below these the eigenvalues are rounding.
        kept = values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0.0)
        return cls(moments.n, moments.mean, float(covariance.trace()), vectors[:, kept] * np.sqrt(values[kept]))


def fid(real: NDArray[Any], fake: NDArray[Any]) -> float:
    """The Fréchet distance, squared as in all tables, between reals (n, d) and fakes (m, d); n and m from 2. Not negative."""
    real, fake = checked_pair(real, fake)
    return fid_against(Reference.of(real), fake)


def fid_against(reference: Reference, fake: NDArray[Any]) -> float:
    """As `fid`, against a set made ready: the fakes' covariance, two products and the eigenvalues of one matrix."""
    n, d = checked(fake, "fakes").shape
    if d != len(reference.mean):
        raise DataError(f"reals have {len(reference.mean):,} features an image, but fakes {d:,}. "
                        "Use one extractor on both sides.")
    if n > d and reference.n > d:
        return frechet(reference, Moments.of(fake))
    return _distance(reference, other := Reference.of(fake, "fakes"), _nuclear_norm(reference.factor.T @ other.factor))


def frechet(reference: Reference, other: Moments) -> float:
    """The Fréchet distance, squared, from the moments of the other set. With n <= d rows `fid_against` is exacter."""
    covariance = other.covariance
    # Its eigenvalues are those of Σ1 Σ2, but it is symmetric: they are real, and below 0 only by rounding.
    product = reference.factor.T @ covariance @ reference.factor
    root_trace = float(np.sqrt(np.clip(np.linalg.eigvalsh(product), 0, None)).sum())
    return _distance(reference, Reference(other.n, other.mean, float(covariance.trace()), reference.factor[:, :0]), root_trace)


def _distance(a: Reference, b: Reference, root_trace: float) -> float:
    return max(0.0, float(np.square(a.mean - b.mean).sum()) + a.trace + b.trace - 2 * root_trace)


def _centred_factor(vectors: NDArray[Any]) -> tuple[Matrix, Matrix]:
    centred = vectors.astype(np.float64)
    mean = centred.mean(axis=0)
    centred -= mean
    return mean, centred.T / np.sqrt(len(centred) - 1)


def _nuclear_norm(matrix: Matrix) -> float:
    """The sum of the singular values; not through squares, which lose those below 1e-8 of the largest."""
    return float(np.linalg.svd(matrix, compute_uv=False).sum()) if matrix.size else 0.0
