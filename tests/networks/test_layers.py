"""Our convolutions: the kernels of choice, the two paddings, and a block's bias in bfloat16."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from ganvas.networks.layers import Block, Conv2d, ConvTranspose2d, SameCropConvTranspose2d, SamePadConv2d
from ganvas.ops.convolution import Kernels

LOWERED = Kernels("lowered", "lowered", "lowered")


@pytest.mark.parametrize("layer", [
    Conv2d(3, 5, 4, 2, 1), Conv2d(3, 5, (3, 4), bias=False), ConvTranspose2d(3, 5, 4, 2, 1), ConvTranspose2d(3, 5, 5, 2, 2, 1),
    ConvTranspose2d(3, 5, 3, 2, bias=False), SamePadConv2d(3, 5, 5, stride=2), SameCropConvTranspose2d(3, 5, 5, stride=2)],
    ids=lambda layer: type(layer).__name__)
def test_a_layer_gives_the_same_by_every_kernel(layer):
    x = torch.randn(2, 3, 8, 6, requires_grad=True)
    lowered = copy.deepcopy(layer)
    lowered.kernels = LOWERED
    expected, made = layer(x), lowered(x)
    assert_close(made, expected, rtol=1e-4, atol=1e-5, check_stride=False)
    assert_close(torch.autograd.grad(made.square().sum(), (x, *lowered.parameters())),
                 torch.autograd.grad(expected.square().sum(), (x, *layer.parameters())), rtol=1e-4, atol=1e-3, check_stride=False)


def test_a_layer_is_saved_and_copied_as_torchs_own():
    layer = ConvTranspose2d(3, 5, 4, 2, 1)
    layer.kernels = LOWERED
    assert list(layer.state_dict()) == ["weight", "bias"] and isinstance(layer, nn.ConvTranspose2d)
    assert copy.deepcopy(layer).kernels == LOWERED and ConvTranspose2d(3, 5, 4).kernels == Kernels()


def block(bias: float) -> Block:
    torch.manual_seed(0)
    made = Block(Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(0.2, inplace=True))
    nn.init.constant_(made[0].bias, bias)
    return made


@pytest.mark.parametrize("kernels", [Kernels(), LOWERED], ids="-".join)
def test_a_large_bias_before_a_norm_costs_no_bits_in_bfloat16(kernels):
    x, exact, low = torch.randn(8, 3, 6, 6), block(1000.0).double(), block(1000.0)
    low[0].kernels = kernels
    expected = exact(x.double())
    with torch.autocast("cpu", torch.bfloat16):
        made = low(x)
        careless = nn.Sequential.forward(block(1000.0), x)
    assert (made - expected).abs().max() < 0.1 < (careless - expected).abs().max()
    assert_close(low[1].running_mean, exact[1].running_mean.float(), rtol=1e-3, atol=0)
    assert_close(low[1].running_var, exact[1].running_var.float(), rtol=2e-2, atol=1e-3)
    assert low[1].num_batches_tracked == 1
    made.sum().backward()
    assert low[0].weight.grad is not None and low[0].bias.grad is None


def test_in_float32_and_in_eval_mode_a_block_is_its_layers_one_after_the_other():
    x, made = torch.randn(8, 3, 6, 6), block(2.0)
    assert_close(made(x), nn.Sequential.forward(block(2.0), x), rtol=0, atol=0)
    made.eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(made(x), nn.Sequential.forward(made, x), rtol=0, atol=0)
