"""The command line called in this process, and one finished run for all tests that only read one."""

import contextlib
import io
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from ganvas.cli.main import main
from makers import image_folder

TINY = ("--size", "16", "--batch", "8", "--device", "cpu", "--threads", "1",
        "--set", "network.g_channels=4", "--set", "network.d_channels=4", "--set", "output.grid_n=4",
        "--set", "train.ema_half_life_kimg=0", "--holdout", "0", "--mirror", "off")
CADENCE = ("--set", "output.log_every=2 steps", "--set", "output.grid_every=3 steps", "--set", "output.checkpoint_every=3 steps",
           "--set", "output.keep_last=2", "--set", "output.keep_every=6 steps")


class Result(NamedTuple):
    code: int
    out: str
    err: str


def ganvas(*args: object) -> Result:
    """`ganvas ARGS` in this process. An exception that is no exit reaches the test: that is the traceback of a user."""
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["ganvas", *map(str, args)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as exit_:
        return Result(int(exit_.code or 0), out.getvalue(), err.getvalue())
    finally:
        sys.argv = argv
    return Result(0, out.getvalue(), err.getvalue())


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Each test has an empty folder to itself, where `runs/` comes to lie."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture(autouse=True)
def no_video(monkeypatch):
    """Encoding takes longer than all else in a tiny run; `finished` has a video."""
    monkeypatch.setattr("ganvas.report.animation.write_mp4", lambda path, frames: 0)


@pytest.fixture
def cli():
    return ganvas


@pytest.fixture
def train():
    """`ganvas train ARGS` with networks that take no time; one step, where ARGS name no length."""
    def train(*args):
        length = () if {"--steps", "--epochs", "--kimg", "--time"} & {*map(str, args)} else ("--steps", 1)
        return ganvas("train", *args, *length, *TINY)
    return train


@pytest.fixture
def images():
    """A folder `images` of 20 small pictures: three batches of 8 make an epoch."""
    return image_folder(Path("images"), n=20)


@pytest.fixture(scope="session")
def _finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("finished"))
        patch.setenv("GANVAS_CACHE", "cache")
        image_folder(Path("images"), n=20)
        result = ganvas("train", "images", "--steps", 12, *TINY, *CADENCE)
        assert result.code == 0, result.err
        return Path.cwd(), result


@pytest.fixture
def finished(_finished):
    """A run of 12 steps, grids and checkpoints every 3, at runs/images of this test's own folder."""
    home, result = _finished
    shutil.copytree(home / "images", "images")
    shutil.copytree(home / "runs", "runs")
    return Path("runs/images"), result


@pytest.fixture
def again():
    """The command that made `finished`; arguments come before its own length, which they may replace."""
    return lambda *args, source="images": ganvas("train", source, *(args or ("--steps", 12)), *TINY, *CADENCE)
