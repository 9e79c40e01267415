"""A look at where the time of training goes: some steps under PyTorch's profiler, as a trace and as one page to read."""

import os
import platform
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from ganvas.breakdown import PARTS, PROFILED, STEP, Call, Cost, Span, costs, own_times
from ganvas.config import RunConfig
from ganvas.data.split import Subset
from ganvas.errors import RunError
from ganvas.files import whole_file, write_whole
from ganvas.losses import LossPair
from ganvas.machine import processor
from ganvas.training import loop
from ganvas.training.state import TrainState
from ganvas.values import Amount

WARM_UP = 3                    # steps: the first ones ask the system for memory and choose kernels
MOST_STEPS = 200               # more say nothing more, and take minutes and gigabytes to sort
ROWS = 24                      # operators on the page
MEMORY_EVERY_SEC = 0.005
TRACE, PAGE = "trace.json.gz", "profile.txt"


@dataclass(frozen=True)
class Profile:
    """What some steps of training took. Everything is of one step, on average, in the steps under the profiler."""

    steps: int
    plain_sec: list[float]         # of as many steps before, without the profiler
    images_per_sec: float          # in those
    step_sec: float
    parts_sec: dict[str, float]    # {name in PARTS: seconds}; their sum is step_sec
    operators: list[Cost]          # of all steps together, the costliest first
    memory_mb: float | None        # most anonymous memory in the steps without the profiler; None = the system does not tell


def profile_training(
    state: TrainState, config: RunConfig, pack: Subset, losses: LossPair, steps: int, folder: Path,
    hear: Callable[[int, int], None] = lambda done, total: None,
) -> Profile:
    """Trains `state` for WARM_UP and twice `steps` steps, half of them under the profiler, whose trace goes to `folder`.

    hear: told of (done, total) steps; may raise to stop. Raises RunError where the trace cannot be written.
    """
    device, on_cuda, total = config.execution.device, config.execution.device.startswith("cuda"), WARM_UP + 2 * steps
    ticks = loop.train(state, config.model_copy(update={"length": Amount(1e9, "kimg")}), pack, losses)
    plain_sec: list[float] = []
    shown = 0                                                  # images in those
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")            # the profiler's library tells of its own affairs on stderr
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    try:
        with PeakMemory() as memory:
            for done in range(1, total - steps + 1):
                began_at, nimg = time.perf_counter(), state.nimg
                next(ticks)
                _wait_for(device)
                if done > WARM_UP:
                    plain_sec.append(time.perf_counter() - began_at)
                    shown += state.nimg - nimg
                hear(done, total)
        with profile(activities=activities, record_shapes=True) as profiler:
            for done in range(total - steps + 1, total + 1):
                with record_function(STEP):
                    next(ticks)
                    _wait_for(device)
                hear(done, total)
    finally:
        ticks.close()                                          # type: ignore[attr-defined]
    try:
        with whole_file(folder / TRACE) as partial:
            profiler.export_chrome_trace(str(partial))
    except (OSError, RuntimeError) as error:
        raise RunError(f"{folder / TRACE}: cannot be written ({error}). Name another place with --out.") from error
    events = profiler.events() or []
    ranges = [Span(event.name, event.time_range.start, event.time_range.end) for event in events
              if event.name in PARTS and event.device_type.name == "CPU"]
    parts_sec = {name: us / 1e6 / steps for name, us in own_times(ranges).items()}
    return Profile(steps, plain_sec, shown / sum(plain_sec), sum(parts_sec.values()), parts_sec,
                   costs(_calls(events, on_cuda)), memory.peak_mb)


def _wait_for(device: str) -> None:
    """Until the device has done what it was given, so that its time is the step's."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device == "mps":
        torch.mps.synchronize()


def _calls(events: list[Any], on_cuda: bool) -> Iterator[Call]:
    """The operators among the profiler's events, callers first; on a CUDA device their time is that of their kernels."""
    known: dict[int, Call] = {}
    for event in sorted(events, key=lambda event: (event.time_range.start, -event.time_range.end)):
        if event.device_type.name != "CPU" or (event.is_user_annotation and not event.name.startswith(PROFILED)):
            continue
        own_us = event.self_device_time_total if on_cuda else event.self_cpu_time_total
        outer = None if event.cpu_parent is None else known.get(id(event.cpu_parent))
        known[id(event)] = Call(event.name, own_us, event.input_shapes or (), event.concrete_inputs or (), outer)
        yield known[id(event)]


def page(found: Profile, config: RunConfig, title: str, trace: Path) -> str:
    """The profile as text, for people. title: what was trained on; trace: where the trace lies."""
    plain, threads = median(found.plain_sec), torch.get_num_threads()
    slower = found.step_sec / plain - 1
    processor_ = processor()
    machine = processor_.name if processor_ else platform.processor() or platform.machine()
    device = "" if config.execution.device == "cpu" else f", on {config.execution.device}"
    memory = f"{found.memory_mb:,.0f} MB at most in these steps (anonymous: without pages that files back)" \
        if found.memory_mb is not None else "not known: only Linux tells what memory is backed by no file"
    lines = [
        f"{title}, {config.data.size}, batch {config.train.batch}: where the time of training goes, in {found.steps} steps", "",
        f"machine   {machine}{device}, {threads} thread{'s' if threads > 1 else ''}, {config.execution.precision}, "
        f"kernels {torch.backends.cpu.get_cpu_capability()}",
        f"versions  torch {torch.__version__}, Python {platform.python_version()}, {platform.system()}",
        f"speed     {1000 * plain:,.1f} ms a step (the median; {1000 * min(found.plain_sec):,.1f} to "
        f"{1000 * max(found.plain_sec):,.1f}), {found.images_per_sec:,.1f} images a second",
        f"memory    {memory}",
        f"profiled  {found.steps} more steps under the profiler, {1000 * found.step_sec:,.1f} ms each ({slower:+.0%}); "
        "all that follows is of those", "",
        "WHERE THE TIME OF A STEP GOES", "",
        f"{'share':>7} {'ms a step':>10}",
        *(_row(found.parts_sec.get(name, 0.0), found.step_sec, text) for name, text in PARTS.items()),
        _row(found.step_sec, found.step_sec, "a step"), "",
        *_operators(found),
        "Pictures, rows, measurements and checkpoints come at their own cadence and are not in these steps.",
        "Every operator on a time line: open the trace at https://ui.perfetto.dev (it stays in the browser):",
        f"{trace}",
    ]
    if config.execution.device != "cpu":
        lines.insert(-3, f"The parts above are the time in which {config.execution.device} was given its work; it computes "
                         "meanwhile, and a step ends when it has done.")
    return "\n".join(lines) + "\n"


def _operators(found: Profile) -> list[str]:
    """The table of the costliest operators, and what is left of the step."""
    def row(us: float, text: str, calls: str = "", speed: str = "") -> str:
        return f"{us / 1e6 / total_sec:>7.1%} {us / 1000 / found.steps:>10,.2f} {calls:>7} {speed:>9}   {text}"

    total_sec = found.step_sec * found.steps
    shown, rest = found.operators[:ROWS], found.operators[ROWS:]
    between_us = 1e6 * total_sec - sum(cost.us for cost in found.operators)
    return [
        "THE COSTLIEST OPERATORS: their own time, what they call counted where it is spent", "",
        f"{'share':>7} {'ms a step':>10} {'calls':>7} {'GFLOP/s':>9}   operator",
        *(row(cost.us, cost.what, f"{cost.calls / found.steps:,.4g}", f"{cost.gflop_per_sec:,.0f}" if cost.gflop_per_sec else "")
          for cost in shown),
        *([row(sum(cost.us for cost in rest), f"{len(rest)} others")] if rest else []),
        row(between_us, "between the operators: Python, waiting for the batch"), "",
    ]


def _row(sec: float, of_sec: float, text: str) -> str:
    return f"{sec / of_sec:>7.1%} {1000 * sec:>10,.2f}   {text}"


def write_profile(folder: Path, text: str) -> Path:
    """Writes the page into `folder`. Raises RunError where that cannot be done."""
    path = folder / PAGE
    try:
        write_whole(path, text)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error}). Name another place with --out.") from error
    return path


class PeakMemory:
    """While it is open, the most anonymous memory of this process, in `peak_mb`; None where the system does not tell."""

    def __init__(self) -> None:
        self.peak_mb: float | None = None
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._look, name="ganvas-memory", daemon=True)

    def __enter__(self) -> "PeakMemory":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()

    def _look(self) -> None:
        while (now := anonymous_mb()) is not None:
            self.peak_mb = max(self.peak_mb or 0.0, now)
            if self.done.wait(MEMORY_EVERY_SEC):
                return


def anonymous_mb() -> float | None:
    """Memory of this process that no file stands behind, in MB; None where the system does not tell."""
    try:
        found = re.search(r"^RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) / 1024 if found else None
