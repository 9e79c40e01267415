"""The one place where bytes become what networks see, and back: 0 to 255 <-> -1 to 1."""

import torch
from torch import Tensor


def to_float(images_u8: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The bytes x as x / 127.5 - 1: 0 becomes -1, 255 becomes 1. Any shape, any device.

    Computed in float32 and rounded to `dtype` at the end. Raises TypeError for a tensor that is not uint8: it may have
    been converted before.
    """
    if images_u8.dtype != torch.uint8:
        raise TypeError(f"to_float takes uint8 images, not {images_u8.dtype}")
    return images_u8.to(torch.float32).div_(127.5).sub_(1).to(dtype)


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] as the nearest bytes; values outside are clamped. Any shape, any device; no gradient.

    to_uint8(to_float(x)) is x for every byte (in float32; bfloat16 has too few bits for that).
    """
    return images.detach().to(torch.float32).add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
