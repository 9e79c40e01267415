import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from ganvas.errors import DataError
from ganvas.metrics import kid as module
from ganvas.metrics.kid import kid, kid_of_all

RNG = np.random.Generator(np.random.Philox(4))
REAL, FAKE = RNG.normal(size=(400, 32)), RNG.normal(size=(400, 32)) * 1.1 + 0.2


def theirs(real, fake, size, subsets=1):
    kept = {"kid_subsets": subsets, "kid_subset_size": size, "kid_kernel": "poly", "kid_kernel_poly_degree": 3,
            "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1, "rng_seed": 5, "verbose": False}
    return kid_features_to_metric(torch.from_numpy(real), torch.from_numpy(fake), **kept)


def test_all_pairs_equal_torch_fidelitys_one_subset_of_everything():
    assert kid_of_all(REAL, FAKE).value == pytest.approx(theirs(REAL, FAKE, 400)["kernel_inception_distance_mean"], rel=1e-6)


def test_the_mean_over_torch_fidelitys_own_subsets_equals_its_mean():
    draws = np.random.RandomState(5)
    ours = []
    for _ in range(8):
        some = draws.choice(400, 100, replace=False), draws.choice(400, 100, replace=False)
        ours.append(kid_of_all(REAL[some[0]], FAKE[some[1]]).value)
    expected = theirs(REAL, FAKE, 100, 8)
    assert np.mean(ours) == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-6)
    assert np.std(ours) == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-6)


def test_blocks_do_not_change_it(monkeypatch):
    whole = kid_of_all(REAL, FAKE[:333])
    monkeypatch.setattr(module, "BLOCK_ROWS", 70)
    in_blocks = kid_of_all(REAL, FAKE[:333])
    assert in_blocks[:2] == pytest.approx(whole[:2], rel=1e-9)


def test_subsets_agree_with_all_pairs_within_the_error_and_are_a_function_of_the_seed():
    subsets, everything = kid(REAL, FAKE, subset_size=80, subsets=40, seed=1), kid_of_all(REAL, FAKE)
    assert abs(subsets.value - everything.value) < 3 * everything.error
    assert subsets == kid(REAL, FAKE, subset_size=80, subsets=40, seed=1)
    assert subsets != kid(REAL, FAKE, subset_size=80, subsets=40, seed=2)
    assert "40 subsets of 80" in subsets.estimator


def test_with_too_few_images_for_two_subsets_all_pairs_are_taken_and_it_is_said():
    assert kid(REAL, FAKE, subset_size=201) == kid_of_all(REAL, FAKE)
    assert "all pairs" in kid(REAL, FAKE, subset_size=201).estimator


def test_the_jackknife_is_what_leaving_out_each_image_gives():
    real, fake = REAL[:12], FAKE[:9]
    without = [[kid_of_all(np.delete(real, i, 0), fake).value for i in range(12)],
               [kid_of_all(real, np.delete(fake, i, 0)).value for i in range(9)]]
    variance = sum((len(side) - 1) * np.var(side) for side in without)
    assert kid_of_all(real, fake).error == pytest.approx(np.sqrt(variance), rel=1e-9)


def estimates(estimator, shift, repetitions=150, n=60, d=8):
    rng = np.random.Generator(np.random.Philox(6))
    return np.array([estimator(rng.normal(size=(n, d)), rng.normal(size=(n, d)) + shift)[:2] for _ in range(repetitions)])


def test_it_is_unbiased_and_its_errors_are_the_deviation_between_fresh_sets():
    def in_subsets(real, fake):
        return kid(real, fake, subset_size=10, subsets=12)

    for estimator in (kid_of_all, in_subsets):
        same = estimates(estimator, 0.0)
        assert abs(same[:, 0].mean()) < 3 * same[:, 0].std() / np.sqrt(len(same))
        apart = estimates(estimator, 0.7)
        assert 0.8 < apart[:, 1].mean() / apart[:, 0].std() < 1.25


def test_nan_and_two_images_are_clear_errors():
    with pytest.raises(DataError, match=r"reals: .* 1 of 400"):
        kid_of_all(np.where(np.arange(400)[:, None] == 3, np.nan, REAL), FAKE)
    with pytest.raises(DataError, match="fakes: 2 images, but this metric needs at least 3"):
        kid(REAL, FAKE[:2])
