import numpy as np
import pytest

from ganvas.metrics.extractor_random import RandomExtractor, _filters
from ganvas.metrics.features import extract


def discs(n, seed, size=24, channels=3, most=1.0):
    """Bright discs on dark, (n, channels, size, size) uint8; most: how far to the right centres may be."""
    rng = np.random.Generator(np.random.Philox(seed))
    y, x = np.mgrid[:size, :size] / size
    cx, cy, radius = rng.uniform(0.2, 0.2 + 0.6 * most, n), rng.uniform(0.2, 0.8, n), rng.uniform(0.1, 0.3, n)
    inside = (x - cx[:, None, None]) ** 2 + (y - cy[:, None, None]) ** 2 < radius[:, None, None] ** 2
    bright, dark = rng.integers(180, 256, (n, channels, 1, 1)), rng.integers(0, 76, (n, channels, 1, 1))
    return np.where(inside[:, None], bright, dark).astype(np.uint8)


def distance(a, b):
    """Squared distance of the mean features: what every figure rises with."""
    a, b = (extract(RandomExtractor(), images).vectors.astype(np.float64) for images in (a, b))
    return ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()


def test_filters_of_a_layer_are_orthogonal_and_always_the_same():
    for depth, weights in enumerate(_filters()):
        flat = weights.reshape(len(weights), -1).astype(np.float64)
        if depth:                                          # the first lose part of their mean afterwards
            assert np.allclose(flat @ flat.T, np.eye(len(flat)), atol=1e-6)
    assert [weights.shape for weights in _filters()] == [(16, 3, 5, 5), (32, 16, 3, 3), (48, 32, 3, 3)]
    assert np.array_equal(_filters()[2], _filters()[2])
    # Stored: with other weights, figures of today would not compare with those of tomorrow, and the key has to change.
    assert np.allclose(_filters()[1][0, 0].ravel()[:3], [-0.01948238, -0.020485, 0.0054407], atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 48), (4, 32, 32), (3, 200, 100), (1, 3, 5), (3, 1, 1)])
def test_images_of_any_size_and_channels_give_finite_features_of_one_length(shape):
    extractor = RandomExtractor()
    images = np.random.Generator(np.random.Philox(1)).integers(0, 256, (3, *shape), dtype=np.uint8)
    found = extract(extractor, images)
    assert found.vectors.shape == (3, extractor.dim) and found.vectors.dtype == np.float32 and found.probabilities is None


def test_features_do_not_hang_on_how_images_are_divided():
    images = discs(20, 0)
    whole = extract(RandomExtractor(), images).vectors
    one_by_one = extract(RandomExtractor(), [images[i:i + 1] for i in range(20)]).vectors
    assert np.allclose(whole, one_by_one, rtol=1e-5, atol=1e-5)


def test_its_figures_are_relative_and_its_key_is_that_of_the_design():
    extractor = RandomExtractor()
    assert extractor.relative_only and extractor.classes is None
    assert "64 px" in extractor.preprocessing
    assert extractor.key == RandomExtractor().key and len(extractor.key) == 32


def test_a_grey_image_and_the_same_in_rgb_have_the_same_features():
    grey = discs(4, 2, channels=1)
    assert np.allclose(RandomExtractor()(grey).vectors, RandomExtractor()(grey.repeat(3, axis=1)).vectors, atol=1e-5)


def test_what_is_worse_lies_farther_from_the_reals():
    rng = np.random.Generator(np.random.Philox(9))
    reals, others = discs(250, 0), discs(250, 1)
    floor = distance(reals, others)
    noisy = [np.clip(others + rng.normal(0, sigma, others.shape), 0, 255).astype(np.uint8) for sigma in (8, 32)]
    assert 2 * floor < distance(reals, noisy[0]) < distance(reals, noisy[1])
    blended = (others // 2 + others[::-1] // 2).astype(np.uint8)
    assert distance(reals, blended) > 2 * floor
    assert distance(reals, discs(250, 1, most=0.5)) > 2 * floor, "one half of the places is never seen"
    halves = others.copy()
    halves[:, :, :12], halves[:, :, 12:] = others[:, :, 12:], others[:, :, :12]
    assert distance(reals, halves) > 2 * floor
    assert distance(reals, rng.integers(0, 256, others.shape, dtype=np.uint8)) > 10 * distance(reals, noisy[0])
