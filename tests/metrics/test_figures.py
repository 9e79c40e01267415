"""Every figure with its interval and floor, on features whose figures are known."""

import numpy as np
import pytest
from scipy.special import rel_entr

from ganvas.errors import DataError
from ganvas.metrics import figures as module
from ganvas.metrics.features import Extractor, Features
from ganvas.metrics.figures import Reals, answered_shares, figures, mode_kl_floor, pixels_of, sets_of

MODES, DIM, N = 8, 6, 150
CENTRES = np.random.Generator(np.random.Philox(99)).standard_normal((MODES, DIM))


class Given(Extractor):
    """Stands for what made the features; nothing is put through it."""

    name, dim, key, preprocessing = "given", DIM, "", "as given"

    def __call__(self, images):
        raise AssertionError("the features are there already")


def drawn(n, seed, modes=MODES, noise=0.0):
    """(features (n, DIM) of a mixture of so many of the modes, their modes)."""
    rng = np.random.Generator(np.random.Philox(seed))
    of = rng.integers(0, modes, n)
    spread = (1 + noise) / 6 * rng.standard_normal((n, DIM))         # features of about 1, as KID's kernel wants
    return (CENTRES[of] + spread).astype(np.float32), of


def with_classes(vectors, of):
    return Features(vectors, np.eye(MODES, dtype=np.float32)[of] * 0.93 + 0.07 / MODES)


def measured(fakes, reals=None, *, n=N, repeats=5, seed=0, read=None, images=None, labels=None, accuracy=None):
    reals = Features(drawn(600, 1)[0], None) if reals is None else reals
    fakes = fakes if isinstance(fakes, Features) else Features(fakes, None)
    images = np.zeros((len(fakes.vectors), 1, 8, 8), np.uint8) if images is None else images
    extractor = Given()
    extractor.accuracy = accuracy
    images = images if callable(images) else images.__getitem__
    found = figures(Reals(reals, read, "train", labels), fakes, images, extractor, n=n, repeats=repeats, seed=seed)
    return {figure.metric: figure for figure in found}


DISTANCES = ("fid", "kid", "precision", "recall", "density", "coverage")


def test_samples_of_the_reals_distribution_sit_at_the_floor():
    found = measured(drawn(5 * N, 2)[0], repeats=5)
    for metric in DISTANCES:
        figure = found[metric]
        assert figure.low <= figure.value <= figure.high and figure.floor_low <= figure.floor <= figure.floor_high
        assert figure.low <= figure.floor_high and figure.floor_low <= figure.high, metric
    assert abs(found["kid"].value) < 3 * found["kid"].error
    assert found["precision"].value > 0.9 and found["recall"].value > 0.9


def test_dropped_modes_lower_recall_and_coverage_and_not_precision():
    found = measured(drawn(5 * N, 2, modes=MODES // 2)[0])
    for metric in ("recall", "coverage"):
        assert found[metric].value < 0.7 < found[metric].floor and found[metric].high < found[metric].floor_low
    assert found["precision"].value > found["precision"].floor - 0.03
    assert found["kid"].low > found["kid"].floor_high and found["fid"].low > found["fid"].floor_high


def test_noise_lowers_precision_and_density_and_raises_fid():
    found = measured(drawn(5 * N, 2, noise=4)[0])
    for metric in ("precision", "density"):
        assert found[metric].high < found[metric].floor_low - 0.1
    assert found["fid"].low > found["fid"].floor_high


def test_a_collapsed_generator_has_no_diversity_and_one_that_is_like_the_reals_has_theirs():
    one = np.repeat(drawn(1, 2)[0], 5 * N, axis=0)
    assert measured(one)["diversity"].value < 1e-3 < measured(one)["diversity"].floor
    alike = measured(drawn(5 * N, 2)[0])["diversity"]
    assert alike.value == pytest.approx(alike.floor, rel=0.1) and alike.better == "none"


def test_no_image_comes_twice_in_what_is_compared(monkeypatch):
    seen = []
    real_prdc = module.prdc
    monkeypatch.setattr(module, "prdc", lambda a, b, k: (seen.append((a, b)), real_prdc(a, b, k))[1])
    numbers = np.arange(100, dtype=np.float32)
    reals = Features(np.stack([numbers, numbers % 7], axis=1), None)
    fakes = np.stack([1000 + np.arange(90, dtype=np.float32)] * 2, axis=1)
    measured(fakes, reals, n=30, repeats=3)
    sets = [({*a[:, 0]}, {*b[:, 0]}) for a, b in seen]
    assert len(sets) == 6 and all(len(a) == len(b) == 30 for a, b in sets)         # 30 different ones each
    of_fakes, of_floors = sets[::2], sets[1::2]
    assert all(a.isdisjoint(b) for a, b in of_floors)                              # the floor's two halves share no real
    assert [a for a, _ in of_fakes] == [a for a, _ in of_floors]                   # both are measured against the same reference
    assert len(set.union(*(b for _, b in of_fakes))) == 90                         # each repetition has samples of its own


@pytest.mark.parametrize(("available", "n", "repeats"), [(100, 20, 5), (100, 21, 5), (20, 20, 3), (3, 3, 2), (500, 7, 9)])
def test_sets_hold_different_samples_and_share_none_while_there_are_enough(available, n, repeats):
    sets = sets_of(available, n, repeats, 3)
    assert len(sets) == repeats
    for chosen in sets:
        assert len(chosen) == n == len(set(chosen.tolist())) and chosen.min() >= 0 and chosen.max() < available
    if available >= n * repeats:
        assert len(np.unique(np.concatenate(sets))) == n * repeats


def test_samples_that_come_class_by_class_are_measured_as_in_any_other_order():
    fakes, of = drawn(5 * N, 2)
    found = measured(fakes[np.argsort(of)])
    assert found["recall"].low > 0.85 and found["coverage"].low > 0.85


@pytest.mark.parametrize(("reals", "fakes", "n"), [(61, 200, 30), (600, 12, 12), (600, 3, 3)])
def test_n_is_lowered_to_half_of_the_reals_or_all_of_the_samples(reals, fakes, n):
    found = measured(drawn(fakes, 2)[0], Features(drawn(reals, 1)[0], None), n=1000, repeats=2)
    assert {figure.n for figure in found.values()} == {n} and {figure.reals for figure in found.values()} == {reals}
    assert found["recall"].note == f"k = {min(5, n - 1)}"
    assert all(np.isfinite([figure.value, figure.low, figure.high]).all() for figure in found.values())


def test_fid_says_where_n_is_not_above_the_number_of_features():
    assert "biased" in measured(drawn(DIM, 2)[0], repeats=1)["fid"].note
    assert measured(drawn(DIM + 1, 2)[0], repeats=1)["fid"].note == ""


def test_one_repetition_has_no_interval():
    found = measured(drawn(N, 2)[0], repeats=1)
    assert all(figure.low == figure.value == figure.high for figure in found.values())


def test_the_seed_decides_everything():
    fakes = drawn(200, 2)[0]
    assert measured(fakes, seed=4) == measured(fakes, seed=4)
    first, other = measured(fakes, seed=4), measured(fakes, seed=5)
    assert all(first[metric].value != other[metric].value for metric in ("fid", "kid", "density", "diversity"))


def test_missing_classes_show_in_the_modes_and_their_kl():
    vectors, of = drawn(600, 1)
    half = measured(with_classes(*drawn(5 * N, 2, modes=MODES // 2)), with_classes(vectors, of), labels=of)
    alike = measured(with_classes(*drawn(5 * N, 3)), with_classes(vectors, of), labels=of)
    assert (half["modes"].value, half["modes"].floor) == (MODES // 2, MODES) and half["modes"].n == 5 * N
    assert alike["modes"].value == MODES
    assert half["mode_kl"].value == pytest.approx(np.log(2), abs=0.1) and half["mode_kl"].low > half["mode_kl"].floor_high
    assert alike["mode_kl"].value < 0.05
    assert half["is"].value < MODES / 2 < half["is"].floor < MODES


def test_a_classifier_that_errs_costs_a_perfect_generator_nothing():
    def sorted_by_it(of, seed):
        """Half of the first class are taken for the second."""
        rng = np.random.Generator(np.random.Philox(seed))
        return np.where((of == 0) & (rng.random(len(of)) < 0.5), 1, of)

    kls, outside = [], 0
    for seed in range(12):
        reals, of = drawn(300, 100 + seed)
        fakes, own = drawn(5 * N, 200 + seed)
        found = measured(with_classes(fakes, sorted_by_it(own, seed)), with_classes(reals, sorted_by_it(of, 50 + seed)),
                         n=20, repeats=1, labels=of, accuracy=0.94)["mode_kl"]
        kls.append((found.value, found.floor))
        outside += found.value > found.floor_high
    assert outside <= 3 and np.median([value / floor for value, floor in kls]) < 1.5
    assert found.note.endswith("sorted by a classifier that is right for 94.0%")


def test_few_reals_raise_the_floor_of_the_kl_of_modes_to_what_fresh_reals_get():
    classes = 200
    rng = np.random.Generator(np.random.Philox(8))
    truth = np.full(classes, 1 / classes)

    def sorted_by_it(of):
        """Three of ten of each even class are taken for the next one."""
        return np.where((of % 2 == 0) & (rng.random(len(of)) < 0.3), of + 1, of)

    def beside(reals, tested, n):
        """(KL of fresh reals from a reference of so many reals, mean of many draws; the mean of its floor)."""
        kls, floors = [], []
        for _ in range(8):
            counts, labels = rng.multinomial(reals, truth), rng.integers(0, classes, tested)
            answers = sorted_by_it(labels)
            shares = answered_shares(labels, answers, counts)
            for _ in range(20):
                fresh = np.bincount(sorted_by_it(rng.integers(0, classes, n)), minlength=classes) / n
                kls.append(rel_entr(fresh, shares).sum())
            floors.append(mode_kl_floor(labels, answers, counts, n)[1])
        return np.mean(kls), np.mean(floors)

    for reals, tested, n in ((3000, 600, 5000), (100_000, 20_000, 5000)):
        kl, floor = beside(reals, tested, n)
        assert 0.75 * kl < floor < 1.35 * kl, (reals, kl, floor)
    assert floor == pytest.approx((classes - 1) / (2 * 5000), rel=0.25)


def test_a_class_of_the_reals_that_no_answer_names_is_still_one_of_theirs():
    vectors, of = drawn(600, 1)
    found = measured(with_classes(*drawn(5 * N, 2)), with_classes(vectors, np.where(of == 3, 4, of)), labels=of)
    assert found["modes"].note.startswith(f"of {MODES} classes") and found["modes"].value == MODES


def test_there_are_no_modes_without_labels_and_no_inception_score_without_classes():
    reals, fakes = drawn(60, 1), drawn(60, 2)
    assert "is" in (found := measured(with_classes(*fakes), with_classes(*reals), n=20)) and "modes" not in found
    assert {"is", "modes", "swd"}.isdisjoint(measured(fakes[0], Features(reals[0], None), n=20))


def test_figures_of_pixels_need_the_images_and_compare_like_with_like():
    rng, looked_at = np.random.Generator(np.random.Philox(5)), []
    pictures = rng.integers(0, 256, (80, 1, 4, 4), np.uint8).repeat(4, 2).repeat(4, 3)          # squares
    noise = rng.integers(0, 256, (120, 1, 16, 16), np.uint8)
    read = []

    def reader(positions):
        read.append(positions)
        return pictures[positions]

    reals = Features(drawn(80, 1)[0], None)
    found = measured(drawn(120, 2)[0], reals, n=40, repeats=3, read=reader,
                     images=lambda positions: (looked_at.extend(positions.tolist()), noise[positions])[1])
    assert sorted({*looked_at}) == pixels_of(120, 40, 3, 0).tolist()
    assert found["swd"].extractor == found["similarity"].extractor == "pixels" and found["swd"].relative_only
    assert found["swd"].low > 1.5 * found["swd"].floor_high and found["swd"].n == 40
    assert all(len(set(positions.tolist())) == len(positions) == 40 for positions in read)
    assert found["fid"].preprocessing == "as given"


def test_only_the_pixels_that_are_said_to_be_read_are_read(monkeypatch):
    monkeypatch.setattr(module, "MOST_SIMILAR", 30)
    monkeypatch.setattr(module, "PIXEL_IMAGES", 10)
    read, images = [], np.random.Generator(np.random.Philox(5)).integers(0, 256, (400, 1, 8, 8), np.uint8)

    def reader(positions):
        read.extend(positions.tolist())
        return images[positions]

    measured(drawn(400, 2)[0], Features(drawn(300, 1)[0], None), n=80, repeats=5, read=images.__getitem__, images=reader)
    assert sorted({*read}) == pixels_of(400, 80, 5, 0).tolist() and len({*read}) == 30 + 10 + 10
    few = pixels_of(90, 80, 5, 0)
    read.clear()
    measured(drawn(90, 2)[0], Features(drawn(300, 1)[0], None), n=80, repeats=5, read=images.__getitem__, images=reader)
    assert sorted({*read}) == few.tolist()


@pytest.mark.parametrize(("reals", "fakes", "words"), [
    (drawn(7, 1)[0], drawn(20, 2)[0], "7 real images .train. are too few.*8"),
    (drawn(50, 1)[0], drawn(2, 2)[0], "2 samples are too few"),
    (np.ones((50, DIM)), drawn(20, 2)[0], "all 50 real images .train. are the same"),
    (drawn(50, 1)[0] * 1e20, drawn(20, 2)[0], "overflow. Scale them"),
    (drawn(50, 1)[0], drawn(20, 2)[0] * 1e20, "overflow. Scale them"),
    (drawn(50, 1)[0], np.where(np.arange(20)[:, None] == 3, np.nan, drawn(20, 2)[0]), "1 of 20 .*NaN"),
    (drawn(50, 1)[0], drawn(20, 2)[0][:, :4], "6 features.*4"),
])
def test_what_cannot_be_measured_is_refused_with_the_number(reals, fakes, words):
    with pytest.raises(DataError, match=words):
        measured(fakes.astype(np.float32), Features(reals.astype(np.float32), None), n=20, repeats=2)
