import torch

from ganvas.networks.mnist28 import Discriminator, Generator


def heights(network, x):
    found = []
    for block in network.blocks:
        x = block(x)
        found.append(x.shape[2])
    return found


def test_the_generator_grows_1_3_6_13_28_pixels():
    G, z = Generator(1, 5, 2), torch.randn(3, 5)
    assert heights(G, z[:, :, None, None]) == [3, 6, 13]
    images = G(z)
    assert images.shape == (3, 1, 28, 28)
    assert images.abs().max() <= 1


def test_the_discriminator_shrinks_28_13_5_1_pixels():
    D, images = Discriminator(1, 2, 0.2), torch.randn(3, 1, 28, 28)
    assert heights(D, images) == [13, 5, 1]
    assert D(images).shape == (3,)


def test_maps_halve_towards_the_image_and_double_towards_the_logit():
    assert [block[0].out_channels for block in Generator(1, 5, 64).blocks] == [256, 128, 64]
    assert [block[0].out_channels for block in Discriminator(1, 16, 0.2).blocks] == [16, 32, 64]


def test_a_single_image_cannot_be_normalised_by_the_discriminator():
    assert Discriminator(1, 2, 0.2).min_batch == 2
    assert Generator(1, 5, 2).min_batch == 1


def test_colour_images_are_possible():
    G, D = Generator(3, 5, 2), Discriminator(3, 2, 0.2)
    assert D(G(torch.randn(2, 5))).shape == (2,)
