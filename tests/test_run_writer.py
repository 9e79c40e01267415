"""Checkpoints that a thread writes while training goes on."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import ganvas
from ganvas import generator, run_writer
from ganvas.best import read_best
from ganvas.checkpoint import read_checkpoint, write_checkpoint
from ganvas.config import make_config
from ganvas.data.batches import Schedule
from ganvas.engine import Engine
from ganvas.errors import RunError
from ganvas.generator import for_sampling, generator_file
from ganvas.networks.build import build_networks
from ganvas.report.log import read_rows
from ganvas.run_folder import RunFolder
from ganvas.run_lock import RunLock
from ganvas.run_writer import RunWriter
from ganvas.training.state import TrainState
from ganvas.watcher import Watcher
from makers import image_folder
from test_resume import NARROW, last_state, rows, run_options

TINY = {"network.g_channels": 4, "network.d_channels": 4, "network.z_dim": 5, "data.size": "16", "train.batch": 8,
        "train.ema_half_life_kimg": 0.05, "output.grid_n": 4, "output.keep_last": 1}
FIGURE = {"extractor": "random", "copies_over_limit": False}


class Reals:
    """The images of a run, as far as its writer looks at them."""

    fingerprint = "some images"

    def __len__(self):
        return 40

    def read(self, indices):
        return np.zeros((len(indices), 3, 16, 16), np.uint8)


class Disk:
    """`write_checkpoint`, which waits while `slow`, and refuses what `full` names; `asked`: the files it was given, in order."""

    def __init__(self, write):
        self.write, self.asked, self.full = write, [], ""
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, path, *content):
        self.asked.append((path.name, threading.current_thread() is threading.main_thread()))
        assert self.may_go_on.wait(20)
        if self.full and path.name.startswith(self.full):
            raise OSError(28, "No space left on device")
        self.write(path, *content)

    def wait_until_asked(self):
        while not self.asked:
            time.sleep(0.002)

    def slow(self):
        self.may_go_on.clear()

    def quick(self):
        self.may_go_on.set()


@pytest.fixture
def disk(monkeypatch):
    disk = Disk(run_writer.write_checkpoint)
    monkeypatch.setattr(run_writer, "write_checkpoint", disk)
    yield disk
    disk.quick()


@pytest.fixture
def lock(tmp_path):
    with RunLock(RunFolder.create(tmp_path / "run")) as lock:
        yield lock


@pytest.fixture
def writer(lock, disk):
    config = make_config(TINY)
    state = TrainState.create(config, *build_networks(config.network, config.data, seed=0))
    writer = RunWriter(lock.folder, lock, config, Engine(), state, Reals(), Schedule(40, 8, "ragged"), 0.0)
    yield writer
    disk.quick()
    writer.log.close()


def train_to(writer, nimg):
    """Something that changes all weights in place, as a step does."""
    writer.state.nimg = nimg
    with torch.no_grad():
        for network in (writer.state.G, writer.state.D, writer.state.G_ema):
            for tensor in network.state_dict().values():
                tensor.add_(nimg)
    writer.state.stats.add({"Loss_D": torch.tensor(1.0)})


def kept(writer):
    return [nimg for nimg, _ in writer.folder.list_checkpoints()]


# ---------------------------------------------------------------- what is written, and when


def test_a_checkpoint_holds_the_state_of_its_moment_though_training_goes_on_meanwhile(writer, disk):
    train_to(writer, 8)
    state, config = writer.state, writer.config
    expected = {name: tensor.clone() for name, tensor in state.tensors().items()}
    of_sampler, _ = generator_file(for_sampling(state.G_ema, config, True), config, 8, True)
    disk.slow()
    writer.checkpoint()
    assert kept(writer) == []                                  # it came back before the files were there
    train_to(writer, 16)
    disk.quick()
    writer.settle()
    found, meta = read_checkpoint(writer.folder.checkpoint(8))
    assert (meta["nimg"], meta["stats_counts"]) == (8, {"Loss_D": 1})
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    found, meta = read_checkpoint(writer.folder.generator(8))
    assert (meta["nimg"], meta["averaged"]) == (8, True)
    assert all(torch.equal(found[name], tensor) for name, tensor in of_sampler.items())


def test_the_generator_is_written_before_the_state_and_none_of_it_by_the_trainings_thread(writer, disk):
    for nimg in (8, 16):
        train_to(writer, nimg)
        writer.checkpoint()
    writer.settle()
    assert disk.asked == [(name.format(nimg), False) for nimg in (8, 16)
                          for name in ("generator-{:012d}.safetensors", "{:012d}.safetensors")]
    assert kept(writer) == [16]                                # pruned after it
    assert not writer.folder.generator(8).exists()


def test_a_second_checkpoint_waits_for_the_first_and_the_same_one_is_written_once(writer, disk):
    train_to(writer, 8)
    disk.slow()
    writer.checkpoint()
    writer.checkpoint()
    threading.Timer(0.1, disk.quick).start()
    train_to(writer, 16)
    writer.checkpoint()
    assert kept(writer)[0] == 8
    assert len(disk.asked) >= 2
    writer.close()
    assert (kept(writer), len(disk.asked)) == ([16], 4)


def test_rows_and_pictures_do_not_wait_for_a_checkpoint(writer, disk):
    train_to(writer, 8)
    disk.slow()
    writer.checkpoint()
    writer.row({"nimg": 8, "Loss_D": 1.0})
    writer.grid()
    assert [row["nimg"] for row in read_rows(writer.folder.stats)] == [8]
    assert writer.folder.grid(8).is_file()
    assert not writer.folder.checkpoint(8).exists()


def test_picture_and_checkpoint_of_one_moment_share_a_sampler(writer, monkeypatch):
    made = []
    monkeypatch.setattr(generator, "reestimate_batch_norm", lambda *_: made.append(writer.state.nimg))
    writer.config = writer.sampler.config = make_config(TINY, {"output.grid_mode": "eval"})
    for nimg in (8, 16):
        train_to(writer, nimg)
        writer.grid()
        writer.checkpoint()
    assert made == [8, 16]


# ---------------------------------------------------------------- the best


def test_the_best_is_noted_after_its_checkpoint_is_there_and_its_row_at_once(writer, disk):
    train_to(writer, 8)
    disk.slow()
    row = writer.measurement({"nimg": 8, "kid": 0.5, **FIGURE})
    assert row["best"] is True
    assert read_rows(writer.folder.metrics) == [row]
    assert not writer.folder.best.exists()
    disk.quick()
    writer.settle()
    assert read_best(writer.folder).nimg == 8


def test_a_best_whose_checkpoint_was_written_before_it_was_measured_is_noted(writer):
    train_to(writer, 8)
    writer.checkpoint()
    writer.measurement({"nimg": 8, "kid": 0.5, **FIGURE})
    assert read_best(writer.folder).nimg == 8


def test_the_best_outlives_newer_ones_until_a_better_one_is_noted(writer):
    for nimg, kid, expected, best in ((8, 0.5, [8], 8), (16, 0.7, [8, 16], 8), (24, 0.6, [8, 24], 8), (32, 0.1, [32], 32)):
        train_to(writer, nimg)
        writer.measurement({"nimg": nimg, "kid": kid, **FIGURE})
        writer.checkpoint()
        writer.settle()
        assert kept(writer) == expected
        assert read_best(writer.folder).nimg == best


def test_a_best_that_could_not_be_written_is_not_noted(writer, disk):
    train_to(writer, 8)
    disk.full = "0000"
    writer.measurement({"nimg": 8, "kid": 0.5, **FIGURE})
    with pytest.raises(RunError, match="No space left"):
        writer.close()
    assert kept(writer) == []
    assert not writer.folder.best.exists()


# ---------------------------------------------------------------- what goes wrong


CALLS = {
    "row": lambda writer: writer.row({"nimg": 16}), "grid": RunWriter.grid, "checkpoint": RunWriter.checkpoint,
    "measurement": lambda writer: writer.measurement({"nimg": 16, "kid": 0.5, **FIGURE}), "settle": RunWriter.settle,
    "close": RunWriter.close}


@pytest.mark.parametrize("file", ["generator", "0000"])
@pytest.mark.parametrize("call", CALLS)
def test_a_full_disk_is_told_by_whatever_is_called_next_and_again(writer, disk, call, file):
    train_to(writer, 8)
    disk.full = file
    writer.checkpoint()
    writer.disk._thread.join()
    train_to(writer, 16)
    for _ in range(2):
        with pytest.raises(RunError, match=rf"{file}.*No space left on device.*same command again"):
            CALLS[call](writer)
    assert kept(writer) == []
    assert len(disk.asked) == (1 if file == "generator" else 2)        # nothing more was tried


def test_a_failure_leaves_what_was_kept_before(writer, disk):
    train_to(writer, 8)
    writer.checkpoint()
    writer.settle()
    train_to(writer, 16)
    disk.full = "0000"
    writer.checkpoint()
    with pytest.raises(RunError, match=r"0016\.safetensors: cannot be written"):
        writer.settle()
    assert kept(writer) == [8]
    read_checkpoint(writer.folder.checkpoint(8))


def test_a_folder_lost_while_a_file_is_written_gets_no_further_file(writer, disk, lock):
    train_to(writer, 8)
    disk.slow()
    writer.checkpoint()
    disk.wait_until_asked()
    lock.folder.lock.unlink()                                  # another process has used the folder
    disk.quick()
    with pytest.raises(RunError, match="is gone"):
        writer.settle()
    assert [name[:4] for name, _ in disk.asked] == ["gene"]
    assert kept(writer) == []


def test_a_folder_given_away_while_a_file_is_written_gets_no_further_file(writer, disk, lock):
    train_to(writer, 8)
    disk.slow()
    writer.checkpoint()
    disk.wait_until_asked()
    lock.__exit__(None, None, None)
    disk.quick()
    with pytest.raises(RunError, match="has ended, nothing more is written"):
        writer.settle()
    assert [name[:4] for name, _ in disk.asked] == ["gene"]


def test_closing_waits_for_the_disk_and_leaves_no_thread(writer, disk):
    train_to(writer, 8)
    disk.slow()
    writer.checkpoint()
    threading.Timer(0.1, disk.quick).start()
    writer.close()
    assert kept(writer) == [8]
    assert not any(thread.name.startswith("checkpoints of") for thread in threading.enumerate())


# ---------------------------------------------------------------- kill -9


KILLED = """
import os, signal, sys, threading
import ganvas
from ganvas import engine, run_writer
from ganvas.files import whole_file
from ganvas.ops.convolution import Kernels
from test_resume import run_options
from test_run_writer import OFTEN

engine.fastest = lambda shape: Kernels("native", "lowered", "lowered")       # as in the other process
source, out, at = sys.argv[1:]
begun, write = threading.Event(), run_writer.write_checkpoint

def half(path, *content):
    if path.name == at:
        with whole_file(path) as partial:
            write(partial, *content)
            partial.write_bytes(partial.read_bytes()[:1000])
            begun.set()
            threading.Event().wait()
    write(path, *content)

run_writer.write_checkpoint = half
for tick in ganvas.iterate(**run_options(source, "pytorch-faces-64", out, settings=OFTEN)):
    if tick.step == 8:                                   # later than the checkpoint of step 6, earlier than the next
        assert begun.wait(20)
        os.kill(os.getpid(), signal.SIGKILL)
"""
OFTEN = {**NARROW, "output.checkpoint_every": "3 steps"}       # at 20, 40, 60, 80 images


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
@pytest.mark.parametrize("at", ["generator-000000000040.safetensors", "000000000040.safetensors"])
def test_killed_while_a_checkpoint_is_written_the_run_goes_on_from_the_one_before(tmp_path, at):
    source, out = str(image_folder(tmp_path / "images")), tmp_path / "killed"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, source, str(out), at], cwd=Path(__file__).parent, check=False, timeout=100)
    assert killed.returncode == -signal.SIGKILL
    folder = RunFolder(out)
    assert [nimg for nimg, _ in folder.list_checkpoints()] == [20]
    assert any(".partial" in path.name for path in folder.checkpoints.iterdir())

    again = run_options(source, "pytorch-faces-64", out, settings=OFTEN)
    ganvas.train(**again)
    assert any("goes on from 20 images (bit-exact)" in line for line in again["watch"].lines)
    ganvas.train(**run_options(source, "pytorch-faces-64", tmp_path / "straight", settings=OFTEN))
    (expected, nimg), (found, found_nimg) = last_state(tmp_path / "straight"), last_state(out)
    assert (found_nimg, found.keys()) == (nimg, expected.keys())
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert rows(out) == rows(tmp_path / "straight")
    assert not any(".partial" in path.name for path in folder.checkpoints.iterdir())


def test_a_run_with_alpha_says_which_kind_and_one_that_learnt_straight_alpha_does_not_go_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ganvas.job.draw_end", lambda folder, tell: None)      # takes longer than the training
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 4), np.uint8)
    def train(steps):
        return ganvas.train(images, out="run", size="16", channels=4, transparency="keep", batch=4, threads=1, device="cpu",
                            steps=steps, settings={"network.g_channels": 4, "network.d_channels": 4, "measure.share": 0},
                            watch=Watcher())
    folder = RunFolder(train(1).path)
    for path in (folder.generator(4), folder.checkpoint(4)):
        tensors, meta = read_checkpoint(path)
        assert meta.pop("alpha") == "premultiplied"
        write_checkpoint(path, tensors, meta)
    with pytest.raises(RunError, match=r"run: was made by an earlier Ganvas.* learnt straight alpha.*Train it anew"):
        train(2)
    for path in (folder.generator(4), folder.checkpoint(4)):
        tensors, meta = read_checkpoint(path)
        write_checkpoint(path, tensors, meta | {"alpha": "premultiplied"})
    assert train(2).nimg == 8
