"""The run's figures: a JSON line for each row in stats.jsonl and metrics.jsonl, and the same scalars for TensorBoard."""

import json
import math
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ganvas.files import write_whole
from ganvas.report.grid import Picture
from ganvas.run_folder import RunFolder

CLOCK_FIELDS = ("time", "elapsed_sec", "img_per_sec")     # what two equal runs need not share
_PROGRESS = ("nimg", "step", *CLOCK_FIELDS)               # not drawn as curves


class RunLog:
    """Appends rows to a run's log. Opening it cuts the log back to `start_nimg`, the checkpoint that the run goes on from."""

    def __init__(self, folder: RunFolder, start_nimg: int):
        from torch.utils.tensorboard import SummaryWriter

        cut_back(folder, start_nimg)
        self._rows = folder.stats.open("a", encoding="utf-8", newline="\n")
        self._measurements = folder.metrics.open("a", encoding="utf-8", newline="\n")
        self._board = SummaryWriter(str(folder.tensorboard), purge_step=start_nimg + 1)

    def row(self, nimg: int, row: dict[str, Any]) -> None:
        """Writes one row of statistics at once; NaN and infinity become null, which every JSON reader takes."""
        self._write(self._rows, nimg, row, "")

    def measurement(self, nimg: int, row: dict[str, Any]) -> None:
        """Writes one row of metrics.jsonl, in the same way."""
        self._write(self._measurements, nimg, row, "measured/")

    def _write(self, file: TextIO, nimg: int, row: dict[str, Any], group: str) -> None:
        valid = {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()}
        file.write(json.dumps(valid) + "\n")
        file.flush()
        for name, value in valid.items():
            if name not in _PROGRESS and isinstance(value, int | float):
                self._board.add_scalar(group + name, value, nimg)

    def image(self, nimg: int, picture: Picture) -> None:
        """Shows a progress grid (H, W, C) in TensorBoard, on white where it is transparent."""
        if picture.shape[2] == 4:
            alpha = picture[..., 3:] / 255
            picture = np.rint(picture[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
        self._board.add_image("samples", picture, nimg, dataformats="HWC")

    def close(self) -> None:
        self._rows.close()
        self._measurements.close()
        self._board.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a stats.jsonl or metrics.jsonl, oldest first; none where there is no file. A torn last line is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:                    # the process was killed while it wrote this line
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def cut_back(folder: RunFolder, nimg: int) -> None:
    """Removes rows and grids later than `nimg`: training will make them again. latest.png becomes the last that is left."""
    for log in (folder.stats, folder.metrics):
        write_whole(log, "".join(json.dumps(row) + "\n" for row in read_rows(log) if row["nimg"] <= nimg))
    grids = folder.list_grids()
    kept = [path for grid_nimg, path in grids if grid_nimg <= nimg]
    for _, path in grids[len(kept):]:
        path.unlink(missing_ok=True)
    if kept:
        write_whole(folder.latest_grid, kept[-1].read_bytes())
    else:
        folder.latest_grid.unlink(missing_ok=True)
