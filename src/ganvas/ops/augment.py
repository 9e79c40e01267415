"""Changes made to each image on its own: rotation about the centre and mirroring."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ganvas import rng
from ganvas.rng import Purpose

BLACK = -1.0


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Each image turned about its centre by its own angle, counter-clockwise, on a canvas of the same size.

    Nearest neighbour, and black (-1) where no pixel of the source lands: what torchvision's `rotate` does with
    `InterpolationMode.NEAREST` and fill=-1, apart from pixels that fall halfway between two.
    images: (N, C, H, W), float, any device. degrees: (N,); best on the CPU, where the sines are taken in float64, so
    that every device is given the same ones.
    """
    n, channels, height, width = images.shape
    radians = torch.deg2rad(degrees.cpu().double())
    cos, sin = (f(radians).to(images.device, torch.float32).view(n, 1, 1) for f in (torch.cos, torch.sin))
    y = torch.arange(height, device=images.device, dtype=torch.float32).view(1, height, 1) - (height - 1) / 2
    x = torch.arange(width, device=images.device, dtype=torch.float32).view(1, 1, width) - (width - 1) / 2
    # y points down, so the pixel shown at (x, y) comes from:
    source_x = torch.round(x * cos - y * sin + (width - 1) / 2).long()  # (N, H, W)
    source_y = torch.round(x * sin + y * cos + (height - 1) / 2).long()
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    source = source_y.clamp(0, height - 1) * width + source_x.clamp(0, width - 1)
    source = source.view(n, 1, height * width).expand(n, channels, height * width)
    turned = images.reshape(n, channels, height * width).gather(2, source).view(images.shape)
    return torch.where(inside.unsqueeze(1), turned, BLACK)


def flip(images: Tensor, mask: Tensor) -> Tensor:
    """The images with those in `mask` mirrored left to right. images: (N, C, H, W). mask: (N,) bool, same device."""
    return torch.where(mask.view(-1, 1, 1, 1), images.flip(3), images)


def augment(images: Tensor, seed: int, indices: NDArray[np.int64], rotation_degrees: float, mirror: bool) -> Tensor:
    """The images turned by angles uniform in ±rotation_degrees, then mirrored with probability 1/2.

    What happens to an image depends only on the seed and its running index in the run, not on its batch. With rotation
    0 and no mirroring, `images` itself.
    images: (N, C, H, W), float in [-1, 1], any device. indices: (N,), not negative.
    """
    if rotation_degrees:
        angles = rotation_degrees * (2 * rng.uniforms(seed, Purpose.ROTATION, indices, 1)[:, 0] - 1)
        images = rotate(images, torch.from_numpy(angles))
    if mirror:
        mirrored = rng.uniforms(seed, Purpose.FLIP, indices, 1)[:, 0] < 0.5
        images = flip(images, torch.from_numpy(mirrored).to(images.device))
    return images
