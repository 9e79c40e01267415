"""Measures which kernel of a convolution is the fastest on this processor."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ganvas.ops.convolution import DOWN, UP, WEIGH, Geometry, Kernels, Pair

MOST_GFLOP = 8.0             # of one product: enough to tell the kernels apart, some 40 ms on two cores
FEWEST_IMAGES = 8
FEW_CHANNELS = 16            # of the big image: beyond, 'phases' has never been the fastest
WORTH = 1.07                 # times as fast as the library's own a kernel must be: less is noise
HOPELESS = 2.0               # times as slow in the first run: not measured any further
ROUNDS = 3
CACHES_MB = 32               # written over before each run: in training other layers have filled the caches meanwhile




class Shape(NamedTuple):
    """All that the speed of a layer's three maps depends on, besides the machine."""

    geometry: Geometry
    n: int                   # images in a batch
    channels: int            # of the big image
    maps: int                # channels of the small one
    size: Pair               # of the big image, (H, W)
    dtype: torch.dtype


def fastest(shape: Shape, clock: Callable[[], float] = time.perf_counter) -> Kernels:
    """The fastest kernel of each of the three maps for a layer of this shape, on the CPU; a tie goes to the library's.

    Takes some tenths of a second, of fewer images where the products are large. torch's random generator is left alone.
    """
    geometry, channels, maps, size = shape.geometry, shape.channels, shape.maps, shape.size
    small = geometry.small(*size)
    gflop = 2e-9 * small[0] * small[1] * geometry.kernel[0] * geometry.kernel[1] * channels * maps
    n = max(min(shape.n, FEWEST_IMAGES), min(shape.n, int(MOST_GFLOP / gflop)))
    generator = torch.Generator().manual_seed(0)
    def image(*sides: int) -> Tensor:
        made = torch.randn(*sides, generator=generator).to(shape.dtype)
        return made.contiguous(memory_format=torch.channels_last)
    x, y, w = image(n, channels, *size), image(n, maps, *small), image(maps, channels, *geometry.kernel)
    ups = {name: kernel for name, kernel in UP.items() if name != "phases" or channels <= FEW_CHANNELS}
    return Kernels(
        _fastest(DOWN, (x, w, geometry), clock), _fastest(ups, (y, w, size, geometry), clock),
        _fastest(WEIGH, (x, y, geometry), clock))


@torch.no_grad()
def _fastest(kernels: Mapping[Any, Callable[..., Tensor]], arguments: tuple[Any, ...], clock: Callable[[], float]) -> Any:
    others = torch.zeros(CACHES_MB * 2**18)

    def seconds(kernel: Callable[..., Tensor]) -> float:
        others.add_(1)
        started_at = clock()
        kernel(*arguments)
        return clock() - started_at

    for kernel in kernels.values():
        kernel(*arguments)                                     # the first call chooses code and takes memory
    took = {name: seconds(kernel) for name, kernel in kernels.items()}
    hopeful = {name: kernel for name, kernel in kernels.items() if took[name] < HOPELESS * min(took.values())}
    for _ in range(ROUNDS - 1 if len(hopeful) > 1 else 0):
        took |= {name: min(took[name], seconds(kernel)) for name, kernel in hopeful.items()}     # by turns, against drift
    best = min(took, key=lambda name: took[name])
    return best if took[best] * WORTH < took["native"] else "native"
