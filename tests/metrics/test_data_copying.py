"""Copying makes C_T strongly negative, fresh reals leave it near 0, smoothing makes it positive."""

import json

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from ganvas.errors import DataError
from ganvas.metrics.data_copying import data_copying


def clusters(n: int, seed: int, d: int = 6) -> np.ndarray:
    """(n, d) float32: four Gaussians of unit width, 12 apart."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) + 12 * np.eye(4, d)[rng.integers(0, 4, n)]).astype(np.float32)


TRAIN, HOLDOUT = clusters(2000, 0), clusters(500, 1)


def kernel_density(sigma: float, n: int = 500) -> np.ndarray:
    """Samples of the paper's own generator: a training point and Gaussian noise."""
    return (TRAIN[:n] + np.random.default_rng(7).normal(0, sigma, (n, 6))).astype(np.float32)


def test_replayed_training_images_are_copying():
    result = data_copying(TRAIN, HOLDOUT, kernel_density(0.02))
    assert result.c_t < -8 and result.z_global < -20 and result.verdict == "copying"
    assert result.cells == result.cells_used == 8
    assert "C_T" in result.text and "copying" in result.text


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_fresh_reals_leave_c_t_near_zero(seed):
    result = data_copying(TRAIN, HOLDOUT, clusters(500, seed))
    assert abs(result.c_t) < 1.5 and abs(result.z_global) < 3 and result.verdict == "none"


def test_a_smoothed_density_is_underfit():
    result = data_copying(TRAIN, HOLDOUT, kernel_density(2.5))
    assert result.c_t > 5 and result.verdict == "underfit"


def test_more_noise_on_copies_makes_more_of_c_t():
    figures = [data_copying(TRAIN, HOLDOUT, kernel_density(sigma)).c_t for sigma in (0.05, 0.3, 0.6, 1.5)]
    assert figures == sorted(figures) and figures[0] < 0 < figures[-1]


def test_copies_in_one_cluster_show_in_its_cell_where_the_whole_hides_them():
    fresh = clusters(800, 5)
    first = fresh[:, 0] > 6
    samples = fresh + np.random.default_rng(1).normal(0, 0.5, fresh.shape).astype(np.float32)    # elsewhere not good enough
    samples[first] = TRAIN[TRAIN[:, 0] > 6][:first.sum()]
    result = data_copying(TRAIN, HOLDOUT, samples, cells=4)
    assert result.z_lowest < -8 < result.c_t


def gaussians(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)


@pytest.mark.parametrize("held", [0, 500])
def test_a_fifth_of_copies_is_no_chance_although_each_cell_shows_little_of_it(held):
    train, samples = gaussians(2000, 1), gaussians(1000, 2)
    samples[:200] = train[:200]
    result = data_copying(train, gaussians(held, 3) if held else None, samples)
    assert -3 < result.c_t < -1 and result.verdict == "copying"
    assert result.scatter == pytest.approx(result.cells**-0.5, rel=0.1) and f"± {result.scatter:.1f}" in result.text


def test_the_verdict_of_new_reals_is_within_chance_with_and_without_a_holdout():
    scores = []
    for seed in range(6):
        for held in (gaussians(500, 10 * seed + 1), None):
            result = data_copying(gaussians(1500, 10 * seed), held, gaussians(1000, 10 * seed + 2))
            scores.append(result.c_t / result.scatter)
            assert result.verdict == "none"
    assert abs(np.mean(scores)) < 0.8 and 0.5 < np.std(scores) < 1.6


def test_twins_that_new_reals_have_as_well_are_no_copying():
    kinds, rng = gaussians(300, 20), np.random.default_rng(21)
    def some(n): return (kinds[rng.integers(0, 300, n)] + rng.normal(0, 0.01, (n, 8))).astype(np.float32)
    train, samples = some(1200), some(800)
    assert data_copying(train, None, samples).verdict == "none"
    assert data_copying(train, None, np.concatenate([train[:400], samples[:400]])).verdict == "copying"


def test_of_one_cell_z_is_that_of_the_mann_whitney_test():
    samples = clusters(300, 6)
    result = data_copying(TRAIN, HOLDOUT, samples, cells=1)
    def nearest(some): return np.sqrt(((some[:, None].astype(np.float64) - TRAIN) ** 2).sum(2)).min(1)
    expected = mannwhitneyu(nearest(samples), nearest(HOLDOUT), use_continuity=False, method="asymptotic", alternative="less")
    assert [result.c_t, result.z_global] == pytest.approx([norm.ppf(expected.pvalue)] * 2, rel=1e-9)


def test_without_a_holdout_the_training_images_stand_for_it():
    assert data_copying(TRAIN, None, kernel_density(0.02)).verdict == "copying"
    fresh = data_copying(TRAIN, None, clusters(500, 9))
    assert fresh.verdict == "none" and fresh.by == "train" and fresh.reals == 2000


def test_twins_in_training_do_not_pass_for_nearness_of_reals():
    twice = np.concatenate([TRAIN[:500], TRAIN[:500] + np.float32(1e-3)])
    samples = TRAIN[:200] + np.float32(0.01)
    assert data_copying(twice, None, samples).verdict != "copying"                       # reals seem to lie as near
    assert data_copying(twice, None, samples, train_groups=np.tile(np.arange(500), 2)).verdict == "copying"


def test_copies_at_distance_zero_on_both_sides_are_no_difference():
    assert data_copying(TRAIN, TRAIN[:500], TRAIN[500:1000]).z_global == 0


def test_cells_with_too_few_samples_are_left_out():
    samples = clusters(400, 3)
    samples = samples[samples[:, 0] < 6]                                                  # one cluster dropped
    result = data_copying(TRAIN, HOLDOUT, samples, cells=4)
    assert (result.cells, result.cells_used) == (4, 3)
    assert abs(result.c_t) < 2


def test_where_every_cell_is_too_small_the_global_z_decides():
    result = data_copying(TRAIN, HOLDOUT[:30], kernel_density(0.02, 30), cells=10)
    assert result.c_t is None and result.cells_used == 0
    assert result.verdict == "copying" and "cells too small" in result.text


def test_the_same_seed_gives_the_same_result_and_it_is_json():
    samples = clusters(300, 4)
    results = [data_copying(TRAIN, HOLDOUT, samples, seed=3).as_dict() for _ in range(2)]
    assert results[0] == results[1] == json.loads(json.dumps(results[0]))


def test_too_few_reals_or_samples_and_nan_are_errors():
    with pytest.raises(DataError, match="12 held-out reals, but the data-copying test needs at least 20"):
        data_copying(TRAIN, HOLDOUT[:12], HOLDOUT)
    with pytest.raises(DataError, match="fakes: 5 images"):
        data_copying(TRAIN, HOLDOUT, HOLDOUT[:5])
    with pytest.raises(DataError, match="1 of 100 images hold NaN"):
        data_copying(TRAIN, HOLDOUT, np.concatenate([HOLDOUT[:99], np.full((1, 6), np.nan, np.float32)]))
