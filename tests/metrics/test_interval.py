import numpy as np
import pytest

from ganvas.errors import DataError
from ganvas.metrics.fid import fid
from ganvas.metrics.interval import halves, interval

RNG = np.random.Generator(np.random.Philox(12))


@pytest.mark.parametrize("n", [4, 5, 1000])
def test_halves_share_nothing_and_leave_out_nothing(n):
    a, b = halves(n, seed=3)
    assert sorted([*a, *b]) == list(range(n))
    assert len(a) - len(b) == n % 2


def test_halves_are_a_function_of_seed_and_repetition():
    first = halves(50, 3)[0]
    assert np.array_equal(first, halves(50, 3)[0])
    assert not np.array_equal(first, halves(50, 4)[0]) and not np.array_equal(first, halves(50, 3, repetition=1)[0])


def test_the_bootstrap_that_is_refused_would_be_biased():
    reals = RNG.normal(size=(100, 64))
    a, b = halves(100, seed=1)
    once = fid(reals[a], reals[b])
    resampled = [fid(reals[:50], reals[50:][RNG.integers(0, 50, 50)]) for _ in range(10)]
    assert min(resampled) > once


def test_middle_and_ends_say_what_they_are():
    assert interval([3, 1, 2]) == (2, 1, 3, "least to greatest of 3 repetitions")
    assert interval([4.0]) == (4, 4, 4, "one repetition, no interval")
    many = interval([float(x) for x in range(101)])
    assert many[:3] == pytest.approx((50, 5, 95))
    assert many.kind == "5 % to 95 % of 101 repetitions"


def test_no_value_at_all_is_a_clear_error():
    with pytest.raises(DataError, match="at least one value"):
        interval([])
