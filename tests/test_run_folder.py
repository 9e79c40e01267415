"""A run folder has one layout and can be found again."""

import os
from pathlib import Path

import pytest

from ganvas.errors import RunError
from ganvas.run_folder import RunFolder, newest_run, open_run


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path / "faces")


def make_run(path: Path, trained_at: float) -> RunFolder:
    run = RunFolder.create(path)
    run.config.touch()
    os.utime(run.config, (trained_at, trained_at))
    return run


# Names.

def test_every_name_is_as_the_documentation_says():
    folder = RunFolder(Path("runs/faces"))
    names = {name: getattr(folder, name).relative_to(folder.path).as_posix() for name in
             ("config", "execution", "stats", "tensorboard", "samples", "latest_grid", "reals_grid", "gif", "mp4",
              "curves", "checkpoints", "lock", "images", "data_page")}
    assert names == {
        "config": "config.yaml", "execution": "execution.json", "stats": "stats.jsonl", "tensorboard": "tensorboard",
        "samples": "samples", "latest_grid": "samples/latest.png", "reals_grid": "samples/reals.png",
        "gif": "progress.gif", "mp4": "progress.mp4", "curves": "curves.png", "checkpoints": "checkpoints",
        "lock": "run.lock", "images": "images.csv.gz", "data_page": "data.html"}
    assert folder.grid(345678).as_posix() == "runs/faces/samples/000000345678.png"
    assert folder.checkpoint(345678).as_posix() == "runs/faces/checkpoints/000000345678.safetensors"
    assert folder.generator(345678).as_posix() == "runs/faces/checkpoints/generator-000000345678.safetensors"


def test_checkpoints_are_listed_oldest_first_without_generators_and_half_written_files(folder):
    for nimg in (2000, 10**12, 0):
        folder.checkpoint(nimg).touch()
    folder.generator(2000).touch()
    (folder.checkpoints / ".000000009999.12-0.partial.safetensors").touch()
    assert folder.list_checkpoints() == [(nimg, folder.checkpoint(nimg)) for nimg in (0, 2000, 10**12)]


def test_grids_are_listed_oldest_first_without_latest_and_reals(folder):
    for path in (folder.grid(64), folder.grid(7), folder.latest_grid, folder.reals_grid):
        path.touch()
    assert folder.list_grids() == [(7, folder.grid(7)), (64, folder.grid(64))]


def test_a_folder_that_is_not_there_has_no_checkpoints(tmp_path):
    assert RunFolder(tmp_path / "none").list_checkpoints() == []


# Making and finding.

def test_creating_twice_keeps_what_is_there(folder):
    folder.config.write_text("x", encoding="utf-8")
    assert RunFolder.create(folder.path) == folder
    assert folder.config.read_text(encoding="utf-8") == "x"
    assert sorted(path.name for path in folder.path.iterdir()) == ["checkpoints", "config.yaml", "samples"]


@pytest.mark.parametrize("run", ["file", "file/inside", "file/inside/deep"])
def test_a_file_in_the_way_is_named(tmp_path, run):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(RunError) as error:
        RunFolder.create(tmp_path / run)
    assert f"{tmp_path / 'file'} is a file" in str(error.value)
    assert "--out" in str(error.value)


def test_a_folder_that_cannot_be_written_is_named_with_the_reason(tmp_path, monkeypatch):
    def refuse(*args: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)          # chmod would not stop root
    with pytest.raises(RunError, match="Permission denied") as error:
        RunFolder.create(tmp_path / "faces")
    assert str(tmp_path / "faces") in str(error.value)
    assert "--out" in str(error.value)


def test_the_newest_run_is_the_one_whose_checkpoint_is_newest(tmp_path):
    old = make_run(tmp_path / "old", trained_at=1000)
    make_run(tmp_path / "new", trained_at=2000)
    (tmp_path / "not-a-run").mkdir()
    assert newest_run(tmp_path).path.name == "new"
    old.checkpoint(64).touch()
    assert newest_run(tmp_path).path.name == "old"


@pytest.mark.parametrize("made", [False, True])
def test_without_any_run_the_user_learns_how_to_get_one(tmp_path, made):
    runs = tmp_path / "runs"
    if made:
        runs.mkdir()
    with pytest.raises(RunError, match="ganvas train") as error:
        newest_run(runs)
    assert str(runs) in str(error.value)


def test_a_run_is_opened_by_its_path(tmp_path):
    make_run(tmp_path / "faces", trained_at=1000)
    assert open_run(tmp_path / "faces") == RunFolder(tmp_path / "faces")


def test_a_misspelt_run_gets_the_similar_name(tmp_path):
    make_run(tmp_path / "faces-64", trained_at=1000)
    make_run(tmp_path / "sprites", trained_at=1000)
    with pytest.raises(RunError) as error:
        open_run(tmp_path / "Face-64")
    assert f"Did you mean {tmp_path / 'faces-64'}?" in str(error.value)
    assert "sprites" not in str(error.value)


def test_a_name_like_no_run_gets_the_runs_nearby(tmp_path):
    make_run(tmp_path / "faces", trained_at=1000)
    with pytest.raises(RunError, match="no such run folder") as error:
        open_run(tmp_path / "q")
    assert f"Runs nearby: {tmp_path / 'faces'}" in str(error.value)


def test_a_run_named_without_its_parent_is_found_among_the_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(Path("runs/faces"), trained_at=1000)
    with pytest.raises(RunError) as error:
        open_run(Path("faces"))
    assert f"Did you mean {Path('runs/faces')}?" in str(error.value)


def test_a_folder_without_config_is_no_run_and_the_runs_in_it_are_named(tmp_path):
    make_run(tmp_path / "faces", trained_at=1000)
    with pytest.raises(RunError, match=r"config\.yaml is missing") as error:
        open_run(tmp_path)
    assert str(tmp_path / "faces") in str(error.value)


def test_a_file_is_no_run(tmp_path):
    (tmp_path / "x.png").touch()
    with pytest.raises(RunError, match="a file, not a run folder") as error:
        open_run(tmp_path / "x.png")
    assert "config.yaml" in str(error.value)
