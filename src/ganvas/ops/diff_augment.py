"""DiffAugment: differentiable changes of colour, place and completeness that D sees instead of the images themselves."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

DRAWS = 10                        # random numbers for each image
NOTHING = -1.0                    # a premultiplied, transparent pixel in all four channels
GREY = 0.0
SMALLEST_AREA = 1.0               # in opaque pixels, what the mean colour of an image is taken over at least
BELOW_ONE = 1 - 2**-24            # a draw below 1 may be 1 in float32


class Policy(NamedTuple):
    """How strongly images are changed; as published, all three kinds at once: Policy(1, 1/8, 1/2, 1).

    color: from 0 to 1 (brightness ±.5, saturation times 0 to 2, contrast times .5 to 1.5, in images from -1 to 1), scaling
    these ranges about no change. translation: at most this share of each side, up, down, left and right.
    cutout: the share of each side that a missing rectangle has. probability: of each of the three, independently, for an image.
    """

    color: float
    translation: float
    cutout: float
    probability: float


def diff_augment(images: Tensor, draws: Tensor, policy: Policy) -> Tensor:
    """Each image changed by its own draws: colour, then translation, then cutout (Zhao et al. 2020, arXiv 2006.10738, section 3).

    What becomes of an image depends on it and its draws, not on its batch. Differentiable any number of times; values may leave
    [-1, 1]. What is moved in or cut out is grey (0), as published; images of one channel have no saturation. Four channels are
    RGBA with premultiplied colours, all from -1 (none) to 1: colours then change as far as there is something to be seen, alpha
    only in its place, and what is moved in or cut out is nothing (-1).
    images: (N, 1, 3 or 4, H, W), float32, any device, contiguous or channels_last, as is the result; where nothing can change,
    `images` itself. draws: (N, DRAWS), uniform between 0 and 1, any device.
    """
    if policy.probability == 0 or not any(policy[:3]):
        return images
    draws = draws.to(images.device, images.dtype).clamp_max(BELOW_ONE)
    chosen, sizes = (draws[:, :3] < policy.probability).to(draws.dtype), draws[:, 3:]
    rows, step = _as_rows(images)
    if policy.color:
        rows = _recoloured(rows, step, policy.color * chosen[:, :1] * (2 * sizes[:, :3] - 1))
    fill = NOTHING if images.shape[1] == 4 else GREY
    if policy.translation:
        rows = _translated(rows, step, policy.translation, chosen[:, 1:2], sizes[:, 3:5], fill)
    if policy.cutout:
        rows = _cut(rows, step, policy.cutout, chosen[:, 2:], sizes[:, 5:], fill)
    return _as_images(rows, step)


# ---------------------------------------------------------------- images as rows of numbers, the same for both memory formats


def _as_rows(images: Tensor) -> tuple[Tensor, int]:
    """(N, C, H, W) as (N, planes, H, run), without copying, and how many numbers of a run are one pixel.

    Contiguous images have C planes and runs of W numbers; channels_last ones have one plane, and its runs are W pixels of C.
    Masks over whole runs are several times as fast as over a channels_last image, where the innermost loop is over C.
    """
    channels = images.shape[1]
    if channels > 1 and images.is_contiguous(memory_format=torch.channels_last):
        return images.permute(0, 2, 3, 1).flatten(2).unsqueeze(1), channels
    return images.contiguous(), 1


def _as_images(rows: Tensor, step: int) -> Tensor:
    return rows if step == 1 else _pixels(rows, step).permute(0, 3, 1, 2)


def _pixels(rows: Tensor, step: int) -> Tensor:
    """The rows of channels_last images as (N, H, W, C), a view."""
    n, _, height, run = rows.shape
    return rows.reshape(n, height, run // step, step)


def _sides(rows: Tensor, step: int) -> tuple[int, int]:
    return rows.shape[2], rows.shape[3] // step


# ---------------------------------------------------------------- colour


def _recoloured(rows: Tensor, step: int, amounts: Tensor) -> Tensor:
    """rows with brightness, saturation and contrast changed by amounts (N, 3) from -1 to 1, 0 = not at all.

    One after the other, x + b, then (x - m) s + m with the mean m of a pixel's colours, then (x - M) c + M with the mean M of
    all, are together x c s + m c (1 - s) + b + M (1 - c).
    """
    brightness, saturation, contrast = (amount.view(-1, 1, 1) for amount in amounts.unbind(1))
    b, s, c = brightness / 2, 1 + saturation, 1 + contrast / 2
    if rows.shape[1] * step == 1:
        return rows * c[..., None] + (b + _mean(rows[:, 0]) * (1 - c))[:, None]
    planes = _Apart.apply(rows, step)                                   # each (N, H, W)
    m = (planes[0] + planes[1] + planes[2]) / 3
    if len(planes) == 3:
        rest = m * (c * (1 - s)) + (b + _mean(m) * (1 - c))
    else:
        # With alpha a from 0 to 2 and a premultiplied colour p = x + 1, the formula holds for 2 p / a - 1. Times a / 2 it is
        # p' = p c s + m c (1 - s) + a b / 2 + a M (1 - c), where M is the mean colour from 0 to 1, weighted by a.
        a = planes[3] + 1
        mean = (_mean(m) + 1) / _mean(a).clamp_min(2 * SMALLEST_AREA / m[0].numel())
        rest = m * (c * (1 - s)) + a * (b / 2 + mean * (1 - c)) + (c - 1)
    changed: Tensor = _Together.apply(step, *[plane * (c * s) + rest for plane in planes[:3]], *planes[3:])
    return changed


class _Apart(torch.autograd.Function):
    """rows as channels (N, H, W), each for itself in memory.

    With channels_last on a CPU, arithmetic between two of them and the copies of _Together are several times as fast as those on
    views, and torch.stack: colour takes 1.6 ms instead of 2.7, and 3.9 instead of 5.7 with its gradient (64 images of 3x64x64).
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, step: int) -> tuple[Tensor, ...]:
        ctx.step = step
        return tuple(channel.clone(memory_format=torch.contiguous_format) for channel in _channels(rows, step))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _Together.apply(ctx.step, *gradients), None


class _Together(torch.autograd.Function):
    """Channels (N, H, W) as rows; the reverse of _Apart, and its transpose."""

    @staticmethod
    def forward(ctx: Any, step: int, *channels: Tensor) -> Tensor:
        ctx.step = step
        (n, height, width), count = channels[0].shape, len(channels)
        rows = channels[0].new_empty((n, count // step, height, width * step))
        for place, channel in zip(_channels(rows, step), channels, strict=True):
            place.copy_(channel)
        return rows

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return None, *_Apart.apply(gradient, ctx.step)


def _channels(rows: Tensor, step: int) -> tuple[Tensor, ...]:
    """Each channel (N, H, W), a view."""
    return rows.unbind(1) if step == 1 else _pixels(rows, step).unbind(3)


def _mean(plane: Tensor) -> Tensor:
    return plane.mean((1, 2), keepdim=True)


# ---------------------------------------------------------------- place and completeness


def _translated(rows: Tensor, step: int, share: float, chosen: Tensor, sizes: Tensor, fill: float) -> Tensor:
    """rows moved by whole pixels, up to `share` of each side, by sizes (N, 2) where chosen (N, 1) is 1."""
    shifts = []
    for side, size in zip(_sides(rows, step), sizes.unbind(1), strict=True):
        furthest = _share_of(side, share)
        shifts.append(((size * (2 * furthest + 1)).long() - furthest) * chosen[:, 0].long())             # (N,)
    moved: Tensor = _Shift.apply(rows, shifts[0], shifts[1] * step, fill)
    return moved


class _Shift(torch.autograd.Function):
    """rows (N, planes, H, run) moved down and right by numbers (N,) of rows and of elements of a run; what comes in is `fill`.

    Linear but for the fill, and its transpose is the shift back: as fast backward as forward, and differentiable again.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, down: Tensor, right: Tensor, fill: float) -> Tensor:
        ctx.save_for_backward(down, right)
        n, planes, height, run = rows.shape
        y = torch.arange(height, device=rows.device) - down[:, None]                                     # (N, H): where from
        x = torch.arange(run, device=rows.device) - right[:, None]                                       # (N, run)
        inside = _outer((y >= 0) & (y < height), (x >= 0) & (x < run), rows.dtype)
        # Whole rows first, then each row's numbers by an index that all rows of an image share: no index is as big as the images.
        plane = torch.arange(n * planes, device=rows.device).view(n, planes, 1) * height
        moved = rows.reshape(-1, run).index_select(0, (plane + y.clamp(0, height - 1)[:, None]).flatten())
        moved = moved.view(rows.shape).gather(3, x.clamp(0, run - 1)[:, None, None].expand(rows.shape))
        return _kept(moved, inside, fill)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        down, right = ctx.saved_tensors
        return _Shift.apply(gradient, -down, -right, 0.0), None, None, None


def _cut(rows: Tensor, step: int, share: float, chosen: Tensor, sizes: Tensor, fill: float) -> Tensor:
    """rows without a rectangle of `share` of each side, its centre anywhere at sizes (N, 2), where chosen (N, 1) is 1."""
    sides = _sides(rows, step)
    lengths = [_share_of(side, share) for side in sides]
    missing = []
    for side, length, size in zip(sides, lengths, sizes.unbind(1), strict=True):
        first = (size * (side + 1 - length % 2)).long() - length // 2                                    # (N,), may be negative
        place = torch.arange(side, device=rows.device) - first[:, None]
        missing.append((place >= 0) & (place < length) & (chosen > 0))                                   # (N, side)
    return _kept(rows, 1 - _outer(missing[0], missing[1].repeat_interleave(step, 1), rows.dtype), fill)


def _outer(y: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    """1 where both are true, else 0: (N, 1, H, run) of bool y (N, H) and x (N, run)."""
    return y.to(dtype)[:, None, :, None] * x.to(dtype)[:, None, None, :]


def _kept(rows: Tensor, keep: Tensor, fill: float) -> Tensor:
    """rows where keep (N, 1, H, run) is 1, `fill` where it is 0; torch.where with a number takes 20 times as long on a CPU."""
    return rows * keep + fill * (1 - keep) if fill else rows * keep


def _share_of(side: int, share: float) -> int:
    return int(side * share + 0.5)
