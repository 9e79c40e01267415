"""The DCGAN family (Radford et al. 2015, arXiv 1511.06434), any size, with exactly the switches the classics need."""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor, nn

from ganvas.errors import ConfigError
from ganvas.networks.layers import Block, Conv2d, ConvTranspose2d, SameCropConvTranspose2d, SamePadConv2d
from ganvas.networks.shapes import Stages, stages, widths
from ganvas.ops.precision import full

Padding = Literal["symmetric", "keras_same"]
Norm2d = Callable[[int], nn.Module]


def halving_conv(in_maps: int, out_maps: int, kernel: int, padding: Padding, bias: bool) -> nn.Module:
    """Stride-2 convolution, (N, in, 2H, 2W) to (N, out, H, W)."""
    if padding == "keras_same":
        return SamePadConv2d(in_maps, out_maps, kernel, stride=2, bias=bias)
    return Conv2d(in_maps, out_maps, kernel, stride=2, padding=(kernel - 1) // 2, bias=bias)


def doubling_conv(in_maps: int, out_maps: int, kernel: int, padding: Padding, bias: bool) -> nn.Module:
    """Stride-2 transposed convolution, (N, in, H, W) to (N, out, 2H, 2W)."""
    if padding == "keras_same":
        return SameCropConvTranspose2d(in_maps, out_maps, kernel, stride=2, bias=bias)
    odd = kernel % 2
    return ConvTranspose2d(in_maps, out_maps, kernel, 2, (kernel - 1) // 2, output_padding=odd, bias=bias)


def activation(slope: float) -> nn.Module:
    """ReLU, or leaky ReLU with this negative slope."""
    return nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)


class Generator(nn.Module):
    """z to images: a stem to 3-8 pixels, then one transposed convolution for each doubling, tanh at the end."""

    def __init__(
        self, image_size: tuple[int, int], image_channels: int, z_dim: int, channels: int, *, kernel: int, padding: Padding,
        conv_bias: bool, linear_bias: bool, stem: Literal["conv", "linear"], stem_norm: Literal["maps", "units"],
        stem_slope: float, slope: float, bn_eps: float, bn_momentum: float, bn_running: bool,
    ):
        super().__init__()
        self.image_size, self.image_channels, self.z_dim = image_size, image_channels, z_dim
        base_height, base_width, doublings = stages_of(image_size)
        self.base = (base_height, base_width)
        self.min_batch = 2 if stem_norm == "units" else 1         # a unit's statistics need two images
        norm: Norm2d = partial(nn.BatchNorm2d, eps=bn_eps, momentum=bn_momentum, track_running_stats=bn_running)
        first, *others = reversed(widths(channels, doublings))

        if stem == "conv":
            self.stem: nn.Module = ConvTranspose2d(z_dim, first, self.base, bias=conv_bias)
        else:
            self.stem = nn.Linear(z_dim, first * math.prod(self.base), bias=linear_bias)
        if stem_norm == "units":
            self.stem_norm: nn.Module = nn.BatchNorm1d(
                first * math.prod(self.base), bn_eps, bn_momentum, track_running_stats=bn_running)
        else:
            self.stem_norm = norm(first)
        self.stem_act = activation(stem_slope)
        self.blocks = nn.ModuleList()
        for in_maps, out_maps in zip([first, *others], others, strict=False):
            self.blocks.append(Block(
                doubling_conv(in_maps, out_maps, kernel, padding, conv_bias), norm(out_maps), activation(slope)))
        self.to_image = doubling_conv(others[-1] if others else first, image_channels, kernel, padding, conv_bias)

    def forward(self, z: Tensor) -> Tensor:                             # (N, z_dim)
        if isinstance(self.stem, nn.Linear):
            x = self.stem(z)                                            # (N, first * base_h * base_w)
            if isinstance(self.stem_norm, nn.BatchNorm1d):
                x = self.stem_norm(x).unflatten(1, (-1, *self.base))
            else:
                x = self.stem_norm(x.unflatten(1, (-1, *self.base)))
        else:
            x = self.stem_norm(self.stem(z[:, :, None, None]))          # (N, first, base_h, base_w)
        x = self.stem_act(x)
        for block in self.blocks:
            x = block(x)                                                # maps halved, sides doubled
        images, exact = full(self.to_image(x))
        with exact:
            return images.tanh()                                        # (N, C, H, W) in [-1, 1]


class Discriminator(nn.Module):
    """Images to logits: one stride-2 convolution for each halving, then one number; no pooling."""

    def __init__(
        self, image_size: tuple[int, int], image_channels: int, channels: int, *, kernel: int, padding: Padding,
        conv_bias: bool, linear_bias: bool, head: Literal["conv", "linear"], slope: float, norm_first: bool,
        norm_last: bool, bn_eps: float, bn_momentum: float, bn_running: bool,
    ):
        super().__init__()
        self.image_size, self.image_channels, self.min_batch = image_size, image_channels, 1
        base_height, base_width, doublings = stages_of(image_size)
        norm: Norm2d = partial(nn.BatchNorm2d, eps=bn_eps, momentum=bn_momentum, track_running_stats=bn_running)
        maps = widths(channels, doublings)
        self.blocks = nn.ModuleList()
        for i, (in_maps, out_maps) in enumerate(zip([image_channels, *maps], maps, strict=False)):
            conv = halving_conv(in_maps, out_maps, kernel, padding, conv_bias)
            tail = [norm(out_maps)] if i > 0 or norm_first else []
            tail.insert(0 if norm_last else len(tail), activation(slope))
            self.blocks.append(Block(conv, *tail))
        if head == "conv":
            self.head: nn.Module = Conv2d(maps[-1], 1, (base_height, base_width), bias=conv_bias)
        else:
            self.head = nn.Sequential(nn.Flatten(), nn.Linear(maps[-1] * base_height * base_width, 1, bias=linear_bias))

    def forward(self, images: Tensor) -> Tensor:       # (N, C, H, W) in [-1, 1]
        x = images
        for block in self.blocks:
            x = block(x)                               # maps doubled, sides halved
        x, exact = full(x)
        with exact:
            logits: Tensor = self.head(x)              # (N, 1, 1, 1) or (N, 1)
        return logits.flatten()                        # (N,)


def stages_of(image_size: tuple[int, int]) -> Stages:
    """shapes.stages of an image size that must have some. Raises ConfigError."""
    found = stages(*image_size)
    if found is None:
        raise ConfigError(f"{image_size[1]}x{image_size[0]} images: each side must be 3 to 8 pixels doubled equally often, "
                          "for example 64x64, 48x64 or 96x96.")
    return found
