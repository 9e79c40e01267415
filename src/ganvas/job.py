"""One call of train: resolves the options, makes the pack, goes on or starts, and yields what there is to see."""

import contextlib
import copy
import shutil
import tempfile
import time as clock
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from ganvas import execution
from ganvas.best import best_of
from ganvas.config import RunConfig, to_yaml
from ganvas.data.batches import Schedule
from ganvas.data.sources import Source
from ganvas.data.split import Subset
from ganvas.dataset import Dataset, is_whole, prepare, write_table
from ganvas.errors import ConfigError, DataError, DivergedError, GanvasError, RunError
from ganvas.files import write_whole
from ganvas.losses import Loss, loss_pair, own_pair
from ganvas.measuring import DECIDED_AFTER_SEC, DECIDED_AFTER_STEPS, Meter, time_for
from ganvas.networks.build import build_networks
from ganvas.networks.custom import Network, own_networks
from ganvas.networks.summary import as_text, summarise
from ganvas.recipe import options_from, seconds
from ganvas.report.data_page import write_page
from ganvas.report.grid import Picture
from ganvas.report.log import read_rows
from ganvas.request import resolve
from ganvas.resuming import check_same_run, resume, settled_options
from ganvas.run_end import draw_end, evaluate_end, report, write_sheet
from ganvas.run_folder import RunFolder
from ganvas.run_lock import RunLock
from ganvas.run_writer import RunWriter
from ganvas.training import loop
from ganvas.training.state import TrainState
from ganvas.values import Amount
from ganvas.watcher import Watcher, images, seen

TIME_SHARE = 0.93              # of --time for training; the rest draws pictures and is the clock guard's margin
MEASURE_SEC = 4.0              # at most; a tenth of a short --time
EVALUATION_SHARE = 0.4         # of the time for measuring that is kept for the evaluation at the end
FEW_STEPS = 300                # below, the user is told what to expect
FEW_IMAGES = 100               # below, the user is told what to expect


class _StoppedError(Exception):
    """SIGINT or SIGTERM came while images were decoded, so there is nothing to keep; its text is the signal's name."""


@dataclass(frozen=True)
class Tick:
    """A moment of a run at which there is something to see. `stats`, `grid` and `measured` are None where none is due."""

    nimg: int                      # real images seen so far
    step: int
    epoch: float
    stats: dict[str, Any] | None   # the row that went to stats.jsonl
    grid: Picture | None           # (H, W, C) uint8, the picture that went to samples/
    measured: dict[str, Any] | None            # the row that went to metrics.jsonl
    end: str | None                # "done", "time", "patience", "SIGINT" or "SIGTERM"


class Job:
    """One call of train or iterate: resolves the options, then runs."""

    def __init__(
        self, source: str | Path | NDArray[Any] | None = None, *, preset: str | None = None, out: str | Path | None = None,
        config: str | Path | None = None, time: str | float | None = None, settings: Mapping[str, Any] | None = None,
        generator: Network | None = None, discriminator: Network | None = None, loss: tuple[Loss, Loss] | None = None,
        watch: Watcher | None = None, should_stop: Callable[[], str | None] = lambda: None, dry_run: bool = False,
        **short: Any,
    ):
        self.began_at = clock.monotonic()
        self.watch, self.should_stop, self.dry_run = watch or Watcher(), should_stop, dry_run
        self.budget_sec, self.spent_sec = seconds(time) if time is not None else None, 0.0
        length = options_from(short, settings or {}).get("length")
        if time is not None and length is not None:
            raise ConfigError(f"--time {time} and {length} both say how long to train: give one of them.")
        if (generator is None) != (discriminator is None):
            raise ConfigError("give both generator= and discriminator=, or neither.")
        forced = {"network.family": "custom"} if generator is not None else {}
        if loss is not None:
            forced |= {"train.loss": "custom"}
        if self.budget_sec is not None:
            forced |= {"length": "1 kimg"}                     # stands for what --time will make of it

        def settled(source: Source) -> Mapping[str, Any]:
            self.folder = RunFolder(Path(out) if out is not None else Path("runs") / source.name)
            return settled_options(self.folder)

        def opening(done: int, total: int) -> None:
            if self.should_stop():                             # there is nothing to keep yet
                raise KeyboardInterrupt
            self.watch.opening(done, total)

        self.source, self.config, self.why = resolve(
            source, preset, config, settings, short, forced, settled, self.watch.tell, opening)
        self.losses = own_pair(*loss) if loss else loss_pair(self.config.train.loss, self.config.plan.real_label)
        if loss is not None and not self.losses.separable and self.config.plan.d_step == "real_then_fake":
            raise ConfigError("loss: D's function pairs reals with fakes, so plan.d_step 'real_then_fake', which shows them to D "
                              "one after the other, cannot use it. Set plan.d_step to 'joint'.")
        if generator is not None and discriminator is not None:
            self.networks = own_networks(generator, discriminator, self.config)
        else:
            self.networks = build_networks(self.config.network, self.config.data, self.config.train.seed)
        self.past_its_best = False
        extractor = self.config.measure.extractor
        if ":" in extractor and (settings or {}).get("measure.extractor") != extractor:      # a config of somebody else's
            raise ConfigError(f"measure.extractor {extractor}: is a file that runs or is loaded, and comes from the file or run "
                              f"of --config. If you trust it, repeat it: --set measure.extractor={extractor}")
        self._check_outside_source()

    def run(self) -> Iterator[Tick]:
        for reason in self.why.values():
            self.watch.tell(f"  {reason}")
        if self.dry_run:
            with tempfile.TemporaryDirectory(prefix="ganvas-dry-run-") as folder:
                self.folder, self.budget_sec = RunFolder(Path(folder)), None
                self.config, end = self.config.model_copy(update={"length": Amount(2, "steps")}), None
                for tick in self._locked():
                    yield tick
                    end = tick.end
            if end == "done":
                self.watch.tell("Dry run: two steps, a grid and a checkpoint went well; nothing is kept.")
            return
        missing = [part for part in (self.folder.path, *self.folder.path.parents) if not part.exists()]
        try:
            yield from self._locked()
        finally:
            # Where nothing was trained, nothing stays; rmdir leaves alone what is not empty.
            with contextlib.suppress(OSError):
                for part in [self.folder.samples, self.folder.checkpoints, *missing] if missing else []:
                    part.rmdir()

    def _locked(self) -> Iterator[Tick]:
        RunFolder.create(self.folder.path)
        with RunLock(self.folder) as lock:
            if lock.recovered:
                self.watch.tell(lock.recovered)
            check_same_run(self.folder, self.config)
            try:
                dataset = self._prepare()
            except _StoppedError as stopped:
                nimg = max((nimg for nimg, _ in self.folder.list_checkpoints()), default=0)
                yield Tick(nimg, 0, 0.0, None, None, None, str(stopped))
                return
            try:
                yield from self._train(lock, dataset)
            finally:
                dataset.pack.close()

    def _check_outside_source(self) -> None:
        """Raises ConfigError where the run's pictures would lie among the images, and be taken for some next time."""
        images = Path(self.source.where).expanduser().resolve()
        if self.source.where != "digits" and images.is_dir() and self.folder.path.resolve().is_relative_to(images):
            raise ConfigError(f"{self.folder.path}: lies in {self.source.where}, so the run's pictures would be taken for "
                              "images to train on. Pass a folder outside of it as --out.")

    def _prepare(self) -> Dataset:
        def watched(hear: Callable[[int, int], None]) -> Callable[[int, int], None]:
            def hear_or_stop(done: int, total: int) -> None:
                if reason := self.should_stop():
                    raise _StoppedError(reason)
                hear(done, total)
            return hear_or_stop

        dataset = prepare(
            self.source, self.config.data, self.watch.tell, watched(self.watch.packing), watched(self.watch.comparing),
            self.folder.images if self.folder.list_checkpoints() else None)
        for name, reason in dataset.pack.skipped:
            self.watch.tell(f"left out: {name}: {reason}")
        return dataset

    def _train(self, lock: RunLock, dataset: Dataset) -> Iterator[Tick]:
        config, watch, pack = self.config, self.watch, dataset.train
        torch.set_num_threads(config.execution.threads)
        watch.tell(f"{self.source.where}: {images(len(pack))} as {config.data.size}, {pack.channels} channel"
                   + ("s" if pack.channels > 1 else ""))
        summary = self._summary(pack)                          # before the networks move to the device
        state = TrainState.create(config, *self.networks)
        self.spent_sec, made_in = resume(self.folder, config, state, dataset, self.source.where, watch.tell)
        try:
            schedule = loop.make_schedule(config, len(pack), state)
        except DataError as error:
            raise DataError(f"{self.source.where}: {error}") from error
        if state.nimg == 0:
            self._show(dataset)
            if len(pack) < FEW_IMAGES:
                watch.tell(f"  only {images(len(pack))}: the generator will mostly repeat them; hundreds make new ones")
            watch.tell(summary)
            shutil.rmtree(self.folder.tensorboard, ignore_errors=True)     # of a start that reached no checkpoint
        config = self.config = self._with_length(config, state, pack)
        goal = loop.nimg_of(config.length, schedule)
        if state.nimg >= goal or self._is_past_its_best(state, schedule):
            if not all(path.exists() for path in (self.folder.curves, self.folder.gif, self.folder.mp4)):
                draw_end(self.folder, watch.tell)              # the process was ended before it drew them
            if not self.folder.report.exists():
                self._report()
            watch.tell(self._done(state, schedule))
            yield Tick(state.nimg, schedule.step_at(state.nimg), schedule.epoch_at(state.nimg), None, None, None, "done")
            return

        if state.nimg:
            if not is_whole(self.folder.images):
                watch.tell(f"{self.folder.images}: was missing or damaged, and is written again")
                write_table(self.folder.images, dataset, config.data.group_by)
            changed = execution.why_inexact(made_in, config)
            exact = f"not bit-exact: {changed}" if changed else "bit-exact"
            watch.tell(f"{self.folder.path}: goes on from {seen(state.nimg)} ({exact})")
        steps = goal // config.train.batch
        if steps < FEW_STEPS and not self.dry_run:
            watch.tell(f"  very few steps, about {steps:,}: expect noise; first shapes take some hundreds, pictures thousands")
        meter = Meter(config, dataset, schedule, execution.noted(self.folder, "measuring") if state.nimg else None, watch.tell)
        meter.check()
        self._note(dataset, meter)
        write_whole(self.folder.config, to_yaml(config))
        writer = RunWriter(self.folder, lock, config, state, pack, schedule, self.spent_sec)
        end, finished, before = None, False, state.nimg
        try:
            if state.nimg == 0:
                yield Tick(0, 0, 0.0, None, writer.grid(), None, None)
            for tick in loop.train(state, config, pack, self.losses, self._stop_reason):
                row = writer.row(tick.row) if tick.row else None
                grid = writer.grid() if tick.grid_due else None
                measured = self._measure_run(meter, writer, state, dataset, before, goal, tick.end)
                before = tick.nimg
                if tick.checkpoint_due:
                    writer.checkpoint()
                elif writer.checkpoint_due():
                    loop.check_finite(state, weights_too=True)
                    writer.checkpoint()
                watch.training(tick.nimg, goal, tick.epoch, row)
                end = tick.end
                if row or grid is not None or measured or end:
                    finished = end is not None
                    if end == "time":                          # the clock's choice too is made once and written down
                        self.config = config.model_copy(update={"length": Amount(tick.nimg / 1000, "kimg")})
                        self._note(dataset, meter)
                        write_whole(self.folder.config, to_yaml(self.config))
                        watch.tell("--time is over before the length that it was measured to make")
                    if finished and end != "SIGTERM":          # who sends SIGTERM waits a few seconds at most
                        draw_end(self.folder, watch.tell)
                        if end != "SIGINT" and not self.dry_run:
                            share_sec = config.measure.share * EVALUATION_SHARE * writer.elapsed_sec
                            own = copy.deepcopy(state.G) if config.network.family == "custom" else None
                            evaluate_end(self.folder, config, dataset, meter, share_sec, watch, own)
                        self._report()
                    if end in ("done", "time", "patience") and not self.dry_run:
                        watch.tell(self._done(state, schedule))
                    yield Tick(tick.nimg, tick.step, tick.epoch, row, grid, measured, end)
        except DivergedError as error:
            kept = self.folder.list_checkpoints()
            raise DivergedError(str(error) + (f" The checkpoint at {seen(kept[-1][0])} is kept." if kept else "")) from error
        except GeneratorExit:                                  # the caller left its loop between two steps
            if not finished and state.nimg:
                loop.check_finite(state, weights_too=True)
                writer.checkpoint()
            raise
        finally:
            writer.close()

    def _measure_run(self, meter: Meter, writer: RunWriter, state: TrainState, dataset: Dataset, before: int, goal: int,
                     end: str | None) -> dict[str, Any] | None:
        """Decides how to measure, once there is a speed to go by; measures where it is due, and at the end. Returns the row."""
        trained_sec, session = clock.monotonic() - writer.started_at, state.nimg - writer.first_nimg
        steps = session // self.config.train.batch
        undecided = not (meter.decided or self.dry_run) and trained_sec >= DECIDED_AFTER_SEC and steps >= DECIDED_AFTER_STEPS
        at_the_end = meter.plan is not None and end in ("done", "time")
        if not (undecided or meter.is_due(before, state.nimg) or at_the_end) or end in ("SIGINT", "SIGTERM"):
            return None
        loop.check_finite(state, weights_too=True)
        try:
            if undecided:
                left_images = goal - state.nimg
                total_sec = writer.elapsed_sec + left_images * trained_sec / session
                found = meter.decide(state, total_sec, left_images, 1 - EVALUATION_SHARE)
                self._note(dataset, meter)
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
        copies = f"  copies {row['copies']:.0%}" if row["copies_over_limit"] else ""
        best = "  best so far" if row["best"] else ""
        self.watch.tell(f"[measured at {seen(state.nimg)}] KID ({row['extractor']}) {row['kid']:.4g} ± {row['kid_error']:.2g} "
                        f"(reals {row['kid_floor']:.2g})  coverage {row['coverage']:.2f} (reals {row['coverage_floor']:.2f})"
                        f"{copies}{best}")
        self.past_its_best = self._is_past_its_best(state, writer.schedule)
        return row

    def _is_past_its_best(self, state: TrainState, schedule: Schedule) -> bool:
        """Whether nothing better has come for measure.patience."""
        patience, best = self.config.measure.patience, best_of(read_rows(self.folder.metrics))
        return (patience is not None and best is not None
                and state.nimg - best.nimg > loop.nimg_of(patience, schedule))

    def _note(self, dataset: Dataset, meter: Meter) -> None:
        execution.note(self.folder, self.config, data_fingerprint=dataset.pack.fingerprint, images=len(dataset.train),
                       holdout=len(dataset.split.holdout), time_sec=self.budget_sec, measuring=meter.noted(), why=self.why)

    def _report(self) -> None:
        try:
            for found in report(self.folder):
                self.watch.tell(f"{found.severity}: {found.name}. {found.evidence} {found.advice}")
        except RunError as error:
            self.watch.tell(str(error))

    def _show(self, dataset: Dataset) -> None:
        """Tells the data sheet, and writes its page and the table of images into the run folder."""
        for what, text in dataset.sheet.rows():
            self.watch.tell(f"  {what:<14}{text}")
        write_table(self.folder.images, dataset, self.config.data.group_by)
        write_page(self.folder.data_page, dataset.sheet, dataset.pack)
        write_sheet(self.folder, dataset)

    def _done(self, state: TrainState, schedule: Schedule) -> str:
        more = ("Nothing better came for --patience: a larger one, or none, continues" if self._is_past_its_best(state, schedule)
                else "A larger --time, --kimg, --epochs or --steps continues")
        return f"{self.folder.path}: done, {seen(state.nimg)} = {schedule.epoch_at(state.nimg):,.1f} epochs. {more}."

    def _summary(self, pack: Subset) -> str:
        config = self.config
        G, D = self.networks
        z = torch.zeros(2, config.network.z_dim)
        images = torch.zeros(2, pack.channels, *pack.image_size)
        return "\n".join([
            as_text("Generator", tuple(z.shape[1:]), summarise(G, z)),
            as_text("Discriminator", tuple(images.shape[1:]), summarise(D, images)),
        ])

    def _with_length(self, config: RunConfig, state: TrainState, pack: Subset) -> RunConfig:
        """The config with --time turned into kimg: as written down for this time before, or from a measured speed."""
        if self.budget_sec is None:
            return config
        noted = execution.noted_length(self.folder, self.budget_sec)
        if noted is not None and state.nimg:                   # a start without a checkpoint may have had other options
            return config.model_copy(update={"length": noted})
        nimg, measure_sec = state.nimg, min(MEASURE_SEC, self.budget_sec / 10)
        left_sec = self.budget_sec * TIME_SHARE - time_for(config.measure.share, self.budget_sec)
        left_sec -= self._elapsed_sec() + measure_sec
        if left_sec > 0:
            speed = self._measure(config, pack, measure_sec)
            nimg += int(speed * left_sec)
            self.watch.tell(f"{speed:,.0f} images a second: --time makes {seen(nimg)}")
        return config.model_copy(update={"length": Amount(max(nimg, 1) / 1000, "kimg")})

    def _elapsed_sec(self) -> float:
        """Seconds of earlier sessions in training, and of all of this one."""
        return self.spent_sec + clock.monotonic() - self.began_at

    def _measure(self, config: RunConfig, pack: Subset, measure_sec: float) -> float:
        """Images a second of the training loop, on a throwaway copy of the state."""
        state = TrainState.create(config, *copy.deepcopy(self.networks))
        ticks = loop.train(state, config.model_copy(update={"length": Amount(1e9, "kimg")}), pack, self.losses)
        for _ in range(2):                                  # the first steps warm up
            next(ticks)
        started_at, nimg = clock.monotonic(), state.nimg
        while clock.monotonic() - started_at < measure_sec:
            next(ticks)
        ticks.close()                                       # type: ignore[attr-defined]
        return (state.nimg - nimg) / (clock.monotonic() - started_at)

    def _stop_reason(self) -> str | None:
        if self.budget_sec is not None and self._elapsed_sec() > self.budget_sec:
            return "time"
        if self.past_its_best:
            self.watch.tell(f"nothing better has come for {self.config.measure.patience}: stopping (--patience)")
            return "patience"
        reason = self.should_stop()
        if reason:
            self.watch.tell(f"{reason}: writing a checkpoint; a second one stops at once")
        return reason
