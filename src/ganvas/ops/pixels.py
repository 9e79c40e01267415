"""The one place where bytes become what networks see, and back: 0 to 255 <-> -1 to 1, straight <-> premultiplied alpha."""

import torch
from torch import Tensor

from ganvas.ops.alpha import has_alpha, premultiply_, straighten_


def to_float(images_u8: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The bytes x as x / 127.5 - 1: 0 becomes -1, 255 becomes 1. Any shape, any device.

    Images with alpha, (N, 4, H, W), are premultiplied: a clear pixel is -1 in all four channels, whatever its colour.
    Computed in float32 and rounded to `dtype` at the end. Raises TypeError for a tensor that is not uint8: it may have
    been converted before.
    """
    if images_u8.dtype != torch.uint8:
        raise TypeError(f"to_float takes uint8 images, not {images_u8.dtype}")
    images = images_u8.to(torch.float32)
    if has_alpha(images):
        premultiply_(images)
    return images.div_(127.5).sub_(1).to(dtype)


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] as the nearest bytes; values outside are clamped. Any shape, any device; no gradient.

    Images with alpha, (N, 4, H, W), are premultiplied, and come out straight: a colour larger than its alpha is clipped to
    it, and where alpha becomes 0, colour is 0.
    to_uint8(to_float(x)) is x for every byte, of images with alpha but for what lies under alpha 0 (in float32; bfloat16
    has too few bits for that).
    """
    scaled = images.detach().to(torch.float32).add(1).mul_(127.5)
    if has_alpha(scaled):
        straighten_(scaled.clamp_(0, 255))
    return scaled.round_().clamp_(0, 255).to(torch.uint8)
