"""Draws curves.png: the losses, and D's probabilities, over the run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ganvas.files import whole_file

SMOOTH_FROM = 40                   # rows from which a smoothed line is drawn over the raw one
CURVES = (                         # panel, name in the row, label, colour
    (0, "Loss_D", "Loss_D", "#1f77b4"),
    (0, "Loss_G", "Loss_G", "#d62728"),
    (1, "D(x)", "D(x)", "#1f77b4"),
    (1, "D(G(z))_after", "D(G(z)) after D's update", "#d62728"),
    (1, "D(G(z))_before", "D(G(z)) before", "#ff9f6e"),
)


def plot_curves(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes the picture of these rows of stats.jsonl; rows may lack a statistic. Does nothing without rows."""
    if not rows:
        return
    figure = Figure(figsize=(9, 6.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 1, sharex=True)
    for panel, name, label, colour in CURVES:
        points = [(row["nimg"] / 1000, row[name]) for row in rows if row.get(name) is not None]
        if points:
            kimg, values = np.array(points).T
            _line(panels[panel], kimg, values, label, colour)
    panels[0].set_ylabel("loss")
    panels[1].set_ylabel("probability of real")
    panels[1].axhline(0.5, color="#555555", linestyle=":", linewidth=1)
    panels[1].set_ylim(-0.02, 1.02)
    panels[1].set_xlabel("thousands of real images (kimg)")
    for panel in panels:
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    images_per_epoch = rows[-1]["nimg"] / 1000 / rows[-1]["epoch"] if rows[-1].get("epoch") else None
    if images_per_epoch:
        top = panels[0].secondary_xaxis(
            "top", functions=(lambda kimg: kimg / images_per_epoch, lambda epoch: epoch * images_per_epoch))
        top.set_xlabel("epochs")
    with whole_file(path) as partial:
        figure.savefig(partial, format="png")


def _line(axes: Axes, x: Any, y: Any, label: str, colour: str) -> None:
    if len(x) < SMOOTH_FROM:
        axes.plot(x, y, color=colour, label=label, marker="o" if len(x) == 1 else None, linewidth=1.6)
        return
    axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.8)
    width = max(3, len(x) // 25)
    ends = np.concatenate([np.full(width // 2, y[0]), y, np.full(width - 1 - width // 2, y[-1])])
    axes.plot(x, np.convolve(ends, np.ones(width) / width, mode="valid"), color=colour, label=label, linewidth=1.8)
