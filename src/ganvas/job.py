"""One call of train: resolves the options, makes the pack, goes on or starts, and yields what there is to see."""

import contextlib
import copy
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from ganvas import execution
from ganvas.budget import EVALUATION_SHARE, Budget, measured_speed
from ganvas.checkpoint import read_newest
from ganvas.config import flatten
from ganvas.data.batches import Schedule
from ganvas.data.sources import Source
from ganvas.data.split import Subset, wanted_holdout
from ganvas.dataset import Dataset, is_whole, prepare, write_table
from ganvas.engine import Engine
from ganvas.engine import prepare as prepare_engine
from ganvas.errors import ConfigError, DataError, RunError
from ganvas.explaining import Begun, explain
from ganvas.losses import Loss, loss_pair, own_pair
from ganvas.machine import kept_memory
from ganvas.measuring import Meter
from ganvas.networks.build import build_networks
from ganvas.networks.custom import Network, own_networks
from ganvas.networks.latents import latent_size
from ganvas.networks.summary import as_text, summarise
from ganvas.profiling import MOST_STEPS, TRACE, page, profile_training, write_profile
from ganvas.recipe import options_from, seconds
from ganvas.recipe_memory import free_on
from ganvas.report.data_page import write_page
from ganvas.request import check_each, resolve
from ganvas.resuming import check_same_run, resume, settled_options
from ganvas.run_end import draw_end, evaluate_end, report, write_sheet
from ganvas.run_folder import RunFolder
from ganvas.run_lock import RunLock
from ganvas.run_writer import RunWriter
from ganvas.session import Session, Tick, is_past_its_best
from ganvas.starting import check_start, start_from
from ganvas.training import loop
from ganvas.training.compiling import compile_networks
from ganvas.training.state import TrainState
from ganvas.values import Amount
from ganvas.watcher import Watcher, images, seen

__all__ = ["Job", "Tick"]      # Tick is what a job yields

FEW_STEPS = 300                # below, the user is told what to expect
FEW_IMAGES = 100               # below, the user is told what to expect


class _StoppedError(Exception):
    """SIGINT or SIGTERM came while there was nothing to keep yet; its text is the signal's name."""


class Job:
    """One call of train or iterate: resolves the options, then runs."""

    def __init__(
        self, source: str | Path | NDArray[Any] | None = None, *, preset: str | None = None, out: str | Path | None = None,
        config: str | Path | None = None, time: str | float | None = None, settings: Mapping[str, Any] | None = None,
        generator: Network | None = None, discriminator: Network | None = None, loss: tuple[Loss, Loss] | None = None,
        watch: Watcher | None = None, should_stop: Callable[[], str | None] = lambda: None, dry_run: bool = False,
        profile: int | None = None, explain: bool = False, **short: Any,
    ):
        self.budget = Budget(seconds(time)) if time is not None else None
        self.watch, self.should_stop, self.dry_run, self.profile = watch or Watcher(), should_stop, dry_run, profile
        self.explain = explain
        if profile is not None and (dry_run or not 1 <= profile <= MOST_STEPS):
            raise ConfigError("--profile and --dry-run both say how many steps to make: give one of them." if dry_run else
                              f"--profile {profile}: say how many steps to look at, from 1 to {MOST_STEPS}.")
        if explain and (dry_run or profile is not None):
            raise ConfigError(f"--explain makes no step: leave {'--dry-run' if dry_run else '--profile'} out, or --explain.")
        given = options_from(short, settings or {})
        if time is not None and "length" in given:
            raise ConfigError(f"--time {time} and {given['length']} both say how long to train: give one of them.")
        check_each(given)
        if (generator is None) != (discriminator is None):
            raise ConfigError("give both generator= and discriminator=, or neither.")
        forced = {"network.family": "custom"} if generator is not None else {}
        if loss is not None:
            forced |= {"train.loss": "custom"}
        if time is not None:
            forced |= {"length": "1 kimg"}                     # stands for what --time will make of it

        def settled(source: Source) -> Mapping[str, Any]:
            usual = Path("runs") / source.name if profile is None else Path(f"profile-{source.name}")
            self.folder = RunFolder(Path(out) if out is not None else usual)
            return settled_options(self.folder)

        def opening(done: int, total: int) -> None:
            if self.should_stop():                             # there is nothing to keep yet
                raise KeyboardInterrupt
            self.watch.opening(done, total)

        self.source, self.config, self.why = resolve(
            source, preset, config, settings, short, forced, settled, self.watch.tell, opening,
            None if self.budget is None else self.budget.total_sec, free_on)
        self.losses = own_pair(*loss) if loss else loss_pair(self.config.train.loss, self.config.plan.real_label)
        if loss is not None and not self.losses.separable and self.config.plan.d_step == "real_then_fake":
            raise ConfigError("loss: D's function pairs reals with fakes, so plan.d_step 'real_then_fake', which shows them to D "
                              "one after the other, cannot use it. Set plan.d_step to 'joint'.")
        if generator is not None and discriminator is not None:
            self.networks = own_networks(generator, discriminator, self.config)
        else:
            self.networks = build_networks(self.config.network, self.config.data, self.config.train.seed)
        extractor = self.config.measure.extractor
        if ":" in extractor and (settings or {}).get("measure.extractor") != extractor:      # a config of somebody else's
            raise ConfigError(f"measure.extractor {extractor}: is a file that runs or is loaded, and comes from the file or run "
                              f"of --config. If you trust it, repeat it: --set measure.extractor={extractor}")
        if profile is None:
            self._check_outside_source()

    def run(self) -> Iterator[Tick]:
        if self.explain:
            yield self._explain()
            return
        for reason in self.why.values():
            self.watch.tell(f"  {reason}")
        if self.profile is not None:
            yield self._profile(self.profile)
            return
        if self.dry_run:
            with tempfile.TemporaryDirectory(prefix="ganvas-dry-run-") as folder:
                self.folder, self.budget = RunFolder(Path(folder)), None
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

    def _explain(self) -> Tick:
        """Tells every choice and what to expect; makes nothing, not even the run folder."""
        if self.config.train.init_from:
            check_start(self.config.train.init_from, self.folder, self.networks, self.config)
        check_same_run(self.folder, self.config)
        torch.set_num_threads(self.config.execution.threads)
        newest, begun = read_newest([path for _, path in self.folder.list_checkpoints()]), None
        if newest is not None:
            _, meta, _ = newest
            length = None if self.budget is None else execution.noted_length(self.folder, self.budget.total_sec)
            held = wanted_holdout(self.config.data.holdout, len(self.source))
            schedule = Schedule(len(self.source) - held, self.config.train.batch, self.config.plan.tail)
            begun = Begun(meta["nimg"], meta["elapsed_sec"], flatten(meta["config"]), length,
                          is_past_its_best(self.folder, self.config, meta["nimg"], schedule))
        noted = execution.noted_engine(self.folder, self.config) if newest is not None else None
        self.config, _ = prepare_engine(self.config, *self.networks, lambda text: None, noted)
        try:
            with kept_memory(self.config.execution.device):
                self.watch.tell(explain(self.config, self.why, self.networks, self.losses, len(self.source), self.budget, begun))
        except DataError as error:                             # of too few images
            raise DataError(f"{self.source.where}: {error}") from error
        return Tick(0, 0, 0.0, None, None, None, "done")

    def _profile(self, steps: int) -> Tick:
        """Looks at some steps of a training that is thrown away. The profile lies where the run would: it is none."""
        try:
            dataset = self._prepare()
            try:
                _, state = self._build()
                self._schedule(dataset.train, state)           # raises what is wrong with the batch in the user's words
                with kept_memory(self.config.execution.device):
                    found = profile_training(state, self.config, dataset.train, self.losses, steps, self.folder.path,
                                             self._or_stop(partial(self.watch.working, "profiling")))
            finally:
                dataset.pack.close()
        except _StoppedError as stopped:
            return Tick(0, 0, 0.0, None, None, None, str(stopped))
        text = page(found, self.config, self.source.where, self.folder.path / TRACE)
        self.watch.tell("\n" + text)
        self.watch.tell(f"profile: {write_profile(self.folder.path, text)}")
        return Tick(0, 0, 0.0, None, None, None, "done")

    def _locked(self) -> Iterator[Tick]:
        RunFolder.create(self.folder.path)
        with RunLock(self.folder) as lock:
            if lock.recovered:
                self.watch.tell(lock.recovered)
            if self.config.train.init_from:
                check_start(self.config.train.init_from, self.folder, self.networks, self.config)
            check_same_run(self.folder, self.config)
            try:
                dataset = self._prepare()
            except _StoppedError as stopped:
                nimg = max((nimg for nimg, _ in self.folder.list_checkpoints()), default=0)
                yield Tick(nimg, 0, 0.0, None, None, None, str(stopped))
                return
            try:
                with kept_memory(self.config.execution.device):
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
        dataset = prepare(
            self.source, self.config.data, self.watch.tell,
            self._or_stop(self.watch.packing), self._or_stop(self.watch.comparing),
            self.folder.images if self.folder.list_checkpoints() else None)
        for name, reason in dataset.pack.skipped:
            self.watch.tell(f"left out: {name}: {reason}")
        if self.config.num_classes:
            self._count_classes(dataset)
        return dataset

    def _count_classes(self, dataset: Dataset) -> None:
        """Puts into the config of a new run how many images of each class are trained on. Raises DataError for other classes."""
        data, found = self.config.data, dataset.pack.class_names
        if found != data.class_names or dataset.train.labels is None:
            raise DataError(f"{self.source.where}: has the classes {', '.join(found) or 'none'}, but this run knows "
                            f"{', '.join(data.class_names)}. Pass a new folder as --out to train on these.")
        if self.folder.list_checkpoints():
            return
        counts = tuple(int((dataset.train.labels == number).sum()) for number in range(len(found)))
        if not sum(counts):
            raise DataError(f"{self.source.where}: no image that is trained on has a class. Train without labels.")
        for name, count in zip(found, counts, strict=True):
            if not count:
                self.watch.tell(f"class {name}: no image of it is trained on, so none will be made")
        self.config = self.config.model_copy(update={"data": data.model_copy(update={"class_counts": counts})})

    def _or_stop(self, hear: Callable[[int, int], None]) -> Callable[[int, int], None]:
        """`hear`, which raises _StoppedError where a signal has come."""
        def hear_or_stop(done: int, total: int) -> None:
            if reason := self.should_stop():
                raise _StoppedError(reason)
            hear(done, total)
        return hear_or_stop

    def _train(self, lock: RunLock, dataset: Dataset) -> Iterator[Tick]:
        # Build, and go on from the newest checkpoint.
        summary = self._summary(dataset.train)                 # before the networks move to the device
        engine, state = self._build()
        self.watch.tell(self._what_is_seen(dataset.train))
        spent_sec, made_in = resume(self.folder, self.config, state, dataset, self.source.where, self.watch.tell)
        if self.config.train.init_from and not self.folder.list_checkpoints():
            start_from(self.config.train.init_from, state, self.config, self.watch.tell)
        schedule = self._schedule(dataset.train, state)
        if state.nimg == 0:
            self._introduce(dataset, summary)

        # How long?
        if self.budget is not None:
            self.config = self.config.model_copy(update={"length": self._length(self.budget, spent_sec, state, dataset.train)})
        goal = loop.nimg_of(self.config.length, schedule)
        if state.nimg >= goal or is_past_its_best(self.folder, self.config, state.nimg, schedule):
            yield self._done_already(state, schedule)
            return
        if self.config.execution.compile:
            self._compile(state)
        if state.nimg:
            self._go_on(dataset, state, execution.why_inexact(made_in, self.config, engine))
        self._warn_of_few(goal // self.config.train.batch)

        # Train.
        noted = execution.noted(self.folder, "measuring") if state.nimg else None
        meter = Meter(self.config, dataset, schedule, noted, self.watch.tell)
        meter.check()
        writer = RunWriter(self.folder, lock, self.config, engine, state, dataset.train, schedule, spent_sec)
        session = Session(self.config, engine, state, self.losses, dataset, writer, meter, goal, self.budget, self.why,
                          self.watch, self.should_stop)
        session.note()
        with contextlib.closing(session.ticks()) as ticks:
            for tick in ticks:
                if tick.end is not None:
                    self._end(tick.end, session)
                yield tick

    def _build(self) -> tuple[Engine, TrainState]:
        """What computes the networks, chosen once in a run, and the state at its start."""
        torch.set_num_threads(self.config.execution.threads)
        noted = execution.noted_engine(self.folder, self.config) if self.folder.list_checkpoints() else None
        self.config, engine = prepare_engine(self.config, *self.networks, self.watch.tell, noted)
        state = TrainState.create(self.config, *self.networks)
        return engine, state

    def _compile(self, state: TrainState) -> None:
        """Compiles the networks, or says why not."""
        self.watch.tell("compiling the networks: about a minute")
        if fault := compile_networks(state, self.config, self.losses):
            self.watch.tell(f"{fault}: trained without")
            self.config = self.config.model_copy(
                update={"execution": self.config.execution.model_copy(update={"compile": False})})

    def _what_is_seen(self, pack: Subset) -> str:
        return (f"{self.source.where}: {images(len(pack))} as {self.config.data.size}, {pack.channels} channel"
                + ("s" if pack.channels > 1 else ""))

    def _summary(self, pack: Subset) -> str:
        G, D = self.networks
        z = torch.zeros(2, latent_size(self.config))
        images = torch.zeros(2, pack.channels, *pack.image_size)
        return "\n".join([
            as_text("Generator", tuple(z.shape[1:]), summarise(G, z)),
            as_text("Discriminator", tuple(images.shape[1:]), summarise(D, images)),
        ])

    def _schedule(self, pack: Subset, state: TrainState) -> Schedule:
        try:
            return loop.make_schedule(self.config, len(pack), state)
        except DataError as error:
            raise DataError(f"{self.source.where}: {error}") from error

    def _introduce(self, dataset: Dataset, summary: str) -> None:
        """Tells the data sheet and the networks of a new run, and writes the sheet's page and the table of images."""
        for what, text in dataset.sheet.rows():
            self.watch.tell(f"  {what:<14}{text}")
        write_table(self.folder.images, dataset, self.config.data.group_by)
        write_page(self.folder.data_page, dataset.sheet, dataset.pack)
        write_sheet(self.folder, dataset)
        if len(dataset.train) < FEW_IMAGES:
            self.watch.tell(f"  only {images(len(dataset.train))}: the generator will mostly repeat them; hundreds make new ones")
        self.watch.tell(summary)
        shutil.rmtree(self.folder.tensorboard, ignore_errors=True)     # of a start that reached no checkpoint

    def _length(self, budget: Budget, spent_sec: float, state: TrainState, pack: Subset) -> Amount:
        """What --time makes: as written down for this time before, or from a measured speed."""
        budget.open(spent_sec, self.config.measure.share)
        noted = execution.noted_length(self.folder, budget.total_sec)
        if noted is not None and state.nimg:                   # a start without a checkpoint may have had other options
            return noted
        speed = partial(measured_speed, self.config, self.networks, pack, self.losses)
        goal = budget.first_goal(state.nimg, speed, lambda speed, goal: self.watch.tell(
            f"{speed:,.0f} images a second: --time makes {seen(goal)}"))
        return Amount(max(goal, 1) / 1000, "kimg")

    def _done_already(self, state: TrainState, schedule: Schedule) -> Tick:
        if not all(path.exists() for path in (self.folder.curves, self.folder.gif, self.folder.mp4)):
            draw_end(self.folder, self.watch.tell)             # the process was ended before it drew them
        if not self.folder.report.exists():
            self._report()
        self.watch.tell(self._done(state, schedule))
        return Tick(state.nimg, schedule.step_at(state.nimg), schedule.epoch_at(state.nimg), None, None, None, "done")

    def _go_on(self, dataset: Dataset, state: TrainState, changed: str) -> None:
        """Tells whether what follows is bit-exact; mends the table of images. changed: what execution.why_inexact says."""
        if not is_whole(self.folder.images):
            self.watch.tell(f"{self.folder.images}: was missing or damaged, and is written again")
            write_table(self.folder.images, dataset, self.config.data.group_by)
        exact = f"not bit-exact: {changed}" if changed else "bit-exact"
        self.watch.tell(f"{self.folder.path}: goes on from {seen(state.nimg)} ({exact})")

    def _warn_of_few(self, steps: int) -> None:
        if steps < FEW_STEPS and not self.dry_run:
            self.watch.tell(f"  very few steps, about {steps:,}: expect noise; first shapes take some hundreds, "
                            "pictures thousands")

    def _end(self, end: str, session: Session) -> None:
        """What a run gets when it ends: pictures, evaluation and report, as far as there is time for them."""
        if end != "SIGTERM":                                   # who sends it waits a few seconds at most
            draw_end(self.folder, self.watch.tell)
            if end != "SIGINT" and not self.dry_run:
                share_sec = self.config.measure.share * EVALUATION_SHARE * session.writer.elapsed_sec
                own = copy.deepcopy(session.state.G) if self.config.network.family == "custom" else None
                evaluate_end(self.folder, self.config, session.dataset, session.meter, share_sec, self.watch, own)
            self._report()
        if end in ("done", "time", "patience") and not self.dry_run:
            self.watch.tell(self._done(session.state, session.writer.schedule))

    def _report(self) -> None:
        try:
            for found in report(self.folder):
                self.watch.tell(f"{found.severity}: {found.name}. {found.evidence} {found.advice}")
        except RunError as error:
            self.watch.tell(str(error))

    def _done(self, state: TrainState, schedule: Schedule) -> str:
        more = ("Nothing better came for --patience: a larger one, or none, continues"
                if is_past_its_best(self.folder, self.config, state.nimg, schedule)
                else "A larger --time, --kimg, --epochs or --steps continues")
        return f"{self.folder.path}: done, {seen(state.nimg)} = {schedule.epoch_at(state.nimg):,.1f} epochs. {more}."
