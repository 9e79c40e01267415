"""Runs beside each other."""

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
        "checkpoint": 1000 * (seed + 1), "data_fingerprint": fingerprint, "copies": {"rate": 0.01 * seed},
        "figures": [figure("kid", "KID", kid, "lower"), figure("coverage", "coverage", coverage, "higher")]}


def test_runs_that_differ_only_in_seed_are_taken_together_and_span_their_spread():
    found = compare_evaluations([
        run("a", (0.1, 0.2, 0.3)), run("b", (0.3, 0.4, 0.5), seed=1), run("c", (0.8, 0.9, 1.0), lr=0.01),
        run("d", (0.7, 0.8, 0.9), lr=0.01, seed=1)])
    assert [(group.name, group.runs, group.checkpoints) for group in found.groups] == [
        ("train.lr 0.0002", ("a", "b"), (1000, 2000)), ("train.lr 0.01", ("c", "d"), (1000, 2000))]
    cell = found.groups[0].cells["kid"]
    assert (cell.low, cell.value, cell.high) == (0.1, pytest.approx(0.3), 0.5)
    assert found.groups[0].copies == 0.01
    assert "KID: train.lr 0.0002 is best" in found.sayings
    assert "coverage: no clear difference between train.lr 0.0002 and train.lr 0.01: their intervals overlap" in found.sayings
    assert "training luck included" in found.sayings[-1]


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
    assert "coverage: train.lr 0.01 is best" in found.sayings


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
