"""What a run wrote about itself, as the rules of health ask for it: rows, windows, medians, the course of its figure."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from statistics import median
from typing import Any

Row = Mapping[str, Any]

# Loss_D where D gives logit 0 to everything (docs/training.md); least squares: where it gives 1/2.
UNDECIDED = {
    "nonsaturating": math.log(4), "minimax": math.log(4), "hinge": 2.0, "least_squares": 0.25, "relativistic": math.log(2)}
PROBABILITIES = ("nonsaturating", "minimax")      # losses under which sigmoid(logit) is what D was trained to give

WARM_UP_STEPS = 200       # D wins the first steps of every run, and pictures are noise
WINDOW_SHARE = 0.25       # of the run so far: a swing of a long run is longer than one of a short run ...
WINDOW_STEPS = (200, 2000)      # ... within these, so that a long run's fault is told before it has lasted for a quarter of it
WINDOW_ROWS = 4           # fewer have no median to speak of
LATELY = 3                # measurements
IMPROVES = 0.95           # of the figure before: a smaller fall is drift
NOW_SHARE = 8             # "now" is this part of the measurements, at least two, and "before" twice as many before those
SURE_ERRORS = 4.0         # errors of a difference: the best of many measurements is partly luck
SWING = 12                # measurements whose steps tell how much the figure swings
RUN_ROWS = 5              # rows among which a condition may fail twice and still count as unbroken


def number(row: Row, name: str) -> float | None:
    """The finite number of this name in a row; None where there is none."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def numbers(rows: Iterable[Row], name: str) -> list[float]:
    """The finite numbers of this name, in the order of the rows."""
    return [value for value in (number(row, name) for row in rows) if value is not None]


def at(nimg: float) -> str:
    """A number of images as people read it."""
    return f"{nimg / 1000:,.0f} kimg" if nimg >= 10_000 else f"{nimg:,.0f} images"


@dataclass(frozen=True)
class Course:
    """How the figure that a run is judged by (KID, or FID where there is none) went; lower is better."""

    name: str
    first: float
    best: float
    best_nimg: int
    now: float                     # median of the last measurements, all of them after the best
    error: float                   # of now - best: standard errors, and how far one measurement is usually from the next

    @property
    def is_worse(self) -> bool:
        return self.now - self.best > SURE_ERRORS * self.error

    @property
    def text(self) -> str:
        now = f"{self.name.upper()} is now {self.now:.3g} (it swings by {self.error:.2g})"
        return f"{now}, but was {self.best:.3g} after {at(self.best_nimg)}"


class Record:
    """The rows of stats.jsonl and metrics.jsonl, in the order of `nimg`; what has no `nimg` is left out.

    images: how many the run trains on; holdout: how many were kept out; batch, loss, r1_gamma: its options.
    """

    def __init__(self, stats: Iterable[Row], measurements: Iterable[Row], images: int, batch: int, loss: str, holdout: int,
                 r1_gamma: float = 0.0):
        self.stats, measured = _in_order(stats), _in_order(measurements)
        self.images, self.batch, self.loss, self.holdout, self.r1_gamma = images, batch, loss, holdout, r1_gamma
        extractor = measured[-1].get("extractor") if measured else None
        self.measured = [row for row in measured if row.get("extractor") == extractor]     # figures of two cannot be compared

    @cached_property
    def undecided(self) -> float | None:
        """Loss_D of a D that cannot decide, or the first row's where that is less (plan.d_scale); None for an own loss."""
        known = UNDECIDED.get(self.loss)
        first = numbers(self.stats, "Loss_D")[:1]
        return min([known, *first]) if known and all(loss > 0 for loss in first) else known

    @cached_property
    def logit_spread(self) -> float | None:
        """Standard deviation of D's logits over training reals, as lately measured."""
        spreads = numbers(self.measured, "logit_std")[-LATELY:]
        return median(spreads) or None if spreads else None

    def window(self) -> list[Row]:
        """The rows of statistics that count as now; none in the run's first steps, or where there are too few."""
        if not self.stats:
            return []
        last = self.stats[-1]["nimg"]
        least, most = (steps * self.batch for steps in WINDOW_STEPS)
        start = last - min(max(WINDOW_SHARE * last, least), most)
        rows = [row for row in self.stats if row["nimg"] > start]
        return rows if start >= WARM_UP_STEPS * self.batch and len(rows) >= WINDOW_ROWS else []

    def lately(self, *names: str) -> list[Row]:
        """The last measurements that have all these numbers, at most LATELY; none where fewer than two come after the warm-up."""
        rows = [row for row in self.measured if all(number(row, name) is not None for name in names)][-LATELY:]
        rows = [row for row in rows if row["nimg"] > WARM_UP_STEPS * self.batch]
        return rows if len(rows) >= 2 else []

    def since(self, rows: Sequence[Row], holds: Callable[[Row], bool]) -> int:
        """From which image on `holds` is true of the rows up to the last, but for two rows in RUN_ROWS."""
        truths = [holds(row) for row in rows]
        begin = len(rows) - 1
        for i in range(len(rows) - 1, -1, -1):
            if sum(truths[i : i + RUN_ROWS]) < min(RUN_ROWS, len(rows) - i) - 2:
                break
            if truths[i]:
                begin = i
        return int(rows[begin]["nimg"])

    @cached_property
    def _figures(self) -> tuple[str, list[Row]]:
        by_name = {name: [row for row in self.measured if number(row, name) is not None] for name in ("kid", "fid")}
        name = max(by_name, key=lambda name: len(by_name[name]))          # kid where there are as many of both
        return name, by_name[name]

    def course(self) -> Course | None:
        """The figure from first to best to now; None with less than two measurements after the best."""
        name, rows = self._figures
        if len(rows) < 3:
            return None
        marked = [row for row in rows if row.get("best") is True]
        best = marked[-1] if marked else min(rows, key=lambda row: row[name])
        later = [row for row in rows if row["nimg"] > best["nimg"]][-LATELY:]
        if len(later) < 2:
            return None
        errors = [number(best, "kid_error") or 0.0, median(numbers(later, "kid_error") or [0.0])] if name == "kid" else []
        error = math.hypot(_swing(rows, name), *errors)
        return Course(name, rows[0][name], best[name], int(best["nimg"]), median(numbers(later, name)), error)

    def improves(self) -> bool | None:
        """Whether the figure is now clearly below what it was at first and a while before; None with less than four of them.

        The first: a generator that unlearns what an untrained one gives and slowly comes back to it has not learnt anything yet.
        """
        name, rows = self._figures
        if len(rows) < 4:
            return None
        size = max(2, len(rows) // NOW_SHARE)
        now, before = median(numbers(rows[-size:], name)), median(numbers(rows[-3 * size : -size], name))
        error = median(numbers(rows[-3 * size:], "kid_error") or [0.0]) if name == "kid" else 0.0
        return now < rows[0][name] and before - now > max((1 - IMPROVES) * abs(before), 2 * error, _swing(rows, name))

    def no_better(self) -> str:
        """For a sentence: that the figure does not improve, with its last values."""
        name, rows = self._figures
        return f"{name.upper()} does not improve ({', '.join(f'{value:.3g}' for value in numbers(rows[-4:], name))})"

    def looks_bad(self, half: float, unlike_db: float, believable: float) -> bool:
        """Whether the figure is still above `half` of its first value, or the samples' spectrum further off than `unlike_db` and
        fewer than the share `believable` of them near to reals."""
        name, rows = self._figures
        figures, lately = numbers(rows, name), self.lately("spectrum_db")
        precision = numbers(lately, "precision")
        is_off = bool(lately) and median(numbers(lately, "spectrum_db")) > unlike_db
        is_off = is_off and (not precision or median(precision) < believable)
        return is_off or (len(figures) >= 4 and median(figures[-LATELY:]) > half * figures[0] > 0)

    def shown(self, rows: Iterable[Row], name: str) -> str:
        """The median of a statistic, for a sentence."""
        values = numbers(rows, name)
        return f"{median(values):.3g}" if values else "unknown"


def _swing(rows: Sequence[Row], name: str) -> float:
    """How far a measurement is usually from the one before: checkpoints differ by more than the figure's standard error."""
    return median(abs(b - a) for a, b in pairwise(numbers(rows, name)[-SWING:]))


def _in_order(rows: Iterable[Row]) -> list[Row]:
    return sorted((row for row in rows if number(row, "nimg") is not None), key=lambda row: row["nimg"])
