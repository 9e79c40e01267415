"""What a generator makes its images from: z, and for a conditional one the image's class after it."""

import numpy as np
from numpy.typing import NDArray

from ganvas import rng
from ganvas.config import RunConfig
from ganvas.rng import Purpose


def latent_size(config: RunConfig) -> int:
    """Numbers that the generator takes for an image: z_dim, and one for each class that it is told."""
    return config.network.z_dim + config.num_classes


def draw_latents(
    config: RunConfig, seed: int, purpose: Purpose, indices: NDArray[np.int64], labels: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """What the generator takes for the images with these indices: (N, latent_size) float32, z and then the class, one-hot.

    labels: (N,), each image's class, -1 for none (a row of zeros); None = drawn as often as the training images have them.
    An unconditional generator takes z alone, whatever the labels.
    """
    z = rng.latents(seed, purpose, indices, config.network.z_dim, config.network.z_distribution)
    if not config.num_classes:
        return z
    labels = draw_labels(config, seed, indices) if labels is None else labels
    return np.concatenate([z, one_hot(labels, config.num_classes)], axis=1)


def draw_labels(config: RunConfig, seed: int, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """A class for each of these images, (N,), as often as the training images have it."""
    counts = np.array(config.data.class_counts, dtype=np.float64)
    ends = np.cumsum(counts / counts.sum())
    drawn = rng.uniforms(seed, Purpose.LABEL, indices, 1)[:, 0]
    return np.minimum(np.searchsorted(ends, drawn, side="right"), len(counts) - 1).astype(np.int64)


def one_hot(labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """(N,) to (N, classes) of 0 and 1; a label of -1 is a row of zeros."""
    hot: NDArray[np.float32] = (labels[:, None] == np.arange(classes)).astype(np.float32)
    return hot
