import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from ganvas import rng
from ganvas.rng import Purpose

PI_COUNTER = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
ALL_ONES = 0xFFFFFFFF


def indices(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([ALL_ONES] * 4, (ALL_ONES, ALL_ONES), [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (PI_COUNTER, (0xA4093822, 0x299F31D0), [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, words):
    assert_array_equal(rng.philox(np.array(counter, dtype=np.uint32), key), np.array(words, dtype=np.uint32))


def test_philox_of_an_array_is_philox_of_each_of_its_counters():
    counters = np.random.default_rng(0).integers(0, 2**32, size=(3, 5, 4), dtype=np.uint32)
    together = rng.philox(counters, (1, 2))
    assert together.shape == (3, 5, 4)
    for i, j in np.ndindex(3, 5):
        assert_array_equal(together[i, j], rng.philox(counters[i, j], (1, 2)))


def test_uniforms_are_the_words_of_the_documented_counters():
    seed, index = 7 + 9 * 2**32, 11 + 13 * 2**32
    words = [rng.philox(np.array([11, 13, block, Purpose.SAMPLE], dtype=np.uint32), (7, 9)) for block in range(2)]
    expected = (np.concatenate(words)[:6] + 0.5) / 2**32
    assert_array_equal(rng.uniforms(seed, Purpose.SAMPLE, indices(index), 6)[0], expected)


def test_the_numbers_of_the_purposes_are_never_changed():
    assert {purpose.name: purpose.value for purpose in Purpose} == {
        "ORDER": 0, "Z": 1, "Z_G": 2, "ROTATION": 3, "FLIP": 4, "GRID": 5, "SAMPLE": 6, "BATCH_NORM": 7,
        "REPLACEMENT": 8, "MEASURE": 9, "EVALUATE": 10, "SUBSET": 11,
        "AUGMENT_D_REAL": 12, "AUGMENT_D_FAKE": 13, "AUGMENT_G_REAL": 14, "AUGMENT_G_FAKE": 15,
        "LABEL": 16, "PENALTY": 17, "PENALTY_FAKE": 18,
    }  # fmt: skip


# Stored in the first version: a change of any of these numbers changes every run that was ever made.
def test_draws_are_those_of_the_first_version():
    where = indices(0, 1, 2**32 + 5)
    assert_allclose(
        rng.uniforms(0, Purpose.Z, where, 3),
        [[0.17893147, 0.07533087, 0.98817259], [0.91142821, 0.31659349, 0.387962], [0.76944113, 0.75690577, 0.34778414]],
        atol=5e-9,
    )
    assert_allclose(
        rng.normals(0, Purpose.Z, where, 3),
        [[1.6511779, 0.84564555, -0.10209859], [-0.17499223, 0.39352587, -1.0974654], [0.03140483, -0.7233225, 0.8160869]],
        rtol=5e-7,
    )
    assert_allclose(
        rng.normals(2**64 - 1, Purpose.GRID, where, 3),
        [[0.98140717, -0.33828443, 0.7104358], [-0.2485048, -1.8079487, 0.4853374], [1.5199598, 1.6324095, -0.903198]],
        rtol=5e-7,
    )
    assert_allclose(
        rng.latents(1, Purpose.Z, where, 2, "uniform"),
        [[-0.8555929, -0.76548904], [-0.8687621, 0.32334256], [0.47458747, -0.5966524]],
        rtol=5e-7,
    )
    ten = np.arange(10, dtype=np.int64)
    assert rng.integers(5, Purpose.REPLACEMENT, ten, 1000).tolist() == [236, 926, 950, 193, 11, 752, 181, 662, 98, 596]


def test_shuffles_are_those_of_the_first_version():
    def shuffle(n: int, epoch: int) -> list[int]:
        return rng.permute(np.arange(n, dtype=np.int64), n, 42, Purpose.ORDER, epoch).tolist()

    assert shuffle(5, 0) == [4, 2, 1, 3, 0]
    assert shuffle(5, 1) == [2, 4, 0, 3, 1]
    assert shuffle(12, 3) == [10, 6, 11, 9, 3, 2, 5, 1, 8, 0, 4, 7]
    million = rng.permute(indices(0, 1, 999_999), 10**6, 42, Purpose.ORDER, 7)
    assert million.tolist() == [789522, 339904, 541805]
    huge = rng.permute(indices(0, 1, 10**10 - 1), 10**10, 42, Purpose.ORDER, 0)
    assert huge.tolist() == [1182177668, 8461065679, 643687964]


@pytest.mark.parametrize("draw", [rng.uniforms, rng.normals, rng.signs])
def test_draws_do_not_depend_on_how_the_indices_are_grouped(draw):
    where = np.arange(40, 57, dtype=np.int64)
    together = draw(3, Purpose.Z, where, 7)
    one_by_one = np.concatenate([draw(3, Purpose.Z, where[i : i + 1], 7) for i in range(len(where))])
    order = np.random.default_rng(0).permutation(len(where))
    assert_array_equal(one_by_one, together)
    assert_array_equal(draw(3, Purpose.Z, where[order], 7), together[order])


@pytest.mark.parametrize("draw", [rng.uniforms, rng.normals, rng.signs])
def test_a_longer_draw_begins_with_the_shorter_one(draw):
    where = np.arange(3, dtype=np.int64)
    longest = draw(3, Purpose.Z, where, 9)
    for count in range(9):
        assert_array_equal(draw(3, Purpose.Z, where, count), longest[:, :count])


def test_signs_are_the_bits_of_the_words_from_the_least_to_the_greatest():
    words = rng.philox(np.array([[5, 0, 0, Purpose.PENALTY], [5, 0, 1, Purpose.PENALTY]], dtype=np.uint32), (3, 0)).ravel()
    expected = [1 if int(words[k // 32]) >> (k % 32) & 1 else -1 for k in range(250)]
    draws = rng.signs(3, Purpose.PENALTY, indices(5, 6), 250)
    assert draws.dtype == np.float32 and draws.shape == (2, 250)
    assert draws[0].tolist() == expected != draws[1].tolist()


def test_signs_are_equally_frequent_and_know_nothing_of_their_neighbours():
    draws = rng.signs(0, Purpose.PENALTY, np.arange(400, dtype=np.int64), 1000)
    assert set(np.unique(draws)) == {-1, 1}
    four_errors = 4 / math.sqrt(draws.size)
    assert abs(draws.mean()) < four_errors
    for distance in (1, 2, 8, 31, 32, 64):
        assert abs((draws[:, distance:] * draws[:, :-distance]).mean()) < 1.1 * four_errors
    assert abs((draws[1:] * draws[:-1]).mean()) < 1.1 * four_errors


def test_no_indices_give_no_numbers():
    nothing = np.empty(0, dtype=np.int64)
    assert rng.normals(0, Purpose.Z, nothing, 5).shape == rng.signs(0, Purpose.Z, nothing, 5).shape == (0, 5)
    assert rng.integers(0, Purpose.Z, nothing, 5).shape == (0,)
    assert rng.permute(nothing, 5, 0, Purpose.ORDER, 0).shape == (0,)


def test_uniforms_are_uniform_and_never_zero_or_one():
    draws = rng.uniforms(0, Purpose.Z, np.arange(1000, dtype=np.int64), 100).ravel()
    assert 0 < draws.min() < draws.max() < 1
    assert stats.kstest(draws, "uniform").pvalue > 0.001


def test_normals_are_standard_normal():
    draws = rng.normals(0, Purpose.Z, np.arange(1000, dtype=np.int64), 100)
    assert draws.dtype == np.float32
    assert stats.kstest(draws.ravel(), "norm").pvalue > 0.001
    flat = draws.ravel().astype(np.float64)
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):  # within 4 standard errors
        values = flat**power
        assert abs(values.mean() - moment) < 4 * values.std() / math.sqrt(len(flat))
    correlations = np.corrcoef(draws, rowvar=False)[np.triu_indices(100, 1)]
    assert abs(correlations).max() < 5 / math.sqrt(1000)


def test_the_most_extreme_words_give_finite_normals(monkeypatch):
    for word in (0, ALL_ONES):
        monkeypatch.setattr(rng, "philox", lambda counters, key, word=word: np.full_like(counters, word))
        draws = rng.normals(0, Purpose.Z, indices(0), 4)
        assert np.isfinite(draws).all() and abs(draws).max() < 6.77


def test_uniform_latents_fill_minus_one_to_one():
    z = rng.latents(0, Purpose.Z, np.arange(1000, dtype=np.int64), 20, "uniform")
    assert z.dtype == np.float32 and z.shape == (1000, 20)
    assert stats.kstest(z.ravel(), stats.uniform(-1, 2).cdf).pvalue > 0.001


def test_normal_latents_are_the_normals():
    where = np.arange(5, dtype=np.int64)
    assert_array_equal(rng.latents(1, Purpose.Z, where, 6, "normal"), rng.normals(1, Purpose.Z, where, 6))


def test_every_seed_purpose_and_index_has_numbers_of_its_own():
    draws = [
        rng.uniforms(seed, purpose, indices(index), 4)[0]
        for seed in (0, 1, 2**32, 2**64 - 1)
        for purpose in Purpose
        for index in (0, 1, 2**32)
    ]
    assert len({tuple(draw) for draw in draws}) == len(draws)


@pytest.mark.parametrize("high", [1, 2, 3, 1000, 2**31 + 1, 2**32])
def test_integers_are_the_scaled_64_bit_number(high):
    where = np.arange(50, dtype=np.int64)
    counters = np.zeros((50, 4), dtype=np.uint32)
    counters[:, 0], counters[:, 3] = where, Purpose.REPLACEMENT
    words = rng.philox(counters, (9, 0)).tolist()
    expected = [(w[0] * 2**32 + w[1]) * high // 2**64 for w in words]
    assert rng.integers(9, Purpose.REPLACEMENT, where, high).tolist() == expected


def test_integers_are_equally_frequent():
    counts = np.bincount(rng.integers(0, Purpose.REPLACEMENT, np.arange(70_000, dtype=np.int64), 7), minlength=7)
    assert stats.chisquare(counts).pvalue > 0.001


def shuffle_by_the_docstring(x: int, n: int, seed: int, purpose: Purpose, epoch: int) -> int:
    """rng.permute of one position, written as the module's docstring says it."""
    width = next(w for w in range(8, 10**6, 2) if w * w >= n)
    height = max(8, math.ceil(n / width))

    def shift(turn: int, value: int, radix: int) -> int:
        counter = np.array([value, turn // 4, epoch, 2**31 + purpose], dtype=np.uint32)
        return int(rng.philox(counter, (seed % 2**32, seed // 2**32))[turn % 4]) * radix // 2**32

    while True:
        column, row = x % width, x // width
        for turn in range(12):
            if turn % 2 == 0:
                column = (column + shift(turn, row, width)) % width
            else:
                row = (row + shift(turn, column, height)) % height
        x = row * width + column
        if x < n:
            return x


@pytest.mark.parametrize("n", [1, 2, 5, 64, 65, 1797, 10**9 + 7])
def test_permute_is_what_the_docstring_says(n):
    seed, epoch = 5 + 3 * 2**32, 6
    positions = np.unique(np.linspace(0, n - 1, 6).astype(np.int64))
    expected = [shuffle_by_the_docstring(x, n, seed, Purpose.ORDER, epoch) for x in positions.tolist()]
    assert rng.permute(positions, n, seed, Purpose.ORDER, epoch).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 3000), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 2**32 - 1))
def test_permute_visits_each_position_once(n, seed, epoch):
    order = rng.permute(np.arange(n, dtype=np.int64), n, seed, Purpose.ORDER, epoch)
    assert order.dtype == np.int64
    assert_array_equal(np.sort(order), np.arange(n))


def test_permute_does_not_depend_on_which_positions_are_asked_for():
    n = 1000
    whole = rng.permute(np.arange(n, dtype=np.int64), n, 1, Purpose.ORDER, 2)
    some = np.random.default_rng(0).integers(0, n, 50)
    assert_array_equal(rng.permute(some, n, 1, Purpose.ORDER, 2), whole[some])


def test_permute_leaves_the_positions_it_is_given_alone():
    positions = np.arange(20, dtype=np.int64)
    rng.permute(positions, 20, 1, Purpose.ORDER, 2)
    assert_array_equal(positions, np.arange(20))


def test_another_epoch_seed_or_purpose_is_another_shuffle():
    positions = np.arange(100, dtype=np.int64)
    shuffles = [
        rng.permute(positions, 100, seed, purpose, epoch)
        for seed in (0, 1, 2**32)
        for purpose in (Purpose.ORDER, Purpose.GRID)
        for epoch in (0, 1, 2**32 - 1)
    ]
    assert len({tuple(shuffle) for shuffle in shuffles}) == len(shuffles)
    for shuffle in shuffles[1:]:  # equal positions of independent shuffles: one on average
        assert (shuffle == shuffles[0]).sum() <= 7


def test_all_orders_of_five_images_are_equally_frequent():
    positions = np.arange(5, dtype=np.int64)
    codes = [tuple(rng.permute(positions, 5, 0, Purpose.ORDER, epoch)) for epoch in range(1200)]
    counts = np.unique(codes, axis=0, return_counts=True)[1]
    assert len(counts) == math.factorial(5)
    assert stats.chisquare(counts).pvalue > 0.001


def test_shuffles_of_a_hundred_images_are_uniform_in_place_and_in_neighbours():
    n, epochs = 101, 2000
    positions = np.arange(n, dtype=np.int64)
    orders = np.stack([rng.permute(positions, n, 0, Purpose.ORDER, epoch) for epoch in range(epochs)])
    for position in (0, 1, 50, n - 1):
        assert stats.chisquare(np.bincount(orders[:, position], minlength=n)).pvalue > 0.001
    for distance in (1, 2, 10, 11):  # 10 is the width of the mixed radices here
        steps = (orders[:, distance:] - orders[:, :-distance]) % n
        for counts in (np.bincount(steps[:, 0], minlength=n)[1:], np.bincount(steps.ravel(), minlength=n)[1:]):
            assert stats.chisquare(counts).pvalue > 0.001
    fixed_points = (orders == positions).sum(axis=1)
    assert abs(fixed_points.mean() - 1) < 4 / math.sqrt(epochs)
    inversions = (orders[:, :1] > orders[:, 1:]).mean()
    assert abs(inversions - 0.5) < 4 * math.sqrt(1 / 12 / epochs)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: rng.uniforms(-1, Purpose.Z, indices(0), 1),
        lambda: rng.uniforms(2**64, Purpose.Z, indices(0), 1),
        lambda: rng.uniforms(0, Purpose.Z, indices(0, -3), 1),
        lambda: rng.integers(0, Purpose.Z, indices(0), 0),
        lambda: rng.integers(0, Purpose.Z, indices(0), 2**32 + 1),
        lambda: rng.permute(indices(5), 5, 0, Purpose.ORDER, 0),
        lambda: rng.permute(indices(-1), 5, 0, Purpose.ORDER, 0),
        lambda: rng.permute(indices(), 0, 0, Purpose.ORDER, 0),
    ],
)
def test_what_is_out_of_range_is_refused(draw):
    with pytest.raises(ValueError, match="must"):
        draw()
