"""Runs judged by name: which checkpoint against which images, and several runs beside each other."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from torch import nn

import ganvas
from ganvas import execution, judging
from ganvas.best import read_best
from ganvas.errors import ConfigError, DataError, RunError
from ganvas.evaluation import read_evaluation
from ganvas.generator import load
from ganvas.report.log import read_rows
from ganvas.run_folder import RunFolder
from makers import image_folder

FAST = {"n": 20, "repeats": 2}
TINY = {"network.g_channels": 4, "network.d_channels": 4, "output.grid_n": 4, "data.mirror": False,
        "train.ema_half_life_kimg": 0, "output.checkpoint_every": "2 steps", "output.keep_last": 5}


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def _trained(tmp_path_factory):
    """Runs of 4 steps on `images`: a and b differ in their seed, c has another lr and was measured; d says to be of others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("trained"))
        patch.setenv("GANVAS_CACHE", "cache")
        patch.setattr("ganvas.job.draw_end", lambda folder, tell: None)
        patch.setattr("ganvas.job.report", lambda folder: [])
        image_folder(Path("images"), n=24)

        def train(name, more=None, **options):
            ganvas.train("images", out=f"runs/{name}", steps=4, size="16", batch=8, threads=1, device="cpu", holdout=0,
                         settings=TINY | (more or {}), **options)

        train("a", seed=1)
        train("b", seed=2)
        train("c", lr=0.01, more={"measure.every": "2 steps", "measure.n": 20})
        for name in "ab":
            ganvas.evaluate(f"runs/{name}", **FAST)
        shutil.copytree("runs/a", "runs/d")
        for file in ("execution.json", "evaluation.json"):
            about = json.loads(Path("runs/d", file).read_text())
            Path("runs/d", file).write_text(json.dumps(about | {"data_fingerprint": "another"}))
        return Path.cwd()


@pytest.fixture
def trained(_trained):
    for name in ("images", "runs"):
        shutil.copytree(_trained / name, name)


@pytest.fixture
def evaluated(trained, monkeypatch):
    """The runs that are evaluated, in order, with the options; what they get is made of the evaluation that a had before."""
    seen, pattern = [], read_evaluation(RunFolder(Path("runs/a")))

    def evaluate_run(run, checkpoint, options, **others):
        seen.append((run.name, options))
        kind, _, function = options.extractor.rpartition(":")
        extractor = "random" if options.extractor == "auto" else f"{Path(kind).name}:{function}" if kind else options.extractor
        how = {"extractor": extractor, "split": options.split}
        about = pattern | how | {
            "n": options.n, "repeats": options.repeats, "seed": options.seed, "reals": options.reals,
            "checkpoint": load(run, checkpoint).nimg,
            "figures": [figure | how | {"n": min(options.n, 12)} for figure in pattern["figures"]]}
        RunFolder(run).evaluation.write_text(json.dumps(about))
        return SimpleNamespace(as_dict=lambda: about)

    monkeypatch.setattr(judging, "evaluate_run", evaluate_run)
    return seen


def test_a_run_that_was_not_measured_is_evaluated_at_its_last_checkpoint(trained):
    found = ganvas.evaluate("runs/a", **FAST)
    assert (found.chosen, found.checkpoint) == ("last", 32) and read_best(RunFolder(Path("runs/a"))) is None


def test_best_last_and_a_number_of_images_choose_the_checkpoint(trained):
    folder = RunFolder(Path("runs/c"))
    numbers = [nimg for nimg, _ in folder.list_checkpoints()]
    folder.best.write_text(json.dumps({"version": 1, "nimg": numbers[0], "metric": "kid", "value": 0.5, "extractor": "random"}))
    best, last, named = (ganvas.evaluate("runs/c", checkpoint=which, **FAST) for which in ("best", "last", numbers[0]))
    assert (best.chosen, best.checkpoint) == ("best", numbers[0]) and (last.chosen, last.checkpoint) == ("last", numbers[-1])
    assert (named.chosen, named.checkpoint) == (str(numbers[0]), numbers[0])
    assert named.value("kid") == best.value("kid") != last.value("kid")
    with pytest.raises(RunError, match=r"runs/c: has no checkpoint '7'. It has: best, last"):
        ganvas.evaluate("runs/c", checkpoint=7, **FAST)


def test_an_evaluation_is_written_beside_the_run_and_says_the_same_again(trained):
    first = ganvas.evaluate("runs/c", **FAST)
    folder = RunFolder(Path("runs/c"))
    kept = read_evaluation(folder)
    assert kept == json.loads(json.dumps(first.as_dict()))
    assert folder.neighbours.is_file() and "neighbours" in folder.report.read_text()
    assert ganvas.evaluate("runs/c", **FAST).figures == first.figures
    assert ganvas.evaluate("runs/c", seed=1, **FAST).value("kid") != first.value("kid")


def test_what_reached_the_metrics_of_a_run_says_which_images_it_was_measured_with(trained):
    rows = read_rows(RunFolder(Path("runs/c")).metrics)
    assert rows and all(row["extractor"] == "random" for row in rows)


def test_images_that_have_moved_are_asked_for_and_can_be_named(trained):
    shutil.move("images", "moved")
    with pytest.raises(DataError, match=r"images: does not exist.*`ganvas evaluate runs/a --data SOURCE`"):
        ganvas.evaluate("runs/a", **FAST)
    before = read_evaluation(RunFolder(Path("runs/a")))
    found = ganvas.evaluate("runs/a", source="moved", **FAST)
    assert found.source == "moved" and [figure.as_dict() for figure in found.figures] == before["figures"]


def test_images_that_have_changed_are_refused_and_told_by_name(trained):
    Path("images/003.png").unlink()
    with pytest.raises(DataError, match=r"images: is not what runs/a was trained on: 1 removed \(images/003.png\).*--data"):
        ganvas.evaluate("runs/a", **FAST)
    image_folder(Path("others"), n=24, seed=1)
    with pytest.raises(DataError, match=r"others: is not what runs/a was trained on"):
        ganvas.evaluate("runs/a", source="others", **FAST)


def test_what_would_be_ignored_is_refused(trained):
    for options, words in [
            ({"run": "runs/a", "samples": "images"}, "one of them"), ({}, "name a run folder"),
            ({"run": "runs/a", "reference": "r.npz"}, "--reference r.npz: goes with --samples"),
            ({"run": "runs/a", "sheet": "s.png"}, "does not go with --sheet s.png"),
            ({"run": "runs/a", "size": 32}, "size cannot change"),
            ({"samples": "images"}, "name the real images too"),
            ({"samples": "images", "reference": "r.npz", "source": "images"}, "does not go with SOURCE images"),
            ({"samples": "images", "reference": "r.npz", "sheet": "s.png", "split": "all", "skip_bad": True},
             "--sheet s.png, --split all. Leave"),
            ({"samples": "images", "reference": "r.npz", "size": 32}, "--size 32"),
            ({"samples": "images", "source": "images", "sise": 32}, "sise")]:
        with pytest.raises(ConfigError, match=words):
            ganvas.evaluate(**options)


def test_a_run_of_a_user_s_own_network_is_evaluated_with_it(trained, monkeypatch):
    monkeypatch.setattr("ganvas.job.draw_end", lambda *args: None)
    monkeypatch.setattr("ganvas.job.report", lambda folder: [])

    def make():
        return nn.Sequential(nn.Linear(100, 3 * 64), nn.Tanh(), nn.Unflatten(1, (3, 8, 8)))

    ganvas.train("images", out="runs/own", steps=2, size="8", batch=8, threads=1, device="cpu", holdout=0, generator=make(),
                 discriminator=nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 1)), settings={"output.grid_n": 4})
    with pytest.raises(ConfigError, match="generator"):
        ganvas.evaluate("runs/own", **FAST)
    assert ganvas.evaluate("runs/own", generator=make(), **FAST).checkpoint == 16


def test_runs_are_not_evaluated_again_where_that_was_done_in_this_way(evaluated):
    found = ganvas.compare(["runs/a", "runs/b"])
    assert evaluated == [] and found.groups[0].runs == ("runs/a", "runs/b")
    assert "training luck" in found.sayings[0]
    ganvas.compare(["runs/a", "runs/c"])                   # as the first was evaluated
    assert [(name, options.n, options.repeats, options.extractor) for name, options in evaluated] == [("c", 20, 2, "random")]
    ganvas.compare(["runs/c", "runs/b", "runs/a"], **FAST, extractor="auto")
    assert len(evaluated) == 1
    found = ganvas.compare(["runs/a", "runs/b", "runs/c"], seed=1, again=False)
    assert [name for name, _ in evaluated[1:]] == ["a", "b", "c"]
    lr = yaml.safe_load(Path("runs/a/config.yaml").read_text(encoding="utf-8"))["train"]["lr"]
    assert [(group.name, group.runs) for group in found.groups] == [
        (f"train.lr {lr}", ("runs/a", "runs/b")), ("train.lr 0.01", ("runs/c",))]
    assert "training luck not included" in found.sayings[-1]
    ganvas.compare(["runs/a", "runs/b"], again=True)
    assert len(evaluated) == 6
    ganvas.compare(["runs/a", "runs/b"], checkpoint="last")
    assert len(evaluated) == 6                              # the best of runs that were not measured is the last


def test_an_evaluation_of_another_checkpoint_is_not_taken_for_this_one(evaluated):
    about = read_evaluation(RunFolder(Path("runs/a")))
    RunFolder(Path("runs/a")).evaluation.write_text(json.dumps(about | {"checkpoint": 16}))
    ganvas.compare(["runs/a", "runs/b"], **FAST)
    assert [name for name, _ in evaluated] == ["a"]


def test_a_damaged_evaluation_is_made_again(evaluated):
    Path("runs/b/evaluation.json").write_text("{")
    ganvas.compare(["runs/a", "runs/b"])
    assert [name for name, _ in evaluated] == ["b"] and read_evaluation(RunFolder(Path("runs/b"))) is not None


def test_a_user_s_function_is_found_for_every_run_and_its_evaluations_are_kept(evaluated):
    Path("lib").mkdir()
    Path("lib/f.py").write_text("def f(x):\n    return x.float().mean((2, 3)) / 128\n")
    for _ in range(2):
        ganvas.compare(["runs/a", "runs/b"], extractor="lib/f.py:f", **FAST)
        assert [name for name, _ in evaluated] == ["a", "b"]


@pytest.mark.parametrize(("runs", "words"), [
    (["runs/a"], "runs/a is a single run"), (["runs/a", "runs/a/", "./runs/a"], "a single run"),
    (["runs/a", "runs/b", "runs/d"], "runs/a and runs/d were measured against different images"),
])
def test_runs_that_do_not_compare_are_refused_before_anything_is_evaluated(evaluated, runs, words):
    with pytest.raises(ConfigError, match=words):
        ganvas.compare(runs, again=True)
    assert evaluated == []


def test_a_run_whose_images_are_unknown_is_found_out_after_all(trained):
    Path("runs/d/execution.json").unlink()
    assert execution.noted(RunFolder(Path("runs/d")), "data_fingerprint") is None
    with pytest.raises(ConfigError, match="different images"):
        ganvas.compare(["runs/a", "runs/d"])
