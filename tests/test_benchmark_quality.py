"""benchmarks/quality.py: that what is judged, drawn, hidden and counted is true; never how good anything is."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ganvas.checkpoint import write_checkpoint
from ganvas.config import make_config
from ganvas.errors import ConfigError, DataError
from ganvas.generator import generator_file
from ganvas.metrics.features import Extractor, Features
from ganvas.networks.build import build_networks
from ganvas.presets import load_preset

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MODULES = ("quality", "quality_blind", "quality_judging", "quality_plots", "quality_races", "quality_runs")
FLOOR = {"fid": 9.0, "kid": -0.001, "coverage": 0.98}
FIRST = 64                             # images that the first generator of a faked training has seen


@pytest.fixture(scope="module")
def bench():
    before = sys.path.copy()
    sys.path.insert(0, str(BENCHMARKS))
    yield SimpleNamespace(**{name.removeprefix("quality_"): importlib.import_module(name) for name in MODULES})
    sys.path[:] = before
    for name in (*MODULES, "common"):
        sys.modules.pop(name, None)


@pytest.fixture
def trained(bench, monkeypatch):
    """Every side's process leaves two generators at once: untrained ones of digits-16, drawn by the side's seed."""
    config = make_config(load_preset("digits-16").values, {"network.g_channels": 4, "network.d_channels": 4})
    started = []

    def process(command, *more):
        if "--dry-run" not in more:
            started.append(command)
            (seed,) = [int(part.partition("=")[2]) for part in command if part.startswith("train.seed=")]
            for nimg in (FIRST, 2 * FIRST):
                G, _ = build_networks(config.network, config.data, seed + nimg)
                path = Path(more[1]) / "checkpoints" / f"generator-{nimg:012d}.safetensors"
                write_checkpoint(path, *generator_file(G, config, nimg, averaged=False))
        return [sys.executable, "-c", ""]

    monkeypatch.setattr(bench.runs, "_process", process)
    return started


def digits_race(bench, **changes):
    return replace(bench.races.RACES["digits"].quick(), **changes)


# ---------------------------------------------------------------- judging


def test_transparent_images_are_composed_on_each_background(bench):
    images = np.zeros((1, 4, 16, 16), np.uint8)
    images[:, :3], images[:, 3, :, 8:] = 77, 255                               # the left half is clear
    for background, behind in (("white", {255}), ("black", {0}), ("checker", {204, 255})):
        found = bench.judging.on(background, images)
        assert found.shape == (1, 3, 16, 16)
        assert set(found[..., :8].flat) == behind and set(found[..., 8:].flat) == {77}
    half = np.full((1, 4, 2, 2), 128, np.uint8)
    assert set(bench.judging.on("white", half).flat) == {round((128 * 128 + 255 * 127) / 255)}
    opaque = np.zeros((1, 3, 2, 2), np.uint8)
    assert bench.judging.on("black", opaque) is opaque


def test_reals_are_turned_for_judging_where_training_turns_them_and_samples_never(bench):
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 28, 28), dtype=np.uint8)
    (turned,), (upright,) = (bench.judging.views_of(bench.races.RACES[name]) for name in ("mnist-rotated", "mnist"))
    assert (turned.reals(images) != images).mean() > 0.5 and turned.fakes(images) is images
    assert upright.reals(images) is images
    assert [view.name for view in bench.judging.views_of(bench.races.RACES["rgba"])] == ["white", "black", "checker"]


def test_reals_are_as_good_as_their_floor_and_noise_is_not(bench):
    judge = bench.judging.Judge(digits_race(bench), "digits", tell=lambda text: None)
    reals = judge.dataset.pack.read(judge.positions[:400])
    noise = np.random.default_rng(0).integers(0, 256, reals.shape, dtype=np.uint8)
    good, bad = ({figure.metric: figure for figure in judge.figures(images, judge.views[0], 200, 2)} for images in (reals, noise))
    judge.close()
    assert set(good) >= {"fid", "kid", "precision", "recall", "density", "coverage"} and "swd" not in good
    assert good["coverage"].value > 0.9 and bad["coverage"].value == 0
    assert good["fid"].value < 2 * good["fid"].floor < bad["fid"].value


def test_a_side_is_judged_once_in_one_way_and_only_within_its_time(bench, trained, tmp_path, monkeypatch):
    race = digits_race(bench, copies=True)
    run = bench.runs.SideRun(tmp_path, "digits", "fast", race.minutes, 0)
    clock = bench.runs.run_side(run, bench.runs.command_of(race, race.sides[1], "digits", run, tmp_path, 1))
    judge = bench.judging.Judge(race, "digits", tell=lambda text: None)
    told = []
    found = bench.judging.judge_run(judge, run, clock, told.append)
    assert [row["nimg"] for row in found["curve"]] == [FIRST, 2 * FIRST] and found["nimg"] == 2 * FIRST and len(told) == 2
    assert found["curve"][0]["fid"] != found["curve"][1]["fid"]
    fid = bench.judging.figure_of(found, "fid")
    assert (fid["n"], fid["reals"]) == (64, len(judge.dataset.train)) and fid["low"] < fid["high"]
    assert found["copies"]["verdict"] in ("none", "some", "copier", "unknown")

    with monkeypatch.context() as patch:
        patch.setattr(bench.judging, "samples", None)                          # not to be called
        assert bench.judging.judge_run(judge, run, clock, told.append) == found
    clock.checkpoints[1]["sec"] = 60 * race.minutes + 1                        # too late
    assert bench.judging.judge_run(judge, run, clock)["nimg"] == FIRST
    judge.race = replace(race, n=100)
    assert bench.judging.judge_run(judge, run, clock)["curve"][0]["fid"] != found["curve"][0]["fid"]
    judge.close()


def test_what_another_side_has_at_the_end_is_reached_by_the_first_checkpoint_that_is_as_good(bench):
    curve = [{"sec": 10.0, "fid": 300.0, "coverage": 0.1}, {"sec": 20.0, "fid": 90.0, "coverage": 0.4},
             {"sec": 30.0, "fid": 95.0, "coverage": 0.6}]
    reached = bench.judging.reached_sec
    assert [reached(curve, "fid", value) for value in (400, 95, 50)] == [10, 20, None]
    assert [reached(curve, "coverage", value) for value in (0.1, 0.5, 0.9)] == [10, 30, None]


def test_intervals_are_apart_only_where_all_of_one_is_better(bench):
    def kid(low, high):
        return {"low": low, "high": high, "better": "lower"}

    def coverage(low, high):
        return {"low": low, "high": high, "better": "higher"}

    apart = bench.judging.are_apart
    assert apart(kid(1, 2), kid(3, 4)) and not apart(kid(3, 4), kid(1, 2)) and not apart(kid(1, 3.5), kid(3, 4))
    assert apart(coverage(0.5, 0.6), coverage(0.1, 0.2)) and not apart(coverage(0.1, 0.2), coverage(0.5, 0.6))


class Brightness(Extractor):
    """Three classes: dark, middle, bright."""

    name, dim, chunk, classes, accuracy = "brightness", 1, 64, ("0", "1", "2"), 0.9

    def __call__(self, images):
        mean = images.reshape(len(images), -1).mean(axis=1)
        classes = np.digitize(mean, [85, 170])
        return Features(mean[:, None].astype(np.float32), np.eye(3, dtype=np.float32)[classes])


def test_class_agreement_is_the_share_of_samples_that_look_like_what_was_asked_for(bench):
    asked = []

    def sample(n, seed, purpose, label):
        asked.append(label)
        images = np.full((n, 4, 4, 1), 120 * label, np.uint8)
        images[:n // 4] = 0
        return images

    judge = SimpleNamespace(dataset=SimpleNamespace(pack=SimpleNamespace(class_names=("0", "1", "2"))), extractor=Brightness())
    found = bench.judging.Judge.agreement(judge, SimpleNamespace(sample=sample, class_names=("0", "1", "2")))
    assert asked == [0, 1, 2] and found["by_label"] == {"0": 1.0, "1": 0.75, "2": 0.75}
    assert found["all"] == pytest.approx(2.5 / 3) and found["reals"] == 0.9
    with pytest.raises(ConfigError, match=r"the classes 0, 1, 2, the generator none"):
        bench.judging.Judge.agreement(judge, SimpleNamespace(sample=sample, class_names=()))


# ---------------------------------------------------------------- the picture


def test_a_races_picture_is_small_whatever_it_shows(bench, tmp_path):
    chance = np.random.default_rng(0)
    judged = [{"side": side, "seed": 0, "curve": [{"sec": sec, "fid": 100 / sec, "kid": 1 / sec, "coverage": sec / 100}
                                                  for sec in range(1, 60)],
               "figures": {"": [{"metric": metric, "floor": floor} for metric, floor in FLOOR.items()]}}
              for side in ("classic", "modern")]
    strips = [(f"{number}", bench.plots.strip(chance.integers(0, 256, (16, 3, 64, 64), dtype=np.uint8))) for number in range(5)]
    bench.plots.plot(tmp_path / "race.png", "noise, which no file format makes smaller", judged, strips)
    assert (tmp_path / "race.png").stat().st_size <= bench.plots.MOST_BYTES
    with Image.open(tmp_path / "race.png") as picture:
        assert picture.width >= 600 and picture.height >= 400


def test_the_moments_that_are_shown_are_the_checkpoints_nearest_to_them(bench):
    curve = [{"sec": sec} for sec in (8, 12, 34, 45, 97)]
    assert [row["sec"] for row in bench.plots.moments_of(curve, 100)] == [8, 45, 97]
    assert [row["sec"] for row in bench.plots.moments_of(curve[:1], 100)] == [8]
    assert bench.plots.strip(np.zeros((40, 1, 10, 10), np.uint8)).shape == (2 * 12 - 2, 8 * 12 - 2, 3)


# ---------------------------------------------------------------- blind


@pytest.fixture
def sheet(bench, tmp_path):
    """Pairs of a dark and a bright side."""
    sides = {"dark": np.full((12 * 4, 1, 8, 8), 40, np.uint8), "bright": np.full((12 * 4, 1, 8, 8), 200, np.uint8)}
    pages = bench.blind.write_sheet(tmp_path / "sheet", tmp_path / "keys" / "key.json", sides, pairs=12, block=2, seed=1)
    return SimpleNamespace(pages=pages, key=tmp_path / "keys" / "key.json", choices=tmp_path / "sheet" / "choices.json",
                           order=json.loads((tmp_path / "keys" / "key.json").read_text(encoding="utf-8"))["order"])


def test_the_key_says_which_side_stands_where_on_the_pages_and_the_pages_do_not(bench, sheet):
    assert [path.name for path in sheet.pages] == ["page-1.png", "page-2.png"]
    assert {places["left"] for places in sheet.order.values()} == {"dark", "bright"}
    page = np.asarray(Image.open(sheet.pages[0]).convert("L"))
    row_px, column_px = page.shape[0] // 5, page.shape[1] // 2
    for pair in range(1, 11):
        y, x = (pair - 1) // 2 * row_px, (pair - 1) % 2 * column_px
        left = page[y + bench.blind.HEAD_PX + 20, x + bench.blind.GAP_PX + 20]
        assert left == {"dark": 40, "bright": 200}[sheet.order[str(pair)]["left"]]
    texts = b"".join(path.read_bytes() for path in sheet.choices.parent.iterdir())
    assert b"dark" not in texts and b"bright" not in texts and not list(sheet.choices.parent.glob("*key*"))


def test_every_side_stands_left_about_as_often_and_a_seed_always_gives_the_same_order(bench):
    lefts = [bench.blind.order_of(pair, 0, ("a", "b"))["left"] for pair in range(400)]
    assert 160 < lefts.count("a") < 240
    assert lefts == [bench.blind.order_of(pair, 0, ("a", "b"))["left"] for pair in range(400)]
    assert lefts != [bench.blind.order_of(pair, 1, ("a", "b"))["left"] for pair in range(400)]


def test_choices_are_counted_for_the_side_that_stood_there(bench, sheet):
    bright = {pair: next(place for place in places if places[place] == "bright") for pair, places in sheet.order.items()}
    bright["3"] = "right" if bright["3"] == "left" else "left"
    sheet.choices.write_text(json.dumps(bright), encoding="utf-8")
    found = bench.blind.count(sheet.key, sheet.choices)
    assert found.wins == {"dark": 1, "bright": 11} and found.rows[2] == ("3", bright["3"], "dark")
    assert found.p_value == pytest.approx((12 + 1) / 2**12)


def test_choices_that_are_missing_are_named(bench, sheet):
    with pytest.raises(DataError, match=r"choices\.json: 1: '', 2: ''.*12 pairs"):
        bench.blind.count(sheet.key, sheet.choices)
    sheet.choices.write_text(json.dumps(dict.fromkeys(sheet.order, "left") | {"4": "both", "99": "left"}), encoding="utf-8")
    with pytest.raises(DataError, match=r"4: 'both', 99: no such pair"):
        bench.blind.count(sheet.key, sheet.choices)
    sheet.choices.write_text("left", encoding="utf-8")
    with pytest.raises(DataError, match=r"choices\.json: cannot be read as JSON"):
        bench.blind.count(sheet.key, sheet.choices)


# ---------------------------------------------------------------- the commands


def main(bench, tmp_path, *arguments):
    threads = torch.get_num_threads()
    bench.quality.main([*arguments, "--out", str(tmp_path / "out"), "--results", str(tmp_path / "results")])
    assert torch.get_num_threads() == threads


@pytest.fixture
def described(bench, monkeypatch):
    """The machine is not looked at again: that starts a process with PyTorch."""
    monkeypatch.setattr(bench.quality, "machine", lambda threads: {"threads": threads})
    monkeypatch.setattr(bench.quality, "described", lambda about: f"a machine with {about['threads']} threads")


@pytest.mark.usefixtures("trained", "described")
def test_a_race_leaves_its_page_its_picture_and_all_its_numbers_and_then_a_blind_sheet_can_be_made(
    bench, tmp_path, capsys,
):
    main(bench, tmp_path, "race", "digits", "--quick", "--threads", "1", "--n", "40")
    about = json.loads((tmp_path / "out" / "digits.json").read_text(encoding="utf-8"))
    assert (about["race"], about["n"], about["machine"]) == ("digits", 40, {"threads": 1})
    assert [run["side"] for run in about["runs"]] == ["slow", "fast"]
    (page,), (picture,) = ((tmp_path / "results").glob(pattern) for pattern in ("*-quality-digits.md", "*-quality-digits.png"))
    text = page.read_text(encoding="utf-8")
    assert "`python benchmarks/quality.py race digits --n 40 --quick`" in text and f"]({picture.name})" in text
    assert "a machine with 1 threads" in text and "- **fast** reaches what slow has after" in text
    slow = next(line for line in text.splitlines() if line.startswith("| slow"))
    fid = bench.judging.figure_of(about["runs"][0], "fid")["value"]
    assert f"| 0.1 | {bench.quality.number(fid)} (" in slow and "| *reals* |" in text
    assert "`ganvas train digits --preset digits-16 --time 6s --set data.size=16x16" in text and str(tmp_path) not in text

    main(bench, tmp_path, "blind", "digits", "--quick", "--pairs", "3")
    choices = tmp_path / "out" / "blind" / "digits" / "choices.json"
    assert str(choices) in capsys.readouterr().out
    choices.write_text(json.dumps(dict.fromkeys("123", "left")), encoding="utf-8")
    main(bench, tmp_path, "blind-score", "digits", str(choices), "--quick")
    (score,) = (tmp_path / "results").glob("*-quality-digits-blind.md")
    key = json.loads((tmp_path / "out" / "blind-keys" / "digits.json").read_text(encoding="utf-8"))["order"]
    assert f"| 2 | left | {key['2']['left']} |" in score.read_text(encoding="utf-8")


@pytest.mark.usefixtures("described")
def test_an_ablation_tells_means_and_differences_seed_by_seed(bench, trained, tmp_path, monkeypatch):
    small = replace(bench.races.RACES["digits"], seeds=2)
    monkeypatch.setitem(bench.races.ALL_RACES, "ablation", small)
    main(bench, tmp_path, "ablation", "--quick", "--threads", "1")
    assert len(trained) == 4
    about = json.loads((tmp_path / "out" / "ablation.json").read_text(encoding="utf-8"))
    assert [(run["side"], run["seed"]) for run in about["runs"]] == [("slow", 0), ("slow", 1), ("fast", 0), ("fast", 1)]
    (page,) = (tmp_path / "results").glob("*-quality-ablation.md")
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:-1]] for line in page.read_text(encoding="utf-8").splitlines()
            if len(cells := line.split("|")) > 5}
    values = [bench.judging.figure_of(run, "fid")["value"] for run in about["runs"]]
    number = bench.quality.number
    assert rows["slow"][1:3] == [f"{number((values[0] + values[1]) / 2)} ({number(values[0])}, {number(values[1])})", ""]
    gaps = values[2] - values[0], values[3] - values[1]
    assert rows["fast"][2] == f"{sum(gaps) / 2:+.3g} ({min(gaps):+.3g} … {max(gaps):+.3g})"


def test_a_command_is_shown_without_the_folders_of_this_machine(bench, tmp_path):
    args = SimpleNamespace(out=tmp_path / "out", data=tmp_path / "sets")
    run = tmp_path / "out" / "characters-modern-10min-seed0" / "run"
    command = ["train", str(tmp_path / "sets" / "mnist"), "--set", f"train.init_from={json.dumps(run.as_posix())}", "--set",
               'output.grid_every="9 steps"']
    shown = bench.quality.shown_command(command, args)
    assert shown == "ganvas train mnist --set train.init_from=characters-modern-10min-seed0/run --set 'output.grid_every=9 steps'"
    assert "data" not in bench.quality.shown_command(["train", str(tmp_path / "out" / "data" / "sprites-100")], args)


def test_wrong_calls_are_answered_with_what_to_do(bench, tmp_path):
    for arguments, answer in ((("race", "digits", "--again", "modern"), "--again modern: digits has the sides slow, fast"),
                              (("blind", "rgba"), "rgba: has one side"),
                              (("blind", "digits"), "First run `python benchmarks/quality.py race digits`"),
                              (("race", "characters", "--data", str(tmp_path)), "Name the folder of the image sets as --data")):
        with pytest.raises(SystemExit) as stopped:
            main(bench, tmp_path, *arguments)
        assert answer in str(stopped.value.code)
