"""The races of benchmarks/quality.py: what they are, and that a side's process is run once, timed and gone on with."""

import importlib
import sys
import time
import zipfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from ganvas.config import fields, make_config, parse_setting
from ganvas.errors import ConfigError, DataError, RunError
from ganvas.presets import load_preset, preset_names

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MODULES = ("quality_races", "quality_runs")
# A training that leaves generators behind, one after the other, of which it removes the first: its arguments are --out, its
# exit status, and the generators' numbers.
TRAINING = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1]) / "checkpoints"
folder.mkdir(parents=True, exist_ok=True)
for nimg in map(int, sys.argv[3:]):
    time.sleep(0.3)
    (folder / f"generator-{nimg:012d}.safetensors").write_text(str(nimg))
time.sleep(0.3)
for path in sorted(folder.iterdir())[:-1]:
    path.unlink()
print("the last words")
sys.exit(int(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def bench():
    before = sys.path.copy()
    sys.path.insert(0, str(BENCHMARKS))
    yield SimpleNamespace(**{name.removeprefix("quality_"): importlib.import_module(name) for name in MODULES})
    sys.path[:] = before
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def training(bench, monkeypatch):
    """Gives a function: the next process that is started leaves these generators, and ends with this status."""
    started = []

    def prepare(*nimg, exit=0):
        def process(command, *more):
            started.append(more[0])
            if "--dry-run" in more:
                return [sys.executable, "-c", ""]
            return [sys.executable, "-c", TRAINING, more[1], str(exit), *map(str, nimg)]
        monkeypatch.setattr(bench.runs, "_process", process)
        return started

    return prepare


# ---------------------------------------------------------------- what the races are


def test_every_option_of_every_race_is_known_and_every_preset_is_there(bench):
    known = {name for name, _ in fields()}
    for name, race in bench.races.ALL_RACES.items():
        make_config({"network.family": "custom"}, race.data)                   # or ConfigError names what is wrong
        for side in race.sides:
            assert known.issuperset(side.options), (name, side.name)
            assert side.preset is None or side.preset in preset_names(), (name, side.name)
        assert len({side.name for side in race.sides}) == len(race.sides)


def test_a_classic_races_at_its_own_size_and_fit(bench):
    classics = [(race, side) for race in bench.races.RACES.values() for side in race.sides if side.name == "classic"]
    assert len(classics) == 8
    for race, side in classics:
        preset = make_config(load_preset(side.preset).values)
        here = make_config(load_preset(side.preset).values, race.data)
        assert (here.data.size, here.data.fit) == (preset.data.size, preset.data.fit)


def test_the_races_that_are_asked_for_are_as_long_as_asked(bench):
    minutes = {name: race.minutes for name, race in bench.races.RACES.items()}
    assert minutes["mnist"] == minutes["mnist-rotated"] == 5 and minutes["characters"] == minutes["conditional-mnist"] == 10
    assert {minutes[name] for name in ("stacked", "udacity-artwork", "d2l-sprites", "keras-sprites", "faces", "faces-characters",
                                       "sprites-100")} == {30}
    stacked, ablation = bench.races.RACES["stacked"], bench.races.ABLATION
    assert stacked.end_n * stacked.repeats == 26_000
    assert (len(ablation.sides), ablation.minutes, ablation.seeds) == (1 + 8, 5, 2)


def test_the_first_sprites_are_those_whose_names_come_first(bench, tmp_path):
    with zipfile.ZipFile(tmp_path / "pokemon-sprites.zip", "w") as archive:
        for name in ("b.png", "c.png", "a.png", "0.txt"):
            archive.writestr(name, name)
    made = bench.races._first_sprites(tmp_path, tmp_path / "made", 2)
    assert {path.name: path.read_text() for path in made.iterdir()} == {"a.png": "a.png", "b.png": "b.png"}


@pytest.mark.parametrize("name", ["characters", "sprites-100", "mnist"])
def test_a_set_that_is_not_there_is_named(bench, tmp_path, name):
    with pytest.raises(DataError, match=f"{tmp_path.name}.*--data"):
        bench.races.source_of(bench.races.RACES[name], tmp_path, tmp_path / "made")


def test_an_unknown_race_is_answered_with_the_known_ones(bench):
    with pytest.raises(ConfigError, match=r"'mnits'.*mnist-rotated.*ablation"):
        bench.races.race_named("mnits")


# ---------------------------------------------------------------- commands


def command(bench, side, out, **changes):
    race = replace(bench.races.RACES["digits"], **changes)
    run = bench.runs.SideRun(out, "digits", side.name, race.minutes, 3)
    found = bench.runs.command_of(race, side, "digits", run, out, threads=2)
    return found, dict(parse_setting(text) for flag, text in pairwise(found) if flag == "--set")


def test_a_sides_command_has_its_options_the_races_and_a_checkpoint_by_the_clock(bench, tmp_path):
    side = bench.races.Side("a", "digits-16", {"train.lr": 0.25})
    found, options = command(bench, side, tmp_path, minutes=2, every_sec=15)
    assert found[:6] == ["train", "digits", "--preset", "digits-16", "--time", "120s"]
    assert options.items() >= {"train.lr": 0.25, "train.seed": 3, "execution.threads": 2, "data.size": "16x16",
                               "measure.share": 0.0, "output.checkpoint_minutes": 0.25}.items()
    config = make_config(load_preset("digits-16").values, options)             # what the command line makes of it
    assert config.output.checkpoint_every == config.output.grid_every and config.train.lr == 0.25


def test_an_option_can_be_so_many_times_what_the_recipe_chooses(bench, tmp_path):
    side = bench.races.Side("wide", "digits-16", {"network.g_channels": bench.races.Times(1.5)})
    assert command(bench, side, tmp_path)[1]["network.g_channels"] == 96       # the preset has 64


def test_an_option_can_be_the_longest_finished_run_of_another_race(bench, tmp_path):
    side = bench.races.Side("b", options={"train.init_from": bench.races.RunOf("characters", "modern")})
    with pytest.raises(RunError, match=r"seed 3.*quality.py race characters"):
        command(bench, side, tmp_path)
    for minutes, status in ((5, 0), (10, 0), (30, None)):                      # the longest is not finished
        run = bench.runs.SideRun(tmp_path, "characters", "modern", minutes, 3)
        bench.runs.write_whole(run.clock_file, f'{{"command": [], "exit": {"null" if status is None else status}}}')
    assert command(bench, side, tmp_path)[1]["train.init_from"] == f"{tmp_path.as_posix()}/characters-modern-10min-seed3/run"


def test_seeds_go_there_and_back(bench, tmp_path):
    race = replace(bench.races.RACES["digits"], seeds=2)
    assert [(side.name, run.seed) for side, run in bench.runs.runs_of("digits", race, tmp_path, 5)] == [
        ("slow", 5), ("fast", 5), ("fast", 6), ("slow", 6)]


# ---------------------------------------------------------------- processes


def test_generators_are_kept_with_the_seconds_since_the_process_began_and_a_finished_run_is_not_run_again(
    bench, training, tmp_path,
):
    started = training(64, 128)
    run = bench.runs.SideRun(tmp_path, "digits", "fast", 1, 0)
    began_at = time.time()
    clock = bench.runs.run_side(run, ["train"])
    took_sec = time.time() - began_at
    assert [row["nimg"] for row in clock.checkpoints] == [64, 128] and clock.exit == 0 and run.is_finished
    first, second = (row["sec"] for row in clock.checkpoints)
    assert 0.3 <= first <= second - 0.25 and second <= took_sec
    assert [run.generator(nimg).read_text() for nimg in (64, 128)] == ["64", "128"]       # training removed the first
    assert started == ["--dry-run", "--out"]
    assert bench.runs.run_side(run, ["train"]) == clock and len(started) == 2


def test_an_interrupted_run_goes_on_and_its_clock_too(bench, training, tmp_path):
    run = bench.runs.SideRun(tmp_path, "digits", "fast", 1, 0)
    started = training(64, exit=bench.runs.INTERRUPTED)
    with pytest.raises(KeyboardInterrupt):
        bench.runs.run_side(run, ["train"])
    assert not run.is_finished
    before = run.clock().sec
    training(128)
    clock = bench.runs.run_side(run, ["train"])
    assert [row["nimg"] for row in clock.checkpoints] == [64, 128] and clock.exit == 0
    assert clock.checkpoints[0]["sec"] == before and clock.checkpoints[1]["sec"] >= before + 0.3
    assert started == ["--dry-run", "--out", "--out"]                          # images and kernels are known already


def test_a_run_of_another_command_is_refused_and_made_anew_if_asked_for(bench, training, tmp_path):
    training(64)
    run = bench.runs.SideRun(tmp_path, "digits", "fast", 1, 0)
    bench.runs.run_side(run, ["train", "a"])
    with pytest.raises(ConfigError, match=r"`ganvas train a`.*`ganvas train b`.*--again 'fast'"):
        bench.runs.run_side(run, ["train", "b"])
    training(128)
    assert [row["nimg"] for row in bench.runs.run_side(run, ["train", "b"], again=True).checkpoints] == [128]
    assert not run.generator(64).exists()


def test_a_training_that_fails_at_once_is_told_with_its_last_words_and_one_that_fails_later_counts(bench, training, tmp_path):
    training(exit=1)
    with pytest.raises(RunError, match=r"ended with 1:\nthe last words"):
        bench.runs.run_side(bench.runs.SideRun(tmp_path, "digits", "slow", 1, 0), ["train"])
    training(64, exit=1)
    clock = bench.runs.run_side(bench.runs.SideRun(tmp_path, "digits", "fast", 1, 0), ["train"])
    assert clock.exit == 1 and [row["nimg"] for row in clock.checkpoints] == [64]


@pytest.mark.slow
def test_a_real_training_keeps_its_generators_by_the_clock(bench, tmp_path, monkeypatch):
    process = bench.runs._process
    monkeypatch.setattr(bench.runs, "_process",
                        lambda command, *more: [sys.executable, "-c", ""] if "--dry-run" in more else process(command, *more))
    race = replace(bench.races.RACES["digits"], minutes=0.05, every_sec=0.5)
    run = bench.runs.SideRun(tmp_path, "digits", "fast", race.minutes, 0)
    narrow = {"network.g_channels": 2, "network.d_channels": 2, "network.z_dim": 4}
    side = bench.races.Side("fast", "digits-16", narrow)
    clock = bench.runs.run_side(run, bench.runs.command_of(race, side, "digits", run, tmp_path, threads=1))
    assert clock.exit == 0, bench.runs.last_lines(run.log)
    kept = [int(path.stem.rpartition("-")[2]) for path in sorted(run.generators.iterdir())]
    assert kept == [row["nimg"] for row in clock.checkpoints] and len(kept) >= 1
    assert sorted(row["sec"] for row in clock.checkpoints) == [row["sec"] for row in clock.checkpoints]
