"""What a run gets when it ends: its curves and films, its evaluation, and the report that a person reads."""

import json
from collections.abc import Callable

from torch import nn

from ganvas import execution
from ganvas.best import read_best
from ganvas.config import RunConfig, make_config
from ganvas.config import from_yaml as values_from
from ganvas.dataset import Dataset
from ganvas.errors import ConfigError, GanvasError, RunError
from ganvas.evaluation import Options, evaluate_generator
from ganvas.files import write_whole
from ganvas.generator import load
from ganvas.measuring import Meter
from ganvas.metrics.health import diagnose
from ganvas.metrics.health_record import PROBABILITIES
from ganvas.metrics.health_rules import Diagnosis
from ganvas.report.log import read_rows
from ganvas.report.run_page import write_report
from ganvas.run_folder import RunFolder
from ganvas.watcher import Watcher

LEAST_N = 32                   # samples in a repetition; with fewer the figures of an unasked evaluation would say nothing
MOST_N = 2000
REPEATS = 5


def draw_end(folder: RunFolder, tell: Callable[[str], None]) -> None:
    """Draws curves.png, progress.gif and progress.mp4; a picture that cannot be made is told, and stops nothing."""
    from ganvas.report.animation import write_gif, write_mp4  # brings the video encoder
    from ganvas.report.curves import plot_curves  # brings matplotlib

    frames = [path for _, path in folder.list_grids()]
    best = read_best(folder)
    drawings: list[tuple[str, Callable[[], object]]] = [
        (str(folder.curves), lambda: plot_curves(
            folder.curves, read_rows(folder.stats), best and best.nimg, _config(folder).train.loss in PROBABILITIES)),
        (str(folder.gif), lambda: write_gif(folder.gif, frames)),
        (str(folder.mp4), lambda: write_mp4(folder.mp4, frames)),
    ]
    for path, draw in drawings:
        try:
            draw()
        except (OSError, RunError, ValueError, ImportError) as error:
            tell(f"{path} could not be made: {error}")


def evaluate_end(
    folder: RunFolder, config: RunConfig, dataset: Dataset, meter: Meter, budget_sec: float, watch: Watcher,
    own: nn.Module | None,
) -> None:
    """Evaluates the best checkpoint, as much as fits into `budget_sec`; without time for that, nothing. A failure is told.

    own: a copy of the user's own generator, for its layers; None = the run has one of Ganvas's.
    """
    if meter.plan is None or meter.per_sample_sec is None:
        return
    n = min(MOST_N, int(budget_sec / (REPEATS * meter.per_sample_sec)))
    if n < min(LEAST_N, config.measure.n):
        return
    try:
        found = evaluate_generator(
            load(folder.path, "best", own, config.execution.device), dataset,
            Options(n, REPEATS, config.measure.extractor, "train", config.train.seed, config.execution.device,
                    meter.plan.references),
            subject=str(folder.path), source=config.data.source, chosen="best" if read_best(folder) else "last",
            folder=folder, watch=watch)
    except GanvasError as error:
        watch.tell(f"not evaluated: {error}")
        return
    kid = next(figure for figure in found.figures if figure.metric == "kid")
    watch.tell(f"evaluated, {kid.n:,} samples: KID ({kid.extractor}) {kid.value:.4g} ({kid.low:.4g} … {kid.high:.4g}), reals get "
               f"{kid.floor:.4g}; copies: {found.copies.text if found.copies else 'not looked for'}")


def health(folder: RunFolder) -> list[Diagnosis]:
    """What ails the run, by what its folder holds. Raises RunError where its config.yaml cannot be read."""
    train = _config(folder).train
    return diagnose(
        read_rows(folder.stats), read_rows(folder.metrics), images=execution.noted(folder, "images") or 0,
        batch=train.batch, loss=train.loss, holdout=execution.noted(folder, "holdout") or 0, r1_gamma=train.r1_gamma)


def _config(folder: RunFolder) -> RunConfig:
    """The run's options. Raises RunError where they cannot be read."""
    try:
        values = values_from(folder.config.read_text(encoding="utf-8"), str(folder.config))
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{folder.config}: cannot be read ({error}). Without it there is nothing to report.") from error
    try:
        return make_config(values)
    except ConfigError as error:
        raise RunError(f"{folder.config}: {error} Mend that line: the file should be as training wrote it.") from error


def report(folder: RunFolder) -> list[Diagnosis]:
    """Writes the run's report.html from all that its folder holds, and returns what ails the run.

    Raises RunError where it cannot be written, or config.yaml cannot be read.
    """
    found = health(folder)
    try:
        write_report(folder, diagnoses=[diagnosis.as_dict() for diagnosis in found])
    except OSError as error:
        raise RunError(f"{folder.report}: cannot be written ({error.strerror or error}). Free the disk, and write it with "
                       f"`ganvas report {folder.path}`.") from error
    return found


def write_sheet(folder: RunFolder, dataset: Dataset) -> None:
    """Writes the data sheet's rows into data.json, for the report."""
    write_whole(folder.sheet, json.dumps({"version": 1, "rows": dataset.sheet.rows()}, indent=1))
