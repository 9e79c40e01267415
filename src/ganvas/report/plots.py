"""Curves for the report's page: rows of figures become paths of an inline SVG, ticks in percent, and points to read out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Rows = Sequence[Mapping[str, Any]]

WIDTH, HEIGHT = 1000, 300              # of the SVG's own units; the page stretches them, so texts and dots are not in it
SMOOTH_FROM = 60                       # with fewer points, the line itself is readable
MOST_POINTS = 240                      # of a line: as many as a pointer can tell apart
LOG_FROM = 30                          # greatest / least value from which on a curve needs a logarithmic axis
_ROOM_RIGHT = 1.012                    # so that the last point is not cut through
_HUGE, _TINY = 1e100, 1e-30
_ROOM = 0.06                           # of the height, above and below the curves
_Y_TICKS, _X_TICKS = 4, 5              # at most so many steps; five labels of x fit beside each other on a phone


class Line(NamedTuple):
    """What to draw: the key of the rows, its name, and the number of its colour."""

    key: str
    name: str
    colour: int
    error: str = ""                    # key of its standard error, drawn as a band


class Level(NamedTuple):
    """A straight line to compare with; "" = it needs no name. `filled`: below it is as good as can be."""

    value: float
    name: str
    filled: bool = False


class Path(NamedTuple):
    """One line as drawn."""

    name: str
    colour: int
    line: str                          # SVG path data, in units of WIDTH x HEIGHT
    faint: str                         # of the single rows behind a smoothed line; "" = the line shows them
    area: str                          # of the error, or of least and greatest where rows are taken together; "" = none
    dots: bool                         # few enough to show each


class Tick(NamedTuple):
    """A label of an axis, in percent of the plot from the left or from the top."""

    percent: float
    text: str


class Plot(NamedTuple):
    """All that the page needs to draw one curve. Values outside the limits leave the picture at its edge."""

    title: str
    meaning: str
    paths: list[Path]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    levels: list[tuple[float, str, bool]]        # percent from the top, name, filled
    best: float | None                           # percent from the left
    summary: str                                 # the curve in words
    points: dict[str, Any]                       # {"x": nimg, "percent": [...], "lines": [[name, colour, [text, ...]], ...]}
    logarithmic: bool


def number(row: Mapping[str, Any], key: str) -> float | None:
    """The number under `key` that can be drawn; None where there is none, or none of a size that arithmetic bears."""
    value = row.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and -_HUGE < value < _HUGE:
        return float(value)
    return None


def figure(value: float | None) -> str:
    """A number with three significant digits, as people write it; whole ones without a point."""
    if value is None:
        return "–"
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite"
    if value == 0 or abs(value) < 1e-12:
        return "0"
    if abs(value) >= 1000 or value == round(value):
        text = f"{value:,.0f}"
    elif abs(value) < 1e-4:
        text = f"{value:.2g}"
    else:
        text = f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
    return text.replace("-", "−", 1) if value < 0 else text


def round_figure(value: float) -> str:
    """A chosen number, such as a tick or a limit: without the zeros at its end."""
    text = figure(value)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def thousands(nimg: float) -> str:
    """Images on an axis: "500", "20k", "1.5M"."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if nimg >= unit:
            return f"{nimg / unit:.6g}{name}"
    return f"{nimg:.6g}"


def plot(title: str, meaning: str, rows: Rows, lines: Sequence[Line], x_end: float, *, best: int | None = None,
         levels: Sequence[Level] = (), limits: tuple[float, float] | None = None, may_be_log: bool = False) -> Plot | None:
    """The curves of `lines` over the images seen, from 0 to `x_end`; None where no row has a value of theirs.

    rows: dicts with `nimg`; what is missing, None or not finite is left out. Above SMOOTH_FROM rows the lines are smoothed
    (Gaussian mean over a fiftieth of the points to either side) in front of the rows themselves.
    """
    rows = [row for row in rows if number(row, "nimg") is not None]
    x_end = max(x_end, 1.0) * _ROOM_RIGHT
    series = [(line, *_series(rows, line.key)) for line in lines]
    series = [(line, x, y) for line, x, y in series if len(y)]
    if not series:
        return None
    everything = np.concatenate([y for _, _, y in series] + [np.array([level.value for level in levels])])
    logarithmic = may_be_log and everything.min() > _TINY and everything.max() / everything.min() > LOG_FROM
    low, high = limits or _limits(everything, [y for _, _, y in series], logarithmic)

    def down(values: Values) -> Values:
        """Values to units from the top."""
        scaled = np.log10(np.maximum(values, low / 1e3)) if logarithmic else values
        bottom, top = (math.log10(low), math.log10(high)) if logarithmic else (low, high)
        return HEIGHT * (1 - (scaled - bottom) / (top - bottom))

    def across(nimg: Values) -> Values:
        return WIDTH * nimg / x_end

    def percent(value: float) -> float:
        return float(down(np.array([value]))[0]) / HEIGHT * 100

    paths = [_path(line, rows, x, y, down, across) for line, x, y in series]
    rounds = (_log_ticks if logarithmic else _ticks)(low, high, _Y_TICKS)
    y_ticks = [Tick(percent(value), round_figure(value)) for value in rounds]
    return Plot(
        title, meaning, paths,
        [Tick(100 * nimg / x_end, thousands(nimg)) for nimg in _ticks(0, x_end, _X_TICKS)],
        [tick for tick in y_ticks if -0.1 <= tick.percent <= 100.1],
        [(percent(level.value), level.name and f"{level.name} {round_figure(level.value)}", level.filled) for level in levels],
        100 * best / x_end if best is not None and best <= x_end else None,
        f"{title}. " + "; ".join(f"{line.name}: first {figure(float(y[0]))}, last {figure(float(y[-1]))}, "
                                 f"from {figure(float(y.min()))} to {figure(float(y.max()))}" for line, _, y in series) + ".",
        _points(rows, [line for line, _, _ in series], x_end), bool(logarithmic))


def _series(rows: Rows, key: str) -> tuple[Values, Values]:
    """(nimg, value) of every row that has a finite value of `key`."""
    pairs = [(number(row, "nimg"), value) for row in rows if (value := number(row, key)) is not None]
    x, y = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return x, y


def _path(line: Line, rows: Rows, x: Values, y: Values, down: Any, across: Any) -> Path:
    starts = _groups(len(y))
    counts = np.diff(np.append(starts, len(y)))
    mean_x, mean_y = np.add.reduceat(x, starts) / counts, np.add.reduceat(y, starts) / counts
    faint = area = ""
    if line.error:
        spread = [(number(row, line.key), number(row, line.error), number(row, "nimg")) for row in rows]
        known = np.array([(at, value - abs(error), value + abs(error)) for value, error, at in spread
                          if value is not None and error is not None and at is not None]).reshape(-1, 3)
        area = _area(across(known[:, 0]), down(known[:, 1]), down(known[:, 2])) if len(known) > 1 else ""
    elif len(starts) < len(y):
        area = _area(across(mean_x), down(np.minimum.reduceat(y, starts)), down(np.maximum.reduceat(y, starts)))
    elif len(y) >= SMOOTH_FROM:
        faint = _d(across(x), down(y))
    if len(y) >= SMOOTH_FROM:
        mean_y = _smooth(mean_y)
    return Path(line.name, line.colour, _d(across(mean_x), down(mean_y)), faint, area, len(y) < SMOOTH_FROM)


def _groups(n: int) -> npt.NDArray[np.intp]:
    """Where each of at most MOST_POINTS equal groups of n points starts."""
    return np.unique(np.linspace(0, n, min(n, MOST_POINTS), endpoint=False).astype(np.intp))


def _smooth(values: Values) -> Values:
    sigma = len(values) / 50
    reach = np.arange(-int(3 * sigma), int(3 * sigma) + 1)
    kernel = np.exp(-0.5 * (reach / sigma) ** 2)
    smoothed: Values = np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")
    return smoothed


def _limits(everything: Values, series: Sequence[Values], logarithmic: bool) -> tuple[float, float]:
    """Least and greatest value to show, with some room; of many points, a few wild ones may leave the picture."""
    low, high = float(everything.min()), float(everything.max())
    together = np.concatenate(list(series))
    if len(together) >= SMOOTH_FROM and not logarithmic:
        least, most = np.percentile(together, (0.5, 99.5))
        margin = 0.25 * (most - least)
        levels = everything[len(together):]
        low, high = max(low, min(least - margin, *levels, least)), min(high, max(most + margin, *levels, most))
    if logarithmic:
        room = (high / low) ** _ROOM
        return low / room, high * room
    room = _ROOM * (high - low) if high - low > 1e-9 * max(abs(low), abs(high), _TINY) else 0.1 * abs(high) or 1.0
    return low - room, high + room


def _ticks(low: float, high: float, most: int) -> Iterator[float]:
    """Round numbers between the limits, at most `most` steps apart."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        yield index * step


def _log_ticks(low: float, high: float, most: int) -> Iterator[float]:
    """Powers of ten, every second or third where there are many, with 2 and 5 between them where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, math.ceil((last - first) / (most + 1)))
    for power in range(first, last + 1, every):
        for factor in (1, 2, 5) if last - first <= 2 else (1,):
            if low <= factor * 10.0 ** power <= high:
                yield factor * 10.0 ** power


def _d(x: Values, y: Values) -> str:
    """SVG path data of a line; of one point, a line without length, which round caps make a dot."""
    text = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, np.clip(y, -HEIGHT, 2 * HEIGHT), strict=True))
    return f"M{text}" + ("h0" if len(x) == 1 else "")


def _area(x: Values, low: Values, high: Values) -> str:
    return _d(np.concatenate([x, x[::-1]]), np.concatenate([high, low[::-1]])) + "Z"


def _points(rows: Rows, lines: Sequence[Line], x_end: float) -> dict[str, Any]:
    """What a pointer reads: at each of at most MOST_POINTS places the images seen, the epoch, and the mean of each line."""
    having = [row for row in rows if any(number(row, line.key) is not None for line in lines)]
    starts = _groups(len(having)).tolist()
    groups = [having[start:end] for start, end in zip(starts, [*starts[1:], len(having)], strict=True)]

    def mean(group: Rows, key: str) -> float | None:
        values = [value for row in group if (value := number(row, key)) is not None]
        return sum(values) / len(values) if values else None

    places = [mean(group, "nimg") or 0.0 for group in groups]
    epochs = [mean(group, "epoch") for group in groups]
    return {
        "percent": [round(100 * nimg / x_end, 2) for nimg in places],
        "x": [f"{round(nimg):,} images" + (f", epoch {figure(epoch)}" if epoch is not None else "")
              for nimg, epoch in zip(places, epochs, strict=True)],
        "lines": [[line.name, line.colour, [figure(mean(group, line.key)) for group in groups]] for line in lines],
    }
