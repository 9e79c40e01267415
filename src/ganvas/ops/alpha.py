"""Straight and premultiplied alpha: files keep a pixel's own colour, networks see what it adds to a picture.

Premultiplied, a clear pixel is black whatever was painted under it, blending and resampling are plain sums, and laying a
picture on a background is `colour + background * (1 - alpha)` (Porter & Duff 1984, "Compositing digital images").
"""

from torch import Tensor

OPAQUE = 255


def has_alpha(images: Tensor) -> bool:
    """Whether these are (N, 4, H, W): images with alpha in the fourth channel."""
    return images.ndim == 4 and images.shape[1] == 4


def premultiply_(images: Tensor) -> Tensor:
    """Straight images made premultiplied, in place: colour * alpha / 255. Opaque pixels keep their bits.

    images: (N, 4, H, W), float, 0 to 255. Returns `images`.
    """
    images[:, :3].mul_(images[:, 3:] / OPAQUE)
    return images


def straighten_(images: Tensor) -> Tensor:
    """Premultiplied images made straight, in place, to be rounded next: colour / alpha * 255. Opaque pixels keep their bits.

    A colour larger than its alpha, which a network may make, comes out larger than 255: brighter than light, to be clipped. Where
    alpha rounds to 0 colour is 0. It is divided by the alpha that is not rounded yet, so faint pixels keep their hue.
    images: (N, 4, H, W), float, 0 to 255. Returns `images`.
    """
    alpha = images[:, 3:]
    images[:, :3].mul_(OPAQUE / alpha.clamp(min=0.5)).masked_fill_(alpha.round() == 0, 0)
    return images
