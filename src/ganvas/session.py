"""One session of a run's training: the loop's ticks drawn, measured, written and kept within their time."""

from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ganvas import execution
from ganvas.best import best_of
from ganvas.budget import EVALUATION_SHARE, Budget
from ganvas.config import RunConfig, to_yaml
from ganvas.data.batches import Schedule
from ganvas.dataset import Dataset
from ganvas.engine import Engine
from ganvas.errors import DivergedError, GanvasError, RunError
from ganvas.files import write_whole
from ganvas.losses import LossPair
from ganvas.measuring import DECIDED_AFTER_SEC, DECIDED_AFTER_STEPS, Meter
from ganvas.report.grid import Picture
from ganvas.report.log import read_rows
from ganvas.run_folder import RunFolder
from ganvas.run_writer import RunWriter
from ganvas.training import loop
from ganvas.training.state import TrainState
from ganvas.values import Amount
from ganvas.watcher import Watcher, seen

TOLD_CHANGE = 0.1              # of the length that the user was told; a smaller one is nobody's worry


def _settled() -> None:
    """Where nothing is being written."""


@dataclass(frozen=True)
class Tick:
    """A moment of a run at which there is something to see. `stats`, `grid` and `measured` are None where none is due.

    Rows and pictures are on disk. Checkpoints are written while training goes on: call `settle()` before reading one, or
    best.json, in the run folder. Then all that was due up to this tick is there; it raises RunError where it could not be
    written. The last tick, which has an `end`, is settled.
    """

    nimg: int                      # real images seen so far
    step: int
    epoch: float
    stats: dict[str, Any] | None   # the row that went to stats.jsonl
    grid: Picture | None           # (H, W, C) uint8, the picture that went to samples/
    measured: dict[str, Any] | None            # the row that went to metrics.jsonl
    end: str | None                # "done", "time", "patience", "SIGINT" or "SIGTERM"
    settle: Callable[[], None] = field(default=_settled, repr=False, compare=False)


@dataclass
class Session:
    """Trains `state` up to `goal`, writing what is due; `note` and `ticks` are its two calls."""

    config: RunConfig
    engine: Engine
    state: TrainState
    losses: LossPair
    dataset: Dataset
    writer: RunWriter
    meter: Meter
    goal: int                      # images after which the run is done
    budget: Budget | None          # None = no --time
    why: dict[str, str]            # {option: how it was chosen}, for execution.json
    watch: Watcher
    should_stop: Callable[[], str | None]
    is_past_its_best: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.told_goal = self.goal
        self.meter.sampler = self.writer.sampler

    def note(self) -> None:
        """Writes config.yaml and execution.json as they stand."""
        folder, dataset = self.writer.folder, self.dataset
        execution.note(
            folder, self.config, self.engine, data_fingerprint=dataset.pack.fingerprint, images=len(dataset.train),
            holdout=len(dataset.split.holdout), time_sec=self.budget and self.budget.total_sec, measuring=self.meter.noted(),
            why=self.why)
        write_whole(folder.config, to_yaml(self.config))

    def ticks(self) -> Generator[Tick, None, None]:
        """A Tick where there is something to see. At the last, which has an `end`, all is on the disk.

        Closing it between two steps writes a checkpoint. Raises DivergedError, and RunError where the disk refuses.
        """
        state, writer, finished = self.state, self.writer, False
        try:
            if state.nimg == 0:
                yield Tick(0, 0, 0.0, None, writer.grid(), None, None, writer.settle)
            if self.budget is not None:
                self.budget.start(state.nimg)
            before = state.nimg
            for tick in loop.train(state, self.config, self.dataset.train, self.losses, self._stop_reason, lambda: self.goal):
                row = writer.row(tick.row) if tick.row else None
                grid = writer.grid() if tick.grid_due else None
                measured = self._measured(before, tick.end)
                if self.budget is not None:
                    self._keep_to_time(self.budget, tick.end)
                if tick.checkpoint_due:
                    writer.checkpoint()
                elif writer.checkpoint_due():
                    loop.check_finite(state, weights_too=True)
                    writer.checkpoint()
                self.watch.training(tick.nimg, self.goal, tick.epoch, row)
                if tick.end:
                    finished = True
                    writer.settle()
                before = tick.nimg
                if row or grid is not None or measured or finished:
                    yield Tick(tick.nimg, tick.step, tick.epoch, row, grid, measured, tick.end, writer.settle)
        except DivergedError as error:
            with suppress(RunError):
                writer.settle()
            kept = writer.folder.list_checkpoints()
            raise DivergedError(str(error) + (f" The checkpoint at {seen(kept[-1][0])} is kept." if kept else "")) from error
        except GeneratorExit:                                  # the caller left its loop between two steps
            if not finished and state.nimg:
                loop.check_finite(state, weights_too=True)
                writer.checkpoint()
            raise
        finally:
            writer.close()

    def _stop_reason(self) -> str | None:
        if self.budget is not None and self.budget.is_over:
            return "time"
        if self.is_past_its_best:
            self.watch.tell(f"nothing better has come for {self.config.measure.patience}: stopping (--patience)")
            return "patience"
        reason = self.should_stop()
        if reason:
            self.watch.tell(f"{reason}: writing a checkpoint; a second one stops at once")
        return reason

    def _keep_to_time(self, budget: Budget, end: str | None) -> None:
        """Writes down what the clock chose: where it ended the run, or another length, if the machine's speed is another."""
        nimg = self.state.nimg
        if end == "time":
            self._set_goal(nimg)
            self.watch.tell("--time is over before the length that it was measured to make")
        elif end is None and (goal := budget.look(nimg, self.goal, self.config.train.batch)) != self.goal:
            self._set_goal(goal)
            if abs(goal - self.told_goal) > TOLD_CHANGE * self.told_goal:
                self.watch.tell(f"{'faster' if goal > self.told_goal else 'slower'} than measured at first: --time makes "
                                f"{seen(goal)}, not {seen(self.told_goal)}")
                self.told_goal = goal

    def _set_goal(self, nimg: int) -> None:
        self.goal = nimg
        self.config = self.writer.config = self.config.model_copy(update={"length": Amount(nimg / 1000, "kimg")})
        self.note()

    def _measured(self, before: int, end: str | None) -> dict[str, Any] | None:
        """Decides how to measure, once there is a speed to go by; measures where it is due, and at the end. Returns the row."""
        meter, writer, state = self.meter, self.writer, self.state
        trained_sec, session = writer.elapsed_sec - writer.spent_sec, state.nimg - writer.first_nimg
        steps = session // self.config.train.batch
        undecided = not meter.decided and trained_sec >= DECIDED_AFTER_SEC and steps >= DECIDED_AFTER_STEPS
        at_the_end = meter.plan is not None and end in ("done", "time")
        if not (undecided or meter.is_due(before, state.nimg) or at_the_end) or end in ("SIGINT", "SIGTERM"):
            return None
        loop.check_finite(state, weights_too=True)
        try:
            if undecided:
                left_images = self.goal - state.nimg
                total_sec = writer.elapsed_sec + left_images * trained_sec / session
                found = meter.decide(state, total_sec, left_images, 1 - EVALUATION_SHARE)
                self.note()
                if found is None:
                    return None
            else:
                found = meter.measure(state)
            row = writer.measurement(found)
        except DivergedError:
            raise
        except (GanvasError, OSError) as error:                # no reason to lose a training
            self.watch.tell(f"not measured any more: {error}")
            meter.stop()
            return None
        self.watch.tell(measurement_text(row))
        self.is_past_its_best = is_past_its_best(writer.folder, self.config, state.nimg, writer.schedule)
        return row


def measurement_text(row: dict[str, Any]) -> str:
    """One line for a row of metrics.jsonl."""
    copies = f"  copies {row['copies']:.0%}" if row["copies_over_limit"] else ""
    best = "  best so far" if row["best"] else ""
    return (f"[measured at {seen(row['nimg'])}] KID ({row['extractor']}) {row['kid']:.4g} ± {row['kid_error']:.2g} "
            f"(reals {row['kid_floor']:.2g})  coverage {row['coverage']:.2f} (reals {row['coverage_floor']:.2f})"
            f"{copies}{best}")


def is_past_its_best(folder: RunFolder, config: RunConfig, nimg: int, schedule: Schedule) -> bool:
    """Whether nothing better has come for measure.patience."""
    patience, best = config.measure.patience, best_of(read_rows(folder.metrics))
    return patience is not None and best is not None and nimg - best.nimg > loop.nimg_of(patience, schedule)
