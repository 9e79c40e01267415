import numpy as np
import pytest

from ganvas.metrics.diversity import diversity
from ganvas.metrics.sliced import sliced_wasserstein
from ganvas.metrics.spectrum import spectrum, spectrum_distance
from ganvas.metrics.visible import visible

RNG = np.random.Generator(np.random.Philox(21))


def sprites(n, side=32):
    """Discs of one colour on nothing at all, at random places: RGBA with alpha 0 and 255."""
    at = RNG.integers(side // 4, 3 * side // 4, (n, 2, 1, 1))
    y, x = np.indices((side, side))
    inside = (y - at[:, 0]) ** 2 + (x - at[:, 1]) ** 2 < RNG.integers(20, 60, (n, 1, 1))
    images = np.zeros((n, 4, side, side), np.uint8)
    images[:, :3] = RNG.integers(0, 256, (n, 3, 1, 1)) * inside[:, None]
    images[:, 3] = 255 * inside
    return images


def with_hidden_colours(images):
    hidden = images.copy()
    hidden[:, :3] = np.where(images[:, 3:] == 0, RNG.integers(0, 256, images[:, :3].shape), images[:, :3])
    assert not np.array_equal(hidden, images)
    return hidden


def paler(images):
    """As many pixels, half as thick."""
    changed = images.copy()
    changed[:, 3] //= 2
    return changed


@pytest.mark.parametrize("channels", [1, 3])
def test_images_without_alpha_are_as_they_are(channels):
    images = RNG.integers(0, 256, (3, channels, 8, 8)).astype(np.uint8)
    assert visible(images) is images


def test_hidden_colours_are_white_half_covered_ones_a_mixture_and_alpha_stays():
    pixel = np.array([200, 0, 100], np.uint8)
    images = np.stack([np.append(pixel, alpha) for alpha in (0, 51, 255)])[..., None, None].astype(np.uint8)
    assert visible(images)[..., 0, 0].tolist() == [[255, 255, 255, 0], [244, 204, 224, 51], [200, 0, 100, 255]]


def test_colours_hidden_under_nothing_change_no_figure_of_pixels():
    images = sprites(60)
    hidden = with_hidden_colours(images)
    vectors = images.reshape(60, -1)
    assert sliced_wasserstein(images, hidden) == sliced_wasserstein(images, images)
    np.testing.assert_array_equal(spectrum(hidden).decibel, spectrum(images).decibel)
    assert diversity(vectors, hidden) == diversity(vectors, images)


def test_two_images_that_differ_under_nothing_alone_are_alike():
    images = sprites(20)
    twice = np.concatenate([images, with_hidden_colours(images)[:5]])
    assert diversity(np.zeros((25, 2)), twice).alike_pairs == 5


def test_another_alpha_changes_every_figure_of_pixels():
    images = sprites(60)
    thinner, same = paler(images), sliced_wasserstein(images, images).mean
    shifted = images.copy()
    shifted[:, 3] = np.where(RNG.random(images[:, 3].shape) < 0.1, 255 - images[:, 3], images[:, 3])       # holes and dust
    assert sliced_wasserstein(images, shifted).mean > same + 0.05
    assert spectrum_distance(spectrum(images), spectrum(thinner)).rms_db > 1
    a, b = np.concatenate([images[:1], images[:1]]), np.concatenate([images[:1], thinner[:1]])
    assert diversity(np.zeros((2, 1)), a).similarity > diversity(np.zeros((2, 1)), b).similarity + 0.05
    assert (diversity(np.zeros((2, 1)), a).alike_pairs, diversity(np.zeros((2, 1)), b).alike_pairs) == (1, 0)


def test_alpha_counts_even_where_the_colours_are_those_of_the_paper():
    white = sprites(60)
    white[:, :3] = 255
    assert len(np.unique(visible(white)[:, :3])) == 1
    assert spectrum_distance(spectrum(white), spectrum(paler(white))).rms_db > 0.5
