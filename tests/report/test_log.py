"""stats.jsonl and TensorBoard."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ganvas.report.log import RunLog, cut_back, read_rows
from ganvas.run_folder import RunFolder


def test_rows_are_json_lines_and_scalars_on_the_board(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    log = RunLog(folder, 0)
    for nimg in (100, 200):
        log.row(nimg, {"nimg": nimg, "step": nimg // 100, "epoch": 0.5, "Loss_D": nimg / 100, "elapsed_sec": 1.0})
    log.image(200, np.zeros((4, 6, 1), np.uint8))
    log.close()
    assert [row["Loss_D"] for row in read_rows(folder.stats)] == [1.0, 2.0]
    board = EventAccumulator(str(folder.tensorboard)).Reload()
    assert [(event.step, event.value) for event in board.Scalars("Loss_D")] == [(100, 1.0), (200, 2.0)]
    assert "elapsed_sec" not in board.Tags()["scalars"]
    assert board.Images("samples")[0].step == 200


def test_nan_becomes_valid_json(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    log = RunLog(folder, 0)
    log.row(1, {"nimg": 1, "Loss_D": float("nan"), "Loss_G": float("inf")})
    log.close()
    assert json.loads(folder.stats.read_text(encoding="utf-8")) == {"nimg": 1, "Loss_D": None, "Loss_G": None}


def test_opening_at_a_checkpoint_cuts_what_came_after_it(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    rows = [{"nimg": nimg, "Loss_D": 1.0} for nimg in (10, 20, 30)]
    folder.stats.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"nimg": 40, "Lo', encoding="utf-8")
    for nimg in (0, 20, 30):
        folder.grid(nimg).write_bytes(b"")
    cut_back(folder, 20)
    assert [row["nimg"] for row in read_rows(folder.stats)] == [10, 20]
    assert [nimg for nimg, _ in folder.list_grids()] == [0, 20]
    log = RunLog(folder, 20)
    log.row(25, {"nimg": 25})
    log.close()
    assert [row["nimg"] for row in read_rows(folder.stats)] == [10, 20, 25]


def test_latest_grid_is_the_last_that_is_left(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    for nimg in (10, 20):
        folder.grid(nimg).write_bytes(b"grid %d" % nimg)
    folder.latest_grid.write_bytes(b"grid 20")
    cut_back(folder, 15)
    assert folder.latest_grid.read_bytes() == b"grid 10"
    cut_back(folder, 5)
    assert not folder.latest_grid.exists()


@pytest.mark.parametrize(("start", "left"), [(20, [(10, 1.0), (20, 2.0), (25, 9.0)]), (0, [(25, 9.0)])])
def test_the_board_forgets_what_came_after_the_checkpoint_also_when_there_was_none(tmp_path, start, left):
    folder = RunFolder.create(tmp_path / "run")
    log = RunLog(folder, 0)
    for nimg in (10, 20, 30):
        log.row(nimg, {"nimg": nimg, "Loss_D": nimg / 10})
    log.close()
    log = RunLog(folder, start)
    log.row(25, {"nimg": 25, "Loss_D": 9.0})
    log.close()
    board = EventAccumulator(str(folder.tensorboard)).Reload()
    assert [(event.step, event.value) for event in board.Scalars("Loss_D")] == left


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_board_shows_grids_of_every_kind_transparent_ones_on_white(tmp_path, channels):
    folder = RunFolder.create(tmp_path / "run")
    picture = np.full((4, 6, channels), 100, np.uint8)
    if channels == 4:
        picture[:2, :, 3], picture[2:, :, 3] = 0, 255
    log = RunLog(folder, 0)
    log.image(10, picture)
    log.close()
    event, = EventAccumulator(str(folder.tensorboard)).Reload().Images("samples")
    shown = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("RGB"))
    assert (shown[2:] == 100).all()
    assert (shown[:2] == (255 if channels == 4 else 100)).all()


def test_every_row_is_on_disk_as_soon_as_it_is_written(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    log = RunLog(folder, 0)
    log.row(1, {"nimg": 1})
    assert read_rows(folder.stats) == [{"nimg": 1}]
    log.close()


def test_a_run_without_a_log_has_no_rows(tmp_path):
    assert read_rows(tmp_path / "stats.jsonl") == []
