"""How fast training is: Ganvas against the plain script of the same preset and against the processor's limit, by turns."""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, ParamSpec, TypeVar
from unittest import mock

import torch
import train_sides as sides
from common import (
    AVX2,
    LIBGOMP_SPIN,
    Spread,
    add_machine_options,
    at_least,
    config_of,
    described,
    machine,
    positive_seconds,
    spread,
    unbound,
)
from train_ceiling import Ceiling, convolutions_share, flop, step_products
from train_sides import CLASSICS, TURNS, Ours, RandomImages, Side

from ganvas.config import RunConfig
from ganvas.data.batches import Batch, Batches
from ganvas.data.split import Subset
from ganvas.files import write_whole
from ganvas.machine import keep_freed_memory
from ganvas.profiling import anonymous_mb
from ganvas.training import loop
from ganvas.training.steps import train_step

Args = ParamSpec("Args")
Result = TypeVar("Result")


# ---------------------------------------------------------------- measuring


def run_leg(side: Side, seconds: float) -> tuple[int, float]:
    """Runs pairs of steps until `seconds` are over, at least one pair. Returns (real images shown, seconds that they took).

    One step before them is not counted: in it a side whose turn it is again takes its memory back, and starts its workers.
    """
    side.begin()
    side.step()
    shown, started_at = 0, perf_counter()
    while True:
        shown += sum(side.step() for _ in range(TURNS))
        if (elapsed_sec := perf_counter() - started_at) >= seconds:
            break
    side.end()
    return shown, elapsed_sec


def measure_speeds(
    compared: Mapping[str, Side], rounds: int, seconds: float, between: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Images a second of each side in each of the rounds, in which it runs for about `seconds`.

    A round is each side's leg and then all of them in reverse, ABBA, so that a machine that slows down or speeds up evenly slows
    all alike; each round begins with another side, because a leg after a change of sides finds the caches cold. In the middle
    of each round comes `between`.
    """
    for side in compared.values():                                   # warm-up: allocations, Adam's state, kernel choice
        run_leg(side, seconds / 2)
    speeds: dict[str, list[float]] = {name: [] for name in compared}
    for index in range(rounds):
        legs: dict[str, list[tuple[int, float]]] = {name: [] for name in compared}
        first = index % len(compared)
        order = [*list(compared)[first:], *list(compared)[:first]]
        for name in order:
            legs[name].append(run_leg(compared[name], seconds / 2))
        between()
        for name in reversed(order):
            legs[name].append(run_leg(compared[name], seconds / 2))
        for name, ran in legs.items():
            speeds[name].append(sum(shown for shown, _ in ran) / sum(sec for _, sec in ran))
    return speeds


def measure_shares(ours: Ours, rounds: int, seconds: float) -> dict[str, Spread]:
    """Percent of our loop's time outside the two turns, and of it the part in which the networks wait for their inputs.

    Inputs: next(batches), to_float, augment, drawing z. The rest: sums of statistics, averaging G, what is due. `ours` must not
    have taken a step yet.
    """
    shares: dict[str, list[float]] = {"outside_share_percent": [], "data_share_percent": []}
    with timed_loop() as (data, turns), closing(ours):
        run_leg(ours.side, seconds / 2)
        for _ in range(rounds):
            leg = MeasuredLeg(ours.side, (data, turns))
            _, leg_sec = run_leg(leg.side, seconds)
            data_sec, turns_sec = leg.spent_sec()
            shares["outside_share_percent"].append(100 * (leg_sec - turns_sec) / leg_sec)
            shares["data_share_percent"].append(100 * data_sec / leg_sec)
    return {name: spread(values) for name, values in shares.items()}


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


class MeasuredLeg:
    """A side, and what stopwatches have gained since the step of a leg that is not counted."""

    def __init__(self, side: Side, watches: Sequence[Stopwatch]):
        self.watches, self.steps, self.before_sec = watches, 0, [0.0 for _ in watches]

        def step() -> int:
            if self.steps == 1:
                self.before_sec = [watch.elapsed_sec for watch in watches]
            self.steps += 1
            return side.step()

        self.side = Side(step, side.begin, side.end)

    def spent_sec(self) -> list[float]:
        return [watch.elapsed_sec - before for watch, before in zip(self.watches, self.before_sec, strict=True)]


@contextmanager
def timed_loop() -> Iterator[tuple[Stopwatch, Stopwatch]]:
    """Within it, a training loop's calls that make a step's inputs are timed, and the two turns; the library has no hooks."""
    data, turns, start = Stopwatch(), Stopwatch(), Batches.start

    def timed_start(batches: Batches, nimg: int) -> Iterator[Batch]:
        with closing(start(batches, nimg)) as started:
            fetch = data.around(started.__next__)
            while True:
                yield fetch()

    timed: dict[str, Any] = {name: data.around(getattr(loop, name)) for name in ("to_float", "augment", "draw_z")}
    timed["train_step"] = turns.around(train_step)
    with mock.patch.object(Batches, "start", timed_start), mock.patch.multiple(loop, **timed):
        yield data, turns


def ratios(ours: list[float], theirs: list[float]) -> Spread:
    return spread([mine / other for mine, other in zip(ours, theirs, strict=True)])


# ---------------------------------------------------------------- one preset at one batch


def measure_preset(name: str, batch: int | None, args: argparse.Namespace, scratch: Path) -> Iterator[dict[str, Any]]:
    """All measurements of one preset at one batch, as they go into the JSON: one result for each precision."""
    configs = {precision: config_of(name, precision, args.threads, train__batch=batch, data__channels=args.channels)
               for precision in args.precision}
    config = configs[args.precision[0]]
    images, size = RandomImages(config), config.train.batch
    folder, pack = files_of(name, config, scratch)
    products = step_products(config)
    ceilings = {precision: Ceiling(products, torch.bfloat16 if precision == "bf16" else torch.float32) for precision in configs}

    def measure_ceilings() -> None:
        keep_freed_memory()
        for ceiling in ceilings.values():
            ceiling.measure()

    with ExitStack() as stack:
        stack.callback(pack.pack.close)
        compared = {"plain step": sides.plain_step(name, config, images)}
        plain = None if args.steps_only else sides.plain_loop(name, config, folder, args.workers)
        if plain is not None:
            compared["plain loop"] = plain
        ours: dict[str, Ours] = {}
        for precision, its in configs.items():
            # The plain scripts rotate while they read files, which is not part of their train_step: here neither side does.
            unrotated = its.model_copy(update={"data": its.data.model_copy(update={"rotation_degrees": 0.0})})
            ours[f"step {precision}"] = Ours(unrotated, images, print)
            if not args.steps_only:
                ours[f"loop {precision}"] = Ours(its, pack, print)
        for what, mine in ours.items():
            stack.callback(mine.close)
            compared[what] = mine.side
        speeds = measure_speeds(compared, args.rounds, args.seconds, measure_ceilings)
        for precision, its in configs.items():
            mine, ceiling = ours[f"step {precision}"], ceilings[precision]
            step_sec = size / statistics.median(speeds[f"step {precision}"])
            convolutions_sec = convolutions_share(mine.side) * step_sec
            yield {
                "preset": name, "batch": size, "channels": config.data.channels, "size": str(config.data.size),
                "precision": precision, "computed_in": mine.config.execution.precision, "kernels": mine.engine.noted(),
                **speeds_of(speeds, precision),
                "step_gflop": flop(products) / 1e9,
                "our_tflop_per_sec": flop(products) / step_sec / 1e12,
                "plain_tflop_per_sec": flop(products) * statistics.median(speeds["plain step"]) / size / 1e12,
                "ceiling_tflop_per_sec": flop(products) / ceiling.seconds() / 1e12,
                "ceiling_percent": 100 * ceiling.seconds() / step_sec,
                "convolutions_share_percent": 100 * convolutions_sec / step_sec,
                "convolutions_ceiling_percent": 100 * ceiling.seconds(convolutions_only=True) / convolutions_sec,
                **measure_shares(Ours(its, pack), args.rounds, args.seconds),
                "memory_mb": measure_memory(name, its, folder, pack, args) if args.memory and plain is not None else None,
            }


def speeds_of(speeds: Mapping[str, list[float]], precision: str) -> dict[str, Spread | None]:
    """The sides' speeds and ratios, as they go into the JSON; None for a loop that was not measured."""
    found: dict[str, Spread | None] = {}
    for what in ("step", "loop"):
        plain, ours = speeds.get(f"plain {what}"), speeds.get(f"{what} {precision}")
        found |= {f"plain_{what}_img_per_sec": spread(plain) if plain else None,
                  f"our_{what}_img_per_sec": spread(ours) if ours else None,
                  f"{what}_ratio": ratios(ours, plain) if ours and plain else None}
    return found


def files_of(name: str, config: RunConfig, scratch: Path) -> tuple[Path, Subset]:
    """The folder of files that both loops read, written where it is not there, and our pack of it."""
    folder = scratch / name
    if not folder.exists():
        sides.write_files(name, folder, max(sides.NUM_FILES, config.train.batch))
    return folder, sides.packed(folder, config, scratch / "packs")


def measure_memory(name: str, config: RunConfig, folder: Path, pack: Subset, args: argparse.Namespace) -> dict[str, float]:
    """MB of anonymous memory that the full loops take at most, each in a process of its own."""
    return {"plain": sides.peak_mb(sides.build_plain, name, config, folder, args.workers, threads=args.threads),
            "ours": sides.peak_mb(sides.build_ours, config, pack.pack.path, threads=args.threads)}


# ---------------------------------------------------------------- the table, the command line

HEADER = (f"{'':<30}|{'step: img/s':^36}|{'loop: img/s':^24}|\n{'preset':<18}{'prec':>6}{'batch':>6}|{'plain':>8}{'ours':>8}"
          f"{'ratio':>6}{'(min-max)':>14}|{'plain':>8}{'ours':>8}{'ratio':>8}|{'TFLOP/s':>8}{'% of max':>9}{'conv %':>7}"
          f"{'outside %':>10}")
MEMORY_HEADER = f"{'plain MB':>10}{'ours':>6}"


def row(result: Mapping[str, Any]) -> str:
    """One line of the table."""
    def median(name: str, form: str) -> str:
        return "-" if result[name] is None else format(result[name]["median"], form)

    ratio, memory = result["step_ratio"], result["memory_mb"]
    return (f"{result['preset']:<18}{result['precision']:>6}{result['batch']:>6}|{median('plain_step_img_per_sec', ',.1f'):>8}"
            f"{median('our_step_img_per_sec', ',.1f'):>8}{ratio['median']:>6.2f}{ratio['min']:>8.2f}-{ratio['max']:<5.2f}|"
            f"{median('plain_loop_img_per_sec', ',.1f'):>8}{median('our_loop_img_per_sec', ',.1f'):>8}"
            f"{median('loop_ratio', '.2f'):>8}|{result['our_tflop_per_sec']:>8.3f}{result['ceiling_percent']:>9.0f}"
            f"{result['convolutions_ceiling_percent']:>7.0f}{median('outside_share_percent', '.1f'):>10}"
            + (f"{memory['plain']:>10,.0f}{memory['ours']:>6,.0f}" if memory else ""))


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measures training on the CPU: Ganvas against the plain script of the same preset (examples/plain) and "
        "against the processor's matrix products, by turns in one process. benchmarks/README.md says what the columns mean.")
    parser.add_argument("--preset", nargs="+", choices=CLASSICS, default=CLASSICS, metavar="NAME",
                        help=f"presets to measure, of {', '.join(CLASSICS)} (default: all)")
    parser.add_argument("--batch", nargs="+", type=at_least(2), default=[None], metavar="N",
                        help="images in a step (default: the preset's own)")
    parser.add_argument("--channels", type=int, choices=(1, 3), help="1 = grey, 3 = colour (default: the preset's own)")
    add_machine_options(parser)
    parser.add_argument("--workers", type=at_least(0), default=2,
                        help="processes of the plain loop's DataLoader (default: %(default)s, the scripts' own)")
    parser.add_argument("--rounds", type=at_least(1), default=5, help="rounds; the table shows medians (default: %(default)s)")
    parser.add_argument("--seconds", type=positive_seconds, default=4.0,
                        help="time of each side in each round, at least six steps (default: %(default)s)")
    parser.add_argument("--steps-only", action="store_true", help="without the full loops, in half the time")
    parser.add_argument("--memory", action="store_true", help="also the peaks of anonymous memory of the full loops")
    parser.add_argument("--isa", choices=("avx2",), help="computes as a processor without AVX-512 and AMX does")
    parser.add_argument("--spin", choices=("default",),
                        help="threads wait for each other as long as libgomp has them wait, not as short as Ganvas has them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes every number, the machine and the date to FILE")
    args = parser.parse_args(argv)
    if args.json is not None and args.json.is_dir():
        parser.error(f"--json {args.json}: is a folder. Pass the name of a file in it.")
    if args.memory and args.steps_only:
        parser.error("--memory: is that of the full loops, which --steps-only leaves out. Pass one of the two.")
    if args.memory and anonymous_mb() is None:
        parser.error("--memory: anonymous memory is read from /proc/self/status, which only Linux has. Leave it out.")
    if args.isa == "avx2" and platform.machine().lower() not in ("x86_64", "amd64"):
        parser.error(f"--isa avx2: this processor is {platform.machine()}, not x86. Leave it out.")
    if importlib.util.find_spec("torchvision") is None:
        parser.error('the plain scripts need torchvision: pip install "ganvas[examples]"')
    return args


def variables(args: argparse.Namespace) -> dict[str, str]:
    """What must stand in the environment before torch is loaded."""
    return (AVX2 if args.isa else {}) | (LIBGOMP_SPIN if args.spin else {})


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if any(os.environ.get(name) != value for name, value in variables(args).items()):
        command = [sys.executable, __file__, *(sys.argv[1:] if argv is None else argv)]
        sys.exit(subprocess.run(command, env=os.environ | variables(args), check=False).returncode)
    torch.set_num_threads(args.threads)
    where, started = machine(args.threads), datetime.now(UTC)
    if args.isa and (why := unbound(where["instructions"])):
        sys.exit(f"--isa avx2: does not bind here: {why}. Leave it out, or measure on a processor without AVX-512.")
    print(f"{described(where)}\nmedians of {args.rounds} rounds of {args.seconds:g} s for each side\n\n{HEADER}"
          f"{MEMORY_HEADER if args.memory else ''}", flush=True)
    results = []
    with TemporaryDirectory(prefix="ganvas-benchmark-") as scratch:
        for name in args.preset:
            for batch in args.batch:
                for result in measure_preset(name, batch, args, Path(scratch)):
                    results.append(result)
                    print(row(result), flush=True)
    if args.json is not None:
        report = {
            "benchmark": "train_speed", "version": 2, "date_utc": started.isoformat(timespec="seconds"), "machine": where,
            "isa": args.isa, "rounds": args.rounds, "seconds": args.seconds, "workers": args.workers, "results": results,
        }
        write_whole(args.json, json.dumps(report, indent=2) + "\n")
        print(f"\n{args.json}")


if __name__ == "__main__":
    main()
