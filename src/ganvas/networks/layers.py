"""The convolutions of our networks: torch's layers, whose kernels may be chosen, and their precision under autocast."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ganvas.ops.convolution import Geometry, Kernels, Pair, down, up
from ganvas.ops.precision import lower, lowers

NATIVE = Kernels()


class Conv2d(nn.Conv2d):
    """torch's convolution, by `kernels`. Only zero padding, no dilation, no groups; those are for nn.Conv2d itself."""

    kernels: Kernels = NATIVE              # set by whoever has measured which are fastest here

    def forward(self, x: Tensor, biased: bool = True) -> Tensor:
        """(N, C, H, W) to (N, K, h, w); under autocast in its precision. biased: add the bias, where there is one."""
        bias = self.bias if biased else None
        if self.kernels == NATIVE:
            return self._conv_forward(x, self.weight, bias)            # type: ignore[no-any-return]
        return down(lower(x), lower(self.weight), _lower(bias), self.geometry, self.kernels)

    @property
    def geometry(self) -> Geometry:
        """How the convolution lies on its image."""
        return _geometry(self)

    def sides(self, x: Tensor) -> tuple[Pair, Pair]:
        """The sizes of the big image and of the small one, where `x` goes in."""
        return (x.shape[2], x.shape[3]), self.geometry.small(x.shape[2], x.shape[3])


class ConvTranspose2d(nn.ConvTranspose2d):
    """torch's transposed convolution, by `kernels`; as Conv2d."""

    kernels: Kernels = NATIVE

    def forward(self, x: Tensor, output_size: list[int] | None = None, biased: bool = True) -> Tensor:
        """(N, K, h, w) to (N, C, H, W); under autocast in its precision. biased: add the bias, where there is one."""
        assert output_size is None, "ours always have one size"
        bias = self.bias if biased else None
        if self.kernels == NATIVE:
            assert not isinstance(self.padding, str), "a number of pixels"
            return F.conv_transpose2d(x, self.weight, bias, self.stride, self.padding, self.output_padding)
        big, _ = self.sides(x)
        return up(lower(x), lower(self.weight), _lower(bias), big, self.geometry, self.kernels)

    @property
    def geometry(self) -> Geometry:
        """How the convolution that this one is the transpose of lies on its image."""
        return _geometry(self)

    def sides(self, x: Tensor) -> tuple[Pair, Pair]:
        """The sizes of the big image and of the small one, where `x` goes in."""
        geometry, extra = self.geometry, self.output_padding
        height, width = ((n - 1) * stride + kernel - before - after + more for n, stride, kernel, before, after, more in zip(
            x.shape[2:], geometry.stride, geometry.kernel, geometry.before, geometry.after, extra, strict=True))
        return (height, width), (x.shape[2], x.shape[3])


class SamePadConv2d(Conv2d):
    """5x5 stride-2 convolution padded as Keras 'same' pads an even size: 1 row and column before, 2 after."""

    def forward(self, x: Tensor, biased: bool = True) -> Tensor:        # (N, in, 2H, 2W) to (N, out, H, W)
        return super().forward(F.pad(x, (1, 2, 1, 2)) if self.kernels == NATIVE else x, biased)

    @property
    def geometry(self) -> Geometry:
        return _geometry(self)._replace(before=(1, 1), after=(2, 2))


class SameCropConvTranspose2d(ConvTranspose2d):
    """The transpose of SamePadConv2d: 1 row and column cropped before, 2 after. `padding=2` would be shifted by a pixel."""

    def forward(self, x: Tensor, output_size: list[int] | None = None, biased: bool = True) -> Tensor:
        made = super().forward(x, output_size, biased)                                      # (N, in, H, W)
        return made[..., 1:-2, 1:-2] if self.kernels == NATIVE else made                    # (N, out, 2H, 2W)

    @property
    def geometry(self) -> Geometry:
        return _geometry(self)._replace(before=(1, 1), after=(2, 2))


class Block(nn.Sequential):
    """A convolution and what follows it; in bfloat16 it keeps a bias out of what batch norm is about to centre.

    Batch norm takes the bias away again, so its gradient is zero but for rounding. In bfloat16, though, a value next to a large
    bias has few bits left for what varies: at the start of coursera-mnist-28 nothing of G's gradient was left.
    """

    def forward(self, x: Tensor) -> Tensor:
        conv: Any = self[0]
        norm = self[1]
        if lowers(x) and isinstance(norm, nn.BatchNorm2d) and norm.training and conv.bias is not None:
            x = _normalised(conv(x, biased=False), conv.bias.detach(), norm)
            for layer in list(self)[2:]:
                x = layer(x)
        else:
            for layer in self:
                x = layer(x)
        return x


def _normalised(y: Tensor, bias: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """norm(y + bias) in train mode, computed without the bias, which only the running average sees."""
    if norm.running_mean is None or norm.num_batches_tracked is None:
        return F.batch_norm(y, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)
    assert norm.momentum is not None, "no plain mean over the batches: that is for statistics of finished networks, in float32"
    norm.num_batches_tracked += 1
    mean = norm.running_mean - bias                            # a tensor of its own: backward must find it unchanged
    normalised = F.batch_norm(y, mean, norm.running_var, norm.weight, norm.bias, True, norm.momentum, norm.eps)
    norm.running_mean.copy_(mean + bias)
    return normalised


def _geometry(layer: nn.Conv2d | nn.ConvTranspose2d) -> Geometry:
    assert layer.groups == 1 and layer.dilation == (1, 1) and not isinstance(layer.padding, str), "plain convolutions only"
    (kernel_y, kernel_x), (stride_y, stride_x), (pad_y, pad_x) = layer.kernel_size, layer.stride, layer.padding
    return Geometry((kernel_y, kernel_x), (stride_y, stride_x), (pad_y, pad_x), (pad_y, pad_x))


def _lower(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else lower(tensor)
