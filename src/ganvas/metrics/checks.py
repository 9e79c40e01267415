"""What every metric asks of features before it counts with them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import DataError


def checked(vectors: NDArray[Any], what: str, least: int = 2) -> NDArray[Any]:
    """The features themselves, (N, d), once they are found to be finite and enough.

    what: whose features these are, such as "reals", for the message. Raises DataError that gives the number of bad
    rows, or of rows missing.
    """
    vectors = np.asarray(vectors)
    if vectors.ndim != 2:
        raise DataError(f"features of the {what} have the shape {vectors.shape}, but must be (number of images, features). "
                        "Let the extractor give one row for each image.")
    if len(vectors) < least:
        raise DataError(f"{what}: {len(vectors):,} images, but this metric needs at least {least:,}. Give more images.")
    if vectors.dtype.kind == "f":
        bad = len(vectors) - int(np.isfinite(vectors).all(axis=1).sum())
        if bad:
            raise DataError(f"{what}: the features of {bad:,} of {len(vectors):,} images hold NaN or infinity. "
                            "Look at those images, or take another extractor.")
    return vectors


def checked_pair(real: NDArray[Any], fake: NDArray[Any], least: int = 2) -> tuple[NDArray[Any], NDArray[Any]]:
    """Features of reals (N, d) and fakes (M, d), both checked. Raises DataError also where their d differ."""
    real, fake = checked(real, "reals", least), checked(fake, "fakes", least)
    if real.shape[1] != fake.shape[1]:
        raise DataError(f"reals have {real.shape[1]:,} features an image, but fakes {fake.shape[1]:,}. Use one extractor, "
                        "and for pixels one image size, on both sides.")
    return real, fake
