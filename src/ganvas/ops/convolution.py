"""Strided convolution, its transpose and its weight gradient, each by the library's kernel or as a matrix product.

With a big image x (N, C, H, W), a small one y (N, K, h, w) and a weight w (K, C, kh, kw), the convolution is bilinear, and so are
the two maps that its gradients are:

    down(x, w) = y        up(y, w) = x, the transposed convolution        weigh(x, y) = w

Each is linear in both arguments, and the gradients of each are the other two: one table serves first and second derivatives (R1).
Lowered, all three are products over one unfolding of x into patches (N h w, kh kw C) (Chellapilla et al. 2006).
Images lie in memory as channels_last, in which a patch is kh runs of kw C numbers.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.profiler import record_function

PROFILED = "ganvas.convolution|"
WAYS = {"native": "", "lowered": " by matrix products", "phases": " at stride 1"}

Kernel = Literal["native", "lowered", "phases"]
Pair = tuple[int, int]                  # (down the image, across it)


class Kernels(NamedTuple):
    """Which kernel computes each of the three maps; 'phases' is a way of `up` alone."""

    down: Kernel = "native"
    up: Kernel = "native"
    weigh: Kernel = "native"


class Geometry(NamedTuple):
    """How the small image lies in the big one: pixel (i, j) of y sees x from (i, j) * stride - before, for `kernel` pixels."""

    kernel: Pair
    stride: Pair
    before: Pair = (0, 0)               # rows and columns of zeros above and left of x
    after: Pair = (0, 0)                # below and right of it; the last ones may be seen by no patch

    def small(self, height: int, width: int) -> Pair:
        """The size of y for an x of this size."""
        padded = (height + self.before[0] + self.after[0], width + self.before[1] + self.after[1])
        return ((padded[0] - self.kernel[0]) // self.stride[0] + 1, (padded[1] - self.kernel[1]) // self.stride[1] + 1)

    def unread(self, size: Pair, small: Pair) -> Pair:
        """Rows and columns of x between the end of the last patch and the end of x; negative where patches reach beyond it."""
        ends = [(n - 1) * stride + kernel for n, stride, kernel in zip(small, self.stride, self.kernel, strict=True)]
        return (size[0] + self.before[0] - ends[0], size[1] + self.before[1] - ends[1])


# ---------------------------------------------------------------- the three maps, differentiable


def down(x: Tensor, w: Tensor, bias: Tensor | None, geometry: Geometry, kernels: Kernels) -> Tensor:
    """The convolution of x (N, C, H, W) with w (K, C, kh, kw), plus bias (K,): (N, K, h, w). Differentiable any number of times.

    All three of one dtype; the image that comes out is channels_last wherever x is.
    """
    y: Tensor = _Down.apply(x, w, bias, geometry, kernels)
    return y


def up(y: Tensor, w: Tensor, bias: Tensor | None, size: Pair, geometry: Geometry, kernels: Kernels) -> Tensor:
    """The transposed convolution of y (N, K, h, w) with w (K, C, kh, kw), plus bias (C,): (N, C, H, W).

    size: (H, W), such that geometry.small gives (h, w). Differentiable any number of times.
    """
    x: Tensor = _Up.apply(y, w, bias, size, geometry, kernels)
    return x


class _Down(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, bias: Tensor | None, geometry: Geometry, kernels: Kernels) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.rest = geometry, kernels
        with _named("convolution", kernels.down, x.shape, w, geometry):
            y = DOWN[kernels.down](x, w, geometry)
        return y if bias is None else y.add_(bias[:, None, None])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x, w), (geometry, kernels) = ctx.saved_tensors, ctx.rest
        wants_x, wants_w, wants_bias, *_ = ctx.needs_input_grad
        return (_Up.apply(grad, w, None, x.shape[2:], geometry, kernels) if wants_x else None,
                _Weigh.apply(x, grad, geometry, kernels) if wants_w else None,
                grad.sum((0, 2, 3)) if wants_bias else None, None, None)


class _Up(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, w: Tensor, bias: Tensor | None, size: Pair, geometry: Geometry, kernels: Kernels) -> Tensor:
        ctx.save_for_backward(y, w)
        ctx.rest = geometry, kernels
        with _named("transposed convolution", kernels.up, (len(y), w.shape[1], *size), w, geometry):
            x = UP[kernels.up](y, w, (size[0], size[1]), geometry)
        return x if bias is None else x.add_(bias[:, None, None])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (y, w), (geometry, kernels) = ctx.saved_tensors, ctx.rest
        wants_y, wants_w, wants_bias, *_ = ctx.needs_input_grad
        return (_Down.apply(grad, w, None, geometry, kernels) if wants_y else None,
                _Weigh.apply(grad, y, geometry, kernels) if wants_w else None,
                grad.sum((0, 2, 3)) if wants_bias else None, None, None, None)


class _Weigh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, geometry: Geometry, kernels: Kernels) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.rest = geometry, kernels
        with _named("weights' gradient", kernels.weigh, x.shape, y.transpose(0, 1), geometry):
            return WEIGH[kernels.weigh](x, y, geometry)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x, y), (geometry, kernels) = ctx.saved_tensors, ctx.rest
        wants_x, wants_y, *_ = ctx.needs_input_grad
        return (_Up.apply(y, grad, None, x.shape[2:], geometry, kernels) if wants_x else None,
                _Down.apply(x, grad, None, geometry, kernels) if wants_y else None, None, None)


def _named(
    what: str, kernel: Kernel, big: Sequence[int], w: Tensor, geometry: Geometry,
) -> AbstractContextManager[object]:
    """For a profiler: PROFILED, what is computed, and its floating point operations, with bars between. w: its K counts."""
    if torch.compiler.is_compiling():
        return nullcontext()
    (n, channels, height, width), maps = big, len(w)
    (small_y, small_x), (kernel_y, kernel_x) = geometry.small(height, width), geometry.kernel
    flop = 2 * n * small_y * small_x * kernel_y * kernel_x * channels * maps
    of = f"{maps} -> {channels}" if what.startswith("transposed") else f"{channels} -> {maps}"
    return record_function(f"{PROFILED}{what}{WAYS[kernel]}: {of} maps, kernel {kernel_y}x{kernel_x}, "
                           f"stride {geometry.stride[0]}, {height}x{width} and {small_y}x{small_x}|{flop}")


# ---------------------------------------------------------------- by the library's kernels


def _down_native(x: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
    x, padding = _padded_natively(x, geometry)
    return F.conv2d(x, w, None, geometry.stride, padding)


def _up_native(y: Tensor, w: Tensor, size: Pair, geometry: Geometry) -> Tensor:
    """Padding before and after need not be alike: the uncropped image is made, and cut."""
    unread, stride, before = geometry.unread(size, _sides(y)), geometry.stride, geometry.before
    if geometry.before == geometry.after:
        return F.conv_transpose2d(y, w, None, stride, before, _output_padding(unread, geometry.after))
    extra = max(0, unread[0]), max(0, unread[1])
    whole = F.conv_transpose2d(y, w, None, stride, 0, extra)
    cut = whole[:, :, before[0]: before[0] + size[0], before[1]: before[1] + size[1]]
    return cut.contiguous(memory_format=torch.channels_last)


def _weigh_native(x: Tensor, y: Tensor, geometry: Geometry) -> Tensor:
    x, padding = _padded_natively(x, geometry)
    w = x.new_empty(()).expand(y.shape[1], x.shape[1], *geometry.kernel)      # only its shape is read
    _, grad, _ = torch.ops.aten.convolution_backward(
        y, x, w, None, geometry.stride, padding, (1, 1), False, (0, 0), 1, (False, True, False))
    made: Tensor = grad
    return made


def _padded_natively(x: Tensor, geometry: Geometry) -> tuple[Tensor, Pair]:
    """x and the padding that the kernel is left to do: all, where it is the same on both sides."""
    (top, left), (bottom, right) = geometry.before, geometry.after
    if geometry.before == geometry.after:
        return x, geometry.before
    return F.pad(x, (left, right, top, bottom)).contiguous(memory_format=torch.channels_last), (0, 0)


def _output_padding(unread: Pair, after: Pair) -> Pair:
    """What torch calls output_padding: rows and columns of x that no patch reaches, counted from the end of its padding."""
    return unread[0] + after[0], unread[1] + after[1]


# ---------------------------------------------------------------- as matrix products


def _down_lowered(x: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
    patches, (height, width) = _unfold(x, geometry)
    y = _image(x, len(x), len(w), height, width)
    torch.mm(patches, _rows(w).T, out=_pixels(y))
    return y


def _up_lowered(y: Tensor, w: Tensor, size: Pair, geometry: Geometry) -> Tensor:
    return _fold(_pixels(y) @ _rows(w), y, w.shape[1], size, geometry)


def _weigh_lowered(x: Tensor, y: Tensor, geometry: Geometry) -> Tensor:
    patches, _ = _unfold(x, geometry)
    w = _image(x, y.shape[1], x.shape[1], *geometry.kernel)
    torch.mm(_pixels(y).T, patches, out=_rows(w))
    return w


def _up_phases(y: Tensor, w: Tensor, size: Pair, geometry: Geometry) -> Tensor:
    """The transposed convolution as one of stride 1 whose maps are the pixels of a stride x stride block (Shi et al. 2016,
    arXiv 1609.05158, section 2.2): several times faster than the library's where C is small, as in G's last layer."""
    (maps, channels, *kernel), (stride_y, stride_x) = w.shape, geometry.stride
    taps_y, taps_x = -(-kernel[0] // stride_y), -(-kernel[1] // stride_x)
    w = F.pad(w, (0, taps_x * stride_x - kernel[1], 0, taps_y * stride_y - kernel[0]))
    w = w.view(maps, channels, taps_y, stride_y, taps_x, stride_x).flip(2, 4)
    w = w.permute(3, 5, 1, 0, 2, 4).reshape(stride_y * stride_x * channels, maps, taps_y, taps_x)
    blocks = F.conv2d(y, w.contiguous(memory_format=torch.channels_last), None, 1, (taps_y - 1, taps_x - 1))
    n, _, height, width = blocks.shape
    pixels = blocks.permute(0, 2, 3, 1).reshape(n, height, width, stride_y, stride_x, channels).transpose(2, 3)
    whole = pixels.reshape(n, height * stride_y, width * stride_x, channels)
    return _cut(whole, size, geometry)


def _image(like: Tensor, n: int, channels: int, height: int, width: int) -> Tensor:
    """A new (n, channels, height, width), channels_last. Not a view of anything: what follows may change it in place."""
    return torch.empty((n, channels, height, width), dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _pixels(y: Tensor) -> Tensor:
    """(N, K, h, w) as (N h w, K); a view of a channels_last image."""
    return y.permute(0, 2, 3, 1).reshape(-1, y.shape[1])


def _rows(w: Tensor) -> Tensor:
    """(K, C, kh, kw) as (K, kh kw C); a view of a channels_last weight."""
    return w.permute(0, 2, 3, 1).reshape(len(w), -1)


def _sides(image: Tensor) -> Pair:
    return image.shape[2], image.shape[3]


def _unfold(x: Tensor, geometry: Geometry) -> tuple[Tensor, Pair]:
    """The patches that y's pixels see, (N h w, kh kw C), and (h, w)."""
    (n, channels, height, width), (kernel_y, kernel_x), (stride_y, stride_x) = x.shape, geometry.kernel, geometry.stride
    small_y, small_x = geometry.small(height, width)
    (top, left), (bottom, right) = geometry.before, geometry.after
    if top or left or bottom or right:
        padded = x.new_zeros(n, height + top + bottom, width + left + right, channels)
        padded[:, top: top + height, left: left + width] = x.permute(0, 2, 3, 1)
    else:
        padded = x.permute(0, 2, 3, 1).contiguous()
    image, row = padded.stride(0), padded.stride(1)
    patches = padded.as_strided(
        (n, small_y, small_x, kernel_y, kernel_x * channels), (image, stride_y * row, stride_x * channels, row, 1))
    return patches.reshape(n * small_y * small_x, -1), (small_y, small_x)


def _fold(patches: Tensor, y: Tensor, channels: int, size: Pair, geometry: Geometry) -> Tensor:
    """The transpose of _unfold: patches (N h w, kh kw C) added up where they overlap, (N, C, H, W)."""
    (n, _, small_y, small_x), (kernel_y, kernel_x), (stride_y, stride_x) = y.shape, geometry.kernel, geometry.stride
    taps_y, taps_x = -(-kernel_y // stride_y), -(-kernel_x // stride_x)
    blocks_y, blocks_x = small_y - 1 + taps_y, small_x - 1 + taps_x
    # In blocks of stride x stride pixels, the patches' blocks with one offset do not overlap: few, long additions.
    blocks = patches.new_zeros(n, blocks_y, stride_y, blocks_x, stride_x, channels)
    split = patches.view(n, small_y, small_x, kernel_y, kernel_x, channels)
    for tap_y in range(taps_y):
        for tap_x in range(taps_x):
            part = split[:, :, :, tap_y * stride_y: (tap_y + 1) * stride_y, tap_x * stride_x: (tap_x + 1) * stride_x]
            rows, columns = part.shape[3:5]
            blocks[:, tap_y: tap_y + small_y, :rows, tap_x: tap_x + small_x, :columns].add_(part.permute(0, 1, 3, 2, 4, 5))
    return _cut(blocks.view(n, blocks_y * stride_y, blocks_x * stride_x, channels), size, geometry)


def _cut(whole: Tensor, size: Pair, geometry: Geometry) -> Tensor:
    """The (N, C, H, W) of a padded image (N, as far as patches reach, …, C); zeros where none reaches."""
    (top, left), (height, width) = geometry.before, size
    cut = whole[:, top: top + height, left: left + width]
    x = _image(whole, len(whole), whole.shape[3], height, width)
    pixels = x.permute(0, 2, 3, 1)
    pixels[:, : cut.shape[1], : cut.shape[2]] = cut
    pixels[:, cut.shape[1]:] = 0
    pixels[:, :, cut.shape[2]:] = 0
    return x


DOWN = {"native": _down_native, "lowered": _down_lowered}
UP = {"native": _up_native, "lowered": _up_lowered, "phases": _up_phases}
WEIGH = {"native": _weigh_native, "lowered": _weigh_lowered}
