import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganvas.checkpoint import read_checkpoint
from ganvas.config import from_yaml, make_config, to_yaml
from ganvas.data.batches import Schedule
from ganvas.generator import config_of, load
from ganvas.report.log import read_rows
from ganvas.run_folder import RunFolder
from ganvas.training import loop
from ganvas.values import Amount
from makers import image_folder

SEEDS_STATISTICS = ("Loss_D", "Loss_G", "D(x)", "D(G(z))_before", "D(G(z))_after")
SLOWED = """
import sys, time
from ganvas.cli.main import main
from ganvas.training import loop
step = loop.train_step
def slow_step(*args):
    time.sleep(0.1)
    return step(*args)
loop.train_step = slow_step
sys.argv[0] = "ganvas"
main()
"""


def checkpoints(run):
    return [nimg for nimg, _ in RunFolder(run).list_checkpoints()]


def config_in(run):
    return make_config(from_yaml(RunFolder(run).config.read_text(encoding="utf-8"), "config.yaml"))


def schedule_of(run, images=20):
    config = config_in(run)
    return Schedule(images, config.train.batch, config.plan.tail)


def done_in(run):
    """What a run of 12 steps says it has done."""
    (nimg,) = seen_after(run, 12)
    return f"{nimg} images = {schedule_of(run).epoch_at(nimg):.1f} epochs"


def seen_after(run, *steps):
    """The images that a run on 20 of them has seen after so many steps; batches of 8 and, where the recipe keeps it, one of 4."""
    return [schedule_of(run).nimg_at(step) for step in steps]


# ---------------------------------------------------------------- what a run leaves


def test_the_config_of_a_run_reads_back_as_what_it_was_trained_with(finished):
    run, _ = finished
    text = RunFolder(run).config.read_text(encoding="utf-8")
    config = make_config(from_yaml(text, "config.yaml"))
    assert to_yaml(config) == text
    assert config == config_of(read_checkpoint(RunFolder(run).list_checkpoints()[-1][1])[1], "run")
    assert (config.train.batch, str(config.data.size), str(config.length)) == (8, "16x16", "12 steps")


def test_rows_hold_what_the_tutorials_print(finished):
    rows = read_rows(RunFolder(finished[0]).stats)
    steps, schedule = (1, 2, 4, 6, 8, 10, 12), schedule_of(finished[0])
    assert [row["step"] for row in rows] == list(steps)
    assert [row["nimg"] for row in rows] == seen_after(finished[0], *steps)
    assert [row["epoch"] for row in rows] == [round(row["nimg"] / schedule.epoch_images, 4) for row in rows]
    assert all(np.isfinite(row[name]) for row in rows for name in SEEDS_STATISTICS)
    assert all(0 <= row[name] <= 1 for row in rows for name in SEEDS_STATISTICS[2:])
    assert all(row["img_per_sec"] > 0 and row["elapsed_sec"] > 0 for row in rows)


def test_each_row_is_told_as_a_line(finished):
    lines = [line for line in finished[1].out.splitlines() if line.startswith("[epoch ")]
    last = read_rows(RunFolder(finished[0]).stats)[-1]
    assert len(lines) == 7
    assert lines[-1].startswith(
        f"[epoch {last['epoch']:.2f}][step 12] Loss_D: {last['Loss_D']:.4f}  Loss_G: {last['Loss_G']:.4f}")


def test_tensorboard_has_the_statistics_and_the_pictures(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(RunFolder(finished[0]).tensorboard))
    events.Reload()
    tags = events.Tags()
    assert set(SEEDS_STATISTICS) <= set(tags["scalars"])
    assert tags["images"] == ["samples"]
    assert [point.step for point in events.Scalars("Loss_D")] == seen_after(finished[0], 1, 2, 4, 6, 8, 10, 12)


def test_pictures_are_there_and_the_latest_is_the_newest(finished):
    folder = RunFolder(finished[0])
    moments = seen_after(folder.path, 0, 3, 6, 9, 12)
    assert [nimg for nimg, _ in folder.list_grids()] == moments
    before, last = (folder.grid(nimg).read_bytes() for nimg in moments[-2:])
    assert folder.latest_grid.read_bytes() == last != before
    for path in (folder.latest_grid, folder.reals_grid):
        assert Image.open(path).size == (510, 510)                 # 2 x 2 of 16 pixels, 2 apart, each pixel 15 wide
    assert Image.open(folder.curves).width > 500
    assert not [path for path in folder.path.rglob("*") if "part" in path.name]


def test_the_gif_is_wide_small_and_holds_its_last_frame(finished):
    path = RunFolder(finished[0]).gif
    with Image.open(path) as gif:
        durations = []
        for frame in range(gif.n_frames):
            gif.seek(frame)
            durations.append(gif.info["duration"])
        assert gif.width >= 512
    assert len(durations) == 5
    assert durations[-1] >= 2000 > max(durations[:-1])
    assert path.stat().st_size < 8_000_000


def test_the_video_can_be_read(finished):
    import imageio.v3 as iio

    frames = iio.imread(RunFolder(finished[0]).mp4, plugin="pyav")
    assert len(frames) > 5
    assert min(frames.shape[1:3]) >= 512


def test_checkpoints_are_pruned_to_the_newest_and_the_kept(finished):
    folder = RunFolder(finished[0])
    kept = seen_after(folder.path, 6, 9, 12)
    assert checkpoints(folder.path) == kept                        # steps 9 and 12 are the last 2, step 6 is kept for ever
    names = {path.name for path in folder.checkpoints.iterdir()}
    assert names == {folder.checkpoint(n).name for n in kept} | {folder.generator(n).name for n in kept}
    assert not folder.lock.exists()


def test_the_end_says_where_everything_is_and_what_is_next(finished):
    said = finished[1].out
    folder = RunFolder(finished[0])
    assert all(str(path) in said for path in (folder.latest_grid, folder.reals_grid, folder.curves, folder.gif, folder.mp4))
    assert f"{folder.path}: done, {done_in(folder.path)}." in said
    assert said.rstrip().endswith(f"ganvas sample {folder.path}")
    assert finished[1].err == ""


def test_a_checkpoint_is_written_after_some_minutes_without_one(train, images):
    done = train("images", "--steps", 3, "--set", "output.checkpoint_minutes=1e-9", "--set", "output.checkpoint_every=100 steps",
                 "--set", "output.keep_last=9")
    assert done.code == 0
    assert checkpoints(Path("runs/images")) == seen_after(Path("runs/images"), 1, 2, 3)


def test_a_dry_run_leaves_nothing_behind(train, images):
    done = train("images", "--dry-run", "--time", "20min")         # a longer one would be compiled for, which takes a minute
    assert done.code == 0
    assert "nothing is kept" in done.out
    assert "done," not in done.out and "ganvas-dry-run" not in done.out
    assert sorted(path.name for path in Path().iterdir()) == ["images"]


@pytest.mark.parametrize("time", [(), ("--time", "40s")])
def test_explaining_makes_nothing_and_tells_what_the_training_would_be(cli, images, time):
    done = cli("train", "images", "--explain", "--size", 16, "--device", "cpu", "--threads", 1, *time)
    assert (done.code, done.err) == (0, "")
    assert sorted(path.name for path in Path().iterdir()) == ["images"]
    choices, _, prediction = done.out.partition("prediction")
    assert "train.loss" in choices and "relativistic" in choices
    assert "20 images" in choices                                  # few of them: why they are augmented
    assert "images a second" in prediction and "GiB" in prediction
    length = next(line for line in prediction.splitlines() if line.strip().startswith("length"))
    assert re.search(r"\d (kimg|images), [\d,.]+ epochs, about .* of training", length)
    if time:
        assert 30 < int(re.findall(r"about (\d+) s of training", length)[0]) <= 40
    assert "new images:" not in done.out


# ---------------------------------------------------------------- the same command again


def test_a_finished_command_again_is_done_and_changes_nothing(finished, again):
    run, _ = finished
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    done = again()
    assert done.code == 0
    assert f"{run}: done, {done_in(run)}. A larger --time, --kimg, --epochs or --steps continues." in done.out
    assert "Conv2d" not in done.out                                # the networks were shown when they were new
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_larger_length_continues_with_the_rows_of_an_unbroken_run(finished, again, train):
    run, _ = finished
    (nimg,) = seen_after(run, 12)
    done = again("--epochs", 7)
    assert done.code == 0
    assert f"goes on from {nimg} images (bit-exact)" in done.out
    assert checkpoints(run)[-1] == 7 * schedule_of(run).epoch_images
    straight = again("--epochs", 7, "--out", "runs/straight")
    assert straight.code == 0
    broken, unbroken = (read_rows(RunFolder(path).stats) for path in (run, Path("runs/straight")))
    clock = ("time", "elapsed_sec", "img_per_sec")
    assert [{k: v for k, v in row.items() if k not in clock} for row in broken] == [
        {k: v for k, v in row.items() if k not in clock} for row in unbroken]


def test_changed_options_stop_with_the_difference_and_offer_a_new_folder(finished, again):
    run, _ = finished
    lr = config_in(run).train.lr
    done = again("--epochs", 7, "--lr", 0.1, "--fit", "pad")
    assert done.code == 1
    assert f"train.lr: {lr} -> 0.1" in done.err and "data.fit: crop -> pad" in done.err
    assert f"--out {run}-2" in done.err
    assert again("--epochs", 7, "--lr", 0.1, "--fit", "pad", "--out", f"{run}-2").code == 0
    assert checkpoints(run)[-1] == seen_after(run, 12)[0]


def test_cadence_and_threads_may_change_on_the_way(finished, again):
    done = again("--epochs", 7, "--set", "output.log_every=1 steps", "--set", "output.grid_n=2")
    assert done.code == 0
    assert "bit-exact" in done.out


def test_an_added_image_stops_the_run_and_names_the_source(finished, again):
    image_folder(Path("images"), n=21)
    done = again("--epochs", 7)
    assert done.code == 1
    assert "images: is not what this run was trained on" in done.err and "--out runs/images-2" in done.err
    Path("images/020.png").unlink()
    assert again("--epochs", 7).code == 0


def test_a_changed_pixel_stops_the_run(finished, again):
    with Image.open("images/007.png") as image:
        pixels = np.asarray(image).copy()
    pixels[12, 12] ^= 255
    Image.fromarray(pixels).save("images/007.png")
    done = again("--epochs", 7)
    assert done.code == 1
    assert "images: is not what this run was trained on" in done.err


def test_moved_images_go_on(finished, again):
    Path("elsewhere").mkdir()
    shutil.move("images", "elsewhere/pictures")
    done = again("--epochs", 7, "--out", "runs/images", source="elsewhere/pictures")
    assert done.code == 0
    assert f"goes on from {seen_after(Path('runs/images'), 12)[0]} images" in done.out


def test_a_run_can_be_taken_as_the_config_of_another(finished, cli):
    done = cli("train", "--config", "runs/images", "--out", "runs/other")
    assert done.code == 0, done.err
    assert checkpoints(Path("runs/other"))[-1] == seen_after(Path("runs/images"), 12)[0]
    assert load("runs/other").sample(3).tolist() == load("runs/images").sample(3).tolist()


def test_a_torn_newest_checkpoint_is_passed_over_and_said(finished, again):
    run, _ = finished
    before, last = seen_after(run, 9, 12)
    newest = RunFolder(run).checkpoint(last)
    newest.write_bytes(newest.read_bytes()[:1000])
    done = again()
    assert done.code == 0
    assert f"passed over: {newest}" in done.out
    assert f"goes on from {before} images (bit-exact)" in done.out
    assert read_checkpoint(newest)[1]["nimg"] == last
    assert [row["step"] for row in read_rows(RunFolder(run).stats)] == [1, 2, 4, 6, 8, 10, 12]


def test_a_run_with_only_torn_checkpoints_is_refused_with_each_of_them(finished, again):
    run, _ = finished
    for _, path in RunFolder(run).list_checkpoints():
        path.write_bytes(path.read_bytes()[:1000])
    done = again("--epochs", 7)
    assert done.code == 1
    assert all(str(path) in done.err for _, path in RunFolder(run).list_checkpoints())
    assert "--out" in done.err
    assert again("--epochs", 7, "--out", "runs/new").code == 0


def test_a_damaged_config_of_a_run_is_named(finished, again):
    RunFolder(finished[0]).config.write_bytes(b"\xff\xfe\x00")
    done = again("--epochs", 7)
    assert done.code == 1
    assert "config.yaml" in done.err and "--out runs/images-2" in done.err


# ---------------------------------------------------------------- divergence


def test_divergence_is_named_and_the_last_good_checkpoint_stays_usable(train, cli, images, monkeypatch):
    def diverging_step(state, *args):
        stats = step(state, *args)
        if state.nimg >= 16:
            next(state.G.parameters()).data[:] = float("inf")
        return stats
    step = loop.train_step
    monkeypatch.setattr(loop, "train_step", diverging_step)
    done = train("images", "--steps", 9, "--set", "output.checkpoint_every=1 steps")
    assert done.code == 1
    assert "training diverged: a weight is NaN or infinite near image " in done.err and "--lr" in done.err
    assert "The checkpoint at 16 images is kept." in done.err
    assert checkpoints(Path("runs/images")) == [8, 16]
    sampled = cli("sample", "--n", 2)
    assert (sampled.code, sampled.out.splitlines()[0]) == (
        0, "runs/images: generator after 16 images (the last checkpoint; none was measured)")


def test_a_start_that_reached_no_checkpoint_does_not_bind_the_next(train, images):
    done = train("images", "--lr", "1e30", "--steps", 9)
    assert done.code == 1
    assert "training diverged: " in done.err and "is NaN or infinite" in done.err
    assert "is kept" not in done.err
    done = train("images", "--lr", "2e-4", "--steps", 2)
    assert done.code == 0, done.err
    folder = RunFolder(Path("runs/images"))
    assert [row["step"] for row in read_rows(folder.stats)] == [1]
    assert len(list(folder.tensorboard.iterdir())) == 1


# ---------------------------------------------------------------- --time


class Clock:
    """Goes on by 20 ms with each training step, and in no other way."""

    now = 100.0

    def monotonic(self):
        return self.now

    time = monotonic


@pytest.fixture
def clock(monkeypatch):
    def step_of_20_ms(*args):
        clock.now += 0.02
        return step(*args)
    clock, step = Clock(), loop.train_step
    monkeypatch.setattr("ganvas.budget.clock", clock)
    monkeypatch.setattr("ganvas.run_writer.time", clock)
    monkeypatch.setattr(loop, "train_step", step_of_20_ms)
    return clock


def test_a_time_is_kept_to_written_down_and_continued_by_a_larger_one(train, images, clock):
    began_at = clock.now
    done = train("images", "--time", "2s")
    assert done.code == 0, done.err
    assert 1.8 < clock.now - began_at <= 2
    execution = json.loads(RunFolder(Path("runs/images")).execution.read_text(encoding="utf-8"))
    reached = checkpoints(Path("runs/images"))[-1]
    assert execution["time_sec"] == 2
    assert reached - 8 < 1000 * Amount.parse(execution["length"]).value <= reached
    assert "images a second: --time makes" in done.out

    for time_again in ("2s", "1s"):                               # all of it is used, whether or not it is known by this name
        done = train("images", "--time", time_again)
        assert done.code == 0
        assert "runs/images: done" in done.out and "goes on" not in done.out
        assert checkpoints(Path("runs/images"))[-1] == reached

    began_at = clock.now
    assert train("images", "--time", "6s").code == 0
    assert 3 < clock.now - began_at <= 4.2                        # the training of the first 2 s counts
    assert checkpoints(Path("runs/images"))[-1] > 2 * reached


@pytest.mark.parametrize(("guess", "change"), [(1e4, "slower"), (40.0, "faster")])
def test_a_speed_that_was_measured_wrongly_is_mended_on_the_way_and_said(train, images, clock, monkeypatch, guess, change):
    monkeypatch.setattr("ganvas.job.measured_speed", lambda *args: guess)
    began_at = clock.now
    done = train("images", "--time", "2s")
    assert done.code == 0, done.err
    assert 1.8 < clock.now - began_at <= 2
    assert f"{change} than measured at first: --time makes " in done.out
    folder = RunFolder(Path("runs/images"))
    noted = json.loads(folder.execution.read_text(encoding="utf-8"))["length"]
    config = config_in(folder.path)
    reached = checkpoints(folder.path)[-1]
    assert str(config.length) == noted
    assert config == config_of(read_checkpoint(folder.checkpoint(reached))[1], "run")
    assert reached - 8 < 1000 * config.length.value <= reached
    done = train("images", "--time", "2s")
    assert (done.code, checkpoints(folder.path)[-1]) == (0, reached)
    assert "goes on" not in done.out


def test_a_run_whose_length_moved_on_the_way_is_bit_for_bit_one_that_had_it_from_the_start(train, images, clock, monkeypatch):
    monkeypatch.setattr("ganvas.job.measured_speed", lambda *args: 40.0)
    assert train("images", "--time", "2s").code == 0
    reached = checkpoints(Path("runs/images"))[-1]
    assert train("images", "--kimg", reached / 1000, "--out", "runs/straight").code == 0
    moved, straight = (read_checkpoint(RunFolder(Path(run)).checkpoint(reached))[0] for run in ("runs/images", "runs/straight"))
    assert all(torch.equal(moved[name], tensor) for name, tensor in straight.items())


def test_a_run_slower_than_measured_ends_with_its_time_and_is_done(train, images, clock, monkeypatch):
    monkeypatch.setattr("ganvas.job.measured_speed", lambda *args: 1e9)
    monkeypatch.setattr("ganvas.budget.Budget.look", lambda budget, nimg, goal, batch: goal)
    began_at = clock.now
    done = train("images", "--time", "1s")
    assert done.code == 0, done.err
    assert clock.now - began_at == pytest.approx(1, abs=0.03)
    assert "runs/images: done" in done.out
    reached = checkpoints(Path("runs/images"))
    assert reached[-1] > 300
    done = train("images", "--time", "1s")
    assert (done.code, checkpoints(Path("runs/images"))) == (0, reached)
    assert "goes on" not in done.out


def test_a_stopped_run_goes_on_from_the_length_that_its_time_once_made(train, images, clock, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("ganvas.session.Session._stop_reason", lambda session: "SIGINT")
        assert train("images", "--time", "2s").code == 130
    goal = 1000 * Amount.parse(json.loads(RunFolder(Path("runs/images")).execution.read_text(encoding="utf-8"))["length"]).value
    goals, began_at = [], clock.now
    monkeypatch.setattr("ganvas.cli.terminal.TerminalWatcher.training", lambda self, nimg, goal, epoch, row: goals.append(goal))
    done = train("images", "--time", "2s")
    assert done.code == 0
    assert "images a second" not in done.out                      # measured once
    assert goals[0] == goal
    assert 1.8 < clock.now - began_at <= 2


# ---------------------------------------------------------------- signals, and two at once

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="signals cannot be sent to one process on Windows")


@pytest.fixture
def slow():
    """Starts `ganvas ARGS` as a process of its own whose steps take a while; returns it once a row is written."""
    started = []

    def start(run, *args):
        process = subprocess.Popen([sys.executable, "-c", SLOWED, *map(str, args)], env=os.environ | {"OMP_NUM_THREADS": "1"},
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8")
        started.append(process)
        give_up_at = time.monotonic() + 120
        while not read_rows(RunFolder(run).stats):
            assert process.poll() is None and time.monotonic() < give_up_at, process.communicate()
            time.sleep(0.02)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@posix_only
def test_ctrl_c_keeps_everything_and_one_process_owns_the_run(slow, images, cli):
    args = ("train", "images", "--steps", 90, "--size", 16, "--batch", 8, "--threads", 1, "--device", "cpu",
            "--set", "network.g_channels=4", "--set", "network.d_channels=4", "--set", "output.log_every=2 steps",
            "--set", "output.grid_n=4", "--set", "output.checkpoint_every=1000 steps")
    run = Path("runs/images")
    process = slow(run, *args)

    done = cli(*args)                                             # while that one trains
    assert done.code == 1
    assert str(process.pid) in done.err and "--out" in done.err

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    (nimg,) = checkpoints(run)
    assert f"stopped by SIGINT at {nimg} images; the same command goes on from there" in out
    assert not RunFolder(run).lock.exists()
    assert RunFolder(run).gif.is_file()

    done = cli(*args)
    assert done.code == 0, done.err
    assert f"goes on from {nimg} images (bit-exact)" in done.out
    assert checkpoints(run)[-1] == schedule_of(run, 18).nimg_at(90)                  # two are held out


@posix_only
def test_sigterm_ends_at_once_with_a_checkpoint(slow, images, cli):
    args = ("train", "images", "--steps", 90, "--size", 16, "--batch", 8, "--threads", 1, "--device", "cpu",
            "--set", "network.g_channels=4", "--set", "network.d_channels=4", "--set", "output.log_every=2 steps",
            "--set", "output.grid_n=4")
    run = Path("runs/images")
    process = slow(run, *args)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    nimg = checkpoints(run)[-1]
    assert f"stopped by SIGTERM at {nimg} images; the same command goes on from there" in out
    assert not RunFolder(run).gif.exists()                        # who sends SIGTERM does not wait for pictures
    done = cli(*args)
    assert done.code == 0, done.err
    assert f"goes on from {nimg} images (bit-exact)" in done.out
