import numpy as np
import pytest
from prdc import compute_prdc

from ganvas.errors import DataError
from ganvas.metrics.prdc import prdc

RNG = np.random.Generator(np.random.Philox(2))


@pytest.mark.parametrize("k", [1, 3, 5, 10])
@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_all_four_equal_the_authors_package(k, shift):
    real, fake = RNG.normal(size=(1000, 64)), RNG.normal(size=(1000, 64)) * 0.9 + shift
    theirs, ours = compute_prdc(real, fake, k), prdc(real, fake, k)
    for name, value in ours._asdict().items():
        assert value == pytest.approx(theirs[name], rel=0, abs=1e-12), name


def test_they_equal_it_for_float32_and_unequal_numbers():
    real, fake = RNG.normal(size=(700, 64)).astype(np.float32), RNG.normal(size=(400, 64)).astype(np.float32)
    assert prdc(real, fake, 5)._asdict() == pytest.approx(compute_prdc(real, fake, 5), rel=0, abs=1e-12)


def clusters(n, modes):
    return 20 * np.eye(8)[RNG.integers(0, modes, n)] + RNG.normal(size=(n, 8))


def test_dropped_modes_lower_recall_and_coverage_but_not_precision():
    real, whole, dropped = clusters(800, 8), clusters(800, 8), clusters(800, 4)
    full, part = prdc(real, whole), prdc(real, dropped)
    assert part.recall < 0.6 * full.recall and part.coverage < 0.6 * full.coverage
    assert part.precision > full.precision - 0.05


def test_noise_lowers_precision_and_density():
    real, fake = clusters(800, 8), clusters(800, 8)
    noisy = fake + 3 * RNG.normal(size=fake.shape)
    clear, blurred = prdc(real, fake), prdc(real, noisy)
    assert blurred.precision < 0.5 * clear.precision and blurred.density < 0.5 * clear.density


def test_identical_sets_are_perfect_and_far_sets_have_nothing_in_common():
    real = RNG.normal(size=(200, 16))
    same = prdc(real, real)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert prdc(real, real + 1000) == (0, 0, 0, 0)


def test_a_generator_with_one_picture_has_no_recall():
    real = RNG.normal(size=(200, 16))
    one = prdc(real, np.repeat(real[:1], 200, axis=0))
    assert (one.precision, one.recall) == (1, 0)
    assert one.coverage < 0.2


def test_as_few_images_as_neighbours_is_an_error_that_says_how_many_are_needed():
    with pytest.raises(DataError, match=r"5 fakes have no 5-th .* at least 6 images"):
        prdc(RNG.normal(size=(9, 4)), RNG.normal(size=(5, 4)), 5)
