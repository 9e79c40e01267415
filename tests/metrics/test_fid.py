import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from ganvas.errors import DataError
from ganvas.metrics.fid import Moments, Reference, fid, fid_against, frechet

RNG = np.random.Generator(np.random.Philox(3))


def correlated(n, d, shift=0.0):
    return RNG.normal(size=(n, d)) @ RNG.normal(size=(d, d)) / math.sqrt(d) + shift


def whitened(n, d):
    """Rows with mean exactly 0 and covariance exactly 1."""
    x = RNG.normal(size=(n, d))
    x -= x.mean(axis=0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T


def reference_fid(real, fake):
    """Heusel et al.'s formula with scipy's matrix root, on covariances made regular by a little."""
    a, b = (np.cov(x, rowvar=False) + 1e-10 * np.eye(x.shape[1]) for x in (real, fake))
    return np.square(real.mean(axis=0) - fake.mean(axis=0)).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real)


def test_gaussians_of_known_moments_have_the_closed_form_distance():
    scales, shift = np.array([0.5, 1, 2, 4]), np.array([1.0, -2, 0, 3])
    real, fake = whitened(100, 4), whitened(70, 4) * scales + shift
    assert fid(real, fake) == pytest.approx(np.square(shift).sum() + np.square(1 - scales).sum(), rel=1e-12)


def test_with_more_images_than_features_it_equals_torch_fidelitys():
    real, fake = correlated(400, 48), correlated(300, 48, 0.1)
    theirs = fid_statistics_to_metric(*(fid_features_to_statistics(torch.from_numpy(x)) for x in (real, fake)), False)
    assert fid(real, fake) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)


@pytest.mark.parametrize("n, m", [(20, 24), (20, 300), (300, 20), (48, 49)])
def test_with_fewer_images_than_features_it_equals_the_matrix_root(n, m):
    real, fake = correlated(n, 48), correlated(m, 48, 0.1)
    ours = fid(real, fake)
    assert ours == pytest.approx(reference_fid(real, fake), rel=2e-4)
    assert fid(fake, real) == pytest.approx(ours, rel=1e-9)


def test_two_images_on_each_side_have_the_closed_form_of_two_lines():
    real, fake = correlated(2, 10), correlated(2, 10)
    a, b = (np.diff(x, axis=0)[0] / math.sqrt(2) for x in (real, fake))
    expected = np.square(real.mean(axis=0) - fake.mean(axis=0)).sum() + a @ a + b @ b - 2 * abs(a @ b)
    assert fid(real, fake) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n, d", [(500, 32), (16, 64), (64, 64), (65, 64)])
def test_identical_sets_are_at_less_than_a_millionth_of_the_trace(n, d):
    x = correlated(n, d, 5.0)
    assert 0 <= fid(x, x) < 1e-6 * np.cov(x, rowvar=False).trace()


def test_features_that_never_fire_or_repeat_each_other_do_no_harm():
    x, y = correlated(300, 20), correlated(300, 20, 0.2)
    dead = np.zeros((300, 30))
    wide = [np.concatenate([z, z, dead], axis=1) for z in (x, y)]
    assert fid(*wide) == pytest.approx(2 * fid(x, y), rel=1e-6)
    assert fid(wide[0], wide[0]) < 1e-6 * np.cov(wide[0], rowvar=False).trace()
    assert fid(np.ones((50, 8)), np.ones((50, 8)) * 3) == pytest.approx(8 * 4)


def test_parts_merged_have_the_moments_of_the_whole():
    x = correlated(300, 16, 100.0)
    merged = Moments.of(x[:1]).merge(Moments.of(x[1:200])).merge(Moments.of(x[200:]))
    whole = Moments.of(x)
    assert merged.n == 300
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(merged.covariance, np.cov(x, rowvar=False), rtol=1e-9, atol=1e-10)


def test_a_reference_gives_the_same_from_rows_and_from_moments():
    for n in (200, 20):
        real, fake = correlated(n, 32), correlated(150, 32)
        from_moments = Reference.from_moments(Moments.of(real))
        assert fid_against(from_moments, fake) == pytest.approx(fid(real, fake), rel=1e-9)
        assert frechet(from_moments, Moments.of(fake)) == pytest.approx(fid(real, fake), rel=1e-6)


def test_float32_features_are_counted_with_in_float64():
    real = (correlated(300, 16) + 1e3).astype(np.float32)
    assert fid(real, real[::-1]) < 1e-6 * np.cov(real, rowvar=False).trace()


def test_nan_too_few_rows_and_another_extractor_are_clear_errors():
    x = correlated(30, 8)
    broken = x.copy()
    broken[4:7, 0] = np.nan
    with pytest.raises(DataError, match=r"fakes: .* 3 of 30 images"):
        fid(x, broken)
    with pytest.raises(DataError, match="reals: 1 images, but this metric needs at least 2"):
        fid(x[:1], x)
    with pytest.raises(DataError, match="8 features an image, but fakes 7"):
        fid(x, x[:, :7])
    with pytest.raises(DataError, match="8 features an image, but fakes 7"):
        fid_against(Reference.of(x), x[:, :7])
    with pytest.raises(DataError, match="at least 2 images, but here is 1"):
        _ = Moments.of(x[:1]).covariance
