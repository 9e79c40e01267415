"""stats.jsonl and TensorBoard."""

import json

import numpy as np
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
