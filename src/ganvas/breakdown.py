"""From what a profiler saw of some training steps to where their time went: shares that add up to the whole."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

STEP = "ganvas.step"
PARTS = {                              # the ranges that training opens, in the order of a step; see training/steps.py and loop.py
    "ganvas.data": "data: waiting for the batch, to float, augmentation, z",
    "ganvas.G": "G forward",
    "ganvas.D": "D forward",
    "ganvas.backward": "backward: gradients of G and D",
    "ganvas.optimizer": "optimizers: the weights' new values",
    "ganvas.ema": "averaging G",
    "ganvas.stats": "statistics for the log",
    STEP: "the rest: losses, and what lies between the parts",
}
# These call others to do their work; what they call is theirs.
CONVOLUTIONS = ("aten::convolution", "aten::convolution_backward")
PROFILED = "ganvas.convolution|"       # ours, by kernels of choice: |what|FLOP, as ops/convolution.py names them
PRODUCTS = {"aten::mm": 0, "aten::bmm": 0, "aten::addmm": 1, "aten::baddbmm": 1}       # which argument is the first matrix


class Span(NamedTuple):
    """From when to when something was going on."""

    name: str
    start_us: float
    end_us: float


@dataclass(frozen=True)
class Call:
    """One call of an operator. `outer` is the one that called it. shapes, values: of its arguments, tensors and others."""

    name: str
    own_us: float                      # without the operators that it calls
    shapes: Sequence[Sequence[int]] = ()
    values: Sequence[Any] = ()
    outer: "Call | None" = None


@dataclass(frozen=True)
class Cost:
    """All calls that did the same. flop: floating point operations of all of them, a multiplication and an addition being two;
    None = not known."""

    what: str
    calls: int
    us: float
    flop: float | None

    @property
    def gflop_per_sec(self) -> float | None:
        return self.flop / self.us / 1000 if self.flop and self.us else None


def own_times(spans: Iterable[Span]) -> dict[str, float]:
    """{name: µs in which it is the span that was opened last}: nested spans are not counted twice, so the sum is the whole."""
    times: defaultdict[str, float] = defaultdict(float)
    open_spans: list[Span] = []
    now = -math.inf
    for span in [*sorted(spans, key=lambda span: (span.start_us, -span.end_us)), Span("", math.inf, math.inf)]:
        while open_spans and open_spans[-1].end_us <= span.start_us:           # those that end before the next begins
            ended = open_spans.pop()
            times[ended.name] += max(0.0, ended.end_us - now)
            now = max(now, ended.end_us)
        if open_spans:
            times[open_spans[-1].name] += max(0.0, span.start_us - now)
        now = max(now, span.start_us)
        open_spans.append(span)
    return dict(times)


def costs(calls: Iterable[Call]) -> list[Cost]:
    """What the operators cost, the costliest first. A convolution is one row for each shape, with all that it calls."""
    number: Counter[str] = Counter()
    us: defaultdict[str, float] = defaultdict(float)
    flop: dict[str, float | None] = {}
    for call in calls:
        doer = outermost_convolution(call)
        what = description(doer)
        us[what] += call.own_us
        if doer is call:
            number[what] += 1
            work = flop_of(call)
            flop[what] = None if work is None else (flop.get(what) or 0.0) + work
    found = [Cost(what, number[what], time, flop.get(what)) for what, time in us.items()]
    return sorted(found, key=lambda cost: -cost.us)


def outermost_convolution(call: Call) -> Call:
    """The convolution that this call is a part of, or the call itself."""
    found, outer = call, call.outer
    while outer is not None:
        found, outer = outer if outer.name in CONVOLUTIONS or outer.name.startswith(PROFILED) else found, outer.outer
    return found


def description(call: Call) -> str:
    """What the call does, for people. Batches of another size, an epoch's last, do the same."""
    if call.name.startswith(PROFILED):
        return call.name.split("|")[1]
    if call.name in CONVOLUTIONS and len(call.values) > 7:
        backward = call.name.endswith("backward")
        x, weight = call.shapes[backward], call.shapes[1 + backward]
        stride, transposed = call.values[3 + backward], call.values[6 + backward]
        channels = f"{weight[0]} -> {weight[1]}" if transposed else f"{weight[1]} -> {weight[0]}"
        kind = ("transposed convolution" if transposed else "convolution") + (", gradients" if backward else "")
        return f"{kind}: {channels} maps, kernel {_by(weight[2:])}, stride {_by(stride, same=True)}, on {_by(x[2:])}"
    if call.name in PRODUCTS and len(call.shapes) > PRODUCTS[call.name] + 1:
        first = PRODUCTS[call.name]
        return f"matrix product: ({_by(call.shapes[first])}) ({_by(call.shapes[first + 1])})"
    if call.name.startswith("autograd::") or re.search(r"Backward\d*$", call.name):
        return "autograd: the way back from operator to operator"
    return call.name.removeprefix("aten::").removeprefix("torch::autograd::")


def flop_of(call: Call) -> float | None:
    """Floating point operations of a convolution or a matrix product; None for anything else.

    Each weight meets each place of the smaller side once: a convolution's result, a transposed one's input. Each of the two
    gradients is as much again.
    """
    if call.name.startswith(PROFILED):
        return float(call.name.split("|")[2])
    if call.name in PRODUCTS and len(call.shapes) > PRODUCTS[call.name] + 1:
        first = PRODUCTS[call.name]
        return 2.0 * math.prod(call.shapes[first]) * call.shapes[first + 1][-1]
    if call.name not in CONVOLUTIONS or len(call.values) < 9:
        return None
    if call.name == "aten::convolution_backward":
        result, x, weight = call.shapes[:3]
        transposed, wanted = call.values[7], sum(map(bool, call.values[10][:2]))
    else:
        x, weight = call.shapes[:2]
        transposed, wanted = call.values[6], 1
        stride, padding, dilation = call.values[3:6]
        result = [x[0], weight[0]] + [
            (size + 2 * pad - wide * (kernel - 1) - 1) // step + 1
            for size, kernel, step, pad, wide in zip(x[2:], weight[2:], stride, padding, dilation, strict=False)]
    places = x if transposed else result
    return 2.0 * wanted * places[0] * math.prod(places[2:]) * math.prod(weight)


def _by(sizes: Any, same: bool = False) -> str:
    """`4x4`; one number where they are all the same and `same` is set."""
    sizes = list(sizes)
    return str(sizes[0]) if same and len(set(sizes)) == 1 else "x".join(map(str, sizes))
