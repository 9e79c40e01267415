"""Sliced Wasserstein distance between the small patches of two sets of images, at each scale: needs no network and no labels.

Karras et al. 2018, section 5: a Laplacian pyramid (Burt & Adelson 1983), patches of 7x7 pixels, each channel normalised, and the
Wasserstein distance approximated by the sorted projections on random directions (Rabin et al. 2011).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ganvas.errors import DataError
from ganvas.metrics.visible import visible

PATCH = 7
SMALLEST_LEVEL = 2 * PATCH       # of the shorter side: 16 for powers of two as in the paper, 14 for MNIST
MOST_IMAGES = 2000
PATCHES = 32                     # of each image and level: 64,000 of 2,000 images; the paper has 128 of 16,384
DIRECTIONS = 256
BATCH_VALUES = 2**22             # of images at once
BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


class Sliced(NamedTuple):
    """Distances in units of the patches' standard deviation; tables print them times 1,000."""

    mean: float
    levels: tuple[tuple[str, float], ...]      # ("64x64", distance), width x height, finest first
    n: int                                     # images of each side


def sliced_wasserstein(real: NDArray[np.uint8], fake: NDArray[np.uint8], seed: int = 0) -> Sliced:
    """real, fake: uint8 (N, C, H, W) of one size and number of channels, at least 2 each; any size. RGBA is
    looked at as `visible` makes it.

    As many of both sides are taken: the lesser number, at most 2,000, drawn without replacement. Raises DataError otherwise.
    """
    if real.shape[1:] != fake.shape[1:]:
        raise DataError(f"reals are {_words(real)}, but fakes {_words(fake)}. "
                        "Bring both sides to one size and number of channels.")
    n = min(len(real), len(fake), MOST_IMAGES)
    if n < 2:
        raise DataError(f"{len(real):,} reals and {len(fake):,} fakes are too few to compare. Give at least 2 of each.")
    rng = np.random.Generator(np.random.Philox(seed))
    sides = [_patches(images[np.sort(rng.permutation(len(images))[:n])], rng) for images in (real, fake)]
    found = []
    for ours, theirs in zip(*sides, strict=True):
        size, reals, fakes = ours[0], ours[1], theirs[1]
        directions = torch.from_numpy(rng.standard_normal((reals.shape[1], DIRECTIONS)).astype(np.float32))
        directions /= directions.norm(dim=0)
        found.append((size, _distance(reals, fakes, directions)))
    return Sliced(float(np.mean([distance for _, distance in found])), tuple(found), n)


def laplacian_pyramid(images: Tensor) -> Iterator[Tensor]:
    """images: float (N, C, H, W). What each level holds beyond the next, finest first; the last level is the coarse image."""
    while (min(images.shape[2:]) + 1) // 2 >= SMALLEST_LEVEL:
        coarse = _blur(images, 1)[:, :, ::2, ::2]
        spread = torch.zeros_like(images)
        spread[:, :, ::2, ::2] = coarse
        yield images - _blur(spread, 4)          # 4: of four pixels three are empty
        images = coarse
    yield images


def _patches(images: NDArray[np.uint8], rng: np.random.Generator) -> list[tuple[str, Tensor]]:
    """(size, normalised patches (N * PATCHES, C * side²)) of each level."""
    parts: list[list[Tensor]] = []
    sizes: list[str] = []
    batch = max(1, BATCH_VALUES // images[0].size)
    for start in range(0, len(images), batch):
        for level, details in enumerate(laplacian_pyramid(torch.from_numpy(visible(images[start : start + batch])).float())):
            if level == len(parts):
                parts.append([])
                sizes.append(f"{details.shape[3]}x{details.shape[2]}")
            parts[level].append(_cut(details, rng))
    return [(size, _normalised(torch.cat(some))) for size, some in zip(sizes, parts, strict=True)]


def _cut(details: Tensor, rng: np.random.Generator) -> Tensor:
    """PATCHES places of each image: (N, C, H, W) to (N * PATCHES, C, side * side)."""
    n, channels, height, width = details.shape
    side = min(PATCH, height, width)
    y = torch.from_numpy(rng.integers(0, height - side + 1, (n, PATCHES, 1, 1)))
    x = torch.from_numpy(rng.integers(0, width - side + 1, (n, PATCHES, 1, 1)))
    within = torch.arange(side)
    places = ((y + within[:, None]) * width + x + within).view(n, 1, -1).expand(n, channels, -1)
    cut = details.reshape(n, channels, -1).gather(2, places).view(n, channels, PATCHES, side * side)
    return cut.transpose(1, 2).reshape(n * PATCHES, channels, side * side)


def _normalised(patches: Tensor) -> Tensor:
    """Each channel with mean 0 and deviation 1 over all patches of its set; a channel that never changes is left at 0."""
    deviation, mean = torch.std_mean(patches, dim=(0, 2), keepdim=True, correction=0)
    return ((patches - mean) / torch.where(deviation > 0, deviation, 1)).flatten(1)


def _distance(reals: Tensor, fakes: Tensor, directions: Tensor) -> float:
    """Mean over directions of the Wasserstein-1 distance of the projections."""
    total = 0.0
    for start in range(0, directions.shape[1], 32):
        some = directions[:, start : start + 32].T
        a, b = (np.sort((some @ patches.T).numpy(), axis=1) for patches in (reals, fakes))    # numpy sorts floats far faster
        total += float(np.abs(a - b).mean(axis=1, dtype=np.float64).sum())
    return total / directions.shape[1]


def _blur(images: Tensor, gain: float) -> Tensor:
    """5x5 binomial low-pass, borders mirrored."""
    x = F.pad(images, (2, 2, 2, 2), mode="reflect")
    height, width = images.shape[2:]
    # Sums of shifted images: several times faster than a convolution for each channel alone.
    x = sum((tap * x[:, :, shift : shift + height] for shift, tap in enumerate(BINOMIAL[1:], 1)), BINOMIAL[0] * x[:, :, :height])
    x = sum((tap * x[..., shift : shift + width] for shift, tap in enumerate(BINOMIAL[1:], 1)), BINOMIAL[0] * x[..., :width])
    return gain * x


def _words(images: NDArray[Any]) -> str:
    return f"{images.shape[3]}x{images.shape[2]} with {images.shape[1]} channels"
