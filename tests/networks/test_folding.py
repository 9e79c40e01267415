import copy
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.testing import assert_close

from ganvas.config import make_config
from ganvas.networks import dcgan
from ganvas.networks.build import build_networks
from ganvas.networks.folding import folded
from ganvas.networks.layers import NATIVE, Conv2d, ConvTranspose2d
from ganvas.networks.residual import ResidualBlock
from ganvas.ops.convolution import Kernels
from ganvas.presets import load_preset, preset_names

NARROW = {"network.g_channels": 8, "network.d_channels": 4, "network.z_dim": 12}
RESIDUAL = {"network.family": "residual", "data.size": "16x24", "network.g_depth": 2}
OTHERS = {"residual": RESIDUAL, "conditional residual": RESIDUAL | {
    "network.conditional": True, "data.class_names": ["a", "b"], "data.class_counts": [1, 1]}}
BIG = ("modern-128", "modern-256")                                       # as the smaller ones
NAMES = [*(name for name in preset_names() if load_preset(name).is_complete and name not in BIG), *OTHERS]
FOLDABLE = [name for name in NAMES if name != "radford-faces-64"]


@cache
def config_of(name):
    return make_config(OTHERS[name] if name in OTHERS else load_preset(name).values, NARROW)


def generator(name, dtype=torch.float32):
    """A generator in eval mode whose batch norms have gains, biases and averages of every size, as training leaves them."""
    config = config_of(name)
    G, _ = build_networks(config.network, config.data, seed=0)
    torch.manual_seed(1)
    for module in G.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.weight.data.uniform_(0.3, 2).mul_(torch.randint_like(module.weight, 2) * 2 - 1)
            module.bias.data.normal_(0, 0.5)
            if module.running_mean is not None:
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.05, 3)
        elif isinstance(module, ResidualBlock):
            module.last.weight.data.normal_(0, 0.3)                      # blocks that have learnt something
    return G.to(dtype).eval().requires_grad_(False)


def norms(network):
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def z_for(G, n=5, dtype=torch.float32):
    return torch.randn(n, G.z_dim + getattr(G, "num_classes", 0), generator=torch.Generator().manual_seed(2)).to(dtype)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("name", NAMES)
def test_the_folded_generator_makes_the_same_images(name, dtype, within, memory_format):
    G = generator(name, dtype)
    images = folded(G, memory_format)(z_for(G, dtype=dtype))
    assert images.dtype == dtype
    assert G(z_for(G, dtype=dtype)).std() > 0.01                         # or anything would be near enough
    assert_close(images, G(z_for(G, dtype=dtype)), rtol=0, atol=within)


@pytest.mark.parametrize("name", FOLDABLE)
def test_no_batch_norm_with_running_averages_is_left(name):
    G = generator(name)
    assert norms(G)
    assert not norms(folded(G))


def test_without_norms_there_is_nothing_to_fold():
    config = make_config(RESIDUAL, NARROW, {"network.g_norm": "none"})
    G = build_networks(config.network, config.data, seed=0)[0].eval()
    assert not norms(G)
    assert_close(folded(G)(z_for(G)), G(z_for(G)), rtol=0, atol=1e-6)


def test_batch_statistics_cannot_be_folded_and_stay():
    G = generator("radford-faces-64")
    assert len(norms(folded(G))) == len(norms(G)) > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_generator_itself_stays_as_it_was(name):
    G = generator(name).train().requires_grad_(True)
    before = copy.deepcopy(G.state_dict())
    sampler = folded(G)
    assert G.training and all(parameter.requires_grad for parameter in G.parameters())
    assert not sampler.training and not any(parameter.requires_grad for parameter in sampler.parameters())
    assert all(torch.equal(tensor, before[key]) for key, tensor in G.state_dict().items())
    assert {tensor.data_ptr() for tensor in G.state_dict().values()}.isdisjoint(t.data_ptr() for t in sampler.parameters())


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_weights_lie_in_the_memory_format_asked_for(memory_format):
    weights = [weight for weight in folded(generator("pytorch-faces-64"), memory_format).parameters() if weight.dim() == 4]
    assert len(weights) == 5
    assert all(weight.is_contiguous(memory_format=memory_format) for weight in weights)


def test_kernels_chosen_for_training_are_not_sampled_with():
    G = generator("keras-pokemon-64")
    for module in G.modules():
        if isinstance(module, ConvTranspose2d):
            module.kernels = Kernels(up="lowered")
    assert [m.kernels for m in folded(G).modules() if isinstance(m, Conv2d | ConvTranspose2d)] == [NATIVE] * 4


class UsesTheConvolutionBeforeItsNorm(nn.Module):
    """What looks foldable from outside and is not."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.ConvTranspose2d(5, 3, 4), nn.BatchNorm2d(3))

    def forward(self, z):
        x = self.block[0](z[:, :, None, None])
        return (x + self.block[1](x)).view(len(z), -1).unflatten(1, (3, 4, 4)).tanh()


class Derived(dcgan.Generator):
    """May do anything in a forward of its own."""


def test_modules_of_others_are_left_alone():
    own, derived = UsesTheConvolutionBeforeItsNorm().eval(), generator("pytorch-faces-64")
    derived.__class__ = Derived
    assert folded(own) is own
    assert folded(derived) is derived


@pytest.mark.parametrize("alter", [
    spectral_norm, lambda layer: layer.register_forward_hook(lambda *_: None),
    lambda layer: layer.register_forward_pre_hook(lambda *_: None)])
def test_a_generator_that_was_altered_from_outside_is_left_alone(alter):
    G = generator("pytorch-faces-64")
    alter(G.blocks[1][0])
    assert folded(G) is G


class Doubled(nn.BatchNorm2d):
    def forward(self, x):
        return 2 * super().forward(x)


def test_a_norm_that_may_do_more_than_normalise_stays():
    G = generator("pytorch-faces-64")
    for block in G.blocks:
        norm = Doubled(block[1].num_features).requires_grad_(False)
        norm.load_state_dict(block[1].state_dict())
        block[1] = norm
    sampler = folded(G.eval())
    assert len(norms(sampler)) == len(G.blocks)                          # only the stem's could go
    assert_close(sampler(z_for(G)), G(z_for(G)), rtol=0, atol=1e-5)
