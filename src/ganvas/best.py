"""The best checkpoint of a run: the one with the lowest measured figure among those that do not copy; kept in best.json."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from ganvas.files import write_whole
from ganvas.run_folder import RunFolder
from ganvas.watcher import seen

METRIC = "kid"                 # unbiased, so that few samples are enough to compare with


class Best(NamedTuple):
    """Which checkpoint, and by which figure."""

    nimg: int
    metric: str
    value: float
    extractor: str


def best_of(measurements: Sequence[dict[str, Any]], nimgs: Sequence[int] | None = None) -> Best | None:
    """The best of the rows of a metrics.jsonl, among those at `nimgs` (None = all); None where none qualifies.

    A row qualifies if it has the figure, and its samples copy no more than is allowed. The earlier of equals wins.
    """
    found = [row for row in measurements if qualifies(row) and (nimgs is None or row["nimg"] in nimgs)]
    if not found:
        return None
    row = min(found, key=lambda row: (row[METRIC], row["nimg"]))
    return Best(row["nimg"], METRIC, row[METRIC], str(row.get("extractor", "")))


def qualifies(row: dict[str, Any]) -> bool:
    """Whether a measurement may make its checkpoint the best: measured, and not a copier's."""
    return row.get(METRIC) is not None and not row.get("copies_over_limit")


def write_best(folder: RunFolder, best: Best | None) -> None:
    """Notes the best checkpoint in best.json; None removes the note."""
    if best is None:
        folder.best.unlink(missing_ok=True)
    else:
        write_whole(folder.best, json.dumps({"version": 1, **best._asdict()}, indent=2))


def read_best(folder: RunFolder) -> Best | None:
    """What best.json says, if its checkpoint is there; None where nothing was measured, or the note is damaged."""
    try:
        noted = json.loads(folder.best.read_text(encoding="utf-8"))
        best = Best(int(noted["nimg"]), str(noted["metric"]), float(noted["value"]), str(noted["extractor"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return best if folder.generator(best.nimg).is_file() else None


def which_of(folder: RunFolder, nimg: int) -> str:
    """What the checkpoint at `nimg` is among the run's, for people: the best, the last, or which these are."""
    best, checkpoints = read_best(folder), folder.list_checkpoints()
    last = checkpoints[-1][0] if checkpoints else nimg
    if best is None:
        return "the last checkpoint; none was measured" if nimg == last else f"the last is at {seen(last)}"
    if nimg == best.nimg:
        end = "also the last" if nimg == last else f"the last is at {seen(last)}"
        return f"the best checkpoint by {best.metric.upper()}; {end}"
    return f"{'the last checkpoint' if nimg == last else f'the last is at {seen(last)}'}; the best is at {seen(best.nimg)}"
