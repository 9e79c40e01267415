"""The presets against the table of the classics and against parameter counts worked out by hand."""

from functools import cache

import pytest
import torch

from ganvas.config import make_config
from ganvas.errors import ConfigError
from ganvas.networks.build import build_networks
from ganvas.presets import load_preset, preset_names


@cache
def config_of(name):
    return make_config(load_preset(name).values)


@cache
def networks_of(name):
    config = config_of(name)
    return build_networks(config.network, config.data, seed=0)


def conv(in_maps, out_maps, kernel, bias=False):
    return in_maps * out_maps * kernel**2 + out_maps * bias


def linear(inputs, outputs, bias=False):
    return inputs * outputs + outputs * bias


def norm(*maps):
    return 2 * sum(maps)


D_64 = conv(3, 64, 4) + conv(64, 128, 4) + conv(128, 256, 4) + conv(256, 512, 4) + conv(512, 1, 4)
PARAMETERS = {
    "d2l-pokemon-64": (3_576_704, 2_765_696),
    "pytorch-faces-64": (3_576_704, D_64 + norm(128, 256, 512)),
    "udacity-pokemon-32": (
        linear(100, 8192, True) + conv(512, 256, 4) + conv(256, 128, 4) + conv(128, 3, 4) + norm(512, 256, 128),
        conv(3, 64, 4) + conv(64, 128, 4) + conv(128, 256, 4) + linear(4096, 1, True) + norm(128, 256)),
    "coursera-mnist-28": (
        conv(64, 256, 3, True) + conv(256, 128, 4, True) + conv(128, 64, 3, True) + conv(64, 1, 4, True) + norm(256, 128, 64),
        conv(1, 16, 3, True) + conv(16, 32, 5, True) + conv(32, 64, 5, True) + linear(64, 1, True) + norm(16, 32, 64)),
    "keras-pokemon-64": (
        linear(100, 8192, True) + conv(512, 256, 5, True) + conv(256, 128, 5, True) + conv(128, 64, 5, True)
        + conv(64, 3, 5, True) + norm(512, 256, 128, 64),
        conv(3, 64, 5, True) + conv(64, 128, 5, True) + conv(128, 256, 5, True) + conv(256, 512, 5, True)
        + linear(512 * 16, 1, True) + norm(128, 256, 512)),
    "radford-faces-64": (
        linear(100, 16384) + conv(1024, 512, 5) + conv(512, 256, 5) + conv(256, 128, 5) + conv(128, 3, 5)
        + norm(16384, 512, 256, 128),
        conv(3, 128, 5) + conv(128, 256, 5) + conv(256, 512, 5) + conv(512, 1024, 5) + linear(1024 * 16, 1)
        + norm(256, 512, 1024)),
}
CLASSICS = list(PARAMETERS)


@pytest.mark.parametrize("name", CLASSICS)
def test_parameter_counts_are_those_of_the_original(name):
    assert tuple(sum(p.numel() for p in network.parameters()) for network in networks_of(name)) == PARAMETERS[name]


def test_the_tutorials_discriminator_has_the_published_count():
    assert PARAMETERS["pytorch-faces-64"][1] == 2_765_568


COMPLETE = [name for name in preset_names() if load_preset(name).is_complete]


def test_only_the_thin_layers_over_the_modern_recipe_leave_anything_open():
    assert {*preset_names()} - {*COMPLETE} == {"conditional", "sprites"}
    for name in ("conditional", "sprites"):
        assert config_of(name).preset == name
        assert not {"train.batch", "network.g_channels", "length"} & load_preset(name).values.keys()


@pytest.mark.parametrize("size", [28, 32, 64, 128, 256])
def test_the_modern_presets_are_of_one_kind(size):
    config = config_of(f"modern-{size}")
    assert str(config.data.size) == f"{size}x{size}"
    assert config.network.family == "residual"
    assert config.train.loss == "relativistic" and config.train.ema_half_life_kimg > 0
    assert config.train.r1_gamma > 0 and config.train.r2_gamma > 0
    assert config.output.grid_mode == "eval"                     # the averaged generator, as it samples
    header = load_preset(f"modern-{size}").header
    assert "Ours, no classic" in header and "arXiv 2501.05441" in header


@pytest.mark.parametrize("name", COMPLETE)
def test_every_preset_makes_images_and_logits(name):
    config, (G, D) = config_of(name), networks_of(name)
    data = config.data
    with torch.no_grad():
        images = G(torch.randn(2, config.network.z_dim))
        logits = D(images)
    assert images.shape == (2, data.channels, data.size.height, data.size.width)
    assert images.abs().max() <= 1
    assert logits.shape == (2,)
    assert G.z_dim == config.network.z_dim
    assert G.image_size == D.image_size == (data.size.height, data.size.width)
    assert G.image_channels == D.image_channels == data.channels


# preset: turns, d_step, g_fakes, d_scale, reduction, real_label, tail
PLANS = {
    "d2l-pokemon-64": ("both", "joint", "same_z", 0.5, "sum", 1.0, "ragged"),
    "udacity-pokemon-32": ("both", "joint", "fresh", 1.0, "mean", 0.9, "ragged"),
    "coursera-mnist-28": ("both", "joint", "fresh", 0.5, "mean", 1.0, "ragged"),
    "pytorch-faces-64": ("both", "joint", "reuse", 1.0, "mean", 1.0, "ragged"),
    "keras-pokemon-64": ("both", "real_then_fake", "fresh", 1.0, "mean", 1.0, "replacement"),
    "radford-faces-64": ("alternate_g_first", "joint", "fresh", 1.0, "mean", 1.0, "ragged"),
}
# preset: size, channels, z_dim, z, lr, betas, batch, length, pictures: every, n, z, mode
FACTS = {
    "d2l-pokemon-64": ("64x64", 3, 100, "normal", 0.005, (0.5, 0.999), 256, "20 epochs", "1 epochs", 21, "fresh", "train"),
    "udacity-pokemon-32": ("32x32", 3, 100, "uniform", 2e-4, (0.5, 0.9), 64, "300 epochs", "1 epochs", 8, "fixed", "eval"),
    "coursera-mnist-28": ("28x28", 1, 64, "normal", 2e-4, (0.5, 0.99), 128, "20 epochs", "500 steps", 25, "fixed", "train"),
    "pytorch-faces-64": ("64x64", 3, 100, "normal", 2e-4, (0.5, 0.999), 128, "5 epochs", "1 epochs", 64, "fixed", "train"),
    "keras-pokemon-64": ("64x64", 3, 100, "normal", 2e-4, (0.5, 0.999), 16, "10000 steps", "100 steps", 16, "fixed", "eval"),
    "radford-faces-64": ("64x64", 3, 100, "uniform", 2e-4, (0.5, 0.999), 128, "25 epochs", "1 epochs", 64, "fixed", "train"),
}


@pytest.mark.parametrize("name", CLASSICS)
def test_the_update_plan_is_the_originals(name):
    plan = config_of(name).plan
    assert (plan.turns, plan.d_step, plan.g_fakes, plan.d_scale, plan.reduction, plan.real_label, plan.tail) == PLANS[name]


@pytest.mark.parametrize("name", CLASSICS)
def test_sizes_optimizer_and_length_are_the_originals(name):
    c = config_of(name)
    assert FACTS[name] == (
        str(c.data.size), c.data.channels, c.network.z_dim, c.network.z_distribution, c.train.lr, c.train.betas, c.train.batch,
        str(c.length), str(c.output.grid_every), c.output.grid_n, c.output.grid_z, c.output.grid_mode)
    assert c.train.adam_eps == (1e-7 if name == "keras-pokemon-64" else 1e-8)
    assert c.train.weight_decay == (1e-5 if name == "radford-faces-64" else 0)
    assert (c.train.loss, c.train.r1_gamma, c.train.ema_half_life_kimg) == ("nonsaturating", 0, 0)
    assert c.data.rotation_degrees == (20 if name == "coursera-mnist-28" else 0)
    assert c.output.grid_reals == (name == "coursera-mnist-28")
    assert not c.data.mirror
    assert c.data.fit == ("crop" if "faces" in name else "stretch")


@pytest.mark.parametrize("name", CLASSICS)
def test_batch_norm_has_the_originals_constants(name):
    modules = [module for network in networks_of(name) for module in network.modules()]
    norms = [module for module in modules if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    eps = {"keras-pokemon-64": 1e-3, "radford-faces-64": 1e-8}.get(name, 1e-5)
    assert {(norm.eps, norm.momentum, norm.track_running_stats) for norm in norms} == {(eps, 0.1, name != "radford-faces-64")}


@pytest.mark.parametrize("name", CLASSICS)
def test_the_header_says_what_is_source_and_what_is_choice(name):
    header = load_preset(name).header
    assert "From " in header
    assert "Choice" in header
    assert load_preset(name).title == header.splitlines()[0]


@pytest.mark.parametrize("name", ["coursera-mnist-28", "keras-pokemon-64", "pytorch-faces-64", "radford-faces-64"])
def test_the_header_owns_up_to_deviations(name):
    assert "Deviation" in load_preset(name).header


def test_each_preset_carries_its_own_name():
    assert [config_of(name).preset for name in preset_names()] == preset_names()


@pytest.mark.parametrize(("given", "meant"), [("keras-pokemon", "keras-pokemon-64"), ("pytorch", "pytorch-faces-64"),
                                              ("radfort-faces-64", "radford-faces-64")])
def test_an_unknown_preset_is_told_the_nearest_and_all_known_ones(given, meant):
    with pytest.raises(ConfigError) as error:
        load_preset(given)
    assert f"did you mean '{meant}'" in str(error.value)
    assert all(name in str(error.value) for name in preset_names())
