"""What a training step could take at best: its matrix products, counted and timed; and what its convolutions do take."""

import copy
import math
import os
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from train_sides import TURNS, Side

from ganvas.config import RunConfig
from ganvas.losses import loss_pair
from ganvas.networks.build import build_networks
from ganvas.training.penalties import penalties_at
from ganvas.training.state import TrainState
from ganvas.training.steps import train_step, turns_at

aten = torch.ops.aten
PROFILED_STEPS = 2 * TURNS
TIMED = 2                              # of each product, each time that the ceiling is measured
# A convolution by the library, ours by kernels of choice; what they call is theirs.
CONVOLUTIONS = ("aten::convolution", "aten::convolution_backward", "_Down", "_Up", "_Weigh")


class Product(NamedTuple):
    """A matrix product, (rows, inner) times (inner, columns), and what of a network it computes.

    A convolution and what its gradients are (see ops/convolution.py) are such products of patches: down, up, weigh.
    """

    what: Literal["down", "up", "weigh", "linear"]
    rows: int
    inner: int
    columns: int

    @property
    def flop(self) -> float:
        """Floating point operations; a multiplication and an addition are two."""
        return 2.0 * self.rows * self.inner * self.columns

    def operands(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Patches and images lie row by row, so the product for a weight's gradient reads one of them transposed."""
        left = _matrix(self.inner, self.rows, dtype).T if self.what == "weigh" else _matrix(self.rows, self.inner, dtype)
        return left, _matrix(self.inner, self.columns, dtype)


def _matrix(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """One random row again and again: drawing all of them would take longer than the products."""
    return torch.randn(columns).to(dtype).repeat(rows, 1)


# ---------------------------------------------------------------- counting


def step_products(config: RunConfig) -> dict[Product, float]:
    """{product: how often in one step, on average over a pair}, for a step as ours: without D's weight gradients in G's turn.

    Read from two steps on torch's "meta" device, where tensors have shapes and no numbers.
    """
    G, D = (copy.deepcopy(network).to("meta").train() for network in build_networks(config.network, config.data, 0))
    def adam(network: nn.Module) -> torch.optim.Adam:
        return torch.optim.Adam(network.parameters())
    state, losses = TrainState(G, D, None, adam(G), adam(D)), loss_pair(config.train.loss, config.plan.real_label)
    data, batch = config.data, config.train.batch
    reals = torch.empty(batch, data.channels, data.size.height, data.size.width, device="meta")
    z = torch.empty(batch, config.network.z_dim, device="meta")
    with _Noting() as noting:
        for step in range(TURNS):
            turns = turns_at(config.plan, step)
            train_step(state, config.plan, losses, penalties_at(config.train, 0, 0), turns, reals, z, z)
    return {product: times / TURNS for product, times in noting.products.items()}


class _Noting(TorchDispatchMode):
    """Counts the products of all that runs within it."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.products.update(products_of(func.overloadpacket, args))
        return func(*args, **(kwargs or {}))


def products_of(operator: Any, args: Sequence[Any]) -> Iterator[Product]:
    """The products that one call of an operator is made of."""
    if operator in (aten.mm, aten.addmm):
        left, right = args[-2:]
        yield Product("linear", left.shape[0], left.shape[1], right.shape[1])
    elif operator == aten.convolution:
        x, w, _, stride, padding, dilation, transposed = args[:7]
        small = x.shape[2:] if transposed else [
            (size + 2 * pad - wide * (kernel - 1) - 1) // step + 1
            for size, kernel, step, pad, wide in zip(x.shape[2:], w.shape[2:], stride, padding, dilation, strict=True)]
        yield _of_convolution("up" if transposed else "down", len(x), small, w)
    elif operator == aten.convolution_backward:
        grad, x, w, transposed, (wants_x, wants_w, _) = *args[:3], args[7], args[10]
        small = (x if transposed else grad).shape[2:]
        if wants_x:
            yield _of_convolution("down" if transposed else "up", len(x), small, w)
        if wants_w:
            yield _of_convolution("weigh", len(x), small, w)


def _of_convolution(what: Literal["down", "up", "weigh"], n: int, small: Sequence[int], w: Tensor) -> Product:
    """small: (h, w) of the smaller image, each of whose pixels sees a patch. w: (K, C, kh, kw), transposed or not."""
    places, maps, patch = n * math.prod(small), len(w), math.prod(w.shape[1:])
    shapes = {"down": (places, patch, maps), "up": (places, maps, patch), "weigh": (maps, places, patch)}
    return Product(what, *shapes[what])


def flop(products: Mapping[Product, float]) -> float:
    return sum(times * product.flop for product, times in products.items())


# ---------------------------------------------------------------- timing


class Ceiling:
    """How long a step's products take as bare torch.mm, each the median of its times, in the same dtype and threads."""

    def __init__(self, products: Mapping[Product, float], dtype: torch.dtype):
        self.products, self.dtype = products, dtype
        self.took_sec: dict[Product, list[float]] = {product: [] for product in products}

    def measure(self) -> None:
        """Times each product."""
        for product, took_sec in self.took_sec.items():
            left, right = product.operands(self.dtype)
            out = left @ right                                       # the first call chooses code and takes memory
            for _ in range(TIMED):
                started_at = perf_counter()
                torch.mm(left, right, out=out)
                took_sec.append(perf_counter() - started_at)

    def seconds(self, convolutions_only: bool = False) -> float:
        """Of one step."""
        return sum(times * statistics.median(self.took_sec[product]) for product, times in self.products.items()
                   if product.what != "linear" or not convolutions_only)


def convolutions_share(side: Side) -> float:
    """The share of a side's step, from 0 to 1, in which it is inside its convolutions: unfolding and folding included."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")                  # the profiler's library tells of its own affairs
    side.begin()
    side.step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        started_at = perf_counter()
        for _ in range(PROFILED_STEPS):
            side.step()
        elapsed_sec = perf_counter() - started_at
    side.end()
    events = [event for event in profiler.events() or [] if event.name in CONVOLUTIONS and not _within_one(event)]
    return float(sum(event.cpu_time_total for event in events)) / 1e6 / elapsed_sec


def _within_one(event: FunctionEvent) -> bool:
    outer = event.cpu_parent
    while outer is not None and outer.name not in CONVOLUTIONS:
        outer = outer.cpu_parent
    return outer is not None
