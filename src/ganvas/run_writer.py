"""Writes what a run in training shows and keeps: rows, grids, checkpoints, and which of them is the best."""

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ganvas.background import Background
from ganvas.best import Best, best_of, write_best
from ganvas.checkpoint import snapshot, write_checkpoint
from ganvas.config import RunConfig
from ganvas.data.batches import Schedule
from ganvas.data.split import Subset
from ganvas.engine import Engine
from ganvas.errors import RunError
from ganvas.execution import environment
from ganvas.files import write_whole
from ganvas.generator import Sampler, alpha_of, generator_file, progress_grid
from ganvas.report.grid import Picture, readable_scale, save_png, side_by_side, tile
from ganvas.report.log import RunLog, read_rows
from ganvas.run_folder import RunFolder
from ganvas.run_lock import RunLock
from ganvas.training.loop import passed
from ganvas.training.state import TrainState


class RunWriter:
    """Owns the files of one run while it trains. `spent_sec`: training time of earlier sessions.

    Rows and pictures are on disk when a method returns. A checkpoint is copied at once and written by a thread of its own, so
    training goes on: who looks for its files, or for best.json, right after a tick calls `settle` first, or finds them a moment
    later. One is written at a time; killed in the middle, the folder goes on from the one before.

    Every method raises RunError where the disk refuses, or where the run folder is no longer ours. After a checkpoint could
    not be written, each further call raises what happened to it.
    """

    def __init__(
        self, folder: RunFolder, lock: RunLock, config: RunConfig, engine: Engine, state: TrainState, pack: Subset,
        schedule: Schedule, spent_sec: float,
    ):
        self.engine = engine
        self.folder, self.lock, self.config, self.state, self.pack, self.schedule = folder, lock, config, state, pack, schedule
        self.spent_sec, self.started_at, self.saved_at = spent_sec, time.monotonic(), time.monotonic()
        self.sampler = Sampler(state.shown_generator, config, state.G_ema is not None)
        self.first_nimg = state.nimg                           # of this session
        self.saved_nimg: int | None = None                     # of the last checkpoint of this session
        self.last_row = (time.monotonic(), state.nimg)
        self.disk = Background(f"checkpoints of {folder.path}")        # while it works, `measured` and best.json are left alone
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
        self._check()
        with _writing(self.folder.stats):
            self.log.row(row["nimg"], row)
        return row

    def grid(self) -> Picture:
        """Draws the progress picture, writes it as samples/<nimg>.png and samples/latest.png, and returns it (H, W, C)."""
        self._check()
        state = self.state
        picture = tile(progress_grid(self.sampler, state.nimg))
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
        self.settle()                      # what is written in the thread is chosen by the rows
        self.lock.check()
        before, now = best_of(self.measured), best_of([*self.measured, row])
        row = row | {"best": now != before, "time": round(time.time(), 1), "elapsed_sec": round(self.elapsed_sec, 2)}
        self.measured.append(row)
        with _writing(self.folder.metrics):
            self.log.measurement(row["nimg"], row)     # a row later than the newest checkpoint is cut away when a run goes on
        if row["best"] and self.saved_nimg == self.state.nimg:
            self._note_best()
        elif row["best"]:
            self.checkpoint()              # notes it when it is there
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
        """Copies the state, and has a thread write it and the generator's own file, note the best, and prune.

        Waits for the checkpoint before, if that is still being written.
        """
        self._check()
        state, config, nimg = self.state, self.config, self.state.nimg
        if self.saved_nimg == nimg:                            # a measurement has kept it already
            return
        self.disk.wait()                                       # before the copies: memory holds one checkpoint at most
        # Here and not in the thread: its batch-norm statistics (16 batches through G) take the cores that training uses.
        # Measured on 2 cores with pytorch-faces-64, those and four steps of 32: 5.8 to 6.2 s of processor time one after the
        # other, 6.2 to 6.6 s beside each other. Nothing is gained, and the threads that OpenMP gives a thread may decide bits.
        generator, about_generator = generator_file(self.sampler.at(nimg), config, nimg, self.sampler.averaged)
        about_state = {
            "kind": "training state", **state.progress(), "config": config.model_dump(mode="json"),
            "data_fingerprint": self.pack.fingerprint, "elapsed_sec": self.elapsed_sec,
            "environment": environment(config, self.engine), **alpha_of(config)}
        files = [
            (self.folder.generator(nimg), snapshot(generator), about_generator),
            (self.folder.checkpoint(nimg), snapshot(state.tensors()), copy.deepcopy(about_state)),
        ]

        def write() -> None:
            for path, tensors, meta in files:                  # the state second: its presence says that both are whole
                self.lock.check()
                with _writing(path):
                    write_checkpoint(path, tensors, meta)
            self.lock.check()
            self._note_best()              # a best that is noted is there
            self._prune()

        self.disk.start(write)
        self.saved_at, self.saved_nimg = time.monotonic(), nimg

    def settle(self) -> None:
        """Returns when all that was asked for is on disk; raises RunError where it could not be written."""
        self.disk.wait()

    def close(self) -> None:
        """Settles, and closes the log."""
        try:
            self.settle()
        finally:
            self.log.close()

    def _check(self) -> None:
        """Raises what failed in the thread, or that the run folder is no longer ours; waits for nothing."""
        self.disk.check()
        self.lock.check()

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
                with _writing(path):
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
