"""`--profile`: what it writes, what it says, and that it is no run."""

import gzip
import json
import re
import sys
from pathlib import Path

import pytest
import torch

import ganvas
from ganvas import profiling
from ganvas.breakdown import PARTS
from ganvas.errors import ConfigError, RunError
from ganvas.profiling import PeakMemory, anonymous_mb
from ganvas.training import loop
from makers import Heard, image_folder

SETTINGS = {"network.g_channels": 4, "network.d_channels": 4, "data.holdout": 0, "data.mirror": False,
            "train.ema_half_life_kimg": 1, "execution.precision": "fp32"}


def look(**more):
    options = {"size": "16", "batch": 8, "threads": 1, "device": "cpu", "settings": SETTINGS, "watch": Heard()} | more
    run = ganvas.train("images", **options)
    return run, "\n".join(options["watch"].lines)


@pytest.fixture(autouse=True)
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return image_folder(Path("images"), n=20)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """The folder of a profile of four steps, and what was told."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("profiled"))
        image_folder(Path("images"), n=20)
        run, said = look(profile=4)
        return run.path.resolve(), said


def rows(text):
    """[(share in per cent, ms, rest of the line)] of the two tables."""
    found = [re.match(r"\s*(-?[\d.]+)%\s+(-?[\d,.]+)\s+(.*)", line) for line in text.splitlines()]
    lines = [(float(row[1]), float(row[2].replace(",", "")), row[3]) for row in found if row]
    end = next(i for i, (_, _, what) in enumerate(lines) if what == "a step")
    return lines[:end], lines[end], lines[end + 1:]


def test_a_profile_is_a_page_and_a_trace_and_nothing_else(seen):
    folder, _ = seen
    assert folder.name == "profile-images"
    assert sorted(path.name for path in folder.iterdir()) == ["profile.txt", "trace.json.gz"]
    assert not (folder.parent / "runs").exists()


def test_the_page_is_told_and_its_shares_add_up_to_all_of_a_step(seen):
    folder, said = seen
    text = (folder / "profile.txt").read_text(encoding="utf-8")
    assert text in said and str(Path("profile-images") / "profile.txt") in said
    parts, whole, operators = rows(text)
    assert [what for _, _, what in parts] == list(PARTS.values())
    assert sum(share for share, _, _ in parts) == pytest.approx(100, abs=0.5)
    assert whole[0] == 100
    assert sum(ms for _, ms, _ in parts) == pytest.approx(whole[1], abs=0.1)
    assert sum(share for share, _, _ in operators) == pytest.approx(100, abs=2)
    assert len(text.splitlines()) < 60 and max(map(len, text.splitlines())) < 140


def test_each_part_of_a_step_takes_some_of_its_time(seen):
    parts, _, _ = rows((seen[0] / "profile.txt").read_text(encoding="utf-8"))
    assert all(ms > 0 for _, ms, _ in parts)


def test_the_page_names_machine_threads_precision_speed_and_the_convolutions_speed(seen):
    text = (seen[0] / "profile.txt").read_text(encoding="utf-8")
    for words in ("1 thread, fp32", f"torch {torch.__version__}", "images a second", "16x16, batch 8", "4 steps"):
        assert words in text
    # By which kernel, the machine decides.
    assert re.search(r"\d +convolution( by matrix products)?: \d+ -> \d+ maps, kernel 4x4, stride 2", text)
    assert "gradients: " in text or "weights' gradient" in text


def test_the_trace_is_one_that_browsers_show_and_has_the_steps_and_their_operators(seen):
    events = json.loads(gzip.decompress((seen[0] / "trace.json.gz").read_bytes()))["traceEvents"]
    assert sum(event.get("name") == "ganvas.step" and event.get("cat") == "user_annotation" for event in events) == 4
    assert any(event.get("name") in ("aten::convolution_backward", "aten::mm") for event in events)


def test_a_profile_goes_where_out_says_and_leaves_a_run_there_as_it_is():
    steps = {"steps": 2, "out": "runs/a"}
    look(**steps)
    before = {path: path.read_bytes() for path in Path("runs/a").rglob("*") if path.is_file()}
    run, said = look(**steps, profile=1)
    assert (run.path, run.nimg) == (Path("runs/a"), 0)
    after = {path: path.read_bytes() for path in Path("runs/a").rglob("*") if path.is_file()}
    assert after.keys() - before.keys() == {Path("runs/a/profile.txt"), Path("runs/a/trace.json.gz")}
    assert all(after[path] == content for path, content in before.items())
    assert "goes on from" not in said


@pytest.mark.parametrize("steps", [0, -1, 100_000])
def test_a_profile_of_no_or_too_many_steps_is_refused(steps):
    with pytest.raises(ConfigError, match=rf"--profile {steps}: .*from 1 to 200"):
        look(profile=steps)


def test_a_profile_and_a_dry_run_are_two_things():
    with pytest.raises(ConfigError, match="--profile and --dry-run"):
        look(profile=3, dry_run=True)


def test_a_batch_of_which_none_can_be_made_is_told_as_training_tells_it():
    stem = {"network.family": "dcgan", "network.g_stem": "linear", "network.g_stem_norm": "units"}
    with pytest.raises(ganvas.errors.DataError, match="images: --batch 1: a batch needs at least 2 images"):
        look(profile=2, batch=1, settings=SETTINGS | stem)


def test_a_profile_that_cannot_be_written_names_the_file_and_another_place():
    Path("taken").write_text("a file, no folder", encoding="utf-8")
    with pytest.raises(RunError, match=r"taken.*--out"):
        look(profile=1, out="taken")


def test_a_stopped_profile_leaves_nothing(monkeypatch):
    steps, step = [], loop.train_step
    monkeypatch.setattr(loop, "train_step", lambda *args: steps.append(1) or step(*args))
    (tick,) = ganvas.iterate("images", profile=9, size="16", batch=8, threads=1, device="cpu", settings=SETTINGS, watch=Heard(),
                             should_stop=lambda: "SIGINT" if len(steps) > 5 else None)
    assert tick.end == "SIGINT"
    assert len(steps) == 6
    assert not Path("profile-images").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of anonymous memory")
def test_the_peak_of_memory_is_seen_though_it_is_given_back():
    with PeakMemory() as memory:
        before, block = anonymous_mb(), torch.ones(64 * 2**20 // 4)
        while memory.peak_mb is None or memory.peak_mb < before + 60:
            assert not memory.done.wait(0.01)
        del block
    assert memory.peak_mb >= before + 60


def test_where_the_system_does_not_tell_of_memory_the_page_says_so(monkeypatch):
    monkeypatch.setattr(profiling, "anonymous_mb", lambda: None)
    _, said = look(profile=1)
    assert "memory    not known" in said
