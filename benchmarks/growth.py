"""How a training step's time and memory grow with the size of the images, the batch, the width and the number of images."""

import argparse
import json
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from common import add_machine_options, at_least, config_of, described, machine, positive_seconds
from train_sides import Ours, RandomImages

from data import Synthetic
from ganvas.config import RunConfig
from ganvas.data.pack import Pack, build_pack
from ganvas.data.split import Subset
from ganvas.dataset import layout_of
from ganvas.files import write_whole
from ganvas.profiling import PeakMemory, anonymous_mb

PRESET = "pytorch-faces-64"
BATCH = 64                         # of the points that do not vary it; their size and width are the preset's
PACK_SIZE = 32                     # of the images whose number varies: a million of 64 pixels would be 12 GB
WARM_UP = 3
COLOURS = {"fp32": "#1d6fa5", "bf16": "#c2410c"}
# What grows: where the points lie, and what it is called on the plot.
AXES: dict[str, tuple[Sequence[int], str]] = {
    "size": ((16, 32, 64, 96, 128), "side of the images, pixels"),
    "batch": ((8, 16, 32, 64, 128, 256), "images in a batch"),
    "width": ((16, 32, 64, 128), "maps of the widest images"),
    "images": ((1_000, 10_000, 100_000, 1_000_000), f"images in the set, {PACK_SIZE}x{PACK_SIZE}"),
}


def config_at(axis: str, value: int, precision: str, threads: int) -> RunConfig:
    """The preset with one thing changed."""
    width = value if axis == "width" else None
    return config_of(
        PRESET, precision, threads, train__batch=value if axis == "batch" else BATCH,
        data__size=str({"size": value, "images": PACK_SIZE}.get(axis, 64)), network__g_channels=width, network__d_channels=width)


def measure(config: RunConfig, seconds: float, pack_path: Path | None) -> dict[str, Any]:
    """The steps of a training in this process, on the pack or on random images, for `seconds` or three of them.

    Memory is the most that the steps take above what stood there before the training was built; random images stood there.
    """
    torch.set_num_threads(config.execution.threads)
    pack = None if pack_path is None else Pack(pack_path, from_cache=True)
    images: Any = RandomImages(config, 1) if pack is None else Subset(pack, np.arange(len(pack)))
    before, ours = anonymous_mb(), Ours(config, images)
    took_sec: list[float] = []
    with PeakMemory() as memory:
        ours.side.begin()
        for _ in range(WARM_UP):
            ours.step()
        while len(took_sec) < WARM_UP or sum(took_sec) < seconds:
            started_at = perf_counter()
            ours.step()
            took_sec.append(perf_counter() - started_at)
    ours.close()
    step_sec = statistics.median(took_sec)
    return {"step_sec": step_sec, "img_per_sec": config.train.batch / step_sec, "steps": len(took_sec),
            "peak_mb": None if before is None or memory.peak_mb is None else memory.peak_mb - before}


def measure_axis(axis: str, values: Sequence[int], args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every point of one axis, each in a process of its own: memory that an earlier one left behind would hide its own."""
    for value in values:
        # A pack of nothing that would have to be kept: in a folder that goes with the point.
        with TemporaryDirectory(prefix="ganvas-growth-") if axis == "images" else nullcontext() as cache:
            path = None if cache is None else pack_of(value, config_at(axis, value, "fp32", args.threads), Path(cache))
            for precision in args.precision:
                config = config_at(axis, value, precision, args.threads)
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                    found = process.submit(measure, config, args.seconds, path).result()
                yield {"axis": axis, "value": value, "precision": precision} | found


def pack_of(count: int, config: RunConfig, cache: Path) -> Path:
    """A pack of `count` images that exist nowhere but in a function."""
    pack = build_pack(Synthetic(count), layout_of(config.data), cache_dir=cache)
    pack.close()
    return pack.path


def row(result: dict[str, Any]) -> str:
    memory = "-" if result["peak_mb"] is None else f"{result['peak_mb']:,.0f}"
    return (f"{result['axis']:<8}{result['value']:>10,}{result['precision']:>6}{1000 * result['step_sec']:>12,.1f}"
            f"{result['img_per_sec']:>10,.0f}{memory:>10}")


def plot(path: Path, results: Sequence[dict[str, Any]]) -> None:
    """Milliseconds a step, and MB, over each of the axes that were measured."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

    measured = [axis for axis in AXES if any(result["axis"] == axis for result in results)]
    rows: list[tuple[str, Callable[[dict[str, Any]], float | None]]] = [
        ("a step, ms", lambda result: 1000 * float(result["step_sec"])), ("memory, MB", lambda result: result["peak_mb"])]
    figure = Figure(figsize=(2.7 * len(measured) + 0.6, 4.8), layout="constrained", facecolor="#fbfaf7")
    for axes_row, (title, value_of) in zip(figure.subplots(2, len(measured), squeeze=False, sharey="row"), rows, strict=True):
        for axes, axis in zip(axes_row, measured, strict=True):
            for precision, colour in COLOURS.items():
                points = [(result["value"], value_of(result)) for result in results
                          if (result["axis"], result["precision"]) == (axis, precision)]
                known = [(x, y) for x, y in points if y is not None]
                if known:
                    axes.plot(*zip(*known, strict=True), color=colour, label=precision, marker="o", markersize=3)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
            ticks = sorted({result["value"] for result in results if result["axis"] == axis})
            axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], fontsize=8)
            axes.xaxis.set_minor_locator(NullLocator())
            axes.tick_params(axis="y", which="both", labelsize=8)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25)
            axes.set_xlabel(AXES[axis][1], fontsize=9)
        axes_row[0].set_ylabel(title, fontsize=9)
    figure.axes[0].legend(frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=95)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=f"Measures how a training step of {PRESET} and its memory grow, each point in a process of its own. "
        "benchmarks/README.md says what the numbers mean.")
    parser.add_argument("axes", nargs="*", metavar="AXIS", help=f"what is to grow, of {', '.join(AXES)} (default: all)")
    parser.add_argument("--at", nargs="+", type=at_least(2), metavar="N",
                        help="the points of one axis (default: " + "; ".join(
                            f"{axis} {' '.join(map(str, values))}" for axis, (values, _) in AXES.items()) + ")")
    add_machine_options(parser)
    parser.add_argument("--seconds", type=positive_seconds, default=4.0, help="of each point, at least three steps "
                        "(default: %(default)s)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draws the points into a PNG")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes every number, the machine and the date to FILE")
    args = parser.parse_args(argv)
    if unknown := [axis for axis in args.axes if axis not in AXES]:
        parser.error(f"{unknown[0]}: is not measured here. Pass some of {', '.join(AXES)}.")
    args.axes = args.axes or list(AXES)
    if args.at is not None and len(args.axes) > 1:
        parser.error("--at: gives the points of one axis. Name that axis alone.")
    for option, path in (("--json", args.json), ("--plot", args.plot)):
        if path is not None and path.is_dir():
            parser.error(f"{option} {path}: is a folder. Pass the name of a file in it.")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    where, started = machine(args.threads), datetime.now(UTC)
    print(f"{described(where)}\n\n{'':<8}{'':>10}{'prec':>6}{'ms a step':>12}{'img/s':>10}{'MB':>10}", flush=True)
    results = []
    for axis in args.axes:
        for result in measure_axis(axis, args.at or AXES[axis][0], args):
            results.append(result)
            print(row(result), flush=True)
    if args.plot is not None:
        plot(args.plot, results)
        print(f"\n{args.plot}")
    if args.json is not None:
        report = {"benchmark": "growth", "version": 1, "date_utc": started.isoformat(timespec="seconds"), "machine": where,
                  "preset": PRESET, "batch": BATCH, "seconds": args.seconds, "results": results}
        write_whole(args.json, json.dumps(report, indent=2) + "\n")
        print(args.json)


if __name__ == "__main__":
    main(sys.argv[1:])
