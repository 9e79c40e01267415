"""What is measured while a run trains, and what follows from it: its best checkpoint, and when it stops."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import ganvas
from ganvas.best import read_best
from ganvas.checkpoint import read_checkpoint
from ganvas.errors import ConfigError, DataError, GanvasError
from ganvas.measuring import LEAST_N, Meter, Plan, logits_of
from ganvas.networks.latents import draw_labels
from ganvas.report.log import read_rows
from ganvas.run_folder import RunFolder
from ganvas.values import Amount
from makers import Heard, image_folder

NOT_SHARED = ("time", "elapsed_sec", "sec", "change")      # by two equal runs; `change` begins anew with each session


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ganvas.report.animation.write_mp4", lambda path, frames: 0)


@pytest.fixture
def source():
    return image_folder(Path("images"), n=40)


def options(more=None, **others):
    settings = {"network.g_channels": 4, "network.d_channels": 4, "output.grid_n": 4, "data.mirror": False,
                "output.checkpoint_every": "5 steps", "output.keep_last": 1, "measure.every": "2 steps", "measure.n": 24}
    return {"size": "16", "batch": 8, "threads": 1, "device": "cpu", "holdout": 8, "settings": settings | (more or {}),
            "watch": Heard(), **others}


def shared(run):
    return [{name: value for name, value in row.items() if name not in NOT_SHARED} for row in read_rows(RunFolder(run).metrics)]


def weights(run):
    return read_checkpoint(RunFolder(Path(run)).list_checkpoints()[-1][1])[0]


@pytest.fixture
def scripted(monkeypatch):
    """Measurements that come out as told: {images seen: (KID, whether its samples copy)}."""
    def scripted(script):
        def measure(self, state):
            kid, copies = script[state.nimg]
            return {"nimg": state.nimg, "extractor": "random", "kid": kid, "kid_error": 0.0, "kid_floor": 0.0,
                    "coverage": 0.5, "coverage_floor": 0.9,
                    "copies": 0.5 if copies else 0.0, "copies_limit": 0.05, "copies_over_limit": copies}
        monkeypatch.setattr(Meter, "measure", measure)
    return scripted


def test_a_row_holds_every_figure_beside_that_of_the_reals(source):
    measured = [tick.measured for tick in ganvas.iterate(source, **options(steps=4)) if tick.measured]
    rows = read_rows(RunFolder(Path("runs/images")).metrics)
    assert [row["nimg"] for row in rows] == [16, 32]
    assert measured == rows                                            # a notebook sees what the file holds
    first, second = rows
    assert (first["n"], first["reals"], first["extractor"]) == (24, 32, "random")
    assert first["kid"] > abs(first["kid_floor"])                       # two steps make nothing like the images
    assert 0 <= first["coverage"] <= 1 and first["coverage_floor"] > 0.5 and first["diversity_real"] > 0
    assert first["spectrum_db"] > first["spectrum_floor_db"] >= 0
    assert first["logit_holdout"] is None                              # 8 held-out images are too few to ask D about
    assert first["change"] is None and second["change"] > 0
    assert first["best"] is True


def test_measuring_changes_no_bit_of_the_training(source):
    ganvas.train(source, **options({"train.ema_half_life_kimg": 0.05}, steps=6, out="measured"))
    without = {"measure.every": None, "measure.share": 0}
    ganvas.train(source, **options({"train.ema_half_life_kimg": 0.05, **without}, steps=6, out="not"))
    assert len(shared(Path("measured"))) == 3
    assert not shared(Path("not"))
    measured, without = weights("measured"), weights("not")
    assert measured.keys() == without.keys()
    assert all(torch.equal(measured[name], without[name]) for name in without)


def test_a_run_that_was_stopped_and_goes_on_measures_what_an_unbroken_one_does(source):
    ganvas.train(source, **options(steps=8, out="straight"))
    for tick in ganvas.iterate(source, **options(steps=8, out="stopped", settings={
            **options()["settings"], "output.log_every": "1 steps"})):
        if tick.step == 3:
            break
    ganvas.train(source, **options(steps=8, out="stopped"))
    assert shared(Path("stopped")) == shared(Path("straight"))
    assert read_best(RunFolder(Path("stopped"))) == read_best(RunFolder(Path("straight")))


def test_the_best_checkpoint_is_kept_among_newer_ones_and_is_what_is_sampled(source, scripted):
    scripted({16: (0.5, False), 32: (0.1, False), 48: (0.05, True), 64: (0.2, False), 80: (0.3, False)})
    heard = Heard()
    ganvas.train(source, **options(steps=10, watch=heard))
    folder = RunFolder(Path("runs/images"))
    assert [nimg for nimg, _ in folder.list_checkpoints()] == [32, 80]
    assert read_best(folder).nimg == 32                                # not the copier at 48
    assert [row["best"] for row in read_rows(folder.metrics)] == [True, True, False, False, False]
    assert ganvas.load("runs/images").nimg == 32
    assert ganvas.load("runs/images", "last").nimg == 80
    assert any("copies 50%" in line for line in heard.lines)
    assert "32 images" in folder.report.read_text(encoding="utf-8")


def test_a_run_that_goes_on_keeps_its_best_until_a_better_one_comes(source, scripted):
    scripted({16: (0.1, False), 32: (0.5, False), 40: (0.4, False), 48: (0.4, False), 56: (0.3, False), 64: (0.01, False),
              72: (0.02, False)})
    ganvas.train(source, **options(steps=5))
    ganvas.train(source, **options(steps=7))
    folder = RunFolder(Path("runs/images"))
    assert [nimg for nimg, _ in folder.list_checkpoints()] == [16, 56]
    ganvas.train(source, **options(steps=9))
    assert [nimg for nimg, _ in folder.list_checkpoints()] == [64, 72]
    assert read_best(folder).nimg == 64


def test_patience_ends_a_run_and_the_same_call_finds_it_done(source, scripted):
    scripted({16: (0.1, False), 32: (0.2, False), 48: (0.3, False), 64: (0.3, False), 80: (0.05, False)})
    run = ganvas.train(source, **options(steps=50, patience="3 steps"))
    assert (run.end, run.nimg) == ("patience", 56)
    again = options(steps=50, patience="3 steps")
    assert ganvas.train(source, **again).nimg == 56
    assert any("done" in line for line in again["watch"].lines)
    assert ganvas.train(source, **options(steps=10, patience="9 steps")).nimg == 80


def test_a_measurement_that_fails_costs_the_training_nothing(source, monkeypatch):
    def fail(self, state):
        raise DataError("the features of 3 images are not finite")
    monkeypatch.setattr(Meter, "measure", fail)
    heard = Heard()
    assert ganvas.train(source, **options(steps=6, watch=heard)).end == "done"
    assert [line for line in heard.lines if "not measured any more" in line and "3 images" in line]
    assert ganvas.load("runs/images").nimg == 48


def test_a_handful_of_images_is_not_measured_against():
    few = image_folder(Path("few"), n=6)
    assert ganvas.train(few, **options(steps=3, holdout=0)).end == "done"
    assert not shared(Path("runs/few"))


def test_a_user_s_own_function_may_see_the_images(source):
    Path("mine.py").write_text("def means(images):\n    return images.float().mean(dim=(2, 3))\n", encoding="utf-8")
    ganvas.train(source, **options({"measure.extractor": "mine.py:means"}, steps=2))
    assert "mine.py:means" in shared(Path("runs/images"))[0]["extractor"]


# Deciding.


class Costs(Meter):
    """A meter whose work takes a known time, in seconds, by a clock of its own."""

    def __init__(self, share, feature, sample, neighbours=0.0, images=10_000):
        measure = SimpleNamespace(share=share, every=None, extractor="random", n=512)
        super().__init__(SimpleNamespace(measure=measure, train=SimpleNamespace(batch=64)),
                         SimpleNamespace(train=range(images)), None, None, lambda text: None)
        self._timed_extractor = lambda: feature
        self._timed_generator = lambda state: sample
        self.costs, self.now, self.ready = (feature, sample, neighbours), 0.0, False

    def measure(self, state):
        feature, sample, neighbours = self.costs
        self.now += 0 if self.ready else self.plan.references * feature
        took = self.plan.n * (sample + 2 * feature) + (0 if state.G_ema is None else 1024 * sample) + neighbours
        self.now, self.ready = self.now + took, True
        return {"sec": took}


@pytest.mark.parametrize("total_sec", [60, 600, 10_000, 100_000])
@pytest.mark.parametrize("costs", [(0.001, 0.0005), (0.003, 0.02), (0.0001, 0.0001), (0.0001, 0.0001, 3.0)])
@pytest.mark.parametrize("averaged", [None, "averaged"])
def test_measuring_takes_no_more_than_its_share(total_sec, costs, averaged, monkeypatch):
    meter, state = Costs(0.05, *costs), SimpleNamespace(G_ema=averaged)
    monkeypatch.setattr("ganvas.measuring.time.monotonic", lambda: meter.now)
    row = meter.decide(state, total_sec, 100_000, 0.6)
    budget = 0.05 * 0.6 * total_sec
    assert meter.decided
    if row is None:                                                    # not even two of the smallest would fit
        assert meter.plan is None
        assert budget < 2 * (LEAST_N * (costs[1] + 2 * costs[0]) + 1024 * bool(averaged) * costs[1]) + 10_000 * costs[0]
        return
    assert LEAST_N <= meter.plan.n <= 512
    more = int(100_000 / Amount.parse(meter.plan.every).value / 1000 + 1e-3)
    assert more <= 50
    assert meter.now + more * row["sec"] <= budget or more == 0        # then only the first, which told that, and one at the end


def test_there_is_no_measuring_without_time_or_without_a_share():
    for share, total_sec in ((0.05, 10), (0.0, 1e6)):
        meter = Costs(share, 0.001, 0.001)
        assert meter.decide(None, total_sec, 100_000, 0.6) is None
        assert meter.decided and meter.plan is None


def test_what_was_decided_is_kept_by_a_run_that_goes_on(source):
    ganvas.train(source, **options({"measure.every": "2 steps"}, steps=2))
    noted = json.loads(Path("runs/images/execution.json").read_text(encoding="utf-8"))["measuring"]
    assert noted == {"every": "2 steps", "n": 24, "references": 32, "by": "every 2 steps"}

    def going_on(share, noted):
        config = SimpleNamespace(measure=SimpleNamespace(share=share, every=None))
        return Meter(config, SimpleNamespace(train=range(100)), None, noted, lambda text: None)

    decided = {"every": "3.5 kimg", "n": 128, "references": 90, "by": "share 0.05"}
    assert going_on(0.05, decided).plan == Plan(**decided)
    assert not going_on(0.2, decided).decided                          # another share is decided by anew
    assert not going_on(0.05, noted).decided


@pytest.mark.parametrize(("extractor", "words"), [("inceptoin", "Did you mean inception"), ("none.py:f", "none.py")])
def test_an_extractor_that_cannot_be_had_is_said_before_the_training(source, extractor, words):
    with pytest.raises(GanvasError, match=words):
        ganvas.train(source, **options({"measure.extractor": extractor, "measure.every": "100 steps"}, steps=3))
    assert not RunFolder(Path("runs/images")).list_checkpoints()


def test_a_file_that_runs_is_not_taken_from_a_config_alone(source):
    Path("mine.py").write_text("open('ran', 'w')\ndef means(images):\n    return images.float().mean(dim=(2, 3))\n")
    Path("stranger.yaml").write_text("measure:\n  extractor: mine.py:means\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"--set measure\.extractor=mine\.py:means"):
        ganvas.train(source, config="stranger.yaml", **options(steps=2))
    assert not Path("ran").exists()
    ganvas.train(source, config="stranger.yaml", **options({"measure.extractor": "mine.py:means"}, steps=2))
    assert Path("ran").exists()


def test_a_conditional_d_is_told_the_classes_of_reals_held_out_ones_and_samples(monkeypatch):
    for what in ("draw_end", "evaluate_end"):                      # which take longer than the training
        monkeypatch.setattr(f"ganvas.job.{what}", lambda *given: None)
    monkeypatch.setattr("ganvas.job.report", lambda folder: [])
    shades = np.where(np.arange(40) % 3 == 0, 30, 220).astype(np.uint8)         # class 0 is dark
    noise = np.random.default_rng(0).integers(0, 30, (40, 16, 16), np.uint8)
    np.savez("shades.npz", images=shades[:, None, None] + noise, labels=(shades > 100).astype(np.int64))
    asked = []
    def heard(D, images, labels=None):
        asked.append((images, labels))
        return logits_of(D, images, labels)
    monkeypatch.setattr("ganvas.measuring.logits_of", heard)
    more = {"network.family": "residual", "network.conditional": True}
    ganvas.train("shades.npz", steps=2, **options(more, holdout=16))
    (reals, of_reals), (held, of_held), (samples, of_samples) = asked
    for images, labels in ((reals, of_reals), (held, of_held)):
        assert np.array_equal(labels, images.mean(axis=(1, 2, 3)) > 100)
    config = ganvas.load("runs/shades").config
    assert np.array_equal(of_samples, draw_labels(config, config.train.seed, np.arange(len(samples))))
    assert 0 < of_samples.mean() < 1
    del asked[:]
    ganvas.train("shades.npz", steps=2, out="plain", **options({"network.conditional": False}, holdout=16))
    assert [labels for _, labels in asked] == [None] * 3


def test_asking_d_leaves_it_as_it_was():
    D = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Dropout(), torch.nn.Flatten(),
                            torch.nn.Linear(4 * 36, 1)).eval()
    before, drawn = {name: tensor.clone() for name, tensor in D.state_dict().items()}, torch.get_rng_state()
    logits = logits_of(D, np.random.default_rng(0).integers(0, 256, (10, 1, 8, 8), np.uint8))
    assert logits.shape == (10,)
    assert not D.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in D.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)
