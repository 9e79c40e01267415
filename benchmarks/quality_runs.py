"""The sides of a race as whole processes of `ganvas train`, and which of their generators was there after how many seconds."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from quality_races import Race, RunOf, Side, Times

from ganvas.errors import ConfigError, RunError
from ganvas.files import write_whole
from ganvas.request import resolve

POLL_SEC = 0.2                         # a generator's file stays for two checkpoints at least
NEVER = "1000000000 steps"
INTERRUPTED = 130
TOLD_LINES = 15


@dataclass
class Clock:
    """What is known of a side's run, kept in clock.json. Seconds count from the start of its process, imports and all.

    A run that was interrupted goes on from its last checkpoint: what came after that, and was lost, does not count; the next
    process's start does.
    """

    command: list[str]                                         # without the interpreter and --out
    checkpoints: list[dict[str, float]] = field(default_factory=list)      # nimg and sec, ascending
    exit: int | None = None                                    # None = not ended yet

    @property
    def sec(self) -> float:
        return self.checkpoints[-1]["sec"] if self.checkpoints else 0.0


class SideRun:
    """The folder of one side's run with one seed: run/ is ganvas's own, generators/ keeps what it has made on the way."""

    def __init__(self, out: Path, race: str, side: str, minutes: float, seed: int):
        self.race, self.side, self.minutes, self.seed = race, side, minutes, seed
        self.path = out / f"{race}-{side.replace(', ', '-').replace(' ', '-')}-{minutes:g}min-seed{seed}"
        self.run, self.generators, self.log = self.path / "run", self.path / "generators", self.path / "log.txt"
        self.judged = self.path / "judged.json"

    @property
    def clock_file(self) -> Path:
        return self.path / "clock.json"

    def clock(self) -> Clock | None:
        """What is known of it; None where it has not begun."""
        if not self.clock_file.exists():
            return None
        return Clock(**json.loads(self.clock_file.read_text(encoding="utf-8")))

    def generator(self, nimg: float) -> Path:
        return self.generators / f"generator-{int(nimg):012d}.safetensors"

    @property
    def is_finished(self) -> bool:
        clock = self.clock()
        return clock is not None and clock.exit is not None


def runs_of(name: str, race: Race, out: Path, first_seed: int) -> Iterator[tuple[Side, SideRun]]:
    """Every side with every seed, in the order in which they run: there and back, so that a drift meets all alike."""
    for number in range(race.seeds):
        for side in race.sides if number % 2 == 0 else reversed(race.sides):
            yield side, SideRun(out, name, side.name, race.minutes, first_seed + number)


def command_of(race: Race, side: Side, source: str, run: SideRun, out: Path, threads: int) -> list[str]:
    """The arguments of `ganvas` that train this side, without --out. Raises ConfigError, or RunError for a run that is not there.

    Nothing is drawn or measured on the way, which would cost the sides different shares of their time; a checkpoint comes by
    the clock.
    """
    options = {**race.data, **side.options}
    times = {option: value for option, value in options.items() if isinstance(value, Times)}
    plain = {option: value for option, value in options.items() if option not in times}
    plain = {option: _run_of(value, out, run.seed).as_posix() if isinstance(value, RunOf) else value
             for option, value in plain.items()}
    for option, value in times.items():
        found: Any = resolve(source, side.preset, settings=plain, time_sec=60 * race.minutes).config
        for part in option.split("."):
            found = getattr(found, part)
        plain[option] = round(value.factor * found)
    plain |= {"execution.threads": threads, "train.seed": run.seed, "measure.share": 0.0, "output.grid_every": NEVER,
              "output.checkpoint_every": NEVER, "output.checkpoint_minutes": round(race.every_sec / 60, 4)}
    preset = [] if side.preset is None else ["--preset", side.preset]
    return ["train", source, *preset, "--time", f"{60 * race.minutes:g}s",
            *(part for option, value in plain.items() for part in ("--set", f"{option}={json.dumps(value)}"))]


def _run_of(wanted: RunOf, out: Path, seed: int) -> Path:
    found = [SideRun(out, wanted.race, wanted.side, float(path.name.split("-")[-2].removesuffix("min")), seed)
             for path in out.glob(f"{wanted.race}-{wanted.side}-*min-seed{seed}")]
    found = [run for run in found if run.is_finished]
    if not found:
        raise RunError(f"{out}: holds no finished run of the side {wanted.side!r} of the race {wanted.race} with seed {seed}, "
                       f"whose weights this race starts from. First run `python benchmarks/quality.py race {wanted.race}`.")
    return max(found, key=lambda run: run.minutes).run


def run_side(run: SideRun, command: list[str], again: bool = False) -> Clock:
    """Trains, unless it has been done; goes on where it was interrupted. again: from the beginning, whatever is there.

    Before the clock starts, two steps in a temporary folder decode the images and measure the kernels, which both are kept.
    Raises RunError where training fails before its first checkpoint, or the folder holds a run of another command.
    """
    clock = run.clock()
    if clock is not None and again:
        shutil.rmtree(run.path)
        clock = None
    if clock is not None and clock.command != command:
        raise ConfigError(f"{run.path}: was made by `ganvas {' '.join(clock.command)}`, and now it would be "
                          f"`ganvas {' '.join(command)}`. Pass --again {run.side!r} to make it anew, or another --out.")
    clock = clock or Clock(command)
    if clock.exit is not None:
        return clock
    run.generators.mkdir(parents=True, exist_ok=True)
    with run.log.open("ab") as log:
        if not clock.checkpoints:
            tried = subprocess.run(_process(command, "--dry-run"), stdout=log, stderr=subprocess.STDOUT, check=False)
            _check(run, tried.returncode)
        before_sec, started_at = clock.sec, time.time()
        process = subprocess.Popen(_process(command, "--out", str(run.run)), stdout=log, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                time.sleep(POLL_SEC)
                _keep(run, clock, before_sec, started_at)
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):       # that has come to the child too: a second one would kill it
                process.terminate()
            process.wait()                                     # it writes a checkpoint
            _keep(run, clock, before_sec, started_at)
            raise
        _keep(run, clock, before_sec, started_at)
    if process.returncode == INTERRUPTED:
        raise KeyboardInterrupt
    if not clock.checkpoints:
        _check(run, process.returncode or 1)
    clock.exit = process.returncode
    write_whole(run.clock_file, json.dumps(asdict(clock), indent=1))
    return clock


def _process(command: list[str], *more: str) -> list[str]:
    return [sys.executable, "-m", "ganvas", *command, *more]


def _check(run: SideRun, code: int) -> None:
    if code:
        raise RunError(f"{run.path}: training ended with {code}:\n{last_lines(run.log)}")


def last_lines(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-TOLD_LINES:])


def _keep(run: SideRun, clock: Clock, before_sec: float, started_at: float) -> None:
    """Keeps the generators that have come since the last look; they were there when their files were renamed into place."""
    known = {int(row["nimg"]) for row in clock.checkpoints}
    files = sorted((run.run / "checkpoints").glob("generator-*.safetensors"))
    fresh = [(int(path.stem.rpartition("-")[2]), path) for path in files]
    fresh = [(nimg, path) for nimg, path in fresh if nimg not in known]
    for nimg, path in fresh:
        written_at = path.stat().st_mtime
        if not run.generator(nimg).exists():
            _link(path, run.generator(nimg))
        clock.checkpoints.append({"nimg": nimg, "sec": round(before_sec + written_at - started_at, 2)})
    if fresh:
        write_whole(run.clock_file, json.dumps(asdict(clock), indent=1))


def _link(path: Path, target: Path) -> None:
    """The file under another name, so that it stays when the run removes its own; a copy where the disk knows no links."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copy2(path, target)
