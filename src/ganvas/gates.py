"""Conditions on figures under which a command fails: `kid>0.05`, `coverage<.5`, `copies>0.02`."""

import difflib
import operator
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ganvas.errors import ConfigError
from ganvas.metrics.figures import LABELS

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}

FIGURES = (*LABELS, "copies")


class Gate(NamedTuple):
    """One condition; where it holds, the gate is shut."""

    metric: str
    comparison: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> "Gate":
        """Reads `METRIC>NUMBER`, also with <, >= and <=. Raises ConfigError, also for a figure that there never is."""
        match = re.fullmatch(r"\s*([A-Za-z_]+)\s*(>=|<=|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*", text)
        if not match:
            raise ConfigError(f"--fail-if {text}: write a figure, > or <, and a number, such as --fail-if 'kid>0.05'.")
        metric = match[1].lower()
        if metric not in FIGURES:
            close = difflib.get_close_matches(metric, FIGURES, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ConfigError(f"--fail-if {text}: there is no figure '{match[1]}'.{hint} Known: {', '.join(FIGURES)}.")
        return cls(metric, match[2], float(match[3]))

    def shut_by(self, value: float) -> bool:
        """Whether the condition holds for this value."""
        return _COMPARISONS[self.comparison](value, self.limit)

    def __str__(self) -> str:
        return f"{self.metric}{self.comparison}{self.limit:g}"


def shut_gates(gates: Iterable[Gate], value_of: Callable[[str], float | None], known: Iterable[str]) -> list[str]:
    """A line for each gate that is shut. Raises ConfigError for a figure that was not measured: a gate must not pass unseen."""
    told = []
    for gate in gates:
        value = value_of(gate.metric)
        if value is None:
            raise ConfigError(f"--fail-if {gate}: there is no figure '{gate.metric}' here. Measured were: {', '.join(known)}.")
        if gate.shut_by(value):
            told.append(f"--fail-if {gate}: {gate.metric} is {value:.4g}")
    return told
