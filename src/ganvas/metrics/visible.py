"""Pixels as an eye sees them: the colours under a transparent pixel belong to no figure."""

import numpy as np
from numpy.typing import NDArray

from ganvas.metrics.features import prepare


def visible(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (N, C, H, W): RGBA (C = 4) composed on white, its alpha kept as the fourth channel; any other C as it is.

    So what lies hidden under alpha 0 changes nothing, while alpha itself is still looked at.
    """
    if images.shape[1] != 4:
        return images
    return np.concatenate([prepare(images, 3).numpy()[:, :3], images[:, 3:]], axis=1)
