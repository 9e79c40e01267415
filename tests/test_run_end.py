"""What a run gets when it ends."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import ganvas
from ganvas import run_end
from ganvas.config import RunConfig, make_config, to_yaml
from ganvas.errors import DataError, GanvasError, RunError
from ganvas.evaluation import read_evaluation
from ganvas.files import write_whole
from ganvas.generator import load
from ganvas.judging import dataset_of
from ganvas.measuring import Plan
from ganvas.run_end import LEAST_N, REPEATS, draw_end, evaluate_end, health, report
from ganvas.run_folder import RunFolder
from ganvas.watcher import Watcher
from makers import Heard, image_folder

KEPT = ("config.yaml", "execution.json")
DATA = ("stats.jsonl", "metrics.jsonl", "evaluation.json", "best.json", "execution.json", "data.json")
PLAN = Plan("1 kimg", 20, 64, "share 0.05")


@pytest.fixture(scope="module")
def _trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("trained"))
        patch.setenv("GANVAS_CACHE", "cache")
        patch.setattr("ganvas.report.animation.write_mp4", lambda path, frames: 0)
        image_folder(Path("images"), n=80)
        ganvas.train("images", out="run", steps=2, size="16", batch=8, threads=1, device="cpu", holdout=0, settings={
            "network.g_channels": 4, "network.d_channels": 4, "output.grid_n": 4, "train.ema_half_life_kimg": 0,
            "measure.every": "1 steps", "measure.n": 20})
        return Path.cwd()


@pytest.fixture
def run(_trained, tmp_path, monkeypatch):
    """A run of two steps in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("images", "run"):
        shutil.copytree(_trained / name, name)
    return RunFolder(Path("run"))


def without_all_but(folder, names):
    for path in list(folder.path.iterdir()):
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("loss", ["nonsaturating", "relativistic"])
def test_curves_show_probabilities_and_advice_knows_the_penalty_as_the_run_s_options_are(tmp_path, monkeypatch, loss):
    folder, drawn, asked = RunFolder.create(tmp_path / "run"), [], {}
    write_whole(folder.config, to_yaml(make_config({"train.loss": loss, "train.r1_gamma": 0.5})))
    monkeypatch.setattr("ganvas.report.curves.plot_curves", lambda path, rows, best, probabilities: drawn.append(probabilities))
    monkeypatch.setattr("ganvas.run_end.diagnose", lambda *rows, **options: asked.update(options) or [])
    draw_end(folder, lambda text: None)
    health(folder)
    assert drawn == [loss == "nonsaturating"]
    assert (asked["loss"], asked["r1_gamma"]) == (loss, 0.5)


def test_a_run_that_is_over_has_its_report_with_its_best_checkpoint(run):
    assert run.report.is_file() and run.best.is_file()
    run.report.unlink()
    assert report(run) == [] and "<html" in run.report.read_text()


@pytest.mark.parametrize("kept", [KEPT, KEPT[:1]])
def test_a_run_that_was_killed_before_its_first_row_has_a_report(run, kept):
    without_all_but(run, kept)
    report(run)
    assert "train.lr" in run.report.read_text()


@pytest.mark.parametrize("names", [*([name] for name in DATA), DATA])
def test_a_report_is_made_whatever_the_files_beside_the_config_hold(run, names):
    contents = [b'{"nimg": 8, "kid', b"\x00\xff\xfe", b"null\n"] if len(names) > 1 else [b'{"version": 1, "figures": [1]}\n']
    for content in contents:
        for name in names:
            (run.path / name).write_bytes(content)
        run.report.unlink(missing_ok=True)
        report(run)
    assert run.report.is_file()


@pytest.mark.parametrize(("content", "words"), [
    (b"a: [b\n", "run.config.yaml: is not valid YAML"), (b"- 1\n", "run.config.yaml: holds no options"),
    (b"", "run.config.yaml: holds no options"), (b"\xff\xfe\x00", "run.config.yaml: cannot be read"),
    (b"train:\n  batchs: 3\n", "run.config.yaml: unknown option 'train.batchs': did you mean train.batch"),
    (b"train:\n  batch: some\n", "run.config.yaml: .*batch"),
])
def test_a_damaged_config_is_named_with_what_is_wrong(run, content, words):
    run.config.write_bytes(content)
    with pytest.raises(GanvasError, match=words):
        report(run)


def test_a_report_that_cannot_be_written_is_named_with_the_command_that_writes_it(run):
    run.report.unlink()
    run.report.mkdir()
    with pytest.raises(RunError, match=r"run/report.html: cannot be written.*`ganvas report run`"):
        report(run)


def test_a_picture_that_cannot_be_made_stops_nothing(run, monkeypatch):
    monkeypatch.setattr("ganvas.report.animation.write_mp4", lambda path, frames: path.write_text("film"))
    run.gif.unlink(missing_ok=True)
    run.gif.mkdir()
    told = []
    draw_end(run, told.append)
    assert len(told) == 1 and told[0].startswith("run/progress.gif could not be made: ")
    assert run.curves.is_file() and run.mp4.read_text() == "film"


@pytest.fixture
def end(run):
    """Evaluates the run as at its end, with so many seconds; gives (what evaluation.json then holds, what was told)."""
    def end(budget_sec, per_sample_sec=0.01, plan=PLAN, config: RunConfig | None = None):
        run.evaluation.unlink(missing_ok=True)
        config, watch = config or load(run.path).config, Heard()
        dataset = dataset_of(run, config, None, Watcher())
        try:
            evaluate_end(run, config, dataset, SimpleNamespace(plan=plan, per_sample_sec=per_sample_sec), budget_sec, watch, None)
        finally:
            dataset.pack.close()
        return read_evaluation(run), watch.lines
    return end


def test_the_evaluation_at_the_end_takes_as_many_samples_as_there_is_time_for(end):
    found, _ = end(2.0)
    assert (found["n"], found["repeats"], found["reals"], found["chosen"]) == (2.0 / 0.01 / REPEATS, REPEATS, 64, "best")
    assert any("64 of 80 training images" in note for note in found["notes"])
    assert {figure["reals"] for figure in found["figures"]} == {64}


def test_without_time_or_measurements_there_is_no_evaluation_at_the_end(end, run):
    own = load(run.path).config
    assert own.measure.n < LEAST_N                         # fewer were asked for, so fewer are enough
    assert end(0.5 * REPEATS * own.measure.n * 0.01)[0] is None
    assert end(10.0, plan=None)[0] is None and end(10.0, per_sample_sec=None)[0] is None


def test_an_evaluation_that_fails_at_the_end_is_told_and_stops_nothing(end, monkeypatch):
    def fails(*args, **options):
        raise DataError("no disk")

    monkeypatch.setattr(run_end, "evaluate_generator", fails)
    assert end(2.0) == (None, ["not evaluated: no disk"])


def test_the_evaluation_is_in_the_report(end, run):
    end(2.0)
    before = json.loads(run.evaluation.read_text())
    report(run)
    page = run.report.read_text()
    assert "KID" in page and f"{before['n']}" in page
