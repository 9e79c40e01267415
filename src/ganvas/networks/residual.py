"""The modern family: a DCGAN's strides with residual blocks between them, no norm in D, and classes where they are known.

From "The GAN is dead; long live the GAN!" (Huang et al. 2025, arXiv 2501.05441) are the blocks that start as nothing, the
missing norm in D, and the regularised pairing that it is trained by. What costs a CPU most, work at full resolution, is left
to the two outermost convolutions, as in DCGAN.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ganvas.networks.dcgan import doubling_conv, halving_conv, stages_of
from ganvas.networks.layers import Block, Conv2d
from ganvas.networks.shapes import widths
from ganvas.ops.precision import full

SLOPE = 0.2


class ResidualBlock(nn.Module):
    """x plus two convolutions of it; the last one starts at zero, so that the block starts as nothing (arXiv 2501.05441, 3.3)."""

    def __init__(self, maps: int, norm: bool):
        super().__init__()
        self.first = Block(Conv2d(maps, maps, 3, padding=1, bias=not norm), *_norm(maps, norm), nn.LeakyReLU(SLOPE, inplace=True))
        self.last = Conv2d(maps, maps, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:                     # (N, maps, H, W)
        changed: Tensor = self.last(self.first(x))
        return x + changed                                      # (N, maps, H, W)


class Generator(nn.Module):
    """z (and the class, one-hot, after it) to images: a linear stem to 3-8 pixels, then blocks and a doubling at each size."""

    min_batch = 1

    def __init__(
        self, image_size: tuple[int, int], image_channels: int, z_dim: int, num_classes: int, channels: int, depth: int,
        norm: Literal["batch", "none"],
    ):
        super().__init__()
        self.image_size, self.image_channels, self.z_dim, self.num_classes = image_size, image_channels, z_dim, num_classes
        base_height, base_width, doublings = stages_of(image_size)
        self.base, normed = (base_height, base_width), norm == "batch"
        first, *others = reversed(widths(channels, doublings))
        # A class is a row of the stem's weights: an embedding, added to what z makes.
        self.stem = nn.Linear(z_dim + num_classes, first * math.prod(self.base), bias=not normed)
        self.stem_norm = nn.Sequential(*_norm(first, normed), nn.LeakyReLU(SLOPE, inplace=True))
        self.stages = nn.ModuleList()
        for in_maps, out_maps in zip([first, *others], others, strict=False):
            self.stages.append(nn.Sequential(
                *(ResidualBlock(in_maps, normed) for _ in range(depth)),
                Block(doubling_conv(in_maps, out_maps, 4, "symmetric", bias=not normed), *_norm(out_maps, normed),
                      nn.LeakyReLU(SLOPE, inplace=True))))
        last = others[-1] if others else first
        self.stages.append(nn.Sequential(
            *(ResidualBlock(last, normed) for _ in range(depth)), doubling_conv(last, image_channels, 4, "symmetric", bias=True)))

    def forward(self, z: Tensor) -> Tensor:                             # (N, z_dim + num_classes)
        x = self.stem_norm(self.stem(z).unflatten(1, (-1, *self.base)))  # (N, first, base_h, base_w)
        for stage in self.stages:
            x = stage(x)                                                # maps halved, sides doubled
        images, exact = full(x)
        with exact:
            return images.tanh()                                        # (N, C, H, W) in [-1, 1]


class Discriminator(nn.Module):
    """Images to logits: a halving and blocks at each size, then one number; with classes, also how well the image fits its own.

    The latter is a projection (Miyato & Koyama 2018, arXiv 1802.05637): the product of the maps' sums with the class's vector.
    """

    min_batch = 1

    def __init__(self, image_size: tuple[int, int], image_channels: int, num_classes: int, channels: int, depth: int):
        super().__init__()
        self.image_size, self.image_channels, self.num_classes = image_size, image_channels, num_classes
        base_height, base_width, doublings = stages_of(image_size)
        maps = widths(channels, doublings)
        self.stages = nn.ModuleList()
        for in_maps, out_maps in zip([image_channels, *maps], maps, strict=False):
            self.stages.append(nn.Sequential(
                Block(halving_conv(in_maps, out_maps, 4, "symmetric", bias=True), nn.LeakyReLU(SLOPE, inplace=True)),
                *(ResidualBlock(out_maps, norm=False) for _ in range(depth))))
        self.head = nn.Linear(maps[-1] * base_height * base_width, 1)
        self.classes = nn.Embedding(num_classes, maps[-1]) if num_classes else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:     # (N, C, H, W) in [-1, 1], (N,) int64
        x = images
        for stage in self.stages:
            x = stage(x)                                        # maps doubled, sides halved
        x, exact = full(x)
        with exact:
            logits: Tensor = self.head(x.flatten(1)).flatten()
            if self.classes is not None and labels is not None:
                known = (labels >= 0).to(x.dtype)               # an image without a class has no vector to fit
                fits = (self.classes(labels.clamp_min(0)) * x.sum((2, 3))).sum(1) / math.sqrt(x.shape[1])
                logits = logits + known * fits
        return logits                                           # (N,)


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """Draws the weights from torch's generator: N(0, .02) as in DCGAN, biases 0, and 0 for what ends a residual block."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            module.weight.normal_(0.0, 0.02)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(0.0, 0.02)
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            module.last.weight.zero_()


def _norm(maps: int, normed: bool) -> list[nn.Module]:
    return [nn.BatchNorm2d(maps)] if normed else []
