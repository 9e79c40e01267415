"""Shows a long call in the terminal: a bar for decoding, one for training, a line for each row of statistics."""

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ganvas.watcher import Watcher, seen

SMOOTHING = 0.9                # of the speed shown


class TerminalWatcher(Watcher):
    """Draws with Rich; where output is no terminal, bars are left out and the lines remain."""

    def __init__(self, to_stderr: bool = False) -> None:
        """to_stderr: for commands whose answer on stdout another program reads."""
        self.console = Console(highlight=False, soft_wrap=True, stderr=to_stderr)
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[note]}"), TimeRemainingColumn(), console=self.console,
            disable=not self.console.is_terminal)
        self.bars: dict[str, TaskID] = {}
        self.last: tuple[float, int] | None = None
        self.speed = 0.0

    def tell(self, text: str) -> None:
        self.console.print(text, markup=False)

    def opening(self, done: int, total: int) -> None:
        self._bar("looking through", done, total, f"{done:,} / {total:,}")

    def packing(self, done: int, total: int) -> None:
        self._bar("decoding", done, total, f"{done:,} / {total:,} images")

    def comparing(self, done: int, total: int) -> None:
        self._bar("looking for twins", done, total, f"{done:,} / {total:,} comparisons")

    def working(self, what: str, done: int, total: int) -> None:
        self._bar(what, done, total, f"{done:,} / {total:,}")

    def training(self, nimg: int, goal: int, epoch: float, row: Mapping[str, Any] | None) -> None:
        now = time.monotonic()
        if self.last is not None and now > self.last[0]:
            speed = (nimg - self.last[1]) / (now - self.last[0])
            self.speed = SMOOTHING * self.speed + (1 - SMOOTHING) * speed if self.speed else speed
        self.last = (now, nimg)
        self._bar("training", nimg, goal, f"epoch {epoch:.1f}  {seen(nimg)}  {self.speed:,.0f} img/s")
        if row:
            self.tell(row_text(row))

    def _bar(self, name: str, done: int, total: int, note: str) -> None:
        if name not in self.bars:
            for other in self.bars.values():
                self.progress.remove_task(other)
            self.bars = {name: self.progress.add_task(name, total=total, note=note)}
            self.progress.start()
        self.progress.update(self.bars[name], completed=done, total=total, note=note)


def row_text(row: Mapping[str, Any]) -> str:
    """One line of statistics, in the order of the PyTorch tutorial, for a row of stats.jsonl."""
    def number(name: str) -> str:
        return f"{row[name]:.4f}" if row.get(name) is not None else "-"
    return (f"[epoch {row['epoch']:.2f}][step {row['step']}] Loss_D: {number('Loss_D')}  Loss_G: {number('Loss_G')}  "
            f"D(x): {number('D(x)')}  D(G(z)): {number('D(G(z))_before')} / {number('D(G(z))_after')}")
