"""Draws how the losses, D's opinion and the gradients went: curves.png."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from ganvas.files import whole_file

Series = npt.NDArray[np.float64]

LOSSES = {"Loss_D": ("Loss_D", "#1f6fb4"), "Loss_G": ("Loss_G", "#d1495b")}          # key of a row -> (label, colour)
OPINIONS = {
    "D(x)": ("D(x): reals", "#2b8a4b"),
    "D(G(z))_before": ("D(G(z)): fakes, before D learned from them", "#e08e1b"),
    "D(G(z))_after": ("D(G(z)): fakes, after", "#7a4fb5"),
}

LOGITS = {"logit_real": ("reals", "#2b8a4b"), "logit_fake": ("fakes, before D learned from them", "#e08e1b")}
GRADIENTS = {"grad_D": ("grad_D", "#1f6fb4"), "grad_G": ("grad_G", "#d1495b")}

SMOOTH_FROM = 60        # with fewer points, the line itself is readable
MOST_POINTS = 2000      # more than the picture has columns


def plot_curves(
    path: Path, rows: Sequence[Mapping[str, Any]], best_nimg: int | None = None, probabilities: bool = True,
) -> None:
    """Writes a PNG over thousands of real images: losses, D's mean probabilities, its mean logits, and lengths of gradients.

    probabilities: whether the loss makes D's logits such; else only the logits are shown, of which differences alone count.
    rows: as `report.log.read_rows` gives them: `nimg` in each, `epoch` and the keys of the four panels where there are any.
    A panel of logits or gradients without a value is left out, as in runs of before they were written. Missing, None and
    non-finite values are left out. Many points are drawn thin, with their smoothed course.
    best_nimg: where the best checkpoint stands; marked in each panel. Does nothing without rows.
    """
    if not rows:
        return
    shown = [LOSSES, *([OPINIONS] if probabilities else [])]
    shown += [lines for lines in (LOGITS, GRADIENTS) if any(len(_series(rows, key)[0]) for key in lines)]
    figure = Figure(figsize=(9, 1.2 + 2.6 * len(shown)), dpi=130, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for axes, lines in zip(panels, shown, strict=True):
        _draw(axes, rows, lines, is_lowest=axes is panels[-1])
        if best_nimg is not None:
            axes.axvline(best_nimg / 1000, color="#7a4fb5", linewidth=1.2, linestyle=(0, (4, 2)), zorder=1)
    last_nimg = max(row["nimg"] for row in rows)
    if best_nimg is not None:
        is_late = best_nimg > 0.7 * last_nimg           # then the words stand to its left, lest they leave the picture
        panels[0].annotate(
            "best checkpoint", (best_nimg / 1000, 1), xycoords=("data", "axes fraction"), xytext=(-4 if is_late else 4, -4),
            textcoords="offset points", ha="right" if is_late else "left", va="top", color="#7a4fb5")
    panels[0].set_ylabel("loss")
    _limit_to_most(panels[0], rows)
    for axes, lines in zip(panels[1:], shown[1:], strict=True):
        if lines is OPINIONS:
            axes.set_ylabel("probability of being real")
            axes.set_ylim(-0.02, 1.02)
            axes.axhline(0.5, color="0.35", linestyle=(0, (1, 2)), linewidth=1.2, zorder=1)
        elif lines is LOGITS:
            axes.set_ylabel("mean logit" if probabilities else "mean logit: differences count")
        else:
            axes.set_ylabel("length of the gradient")
    panels[-1].set_xlim(0, max(1, last_nimg) / 1000 * 1.01)
    panels[-1].set_xlabel("real images seen, in thousands (kimg)")
    _add_epochs(panels[0], rows)
    with whole_file(path) as partial:
        figure.savefig(partial, format="png")


def _draw(axes: Axes, rows: Sequence[Mapping[str, Any]], lines: Mapping[str, tuple[str, str]], is_lowest: bool) -> None:
    axes.grid(True, color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("0.6")
    axes.tick_params(which="both", color="0.6", labelcolor="0.25")
    is_log = lines is GRADIENTS                     # they range over several powers of ten
    if is_log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
    for key, (label, color) in lines.items():
        kimg, values = _series(rows, key)
        if is_log:
            kimg, values = kimg[values > 0], values[values > 0]
        if not len(values):
            continue
        if len(values) < SMOOTH_FROM:
            axes.plot(kimg, values, color=color, linewidth=1.8, marker="o", markersize=3.2, label=label)
        else:
            axes.plot(*_envelope(kimg, values), color=color, linewidth=0.6, alpha=0.28)
            smooth_kimg, smooth = _smooth(kimg, np.log(values) if is_log else values)
            axes.plot(smooth_kimg, np.exp(smooth) if is_log else smooth, color=color, linewidth=2, label=label)
    if axes.lines:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2 if is_lowest else -0.02), ncols=len(lines),
                    frameon=False)


def _series(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[Series, Series]:
    """(kimg, value) of every row that has a finite value of `key`."""
    pairs = [(row["nimg"] / 1000, row[key]) for row in rows if row.get(key) is not None]
    kimg, values = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    finite = np.isfinite(values)
    return kimg[finite], values[finite]


def _bins(n: int) -> npt.NDArray[np.intp]:
    """Where each of at most MOST_POINTS equal groups of n points starts."""
    return np.unique(np.linspace(0, n, min(n, MOST_POINTS), endpoint=False).astype(np.intp))


def _envelope(kimg: Series, values: Series) -> tuple[Series, Series]:
    """A line with as many turns as can be seen, which keeps every peak: least and greatest of each group."""
    if len(values) <= MOST_POINTS:
        return kimg, values
    starts = _bins(len(values))
    lowest, highest = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    return kimg[starts].repeat(2), np.stack([lowest, highest], axis=1).ravel()


def _smooth(kimg: Series, values: Series) -> tuple[Series, Series]:
    """Gaussian mean over a fiftieth of the points to either side; at the ends over those that are there."""
    starts = _bins(len(values))
    counts = np.diff(np.append(starts, len(values)))
    kimg, values = np.add.reduceat(kimg, starts) / counts, np.add.reduceat(values, starts) / counts
    sigma = len(values) / 50
    reach = np.arange(-int(3 * sigma), int(3 * sigma) + 1)
    kernel = np.exp(-0.5 * (reach / sigma) ** 2)
    return kimg, np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")


def _limit_to_most(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Keeps a few wild values, such as G's first losses, from flattening the rest: they leave the picture at its edge."""
    parts = [_series(rows, key)[1] for key in LOSSES]
    values = np.concatenate(parts)
    if len(values) < SMOOTH_FROM:
        return
    low, high = np.percentile(values, (0.5, 99.5))
    margin = 0.25 * (high - low) or 0.5
    axes.set_ylim(max(low - margin, values.min() - 0.2 * margin), min(high + margin, values.max() + 0.2 * margin))


def _add_epochs(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """A second axis above, if the rows count epochs."""
    kimg, epochs = _series(rows, "epoch")
    if not len(epochs) or epochs[-1] <= 0 or kimg[-1] <= 0:
        return
    epochs_per_kimg = epochs[-1] / kimg[-1]
    above = axes.secondary_xaxis("top", functions=(lambda x: x * epochs_per_kimg, lambda x: x / epochs_per_kimg))
    above.set_xlabel("epochs")
    above.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=epochs[-1] >= 5))
    above.spines["top"].set_color("0.6")
    above.tick_params(color="0.6", labelcolor="0.25")
