"""What a step draws besides z: how D's images are changed, and where the penalties look; functions of (seed, image index)."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ganvas import rng
from ganvas.ops.diff_augment import DRAWS, Policy, diff_augment
from ganvas.rng import Purpose


@dataclass(frozen=True)
class Draws:
    """The draws for the images with these running indices."""

    seed: int
    indices: NDArray[np.int64]             # (N,)
    policy: Policy | None                  # None = D sees the images as they are

    def augmented(self, images: Tensor, purpose: Purpose) -> Tensor:
        """`images` (N, C, H, W) as D sees them; gradients flow through."""
        if self.policy is None:
            return images
        drawn = rng.uniforms(self.seed, purpose, self.indices, DRAWS).astype(np.float32)
        return diff_augment(images, torch.from_numpy(drawn).to(images.device), self.policy)

    def signs(self, images: Tensor, purpose: Purpose) -> Tensor:
        """-1 or 1 for each number of `images`, of their shape, dtype and place."""
        drawn = rng.signs(self.seed, purpose, self.indices, images[0].numel())
        return torch.from_numpy(drawn).to(images).view(images.shape)

    def shares(self, images: Tensor) -> Tensor:
        """(N,) uniform in (0, 1), where `images` lie."""
        drawn = rng.uniforms(self.seed, Purpose.PENALTY, self.indices, 1)[:, 0]
        return torch.from_numpy(drawn).to(images)


NOTHING = Draws(0, np.empty(0, np.int64), None)        # for steps without augmentation, and penalties that draw nothing
