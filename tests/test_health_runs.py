"""Real trainings of some seconds that go wrong in different ways: each report names the fault, and that of a healthy one none."""

import re

import pytest

import ganvas
from ganvas.ops.convolution import Kernels
from ganvas.report import animation

SMALL = {"network.g_channels": 8, "network.d_channels": 8, "measure.every": "50 steps", "measure.n": 64, "measure.share": 0,
         "output.log_every": "10 steps", "output.grid_every": "400 steps", "output.checkpoint_every": "400 steps"}
RUNS = {
    "diverged": (100, {"train.lr": 5.0, "train.r1_gamma": 0}),
    "noise": (260, {"train.lr": 0.01, "train.betas": [0.99, 0.999], "train.seed": 1}),
    "stuck": (420, {"train.lr": 1e-7}),
}


@pytest.fixture(autouse=True)
def plainly_computed(monkeypatch):
    """What a training that goes wrong ends in hangs on every bit: none is left to this machine's precision or kernels."""
    monkeypatch.setitem(SMALL, "execution.precision", "fp32")
    monkeypatch.setitem(SMALL, "execution.channels_last", False)
    monkeypatch.setattr("ganvas.engine.fastest", lambda shape: Kernels())


def named_in_report(tmp_path, steps, settings):
    """The diagnoses in the report.html of a run of the built-in digits."""
    run = ganvas.train("digits", out=tmp_path / "run", steps=steps, batch=16, threads=1, device="cpu", settings=SMALL | settings)
    page = (run.path / "report.html").read_text(encoding="utf-8")
    health = page.partition('<section id="health">')[2].partition("</section>")[0]
    assert health
    return re.findall(r"<h3>([^<]+)<", health)


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def quick(own_cache, shared_cache, monkeypatch):
    monkeypatch.setenv("GANVAS_CACHE", str(shared_cache))                     # the digits are packed once for all four runs
    monkeypatch.setattr(animation, "write_mp4", lambda path, frames: 0)       # encoding takes longer than training
    monkeypatch.setattr(animation, "write_gif", lambda path, frames: 0)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_goes_wrong_is_told_so_in_its_report(tmp_path, name):
    assert named_in_report(tmp_path, *RUNS[name]) == [name]


def test_a_healthy_run_is_told_nothing(tmp_path):
    assert named_in_report(tmp_path, 420, {"network.g_channels": 16}) == []
