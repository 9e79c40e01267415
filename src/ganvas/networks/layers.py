"""The convolutions of our networks: torch's layers, whose kernels may be chosen, and their precision under autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from ganvas.ops.convolution import Geometry, Kernels, Pair, down, up

NATIVE = Kernels()


class Conv2d(nn.Conv2d):
    """torch's convolution, by `kernels`. Only zero padding, no dilation, no groups; those are for nn.Conv2d itself."""

    kernels: Kernels = NATIVE              # set by whoever has measured which are fastest here

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, K, h, w); under autocast in its precision."""
        if self.kernels == NATIVE:
            return super().forward(x)
        return down(lower(x), lower(self.weight), _lower(self.bias), self.geometry, self.kernels)

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

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, K, h, w) to (N, C, H, W); under autocast in its precision."""
        if self.kernels == NATIVE or output_size is not None:
            return super().forward(x, output_size)
        big, _ = self.sides(x)
        return up(lower(x), lower(self.weight), _lower(self.bias), big, self.geometry, self.kernels)

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

    def forward(self, x: Tensor) -> Tensor:                             # (N, in, 2H, 2W)
        if self.kernels == NATIVE:
            return super().forward(nn.functional.pad(x, (1, 2, 1, 2)))  # (N, out, H, W)
        return super().forward(x)

    @property
    def geometry(self) -> Geometry:
        return _geometry(self)._replace(before=(1, 1), after=(2, 2))


class SameCropConvTranspose2d(ConvTranspose2d):
    """The transpose of SamePadConv2d: 1 row and column cropped before, 2 after. `padding=2` would be shifted by a pixel."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:    # (N, in, H, W)
        made = super().forward(x, output_size)
        return made[..., 1:-2, 1:-2] if self.kernels == NATIVE else made             # (N, out, 2H, 2W)

    @property
    def geometry(self) -> Geometry:
        return _geometry(self)._replace(before=(1, 1), after=(2, 2))


def _geometry(layer: nn.Conv2d | nn.ConvTranspose2d) -> Geometry:
    assert layer.groups == 1 and layer.dilation == (1, 1) and not isinstance(layer.padding, str), "plain convolutions only"
    (kernel_y, kernel_x), (stride_y, stride_x), (pad_y, pad_x) = layer.kernel_size, layer.stride, layer.padding
    return Geometry((kernel_y, kernel_x), (stride_y, stride_x), (pad_y, pad_x), (pad_y, pad_x))


def lower(tensor: Tensor) -> Tensor:
    """The tensor in autocast's precision where autocast is on, as torch's own layers cast their arguments."""
    device = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(device)) if tensor.dtype == torch.float32 and _lowers(device) else tensor


def _lower(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else lower(tensor)


def full(x: Tensor) -> tuple[Tensor, AbstractContextManager[object]]:
    """x in float32 at least, and a context in which autocast is off: for what bfloat16 is too coarse for."""
    wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    return wide, torch.autocast(x.device.type, enabled=False) if _lowers(x.device.type) else nullcontext()


def _lowers(device: str) -> bool:
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)      # there is none on "meta"
