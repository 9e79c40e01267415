"""How fast a training step is: Ganvas against the plain script of the same preset, by turns in one process."""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any, ParamSpec, TypeVar
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

from ganvas import __version__
from ganvas.config import RunConfig, make_config
from ganvas.data.batches import Batch, Batches
from ganvas.files import write_whole
from ganvas.losses import loss_pair
from ganvas.networks.build import build_networks
from ganvas.ops.pixels import to_float
from ganvas.presets import load_preset
from ganvas.recipe import usable_threads
from ganvas.training import loop
from ganvas.training.loop import Tick
from ganvas.training.state import TrainState

PLAIN = Path(__file__).parents[1] / "examples" / "plain"
CLASSICS = sorted(path.stem for path in PLAIN.glob("*.py"))

NUM_IMAGES = 16_384            # 200 MB at 64x64 colour: more than any processor's cache, as a real pack is
PLAIN_BATCHES = 8              # batches in float32 that the plain script takes in turn
TURNS = 2                      # a leg is whole pairs of steps: radford-faces-64 updates G in one, D in the next

Step = Callable[[], object]
Spread = dict[str, Any]        # median, min, max, and rounds: the value of each round
Args = ParamSpec("Args")
Result = TypeVar("Result")


# ---------------------------------------------------------------- the two sides


class RandomImages:
    """Random bytes in memory, read by position as a pack is."""

    def __init__(self, config: RunConfig):
        """Whole batches only, so that no smaller batch at an epoch's end blurs the measurement."""
        batches, size = -(-NUM_IMAGES // config.train.batch), config.data.size
        shape = (batches * config.train.batch, config.data.channels, size.height, size.width)
        self.images_u8 = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.images_u8)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images at these positions, copied. indices: (N,). Returns (N, C, H, W)."""
        return self.images_u8[indices]


def plain_step(name: str, config: RunConfig, images: RandomImages) -> Step:
    """The plain script's train_step on the batches that it is given in turn, ready in float32."""
    script, batch, channels = load_plain(name), config.train.batch, config.data.channels
    torch.manual_seed(config.train.seed)
    G, D = script.make_networks(channels)
    optimizers = script.make_optimizers(G, D)
    some_u8 = torch.from_numpy(images.images_u8[: PLAIN_BATCHES * batch])
    reals = to_float(some_u8).view(-1, batch, *some_u8.shape[1:])    # (batches, N, C, H, W) in [-1, 1]
    steps = count()

    def step() -> None:
        index = next(steps)
        script.train_step(G, D, *optimizers, reals[index % len(reals)], script.draw_z, step=index)

    return step


def our_ticks(config: RunConfig, images: RandomImages) -> Generator[Tick, None, None]:
    """The training loop itself, one tick for each step."""
    state = TrainState.create(config, *build_networks(config.network, config.data, config.train.seed))
    yield from loop.train(state, config, images, loss_pair(config.train.loss, config.plan.real_label))


def load_plain(name: str) -> ModuleType:
    """The script as a module; by its path, because its name holds hyphens."""
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), PLAIN / f"{name}.py")
    assert spec is not None and spec.loader is not None, f"{PLAIN / name}.py is a Python file"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------- measuring


def run_leg(step: Step, seconds: float) -> tuple[int, float]:
    """Runs pairs of steps until `seconds` are over; at least one pair. Returns (steps, seconds that they took)."""
    steps, started_at = 0, perf_counter()
    while True:
        for _ in range(TURNS):
            step()
        steps += TURNS
        elapsed_sec = perf_counter() - started_at
        if elapsed_sec >= seconds:
            return steps, elapsed_sec


def measure_pair(plain: Step, ours: Step, batch: int, rounds: int, seconds: float) -> dict[str, Spread]:
    """Images a second of both sides and ours / plain, in rounds in which each side runs for about `seconds`.

    A round is four legs, ABBA, so that a machine that slows down or speeds up evenly slows both sides alike. Every other
    round is BAAB: the leg after a change of sides finds the caches cold, and ABBA has two of those for A, one for B.
    """
    for step in (plain, ours):                                       # warm-up: allocations, Adam's state, kernel choice
        run_leg(step, seconds / 2)
    plain_speeds: list[float] = []
    our_speeds: list[float] = []
    for index in range(rounds):
        legs: dict[Step, list[tuple[int, float]]] = {plain: [], ours: []}
        first, second = (plain, ours) if index % 2 == 0 else (ours, plain)
        for step in (first, second, second, first):
            legs[step].append(run_leg(step, seconds / 2))
        for side, speeds in ((plain, plain_speeds), (ours, our_speeds)):
            speeds.append(batch * sum(steps for steps, _ in legs[side]) / sum(sec for _, sec in legs[side]))
    ratios = [mine / theirs for mine, theirs in zip(our_speeds, plain_speeds, strict=True)]
    return {"plain_img_per_sec": spread(plain_speeds), "our_img_per_sec": spread(our_speeds), "ratio": spread(ratios)}


def measure_data_share(config: RunConfig, images: RandomImages, rounds: int, seconds: float) -> Spread:
    """Percent of our step in which the networks wait for their inputs: next(batches), to_float, augment, drawing z."""
    shares = []
    with timed_data() as watch, closing(our_ticks(config, images)) as ticks:
        step = partial(next, ticks)
        run_leg(step, seconds / 2)
        for _ in range(rounds):
            before_sec = watch.elapsed_sec
            _, leg_sec = run_leg(step, seconds)
            shares.append(100 * (watch.elapsed_sec - before_sec) / leg_sec)
    return spread(shares)


def measure_preset(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """All measurements of one preset, as they go into the JSON."""
    given = {"train.batch": args.batch, "data.channels": args.channels}
    config = make_config(
        load_preset(name).values, {"length": "1000000000 steps", "execution.threads": args.threads},
        {option: value for option, value in given.items() if value is not None})
    images, batch = RandomImages(config), config.train.batch
    # The plain scripts rotate while they read files, which is not part of their train_step: here neither side does.
    unrotated = config.model_copy(update={"data": config.data.model_copy(update={"rotation_degrees": 0.0})})
    with closing(our_ticks(unrotated, images)) as ticks:
        pair = measure_pair(plain_step(name, config, images), partial(next, ticks), batch, args.rounds, args.seconds)
    share = measure_data_share(config, images, args.rounds, args.seconds)
    about = {"preset": name, "batch": batch, "channels": config.data.channels, "size": str(config.data.size)}
    return about | pair | {"data_share_percent": share}


class Stopwatch:
    """Sums the time spent in the calls that it is put around."""

    def __init__(self) -> None:
        self.elapsed_sec = 0.0

    def around(self, function: Callable[Args, Result]) -> Callable[Args, Result]:
        """The same function, timed."""
        def timed(*args: Args.args, **kwargs: Args.kwargs) -> Result:
            started_at = perf_counter()
            result = function(*args, **kwargs)
            self.elapsed_sec += perf_counter() - started_at
            return result
        return timed


@contextmanager
def timed_data() -> Iterator[Stopwatch]:
    """Within it, a training loop's calls that make a step's inputs are timed; from outside, the library has no hooks."""
    watch, start = Stopwatch(), Batches.start

    def timed_start(batches: Batches, nimg: int) -> Iterator[Batch]:
        fetch = watch.around(start(batches, nimg).__next__)
        while True:
            yield fetch()

    inputs: dict[str, Any] = {name: watch.around(getattr(loop, name)) for name in ("to_float", "augment", "draw_z")}
    with mock.patch.object(Batches, "start", timed_start), mock.patch.multiple(loop, **inputs):
        yield watch


def spread(values: list[float]) -> Spread:
    """What is kept of a quantity that was measured in each round."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "rounds": values}


# ---------------------------------------------------------------- the machine, the table, the command line


def machine(threads: int) -> dict[str, Any]:
    """What a measurement depends on besides the code."""
    return {
        "processor": processor_name(), "cores": os.cpu_count(), "usable_cores": usable_threads(), "threads": threads,
        "system": platform.platform(), "python": platform.python_version(), "torch": torch.__version__, "ganvas": __version__,
    }


def processor_name() -> str:
    """The processor's model name where the system tells it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        asked = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, encoding="utf-8", check=False)
        if asked.stdout.strip():
            return asked.stdout.strip()
    return platform.processor() or platform.machine()


HEADER = f"{'preset':<20}{'batch':>6}{'plain img/s':>13}{'ours img/s':>12}{'ours / plain':>14}{'(min-max)':>14}{'data %':>8}"


def row(result: dict[str, Any]) -> str:
    """One preset's line of the table."""
    plain, ours, ratio, share = (
        result[name] for name in ("plain_img_per_sec", "our_img_per_sec", "ratio", "data_share_percent"))
    extremes = f"({ratio['min']:.2f}-{ratio['max']:.2f})"
    return (f"{result['preset']:<20}{result['batch']:>6}{plain['median']:>13,.1f}{ours['median']:>12,.1f}"
            f"{ratio['median']:>14.3f}{extremes:>14}{share['median']:>8.1f}")


def at_least(smallest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if (value := int(text)) < smallest:
            raise argparse.ArgumentTypeError(f"{value} is too small: pass {smallest} or more")
        return value
    parse.__name__ = "whole number"                                  # argparse: "invalid whole number value: 'x'"
    return parse


def positive_seconds(text: str) -> float:
    if not 0 < (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a time: pass a positive number of seconds")
    return value


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measures a training step on the CPU: Ganvas's training loop against the plain script of the same "
        "preset (examples/plain), by turns in one process, on random images in memory. benchmarks/README.md says what the "
        "columns mean.")
    parser.add_argument("--preset", nargs="+", choices=CLASSICS, default=CLASSICS, metavar="NAME",
                        help=f"presets to measure, of {', '.join(CLASSICS)} (default: all)")
    parser.add_argument("--batch", type=at_least(2), help="images in a step (default: the preset's own)")
    parser.add_argument("--channels", type=int, choices=(1, 3), help="1 = grey, 3 = colour (default: the preset's own)")
    parser.add_argument("--threads", type=at_least(1), default=usable_threads(),
                        help="CPU threads of torch (default: all that may be used, here %(default)s)")
    parser.add_argument("--rounds", type=at_least(1), default=5, help="rounds; the table shows medians (default: %(default)s)")
    parser.add_argument("--seconds", type=positive_seconds, default=4.0,
                        help="time of each side in each round, at least four steps (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes every number, the machine and the date to FILE")
    args = parser.parse_args(argv)
    if args.json is not None and args.json.is_dir():
        parser.error(f"--json {args.json}: is a folder. Pass the name of a file in it.")
    if importlib.util.find_spec("torchvision") is None:
        parser.error('the plain scripts need torchvision: pip install "ganvas[examples]"')
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    where, started = machine(args.threads), datetime.now(UTC)
    print(f"{where['processor']}, {args.threads} of {where['cores']} cores, torch {where['torch']}; "
          f"medians of {args.rounds} rounds of {args.seconds:g} s for each side\n\n{HEADER}", flush=True)
    results = []
    for name in args.preset:
        results.append(measure_preset(name, args))
        print(row(results[-1]), flush=True)
    if args.json is not None:
        report = {
            "benchmark": "train_speed", "version": 1, "date_utc": started.isoformat(timespec="seconds"), "machine": where,
            "rounds": args.rounds, "seconds": args.seconds, "results": results,
        }
        write_whole(args.json, json.dumps(report, indent=2) + "\n")
        print(f"\n{args.json}")


if __name__ == "__main__":
    main()
