import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from ganvas.errors import ConfigError
from ganvas.networks.dcgan import Discriminator, Generator, doubling_conv, halving_conv
from ganvas.networks.layers import SameCropConvTranspose2d, SamePadConv2d

PLAIN_G = {"kernel": 4, "padding": "symmetric", "conv_bias": False, "linear_bias": True, "stem": "conv", "stem_norm": "maps",
           "stem_slope": 0.0, "slope": 0.0, "bn_eps": 1e-5, "bn_momentum": 0.1, "bn_running": True}
PLAIN_D = {"kernel": 4, "padding": "symmetric", "conv_bias": False, "linear_bias": True, "head": "conv", "slope": 0.2,
           "norm_first": False, "norm_last": False, "bn_eps": 1e-5, "bn_momentum": 0.1, "bn_running": True}
KERAS = {"kernel": 5, "padding": "keras_same", "conv_bias": True}


@pytest.mark.parametrize("base_height", range(3, 9))
@pytest.mark.parametrize("base_width", range(3, 9))
def test_every_possible_size_gives_images_of_it_and_one_logit_each(base_height, base_width):
    with torch.device("meta"):                                   # shapes only
        for k in (1, 3):
            size = (base_height << k, base_width << k)
            images = Generator(size, 3, 5, 2, **PLAIN_G)(torch.empty(2, 5))
            assert images.shape == (2, 3, *size)
            assert Discriminator(size, 3, 2, **PLAIN_D)(images).shape == (2,)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_grey_colour_and_transparent_images_lie_in_range(channels):
    G = Generator((12, 20), channels, 5, 2, **PLAIN_G)
    with torch.no_grad():
        G.to_image.weight.mul_(100)
    images = G(torch.randn(2, 5))
    assert images.shape == (2, channels, 12, 20)
    assert 0.99 < images.abs().max() <= 1
    assert Discriminator((12, 20), channels, 2, **PLAIN_D)(images).isfinite().all()


@pytest.mark.parametrize("g", [{}, {"stem": "linear"}, {"stem": "linear", "stem_norm": "units", "bn_running": False}, KERAS,
                               {"kernel": 5, "stem_slope": 0.2, "slope": 0.01}])
@pytest.mark.parametrize("size", [(48, 64), (28, 20), (6, 16)])
def test_every_switch_of_the_generator_keeps_the_image_size(g, size):
    assert Generator(size, 3, 7, 2, **PLAIN_G | g)(torch.randn(3, 7)).shape == (3, 3, *size)


@pytest.mark.parametrize("d", [{}, {"head": "linear"}, {"norm_first": True}, {"norm_last": True}, KERAS, {"kernel": 5}])
def test_every_switch_of_the_discriminator_gives_one_logit_each(d):
    assert Discriminator((48, 64), 4, 2, **PLAIN_D | d)(torch.randn(3, 4, 48, 64)).shape == (3,)


@pytest.mark.parametrize("make", [
    lambda size: Generator(size, 3, 7, 2, **PLAIN_G), lambda size: Discriminator(size, 3, 2, **PLAIN_D)])
@pytest.mark.parametrize("size", [(63, 64), (64, 200), (4, 4)])
def test_impossible_sizes_are_refused_by_name(make, size):
    with pytest.raises(ConfigError, match=f"{size[1]}x{size[0]}"):
        make(size)


# ---------------------------------------------------------------- Keras's padding


def test_keras_same_convolution_equals_the_sum_written_out():
    x, conv = torch.randn(2, 3, 8, 6, dtype=torch.float64), SamePadConv2d(3, 2, 5, stride=2).double()
    # Keras: pad (ceil(n / 2) - 1) * 2 + 5 - n = 3 in all, the smaller half before.
    expected = torch.zeros(2, 2, 4, 3, dtype=torch.float64) + conv.bias.view(1, 2, 1, 1)
    for i in range(4):
        for j in range(3):
            for a in range(5):
                for b in range(5):
                    row, column = 2 * i + a - 1, 2 * j + b - 1
                    if 0 <= row < 8 and 0 <= column < 6:
                        expected[:, :, i, j] += torch.einsum("nc,oc->no", x[:, :, row, column], conv.weight[:, :, a, b])
    assert_close(conv(x), expected)


@pytest.mark.parametrize(("kernel", "padding"), [(4, "symmetric"), (5, "symmetric"), (5, "keras_same")])
def test_the_transposed_convolution_is_the_adjoint_of_the_convolution(kernel, padding):
    down = halving_conv(3, 2, kernel, padding, bias=False).double()
    up = doubling_conv(2, 3, kernel, padding, bias=False).double()
    up.weight.data = down.weight.data                            # both (2, 3, k, k)
    x, y = torch.randn(4, 3, 10, 6, dtype=torch.float64), torch.randn(4, 2, 5, 3, dtype=torch.float64)
    assert_close((down(x) * y).sum(), (x * up(y)).sum())


def test_keras_same_is_not_symmetric_padding():
    x, conv = torch.randn(1, 1, 8, 8), SamePadConv2d(1, 1, 5, stride=2)
    assert not torch.allclose(conv(x), F.conv2d(x, conv.weight, conv.bias, stride=2, padding=2))
    up, y = SameCropConvTranspose2d(1, 1, 5, stride=2), torch.randn(1, 1, 4, 4)
    assert not torch.allclose(up(y), F.conv_transpose2d(y, up.weight, up.bias, 2, 2, output_padding=1))


# ---------------------------------------------------------------- layers in their order


def kinds(network):
    return [type(m).__name__ for m in network.modules() if not list(m.children())]


def test_the_papers_layers_stand_in_the_papers_order():
    G, D = Generator((16, 16), 3, 5, 2, **PLAIN_G), Discriminator((16, 16), 3, 2, **PLAIN_D)
    assert kinds(G) == ["ConvTranspose2d", "BatchNorm2d", "ReLU", "ConvTranspose2d", "BatchNorm2d", "ReLU", "ConvTranspose2d"]
    assert kinds(D) == ["Conv2d", "LeakyReLU", "Conv2d", "BatchNorm2d", "LeakyReLU", "Conv2d"]


def test_switches_move_the_norms():
    assert kinds(Discriminator((16, 16), 3, 2, **PLAIN_D | {"norm_first": True}))[:3] == ["Conv2d", "BatchNorm2d", "LeakyReLU"]
    assert kinds(Discriminator((16, 16), 3, 2, **PLAIN_D | {"norm_last": True}))[2:5] == ["Conv2d", "LeakyReLU", "BatchNorm2d"]
    units = Generator((16, 16), 3, 5, 2, **PLAIN_G | {"stem": "linear", "stem_norm": "units"})
    assert isinstance(units.stem_norm, nn.BatchNorm1d)
    assert units.stem_norm.num_features == 4 * 4 * 4


def test_slopes_are_where_they_were_asked_for():
    G = Generator((16, 16), 3, 5, 2, **PLAIN_G | {"stem_slope": 0.2, "slope": 0.01})
    assert G.stem_act.negative_slope == 0.2
    assert G.blocks[0][2].negative_slope == 0.01
    assert {m.negative_slope for m in Discriminator((16, 16), 3, 2, **PLAIN_D).modules() if isinstance(m, nn.LeakyReLU)} == {0.2}


# ---------------------------------------------------------------- batch norm without running averages (the paper's)


def test_without_running_averages_eval_mode_normalises_by_the_batch():
    switches = {"stem": "linear", "stem_norm": "units", "bn_running": False}
    G, z = Generator((16, 16), 3, 5, 2, **PLAIN_G | switches), torch.randn(4, 5)
    assert list(G.buffers()) == []
    in_training = G.train()(z)
    for _ in range(3):
        G(torch.randn(4, 5) + 3)                                 # history must not matter
    assert torch.equal(G.eval()(z), in_training)
    assert not torch.allclose(G(z[:2]), in_training[:2])


def test_a_units_statistics_ask_for_two_images():
    G = Generator((16, 16), 3, 5, 2, **PLAIN_G | {"stem": "linear", "stem_norm": "units"})
    assert (G.min_batch, Generator((16, 16), 3, 5, 2, **PLAIN_G).min_batch) == (2, 1)
    assert G(torch.randn(2, 5)).isfinite().all()
    with pytest.raises(ValueError, match="more than 1 value"):
        G(torch.randn(1, 5))
