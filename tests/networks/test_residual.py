import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from ganvas.config import make_config
from ganvas.errors import ConfigError
from ganvas.networks.build import build_networks
from ganvas.networks.residual import Discriminator, Generator, ResidualBlock, initialise

CLASSES = 3


def generator(size=(12, 20), channels=3, classes=0, depth=0, norm="batch", width=2):
    return Generator(size, channels, 5, classes, width, depth, norm)


def discriminator(size=(12, 20), channels=3, classes=0, depth=0, width=2):
    return Discriminator(size, channels, classes, width, depth)


def drawn(network, seed=1):
    """The network with no weight at zero, biases, gains and averages included, in float64."""
    chance = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=chance, dtype=torch.float64) * 0.3
    return network.double()


def z_for(G, n=4, label=None):
    z = torch.randn(n, G.z_dim, generator=torch.Generator().manual_seed(2), dtype=next(G.parameters()).dtype)
    if not G.num_classes:
        return z
    row = torch.zeros(G.num_classes, dtype=z.dtype)
    if label is not None:
        row[label] = 1
    return torch.cat([z, row.expand(n, -1)], dim=1)


def images_for(D, n=4, seed=3):
    shape = n, D.image_channels, *D.image_size
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=next(D.parameters()).dtype) * 2 - 1


# ---------------------------------------------------------------- shapes


@pytest.mark.parametrize("base_height", range(3, 9))
@pytest.mark.parametrize("base_width", range(3, 9))
def test_every_possible_size_gives_images_of_it_and_one_logit_each(base_height, base_width):
    with torch.device("meta"):                                   # shapes only
        for k in (1, 3):
            size = (base_height << k, base_width << k)
            images = generator(size)(torch.empty(2, 5))
            assert images.shape == (2, 3, *size)
            assert discriminator(size)(images).shape == (2,)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_any_channels_and_depth_make_images_in_range_and_gradients_everywhere(channels, depth, norm):
    G, D = drawn(generator(channels=channels, depth=depth, norm=norm)), drawn(discriminator(channels=channels, depth=depth))
    images = G(z_for(G))
    assert images.shape == (4, channels, 12, 20)
    assert 0.3 < images.abs().max() <= 1
    logits = D(images)
    assert logits.shape == (4,)
    logits.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for network in (G, D) for parameter in network.parameters())


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_depth_is_the_number_of_blocks_at_each_resolution(depth):
    G, D = generator((32, 32), depth=depth), discriminator((32, 32), depth=depth)
    for network in (G, D):
        assert len(network.stages) == 3                          # from 4 to 32 pixels and back
        assert [sum(isinstance(part, ResidualBlock) for part in stage) for stage in network.stages] == [depth] * 3


@pytest.mark.parametrize(("norm", "some"), [("batch", True), ("none", False)])
def test_only_g_has_norms_and_none_where_none_is_asked_for(norm, some):
    def normed(network):
        return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    assert normed(generator(norm=norm, depth=1)) == some
    assert not normed(discriminator(depth=1))


def test_an_impossible_size_is_refused_by_name():
    for make in (generator, discriminator):
        with pytest.raises(ConfigError, match="17x16"):
            make(size=(16, 17))


# ---------------------------------------------------------------- blocks


def test_a_block_starts_as_nothing_and_then_adds_to_what_it_is_given():
    block = ResidualBlock(4, norm=True)
    initialise(block)
    x = torch.randn(3, 4, 6, 6)
    assert torch.equal(block(x.clone()), x)
    block.last.weight.data.normal_()
    assert_close(block(x) - x, block.last(block.first(x)))
    assert (block(x) - x).abs().max() > 0.1


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_networks_with_blocks_start_as_those_without(norm):
    """The same images and logits, where all else has the same weights."""
    of_g, of_d = lambda depth: generator(depth=depth, norm=norm), lambda depth: discriminator(depth=depth)
    for make, given in ((of_g, z_for), (of_d, images_for)):
        plain, deep = make(0), make(2)
        initialise(plain)
        initialise(deep)
        for shallow, stage in zip(plain.stages, deep.stages, strict=True):
            others = [part for part in stage if not isinstance(part, ResidualBlock)]
            for mine, theirs in zip(shallow, others, strict=True):
                theirs.load_state_dict(mine.state_dict())
        for name, part in plain.named_children():
            if name != "stages":
                deep.get_submodule(name).load_state_dict(part.state_dict())
        assert plain(given(plain)).std() > 0
        assert torch.equal(deep(given(deep)), plain(given(plain)))


def test_a_block_learns_from_its_first_step():
    D = discriminator(depth=1)
    initialise(D)
    D(images_for(D)).sum().backward()
    last = [module.last.weight.grad for module in D.modules() if isinstance(module, ResidualBlock)]
    assert len(last) == 2 and all(gradient.any() for gradient in last)


# ---------------------------------------------------------------- classes


def test_a_class_moves_what_the_generator_makes():
    G = drawn(generator(classes=CLASSES)).eval()
    none, *each = (G(z_for(G, label=label)) for label in (None, 0, 1, 2))
    for a, b in ((none, each[0]), (each[0], each[1]), (each[1], each[2])):
        assert (a - b).abs().max() > 0.01


def test_a_class_of_the_generator_is_an_embedding_added_to_what_z_makes():
    G = drawn(generator(classes=CLASSES)).eval()
    stems = [G.stem(z_for(G, label=label)) for label in (None, 2)]
    assert_close(stems[1] - stems[0], G.stem.weight[:, G.z_dim + 2].expand(4, -1))


def test_the_logit_of_a_class_is_the_unconditional_one_and_the_projection_on_its_vector():
    D = drawn(discriminator(classes=CLASSES, depth=1))
    images, labels, maps = images_for(D), torch.tensor([0, 2, 1, 2]), []
    D.stages[-1].register_forward_hook(lambda module, given, made: maps.append(made))
    told, untold = D(images, labels), D(images)
    vectors, features = D.classes.weight[labels], maps[0].sum(dim=(2, 3))
    assert vectors.shape == features.shape == (4, 4)
    assert_close(told - untold, (vectors * features).sum(1) / math.sqrt(4))
    assert_close(untold, maps[0].flatten(1) @ D.head.weight[0] + D.head.bias)
    assert (told - untold).abs().min() > 1e-3


def test_a_label_of_minus_one_is_no_class():
    D = drawn(discriminator(classes=CLASSES))
    images = images_for(D)
    assert torch.equal(D(images, torch.tensor([-1, -1, -1, -1])), D(images))
    mixed = D(images, torch.tensor([-1, 1, -1, 0]))
    assert_close(mixed[[0, 2]], D(images)[[0, 2]])
    assert_close(mixed[[1, 3]], D(images, torch.tensor([1, 1, 0, 0]))[[1, 3]])
    mixed.sum().backward()
    assert D.classes.weight.grad[:2].any() and not D.classes.weight.grad[2].any()


def test_networks_without_classes_have_nothing_to_tell_them_by():
    D = drawn(discriminator())
    assert D.classes is None
    assert torch.equal(D(images_for(D), torch.tensor([0, 1, 2, 1])), D(images_for(D)))
    assert generator().stem.in_features == 5
    assert generator(classes=CLASSES).stem.in_features == 8


# ---------------------------------------------------------------- each image for itself


@pytest.mark.parametrize("classes", [0, CLASSES])
def test_no_image_of_a_batch_has_a_part_in_anothers_logit(classes):
    D = drawn(discriminator(classes=classes, depth=1))
    images = images_for(D, 5).requires_grad_()
    labels = torch.tensor([0, 1, 2, -1, 1]) if classes else None
    logits = D(images, labels)
    (gradient,) = torch.autograd.grad(logits[2], images)
    assert [bool(part.any()) for part in gradient] == [False, False, True, False, False]
    one = slice(2, 3)
    assert_close(D(images[one], None if labels is None else labels[one]), logits[one])


# ---------------------------------------------------------------- built from options


RESIDUAL = {
    "network.family": "residual", "data.size": "12x20", "network.g_channels": 4, "network.d_channels": 4, "network.z_dim": 5}
LABELLED = {"network.conditional": True, "data.class_names": ["a", "b"], "data.class_counts": [1, 1]}


def build(*layers, seed=0):
    config = make_config(RESIDUAL, *layers)
    return build_networks(config.network, config.data, seed)


def weights(networks):
    return {f"{i}/{name}": tensor for i, network in enumerate(networks) for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("more", [{}, LABELLED, {"network.g_depth": 1, "network.d_depth": 2},
                                  {"network.d_depth": 1, "network.d_spectral_norm": True}])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(more):
    torch.manual_seed(8)
    before = torch.random.get_rng_state()
    first, again, other = (weights(build(more, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    differing = {name for name, tensor in first.items() if not torch.equal(tensor, other[name])}
    assert {name for name, tensor in first.items() if tensor.unique().numel() > 1} <= differing


def test_options_become_the_numbers_of_the_networks():
    G, D = build(LABELLED, {"network.g_depth": 2, "network.d_depth": 1, "network.g_norm": "none", "network.d_channels": 6,
                            "data.channels": 4, "data.transparency": "keep"})
    assert (G.image_size, G.image_channels, G.z_dim, G.num_classes) == ((20, 12), 4, 5, 2)
    assert (D.image_size, D.image_channels, D.num_classes) == ((20, 12), 4, 2)
    depths = [sum(isinstance(part, ResidualBlock) for part in network.stages[0]) for network in (G, D)]
    assert depths == [2, 1]
    assert D.stages[0][0][0].out_channels == 6
    assert not [module for module in G.modules() if isinstance(module, nn.BatchNorm2d)]


def test_classes_of_images_are_no_business_of_networks_that_are_not_conditional():
    G, D = build(LABELLED | {"network.conditional": False})
    assert (G.num_classes, D.num_classes) == (0, 0)


def test_first_weights_are_small_and_normal_with_biases_at_zero():
    G, D = build(LABELLED, {"network.g_channels": 16, "network.d_channels": 16, "network.g_depth": 1, "network.d_depth": 1})
    for network in (G, D):
        for module in network.modules():
            if isinstance(module, ResidualBlock):
                assert not module.last.weight.any() and not module.last.bias.any()
                assert module.first[0].weight.any()
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding) and module.weight.any():
                n = module.weight.numel()
                assert abs(float(module.weight.detach().std()) - 0.02) < 6 * 0.02 / math.sqrt(2 * n)
                assert abs(float(module.weight.detach().mean())) < 6 * 0.02 / math.sqrt(n)
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and module.bias is not None:
                assert not module.bias.any()


# ---------------------------------------------------------------- spectral norm


def largest_singular_values(D):
    return [float(torch.linalg.svdvals(module.weight.detach().flatten(1))[0]) for module in D.modules()
            if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding)]


@pytest.mark.parametrize("depth", [0, 1])
def test_with_spectral_norm_every_weight_of_d_stretches_by_at_most_one(depth):
    _, D = build(LABELLED, {"network.d_spectral_norm": True, "network.d_depth": depth})
    labels = torch.tensor([0, 1, -1, 1])
    optimizer = torch.optim.Adam(D.parameters(), 1e-4)
    for seed in range(30):                                       # learns on the way, as it does in training
        optimizer.zero_grad()
        D(images_for(D, seed=seed), labels).sum().backward()
        optimizer.step()
    found = largest_singular_values(D)
    assert len(found) == 4 + 4 * depth                           # two strides, head and classes; two convolutions a block
    assert all(0.9 < value < 1.1 for value in found), found
    D.eval()
    logits = D(images_for(D), labels)
    assert logits.isfinite().all() and logits.std() > 0


def test_without_it_the_weights_are_as_they_are():
    assert all(value < 0.9 or value > 1.1 for value in largest_singular_values(build(LABELLED)[1]))
