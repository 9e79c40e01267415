"""Shares of a step's time, and what its operators cost: against what can be counted by hand."""

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from ganvas import breakdown
from ganvas.breakdown import Call, Span, costs, own_times
from ganvas.ops import convolution
from ganvas.profiling import _calls


def test_nested_ranges_are_counted_once_and_add_up_to_the_outermost():
    times = own_times([Span("step", 0, 100), Span("D", 10, 60), Span("data", 20, 30), Span("D", 70, 80), Span("step", 200, 210)])
    assert times == {"step": 50, "D": 50, "data": 10}


def test_ranges_that_touch_or_have_no_length_lose_nothing():
    times = own_times([Span("step", 0, 30), Span("G", 0, 10), Span("D", 10, 20), Span("D", 20, 20), Span("G", 20, 30)])
    assert {name: time for name, time in times.items() if time} == {"G": 20, "D": 10}


def test_the_order_in_which_ranges_are_told_does_not_matter():
    spans = [Span("step", 0, 100), Span("a", 10, 60), Span("b", 20, 30)]
    assert own_times(spans) == own_times(spans[::-1])


def test_no_ranges_take_no_time():
    assert own_times([]) == {}


def test_what_a_convolution_calls_is_the_convolution_s_and_a_call_is_one():
    shapes, values = [(2, 3, 8, 8), (5, 3, 4, 4)], [None, None, None, [2, 2], [1, 1], [1, 1], False, [0, 0], 1]
    outer = Call("aten::convolution", 1.0, shapes, values)
    inner = Call("aten::_convolution", 2.0, shapes, values, outer)
    (cost,) = costs([outer, inner, Call("aten::mkldnn_convolution", 4.0, shapes, values, inner)])
    assert (cost.calls, cost.us) == (1, 7.0)
    assert cost.what == "convolution: 3 -> 5 maps, kernel 4x4, stride 2, on 8x8"
    assert cost.flop == 2 * (2 * 5 * 4 * 4) * (3 * 4 * 4)
    assert cost.gflop_per_sec == pytest.approx(cost.flop / 7e-6 / 1e9)


def test_operators_without_a_shape_have_no_speed_and_the_costliest_comes_first():
    found = costs([Call("aten::add", 1.0), Call("aten::mm", 5.0), Call("aten::add", 2.0)])
    assert [(cost.what, cost.calls, cost.us) for cost in found] == [("mm", 1, 5.0), ("add", 2, 3.0)]
    assert [cost.gflop_per_sec for cost in found] == [None, None]


@pytest.mark.parametrize(("layer", "x", "work", "gradients"), [
    (nn.Conv2d(3, 5, 4, 2, 1), (2, 3, 8, 8), 2 * 5 * 16 * 48, 2),
    (nn.Conv2d(4, 6, 3, 1, 0, groups=2), (2, 4, 7, 9), 2 * 6 * 35 * 18, 2),
    (nn.Conv2d(3, 5, 4, 2, 1), (1, 3, 8, 8), 5 * 16 * 48, 1),
    (nn.ConvTranspose2d(6, 4, 4, 2, 1), (2, 6, 5, 5), 2 * 6 * 25 * 64, 2),
    (nn.Linear(7, 9), (11, 7), 11 * 7 * 9, 2),
])
def test_operations_that_pytorch_s_operators_do_are_those_counted_by_hand(layer, x, work, gradients):
    """work: multiplications. gradients: 1 where the input needs none."""
    x = torch.randn(x, requires_grad=gradients == 2)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        layer(x).sum().backward()
    found = [cost for cost in costs(_calls(profiler.events(), on_cuda=False)) if cost.flop]
    assert sum(cost.flop for cost in found) == 2 * work * (1 + gradients)
    assert all(cost.gflop_per_sec > 0 for cost in found)


def test_own_times_of_real_operators_add_up_to_no_more_than_the_time_that_went_by():
    layer, x = nn.Conv2d(8, 8, 3, padding=1), torch.randn(4, 8, 32, 32)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler, torch.profiler.record_function("step"):
        layer(x).relu().sum().backward()
    events = profiler.events()
    step = next(event.time_range for event in events if event.name == "step")
    found = costs(_calls(events, on_cuda=False))
    assert 0 < sum(cost.us for cost in found) <= step.end - step.start
    assert "autograd: the way back from operator to operator" in {cost.what for cost in found}


def test_our_convolutions_ranges_are_named_as_the_breakdown_reads_them():
    assert breakdown.PROFILED == convolution.PROFILED, "two constants, because the breakdown needs no torch"
    call = Call(f"{breakdown.PROFILED}weights' gradient by matrix products: 3 -> 4 maps|2000", 1.0)
    inner = Call("aten::mm", 9.0, ((2, 3), (3, 4)), (), call)
    cost, = breakdown.costs([call, inner])
    assert (cost.what, cost.calls, cost.us, cost.flop) == ("weights' gradient by matrix products: 3 -> 4 maps", 1, 10.0, 2000.0)
