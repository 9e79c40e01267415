import numpy as np
import pytest
from numpy.testing import assert_array_equal

from ganvas import rng
from ganvas.config import make_config
from ganvas.networks.latents import draw_labels, draw_latents, latent_size, one_hot
from ganvas.rng import Purpose

Z = {"network.z_dim": 5}


def conditional(counts=(10, 30, 60), on=True):
    return make_config(Z, {"network.family": "residual", "network.conditional": on, "data.class_counts": counts,
                           "data.class_names": [str(i) for i in range(len(counts))]})


def test_what_a_generator_takes_is_z_and_a_number_for_each_class_that_it_is_told():
    assert latent_size(make_config(Z)) == latent_size(conditional(on=False)) == 5
    assert latent_size(conditional()) == 8


def test_without_classes_latents_are_z_alone_whatever_the_labels():
    indices, labels = np.arange(7), np.zeros(7, np.int64)
    z = rng.latents(3, Purpose.Z, indices, 5, "normal")
    for config in (make_config(Z), conditional(on=False)):
        for given in (None, labels):
            assert_array_equal(draw_latents(config, 3, Purpose.Z, indices, given), z)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_the_class_comes_one_hot_after_z(distribution):
    config = conditional()
    config = config.model_copy(update={"network": config.network.model_copy(update={"z_distribution": distribution})})
    drawn = draw_latents(config, 3, Purpose.Z, np.arange(4), np.array([2, 0, -1, 1]))
    assert (drawn.shape, drawn.dtype) == ((4, 8), np.float32)
    assert_array_equal(drawn[:, :5], rng.latents(3, Purpose.Z, np.arange(4), 5, distribution))
    assert_array_equal(drawn[:, 5:], [[0, 0, 1], [1, 0, 0], [0, 0, 0], [0, 1, 0]])


def test_an_image_without_a_class_is_a_row_of_zeros():
    assert_array_equal(one_hot(np.array([-1, 1]), 2), np.array([[0, 0], [0, 1]], np.float32))


@pytest.mark.parametrize("counts", [(10, 30, 60), (1, 1), (5, 0, 5), (1, 0), (0, 3), (7,)])
def test_classes_are_drawn_as_often_as_the_images_have_them(counts):
    n = 4000
    drawn = draw_labels(conditional(counts), 1, np.arange(n))
    assert drawn.dtype == np.int64
    found, expected = np.bincount(drawn, minlength=len(counts)), n * np.array(counts) / sum(counts)
    assert len(found) == len(counts)
    assert not found[expected == 0].any()
    chi_square = ((found - expected) ** 2 / np.maximum(expected, 1)).sum()
    assert chi_square < 16                                       # of 2 degrees of freedom: once in 3,000


def test_an_images_class_is_its_own_whatever_the_batch_and_another_seeds_is_another():
    config, together = conditional(), draw_labels(conditional(), 1, np.arange(64))
    apart = [draw_labels(config, 1, np.arange(first, first + 16)) for first in range(0, 64, 16)]
    assert_array_equal(np.concatenate(apart), together)
    order = np.random.default_rng(0).permutation(64)
    assert_array_equal(draw_labels(config, 1, order), together[order])
    assert (draw_labels(config, 2, np.arange(64)) != together).any()


def test_latents_without_labels_have_the_drawn_classes_and_the_same_z():
    config, indices = conditional(), np.arange(50, 90)
    drawn = draw_latents(config, 1, Purpose.SAMPLE, indices)
    assert_array_equal(drawn[:, 5:].argmax(1), draw_labels(config, 1, indices))
    assert_array_equal(drawn[:, 5:].sum(1), np.ones(40))
    asked = draw_latents(config, 1, Purpose.SAMPLE, indices, np.full(40, 2))
    assert_array_equal(asked[:, :5], drawn[:, :5])


def test_the_class_tells_nothing_of_z():
    config = conditional((1, 1))
    drawn = draw_latents(config, 0, Purpose.Z, np.arange(4000))
    of_each = [drawn[drawn[:, 5 + label] == 1, :5].mean(0) for label in (0, 1)]
    assert np.abs(of_each[0] - of_each[1]).max() < 4 * 2 / 4000**0.5
