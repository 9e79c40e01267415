import numpy as np
import pytest
import torch

from ganvas.errors import DataError
from ganvas.metrics.diversity import diversity, diversity_beside, mean_distance, ms_ssim, ssim

RNG = np.random.Generator(np.random.Philox(9))


def pictures(n, size=32, channels=3):
    """Smooth random pictures, unlike each other."""
    coarse = torch.from_numpy(RNG.normal(size=(n, channels, 5, 5)))
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return (128 + 60 * smooth).clamp(0, 255).to(torch.uint8).numpy()


def noisy(images, strength):
    return np.clip(images + strength * RNG.normal(size=images.shape), 0, 255).astype(np.uint8)


def test_the_mean_distance_is_that_of_a_full_matrix_in_any_number_of_blocks():
    x = RNG.normal(size=(1500, 6)) + 100
    full = np.sqrt(np.square(x[:, None] - x[None]).sum(axis=2))
    assert mean_distance(x) == pytest.approx(full.sum() / (1500 * 1499), rel=1e-9)


def test_ssim_of_flat_pictures_is_the_luminance_term_and_of_equal_ones_is_1():
    a, b = np.full((2, 1, 16, 16), 100, np.uint8), np.full((2, 1, 16, 16), 150, np.uint8)
    c1 = (0.01 * 255) ** 2
    np.testing.assert_allclose(ssim(a, b), (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1), rtol=1e-5)
    assert (ssim(pictures(2, 9), pictures(2, 9)) < 0.9).all()
    same = pictures(3, 200)
    np.testing.assert_allclose(ssim(same, same), 1, atol=1e-5)
    np.testing.assert_allclose(ms_ssim(same, same), 1, atol=1e-5)


def test_ssim_is_the_papers_formula_window_by_window():
    a, b = (pictures(1, 11, 1)[0, 0].astype(float) for _ in range(2))
    taps = np.exp(-np.square(np.arange(11) - 5) / (2 * 1.5**2))
    w = np.outer(taps, taps) / taps.sum() ** 2
    mx, my = (w * a).sum(), (w * b).sum()
    vx, vy, cov = (w * (a - mx) ** 2).sum(), (w * (b - my) ** 2).sum(), (w * (a - mx) * (b - my)).sum()
    c1, c2 = 6.5025, 58.5225
    expected = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    one = ssim(a[None, None].astype(np.uint8), b[None, None].astype(np.uint8))
    assert one[0] == pytest.approx(expected, abs=1e-4)


def test_ms_ssim_falls_with_noise_and_refuses_small_pictures():
    images = pictures(4, 180)
    little, much = ms_ssim(images, noisy(images, 5)), ms_ssim(images, noisy(images, 40))
    assert (little < 1).all() and (little > much).all() and (much > 0).all()
    with pytest.raises(DataError, match=r"64x64 are too small .* 176"):
        ms_ssim(pictures(1, 64), pictures(1, 64))


def test_a_collapsed_set_is_less_diverse_than_the_reals_at_the_same_n():
    reals = pictures(300)
    collapsed = noisy(np.repeat(pictures(1), 120, axis=0), 8)
    vectors = [images.reshape(len(images), -1).astype(np.float32) for images in (reals, collapsed)]
    of_reals, of_fakes = diversity_beside(vectors[0], reals, vectors[1], collapsed)
    assert of_reals.n == of_fakes.n == 120
    assert of_fakes.distance < 0.5 * of_reals.distance
    assert of_fakes.similarity > 0.5 > of_reals.similarity
    assert of_fakes.similarity_name == "SSIM"
    assert of_fakes.alike_pairs == of_reals.alike_pairs == 0


def test_identical_and_nearly_identical_images_are_counted():
    images = pictures(20)
    images[5] = images[3]
    images[9] = np.clip(images[3].astype(int) + 1, 0, 255)
    images[12] = noisy(images[13], 10)
    found = diversity(images.reshape(20, -1), images)
    assert (found.alike_pairs, found.alike_images) == (3, 3)


def test_large_pictures_are_compared_at_five_scales():
    images = pictures(5, 176)
    assert diversity(images.reshape(5, -1), images).similarity_name == "MS-SSIM"


def test_one_image_nan_and_foreign_features_are_clear_errors():
    images = pictures(6)
    with pytest.raises(DataError, match="fakes: 1 images"):
        diversity(np.zeros((1, 4)), images[:1], what="fakes")
    with pytest.raises(DataError, match="6 of 6 images hold NaN"):
        diversity(np.full((6, 4), np.nan), images)
    with pytest.raises(DataError, match="5 features for 6 images"):
        diversity(np.zeros((5, 4)), images)
