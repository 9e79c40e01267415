"""The picture of a race: figures over seconds with the reals' own, and below them samples of each side on the way."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from quality_judging import Pixels, figure_of, on, sides_of

from ganvas.files import write_whole
from ganvas.report.grid import tile

COLOURS = ("#c2410c", "#1d6fa5", "#3f7d3a", "#7c3aed", "#0f766e", "#a16207", "#be185d", "#475569", "#65a30d")
METRICS = (("fid", "FID"), ("kid", "KID"), ("coverage", "coverage"))
MOMENTS = (0.1, 0.4, 1.0)              # of the time: whose samples are shown
SHOWN, COLUMNS = 16, 8                 # samples of one moment
MOST_BYTES = 300_000
DPIS = (110, 95, 80, 65, 50)

Strip = tuple[str, NDArray[np.uint8]]                      # what it shows, (H, W, 3)


def strip(images: Pixels, background: str = "white") -> NDArray[np.uint8]:
    """The first samples side by side, (H, W, 3)."""
    picture = tile(on(background, images[:SHOWN]), COLUMNS)
    return picture if picture.shape[2] == 3 else picture.repeat(3, axis=2)


def moments_of(curve: Sequence[Mapping[str, Any]], total_sec: float) -> list[Mapping[str, Any]]:
    """The checkpoints nearest to the moments that are shown, each once."""
    nearest = [min(curve, key=lambda row: abs(row["sec"] - share * total_sec)) for share in MOMENTS]
    return [row for index, row in enumerate(nearest) if row not in nearest[:index]]


def plot(path: Path, title: str, judged: list[dict[str, Any]], strips: list[Strip]) -> None:
    """Writes a PNG of at most MOST_BYTES. judged: as judge_run gives it, for each run. strips: in the order to be shown."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    rows = -(-len(strips) // 2)
    height, width = strips[0][1].shape[:2]
    strip_inches = 6 * height / width + 0.3
    figure = Figure(figsize=(12.6, 3.4 + rows * strip_inches), layout="constrained", facecolor="#fbfaf7")
    parts: Any = figure.subfigures(2, 1, height_ratios=(3.4, rows * strip_inches))
    above, below = parts
    first = judged[0]
    for (metric, name), axes in zip(METRICS, above.subplots(1, len(METRICS)), strict=True):
        for (side, runs), colour in zip(sides_of(judged), COLOURS, strict=False):
            for number, run in enumerate(runs):
                axes.plot([row["sec"] for row in run["curve"]], [row[metric] for row in run["curve"]], color=colour,
                          label=side if number == 0 else None, marker="o", markersize=3, linewidth=1.4)
        floor = figure_of(first, metric)["floor"]
        axes.axhline(floor, color="#444444", linestyle="--", linewidth=1, label=f"reals: {floor:.3g}")
        if metric == "fid":
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
        elif metric == "kid":                                  # which is about 0 for reals, and may be below
            axes.set_yscale("symlog", linthresh=max(1e-3, 10 * abs(floor)))
        else:
            axes.set_ylim(-0.02, 1.02)
        axes.set_xlim(left=0)
        axes.set_title(name, fontsize=10, loc="left")
        axes.set_xlabel("seconds from the start of the process", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
    above.suptitle(title, fontsize=11, x=0.01, ha="left")
    grid = below.subplots(rows, 2, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, (what, picture) in zip(grid.flat, strips, strict=False):
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(what, fontsize=8, loc="left", pad=2)
    write_whole(path, _small_png(figure))


def _small_png(figure: Any) -> bytes:
    """The figure in 256 colours, in as many pixels as fit."""
    for dpi in DPIS:
        drawn, small = io.BytesIO(), io.BytesIO()
        figure.savefig(drawn, dpi=dpi, format="png")
        Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, format="PNG", optimize=True)
        if small.tell() <= MOST_BYTES:
            break
        figure.set_layout_engine("none")                       # what stands where is known now, and holds at every size
    return small.getvalue()
