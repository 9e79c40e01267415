import numpy as np
import pytest

from ganvas.errors import DataError
from ganvas.metrics.fid import fid
from ganvas.metrics.interval import halves, interval, measure

RNG = np.random.Generator(np.random.Philox(12))


def mean_gap(reference, candidate):
    return float(candidate.mean() - reference.mean())


@pytest.mark.parametrize("n", [4, 5, 1000])
def test_halves_share_nothing_and_leave_out_nothing(n):
    a, b = halves(n, seed=3)
    assert sorted([*a, *b]) == list(range(n))
    assert len(a) - len(b) == n % 2


def test_halves_are_a_function_of_seed_and_repetition():
    first = halves(50, 3)[0]
    assert np.array_equal(first, halves(50, 3)[0])
    assert not np.array_equal(first, halves(50, 4)[0]) and not np.array_equal(first, halves(50, 3, repetition=1)[0])


def test_every_set_that_is_measured_holds_different_images_of_equal_number():
    sizes = []

    def metric(reference, candidate):
        assert len(np.unique(reference[:, 0])) == len(reference) and len(np.unique(candidate[:, 0])) == len(candidate)
        assert not np.isin(candidate[:, 0], reference[:, 0]).any()
        sizes.append((len(reference), len(candidate)))
        return 0.0

    reals = np.arange(101.0)[:, None]
    found = measure(metric, reals, [1000 + np.arange(80.0)[:, None], 2000 + np.arange(30.0)[:, None]], seed=0)
    assert set(sizes) == {(51, 30)} == {(found.reference_n, found.n)}


def test_every_repetition_divides_the_reals_anew():
    found = measure(mean_gap, RNG.normal(size=(40, 1)), [np.zeros((20, 1))] * 4, seed=0)
    assert found.fakes.low < found.fakes.high and found.floor.low < found.floor.high


def test_a_perfect_generators_fid_lies_in_its_floor_and_a_bad_ones_does_not():
    reals = RNG.normal(size=(400, 16))
    good, bad = ([RNG.normal(size=(200, 16)) + shift for _ in range(5)] for shift in (0.0, 0.5))
    perfect, poor = measure(fid, reals, good, seed=1), measure(fid, reals, bad, seed=1)
    assert perfect.floor == poor.floor
    assert perfect.fakes.low < perfect.floor.high and perfect.floor.low < perfect.fakes.high
    assert poor.fakes.low > poor.floor.high


def test_the_bootstrap_that_is_refused_would_be_biased():
    reals = RNG.normal(size=(100, 64))
    once = measure(fid, reals, [reals], seed=1).floor.value
    resampled = [fid(reals[:50], reals[50:][RNG.integers(0, 50, 50)]) for _ in range(10)]
    assert min(resampled) > once


def test_middle_and_ends_say_what_they_are():
    assert interval([3, 1, 2]) == (2, 1, 3, "least to greatest of 3 repetitions")
    assert interval([4.0]) == (4, 4, 4, "one repetition, no interval")
    many = interval([float(x) for x in range(101)])
    assert many[:3] == pytest.approx((50, 5, 95))
    assert many.kind == "5 % to 95 % of 101 repetitions"


def test_too_few_reals_or_fakes_are_a_clear_error():
    with pytest.raises(DataError, match="3 reals in two halves and 9 fakes"):
        measure(mean_gap, np.zeros((3, 1)), [np.zeros((9, 1))], seed=0)
    with pytest.raises(DataError, match="40 reals in two halves and 1 fakes"):
        measure(mean_gap, np.zeros((40, 1)), [np.zeros((9, 1)), np.zeros((1, 1))], seed=0)
    with pytest.raises(DataError, match="at least one set"):
        measure(mean_gap, np.zeros((40, 1)), [], seed=0)
