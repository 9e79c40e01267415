import math

import numpy as np
import pytest

from ganvas.errors import DataError
from ganvas.metrics.modes import mode_coverage

RNG = np.random.Generator(np.random.Philox(8))


def test_even_samples_hit_every_mode_at_a_kl_of_zero():
    found = mode_coverage(np.arange(1000) % 10, np.ones(10))
    assert (found.modes, found.hit, found.hit_often, found.outside, found.kl) == (10, 10, 10, 0, 0)


def test_half_of_the_modes_cost_a_kl_of_log_2():
    found = mode_coverage(np.arange(1000) % 5, np.ones(10))
    assert found.hit == 5
    assert found.kl == pytest.approx(math.log(2))


def test_kl_is_of_the_samples_against_the_reals_own_shares():
    found = mode_coverage(np.repeat([0, 1], [50, 50]), np.array([300, 100]))
    assert found.kl == pytest.approx(0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25))


def test_a_mode_hit_once_is_not_hit_often():
    found = mode_coverage(np.array([0, 0, 0, 1, 2, 2]), np.ones(4), often=2)
    assert (found.hit, found.hit_often) == (3, 2)


def test_samples_in_classes_without_reals_are_counted_apart():
    found = mode_coverage(np.array([0, 1, 2, 2]), np.array([10, 10, 0]))
    assert (found.modes, found.hit, found.outside, found.kl) == (2, 2, 0.5, 0)
    assert math.isinf(mode_coverage(np.array([2, 2]), np.array([10, 10, 0])).kl)


def test_the_floor_of_stacked_mnist_is_the_expected_one_and_fresh_even_samples_lie_within():
    fresh = mode_coverage(RNG.integers(0, 1000, 26_000), np.ones(1000))
    assert fresh.kl_floor == pytest.approx(999 / 52_000, rel=0.03)
    assert fresh.kl_floor_range[0] * 0.95 < fresh.kl < fresh.kl_floor_range[1] * 1.05
    assert fresh.hit_expected == pytest.approx(1000, abs=0.01)


def test_few_samples_are_expected_to_miss_modes():
    assert mode_coverage(np.arange(100), np.ones(100)).hit_expected == pytest.approx(100 * (1 - 0.99**100), rel=0.02)


def test_no_samples_and_foreign_classes_are_clear_errors():
    with pytest.raises(DataError, match="no samples"):
        mode_coverage(np.array([], dtype=int), np.ones(3))
    with pytest.raises(DataError, match="classes 0 to 3, but there are 3"):
        mode_coverage(np.array([0, 3]), np.ones(3))
    with pytest.raises(DataError, match="class counts"):
        mode_coverage(np.array([0, 1]), np.zeros(3))
