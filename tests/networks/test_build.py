import math

import pytest
import torch
from torch import nn

from ganvas.config import make_config
from ganvas.errors import ConfigError
from ganvas.networks.build import build_networks
from ganvas.presets import load_preset

TINY = {"data.size": "16", "network.g_channels": 4, "network.d_channels": 4}
Norm, Conv = nn.modules.batchnorm._BatchNorm, (nn.Conv2d, nn.ConvTranspose2d)


def build(seed=0, **options):
    config = make_config(TINY, {name.replace("__", "."): value for name, value in options.items()})
    return build_networks(config.network, config.data, seed)


def weights(networks):
    return [p.detach() for network in networks for p in network.parameters()]


@pytest.mark.parametrize("init", ["dcgan", "all_normal", "gain_zero_mean", "torch", "glorot"])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(init):
    first, again, other = (weights(build(seed, network__init=init, network__conv_bias=True)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    drawn = [(a, b) for a, b in zip(first, other, strict=True) if a.unique().numel() > 1]
    assert drawn
    assert not any(torch.equal(a, b) for a, b in drawn)


def test_torchs_own_generator_is_neither_read_nor_moved():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = weights(build())
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert all(torch.equal(a, b) for a, b in zip(first, weights(build()), strict=True))


def test_a_users_gpu_is_not_seeded(monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("seeded"))
    build()


def test_a_wider_discriminator_leaves_the_generators_layers_alone():
    assert [p.shape for p in build()[0].parameters()] == [p.shape for p in build(network__d_channels=8)[0].parameters()]


def test_networks_of_the_user_cannot_be_built_from_options():
    with pytest.raises(ConfigError, match="generator=MyGenerator"):
        build(network__family="custom")


def test_an_impossible_size_is_refused_by_name():
    with pytest.raises(ConfigError, match="17x16"):
        build(data__size="17x16")


# ---------------------------------------------------------------- initial weights: distribution of each kind of parameter


def normal(mean, std):
    def check(values):
        n = values.numel()
        assert abs(float(values.mean()) - mean) <= 6 * std / math.sqrt(n)
        assert abs(float(values.std()) - std) <= 6 * std / math.sqrt(2 * n)
        assert float((values - mean).abs().max()) <= 6.5 * std
        if n > 2000:                                             # a normal's fourth moment, where a uniform's is 1.8
            assert abs(float(((values - mean) / std).pow(4).mean()) - 3) <= 6 * math.sqrt(96 / n)
    return check


def uniform(bound):
    def check(values):
        n = values.numel()
        assert float(values.abs().max()) <= bound * (1 + 1e-6)
        assert abs(float(values.mean())) <= 6 * bound / math.sqrt(3 * n)
        if n > 50:
            assert abs(float(values.square().mean()) - bound**2 / 3) <= 6 * math.sqrt(4 / 45) * bound**2 / math.sqrt(n)
    return check


def constant(value):
    return lambda values: torch.testing.assert_close(values, torch.full_like(values, value), rtol=0, atol=0)


def torch_default(module):
    fan_in = nn.init._calculate_fan_in_and_fan_out(module.weight)[0]
    return uniform(1 / math.sqrt(fan_in))


def glorot(module):
    return uniform(math.sqrt(6 / sum(nn.init._calculate_fan_in_and_fan_out(module.weight))))


# preset: weight of convolutions, of linear layers, their biases; gain and bias of batch norm
RULES = {
    "d2l-pokemon-64": (normal(0, 0.02), None, None, normal(0, 0.02), normal(0, 0.02)),
    "pytorch-faces-64": (normal(0, 0.02), None, None, normal(1, 0.02), constant(0.0)),
    "radford-faces-64": (normal(0, 0.02), normal(0, 0.02), None, normal(1, 0.02), constant(0.0)),
    "udacity-pokemon-32": (torch_default, torch_default, torch_default, constant(1.0), constant(0.0)),
    "coursera-mnist-28": (normal(0, 0.02), torch_default, torch_default, normal(0, 0.02), constant(0.0)),
    "keras-pokemon-64": (glorot, glorot, constant(0.0), constant(1.0), constant(0.0)),
}


@pytest.mark.parametrize("name", RULES)
def test_initial_weights_follow_the_original(name):
    config = make_config(load_preset(name).values, {"network.g_channels": 16, "network.d_channels": 16})
    conv, linear, bias, gain, shift = RULES[name]
    for network in build_networks(config.network, config.data, seed=3):
        for module in network.modules():
            if isinstance(module, Norm):
                gain(module.weight.detach())
                shift(module.bias.detach())
            elif isinstance(module, (*Conv, nn.Linear)):
                rule = linear if isinstance(module, nn.Linear) else conv
                (rule(module) if rule in (torch_default, glorot) else rule)(module.weight.detach())
                if module.bias is not None:
                    (bias(module) if bias is torch_default else bias)(module.bias.detach())


def test_glorot_fans_of_a_transposed_convolution_are_symmetric():
    layers = nn.Conv2d(8, 4, 5), nn.ConvTranspose2d(4, 8, 5)
    down, up = (sum(nn.init._calculate_fan_in_and_fan_out(layer.weight)) for layer in layers)
    assert down == up
