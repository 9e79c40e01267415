"""Runs beside each other."""

import numpy as np
import pytest

from ganvas.comparison import compare_evaluations
from ganvas.config import make_config
from ganvas.errors import ConfigError


def run(name, kid, *, seed=0, lr=0.0002, coverage=(0.4, 0.5, 0.6), fingerprint="a", extractor="random", n=500, **options):
    def figure(metric, label, ends, better):
        return {"metric": metric, "label": label, "low": ends[0], "value": ends[1], "high": ends[2], "floor": 0.001,
                "better": better, "n": n, "split": "train", "extractor": extractor}

    config = make_config({"train.seed": seed, "train.lr": lr, "execution.threads": 1 + seed, **options})
    return name, config, {
        "checkpoint": 1000 * (seed + 1), "data_fingerprint": fingerprint, "extractor": extractor, "copies": {"rate": 0.01 * seed},
        "figures": [figure("kid", "KID", kid, "lower"), figure("coverage", "coverage", coverage, "higher")]}


def test_runs_that_differ_only_in_seed_are_taken_together_and_span_their_spread():
    found = compare_evaluations([
        run("a", (0.1, 0.2, 0.3)), run("b", (0.3, 0.4, 0.5), seed=1), run("c", (0.8, 0.9, 1.0), lr=0.01),
        run("d", (0.7, 0.8, 0.9), lr=0.01, seed=1)])
    assert [(group.name, group.runs, group.seeds, group.checkpoints) for group in found.groups] == [
        ("train.lr 0.0002", ("a", "b"), (0, 1), (1000, 2000)), ("train.lr 0.01", ("c", "d"), (0, 1), (1000, 2000))]
    cell = found.groups[0].cells["kid"]
    assert (cell.low, cell.value, cell.high, cell.by_seed) == (0.1, pytest.approx(0.3), 0.5, (0.2, 0.4))
    assert found.groups[0].copies == 0.01
    assert "KID: train.lr 0.0002 is ahead by more than the measuring error" in found.sayings
    assert "coverage: no clear difference between train.lr 0.0002 and train.lr 0.01: their intervals overlap" in found.sayings
    assert "with three or more of each it is tested" in found.sayings[-1]


def seeds(lr, values, first=0):
    return [run(f"{lr}-{seed}", (value - 0.5, value, value + 0.5), seed=seed, lr=lr) for seed, value in enumerate(values, first)]


def test_from_three_seeds_on_luck_is_tested_and_more_seeds_see_more():
    clear = compare_evaluations([*seeds(0.1, (1.0, 1.1, 0.9, 1.05)), *seeds(0.2, (2.0, 2.2, 1.9, 2.1))])
    assert any(saying.startswith("KID: train.lr 0.1 is best (p = ") for saying in clear.sayings)
    assert "over at least 4 seeds of each setting, times the 2 questions asked" in clear.sayings[-1]
    unclear = compare_evaluations([*seeds(0.1, (1.0, 3.0, 2.0)), *seeds(0.2, (1.5, 3.5, 2.5))])
    assert any("KID: no clear difference between train.lr 0.1 and train.lr 0.2 (p = " in saying for saying in unclear.sayings)


def test_equal_settings_are_seldom_called_different():
    drawn = np.random.default_rng(0).normal(1, 0.3, (200, 2, 3))
    called = sum(any("is best" in saying for saying in compare_evaluations([*seeds(0.1, a), *seeds(0.2, b)]).sayings)
                 for a, b in drawn)
    assert called <= 12                                                # 5 % of 200 for KID; coverage is the same for all


def test_a_copy_of_a_run_is_no_second_seed():
    found = compare_evaluations([run("a", (0.1, 0.2, 0.3)), run("copy", (0.1, 0.2, 0.3)), run("c", (0.8, 0.9, 1.0), lr=0.01)])
    assert found.groups[0].seeds == (0,) and found.groups[0].cells["kid"].by_seed == (0.2,)
    assert "training luck not included" in found.sayings[-1]
    assert compare_evaluations([run("a", (0.1, 0.2, 0.3)), run("copy", (0.1, 0.2, 0.3))]).sayings == (
        "these runs have the same options and the same seed",)


def test_with_one_seed_each_luck_is_said_not_to_be_included():
    found = compare_evaluations([run("a", (0.1, 0.2, 0.3)), run("c", (0.8, 0.9, 1.0), lr=0.01)])
    assert "training luck not included" in found.sayings[-1]


def test_runs_of_one_setting_show_luck_alone():
    found = compare_evaluations([run("a", (0.1, 0.2, 0.3)), run("b", (0.8, 0.9, 1.0), seed=1)])
    assert len(found.groups) == 1
    assert found.sayings == ("these runs differ in their seed only: what separates the 2 is training luck",)


def test_higher_is_better_where_it_is():
    found = compare_evaluations([
        run("a", (0.1, 0.2, 0.3), coverage=(0.1, 0.2, 0.3)), run("c", (0.1, 0.2, 0.3), coverage=(0.7, 0.8, 0.9), lr=0.01)])
    assert "coverage: train.lr 0.01 is ahead by more than the measuring error" in found.sayings


def test_another_version_of_the_extractor_is_refused():
    one, other = run("a", (0.1, 0.2, 0.3)), run("b", (0.1, 0.2, 0.3), seed=1)
    with pytest.raises(ConfigError, match="different versions of random"):
        compare_evaluations([(*one[:2], one[2] | {"extractor_key": "x"}), (*other[:2], other[2] | {"extractor_key": "y"})])


@pytest.mark.parametrize(("other", "words"), [
    ({"fingerprint": "b"}, "different images"),
    ({"extractor": "classifier"}, "random and classifier"),
    ({"n": 100}, "500 and 100"),
])
def test_what_was_measured_otherwise_is_not_compared(other, words):
    with pytest.raises(ConfigError, match=words):
        compare_evaluations([run("a", (0.1, 0.2, 0.3)), run("b", (0.1, 0.2, 0.3), lr=0.01, **other)])


def test_one_run_is_nothing_to_compare():
    with pytest.raises(ConfigError, match="two runs"):
        compare_evaluations([run("a", (0.1, 0.2, 0.3))])
