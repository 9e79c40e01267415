"""`random`: features from a small network of fixed random filters; nothing is downloaded and nothing learned."""

import hashlib

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ganvas.data.source_base import Pixels
from ganvas.metrics.features import Extractor, Features, described, prepare, within
from ganvas.rng import Purpose, normals

_VERSION = "random-1"                  # a change of anything below makes other features
_SEED = 0
_LAYERS = ((16, 5, 4), (32, 3, 2), (48, 3, 2))     # (filters, their side in pixels, cells to a side of their averages)
_THUMB_PX = 8
_MOST_PX = 64
_COARSE_PX = 40                        # above, the first filters look at every other place
_THUMB_WEIGHT = 0.5                    # with 1, faults in detail show half as well; with 0.3, missing digits a fifth less
_CONTRAST = 60.0                       # where the logarithm bends; so large that features are about 1, as KID's kernel wants
_CUT = 0.5                             # share of a first filter's mean that is taken away: edges count more than brightness


class RandomExtractor(Extractor):
    """What three layers of fixed orthogonal random filters see, with an 8x8 thumbnail: 864 numbers for images of any size.

    Each layer takes absolute values and averages 2x2 (as the scattering of Bruna & Mallat 2013, with random filters, whose
    pooled responses already tell textures apart: Saxe et al. 2011). Features are log(1 + 60 m) / 2 of the averages m of each
    filter's responses in a coarse grid and of their standard deviation over the image, so that faint textures count beside
    strong edges. Weights come from `ganvas.rng`: the same everywhere. Figures made from it compare models on the same images.
    """

    name = "random"
    relative_only = True

    def __init__(self, device: str = "cpu"):
        self.preprocessing = (f"{described(3)}, reduced to at most {_MOST_PX} px on the longer side (antialiased bilinear), "
                              "to [-1, 1]")
        self.dim = 3 * _THUMB_PX**2 + sum(filters * (cells**2 + 1) for filters, _, cells in _LAYERS)
        # Not of the weights' bits: the last one may differ between systems, and no feature would.
        self.key = hashlib.sha256(f"{_VERSION}\0{self.preprocessing}".encode()).hexdigest()[:32]
        self._weights = [torch.from_numpy(weights).to(device) for weights in _filters()]
        self._device = device

    def __call__(self, images: Pixels) -> Features:
        x = prepare(images, 3, within(images.shape[2], images.shape[3], _MOST_PX)).to(self._device)
        with torch.inference_mode():
            return Features(self._embedded(x.float() / 127.5 - 1).cpu().numpy(), None)

    def _embedded(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] -> (N, dim)."""
        stride = 2 if max(x.shape[2:]) > _COARSE_PX else 1
        found = [_THUMB_WEIGHT * F.adaptive_avg_pool2d(x, _THUMB_PX).flatten(1)]
        for weights, (_, side, cells) in zip(self._weights, _LAYERS, strict=True):
            responses = F.conv2d(x, weights, padding=side // 2, stride=stride).abs()
            means = responses.mean(dim=(2, 3))
            spread = (responses.square().mean(dim=(2, 3)) - means.square()).clamp_min(0).sqrt()
            found += [_bent(F.adaptive_avg_pool2d(responses, cells).flatten(1)), _bent(spread)]
            x = F.avg_pool2d(responses, 2, ceil_mode=True)
            x = x - x.mean(dim=1, keepdim=True)            # absolute values are all positive: without it, filters see little else
            stride = 1
        return torch.cat(found, dim=1)


def _bent(responses: Tensor) -> Tensor:
    return torch.log1p(_CONTRAST * responses) / 2


def _filters() -> list[npt.NDArray[np.float32]]:
    """The filters of each layer, (filters, channels, side, side), orthogonal to each other."""
    layers, channels = [], 3
    for depth, (count, side, _) in enumerate(_LAYERS):
        rows = normals(_SEED, Purpose.SAMPLE, np.arange(count) + 1000 * depth, channels * side * side).astype(np.float64)
        for i in range(count):                             # Gram-Schmidt, twice: a library's QR may choose other signs
            for _ in range(2):
                rows[i] -= rows[:i].T @ (rows[:i] @ rows[i])
            rows[i] /= np.linalg.norm(rows[i])
        weights = rows.reshape(count, channels, side, side)
        if depth == 0:
            weights = weights - _CUT * weights.mean(axis=(2, 3), keepdims=True)
        layers.append(weights.astype(np.float32))
        channels = count
    return layers
