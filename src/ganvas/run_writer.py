"""Writes what a run in training shows and keeps: rows, grids, checkpoints, and which of them is the best."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ganvas.best import Best, best_of, write_best
from ganvas.checkpoint import write_checkpoint
from ganvas.config import RunConfig
from ganvas.data.batches import Schedule
from ganvas.data.split import Subset
from ganvas.errors import RunError
from ganvas.execution import environment
from ganvas.files import write_whole
from ganvas.generator import for_sampling, generator_file, progress_grid
from ganvas.report.grid import Picture, readable_scale, save_png, side_by_side, tile
from ganvas.report.log import RunLog, read_rows
from ganvas.run_folder import RunFolder
from ganvas.run_lock import RunLock
from ganvas.training.loop import passed
from ganvas.training.state import TrainState


class RunWriter:
    """Owns the files of one run while it trains. `spent_sec`: training time of earlier sessions.

    Every method raises RunError where the disk refuses, or where the run folder is no longer ours.
    """

    def __init__(
        self, folder: RunFolder, lock: RunLock, config: RunConfig, state: TrainState, pack: Subset, schedule: Schedule,
        spent_sec: float,
    ):
        self.folder, self.lock, self.config, self.state, self.pack, self.schedule = folder, lock, config, state, pack, schedule
        self.spent_sec, self.started_at, self.saved_at = spent_sec, time.monotonic(), time.monotonic()
        self.first_nimg = state.nimg                           # of this session
        self.saved_nimg: int | None = None                     # of the last checkpoint of this session
        self.last_row = (time.monotonic(), state.nimg)
        self.reals = self._reals_picture()
        with _writing(folder.path):
            save_png(folder.reals_grid, self.reals, readable_scale(self.reals))
            self.log = RunLog(folder, state.nimg)
            self.measured = read_rows(folder.metrics)
            self._note_best()

    @property
    def elapsed_sec(self) -> float:
        """Seconds of training, earlier sessions included."""
        return self.spent_sec + time.monotonic() - self.started_at

    def row(self, row: dict[str, Any]) -> dict[str, Any]:
        """Writes one row of statistics with the clock's fields, and returns it."""
        now, (then, nimg) = time.monotonic(), self.last_row
        self.last_row = (now, row["nimg"])
        row = row | {
            "time": round(time.time(), 1), "elapsed_sec": round(self.elapsed_sec, 2),
            "img_per_sec": round((row["nimg"] - nimg) / max(now - then, 1e-9), 2)}
        self.lock.check()
        with _writing(self.folder.stats):
            self.log.row(row["nimg"], row)
        return row

    def grid(self) -> Picture:
        """Draws the progress picture, writes it as samples/<nimg>.png and samples/latest.png, and returns it (H, W, C)."""
        self.lock.check()
        state = self.state
        averaged = state.G_ema is not None
        picture = tile(progress_grid(state.shown_generator, self.config, averaged, state.nimg))
        if self.config.output.grid_reals:
            picture = side_by_side(picture, self.reals)
        path = self.folder.grid(state.nimg)
        with _writing(path):
            save_png(path, picture, readable_scale(picture))
            write_whole(self.folder.latest_grid, path.read_bytes())
            self.log.image(state.nimg, picture)
        return picture

    def measurement(self, row: dict[str, Any]) -> dict[str, Any]:
        """Writes one row of metrics.jsonl; where it is the best so far, keeps its checkpoint. Returns it, with `best`."""
        before, now = best_of(self.measured), best_of([*self.measured, row])
        row = row | {"best": now != before, "time": round(time.time(), 1), "elapsed_sec": round(self.elapsed_sec, 2)}
        if row["best"]:
            self.checkpoint()              # first: a best that is noted is there
        self.lock.check()
        self.measured.append(row)
        with _writing(self.folder.metrics):
            self.log.measurement(row["nimg"], row)
        self._note_best()
        return row

    @property
    def best(self) -> Best | None:
        """The best checkpoint so far."""
        return best_of(self.measured)

    def _note_best(self) -> None:
        with _writing(self.folder.best):
            write_best(self.folder, best_of(self.measured, [nimg for nimg, _ in self.folder.list_checkpoints()]))

    def checkpoint_due(self) -> bool:
        """Whether output.checkpoint_minutes have gone by since the last one."""
        return time.monotonic() - self.saved_at > 60 * self.config.output.checkpoint_minutes

    def checkpoint(self) -> None:
        """Writes the training state and the generator's own file, then removes checkpoints that need not be kept."""
        self.lock.check()
        state, nimg = self.state, self.state.nimg
        if self.saved_nimg == nimg:                            # a measurement has kept it already
            return
        averaged = state.G_ema is not None
        sampler = for_sampling(state.shown_generator, self.config, averaged)
        meta = {
            "kind": "training state", **state.progress(), "config": self.config.model_dump(mode="json"),
            "data_fingerprint": self.pack.fingerprint, "elapsed_sec": self.elapsed_sec, "environment": environment(self.config)}
        with _writing(self.folder.checkpoint(nimg)):
            write_checkpoint(self.folder.generator(nimg), *generator_file(sampler, self.config, nimg, averaged))
            write_checkpoint(self.folder.checkpoint(nimg), state.tensors(), meta)    # second: its presence says both are whole
        self.saved_at, self.saved_nimg = time.monotonic(), nimg
        self._prune()

    def close(self) -> None:
        self.log.close()

    def _reals_picture(self) -> Picture:
        n = min(self.config.output.grid_n, len(self.pack))
        spread = np.linspace(0, len(self.pack) - 1, n).round().astype(np.int64)
        return tile(self.pack.read(spread))

    def _prune(self) -> None:
        found, output, best = self.folder.list_checkpoints(), self.config.output, self.best
        for nimg, path in found[: -output.keep_last]:
            if best is not None and nimg == best.nimg:
                continue
            before = self.schedule.nimg_at(max(0, self.schedule.step_at(nimg) - 1))
            if not passed(self.schedule, before, nimg, output.keep_every):
                path.unlink(missing_ok=True)
                self.folder.generator(nimg).unlink(missing_ok=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns what the disk refuses into a RunError."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error}). The checkpoints so far are kept. "
                       "Free the disk and run the same command again.") from error
