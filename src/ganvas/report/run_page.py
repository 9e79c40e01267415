"""A run as one HTML page that a person wants to read: what came out, how good that is, how it went, how to make it again."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from ganvas.config import RunConfig, from_yaml, make_config
from ganvas.data.source_base import printable
from ganvas.errors import ConfigError
from ganvas.metrics.health_record import PROBABILITIES
from ganvas.presets import load_preset
from ganvas.recipe import table
from ganvas.report.frames import Shown, frames, picture
from ganvas.report.log import read_rows
from ganvas.report.pages import write_html
from ganvas.report.plots import figure, number
from ganvas.report.records import Best, Diagnosis, Environment, Evaluation, Sheet, read_record
from ganvas.report.run_figures import measured, measured_plots, training_plots
from ganvas.report.verdict import judge, percent, standing_of
from ganvas.run_folder import RunFolder
from ganvas.watcher import duration, seen

# What the page may weigh, in characters: 8 MB with curves and text.
_FRAMES_CHARS = 4_500_000
_NEIGHBOURS_CHARS = 1_500_000
_REALS_CHARS = 800_000
_NEIGHBOURS_PX = 1400                  # its captions are small

_DIAGNOSES = 20
_IN_MEMORY = ("the array", "the tensor", "the list", "the dataset ")       # what data/ calls a source that is no path
_OF_THE_MACHINE = ("preset", "data.source", "execution.")      # not among the settings that differ

class Setting(NamedTuple):
    """An option that differs from the preset or the default."""

    option: str
    value: str
    usual: str
    meaning: str


class File(NamedTuple):
    """A file of the run beside the page; `link` = "" for what no browser opens."""

    name: str
    link: str
    what: str
    size: str


def write_report(folder: RunFolder, *, diagnoses: Sequence[Mapping[str, Any]]) -> Path:
    """Writes report.html from what lies in the run folder, under 8 MB, and returns its path.

    diagnoses: dicts with name, severity (problem or warning), since (nimg), evidence, advice. The page needs no network and
    no other file. Of what is missing or damaged it says so, and which command makes it. Raises OSError where the disk refuses.
    """
    write_html(folder.report, "run_page.html.j2", _content(folder, [_diagnosis(found) for found in diagnoses]))
    return folder.report


def _content(folder: RunFolder, diagnoses: list[Diagnosis]) -> dict[str, Any]:
    """What the template shows."""
    stats, measurements = read_rows(folder.stats), read_rows(folder.metrics)
    best, best_fault = read_record(folder.best, Best)
    evaluation, evaluation_fault = read_record(folder.evaluation, Evaluation)
    sheet, sheet_fault = read_record(folder.sheet, Sheet)
    execution, execution_fault = read_record(folder.execution, Environment)
    config, config_fault = _config(folder)
    checkpoints = folder.list_checkpoints()
    trained = max([int(number(row, "nimg") or 0) for row in stats]
                  + [nimg for nimg, _ in (*checkpoints, *folder.list_grids())], default=0)
    run = _argument(folder)
    standing = standing_of(evaluation, best, checkpoints[-1][0] if checkpoints else None) if evaluation else None
    again = f"ganvas train --config {run} --out {_again(folder)}"
    return {
        "name": folder.path.resolve().name or str(folder.path), "path": str(folder.path), "run": run, "trained": trained,
        "verdict": judge(evaluation, diagnoses, best, trained, standing), "standing": standing,
        "facts": _facts(config, stats, trained, execution),
        **_samples(folder, config, stats, measurements, best, trained),
        "diagnoses": diagnoses[:_DIAGNOSES], "diagnoses_more": len(diagnoses[_DIAGNOSES:]),
        "looked_at": (len(stats), len(measurements)),
        "evaluation": evaluation, "faults": {"best": best_fault, "evaluation": evaluation_fault, "sheet": sheet_fault,
                                             "execution": execution_fault, "config": config_fault},
        **measured(evaluation, measurements, best),
        "neighbours": picture(folder.neighbours, _NEIGHBOURS_CHARS, _NEIGHBOURS_PX),
        "neighbours_there": folder.neighbours.is_file(),
        "plots": training_plots(stats, best, trained, config is None or config.train.loss in PROBABILITIES),
        "measured_plots": measured_plots(measurements, best, trained),
        "best": best, "sheet": sheet, "data_page": folder.data_page.name if folder.data_page.is_file() else "",
        **_settings(config), "config_text": _text(folder.config),
        "why": list(execution.why.values()) if execution else [],
        "environment": execution.environment if execution else {},
        "by_hand": _by_hand(config), "command": again, "start": again if config else f"ganvas train SOURCE --out {run}",
        "unwritable": run == ".", "files": _files(folder), "seen": seen, "number": figure, "percent": percent,
    }


def _diagnosis(found: Mapping[str, Any]) -> Diagnosis:
    try:
        return Diagnosis.model_validate(dict(found))
    except ValidationError as error:
        raise ValueError(f"a diagnosis needs name, severity, since, evidence and advice; got {dict(found)!r}") from error


# The run in words.

def _config(folder: RunFolder) -> tuple[RunConfig | None, str]:
    """The run's options; or None, and why they cannot be read ("" = there are none)."""
    try:
        return make_config(from_yaml(folder.config.read_text(encoding="utf-8"), folder.config.name)), ""
    except FileNotFoundError:
        return None, ""
    except (OSError, ConfigError, UnicodeDecodeError) as error:
        return None, f"{folder.config.name} cannot be read: {error}"


def _text(path: Path) -> str:
    """A text file as its lines are; "" where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _argument(folder: RunFolder) -> str:
    """The run folder as one word for a shell; "." where its name has bytes that no page can show."""
    return shlex.quote(str(folder.path)) if printable(str(folder.path)) == str(folder.path) else "."


def _again(folder: RunFolder) -> str:
    """A new folder beside the run's."""
    return "../again" if _argument(folder) == "." else shlex.quote(f"{folder.path}-again")


def _by_hand(config: RunConfig | None) -> str:
    """Why the command alone does not make the run again; "" where it does."""
    if config is None:
        return ""
    if config.network.family == "custom":
        return "it trained networks of your own, so call ganvas.train with generator= and discriminator= and this config"
    if config.train.loss == "custom":
        return "it trained with a loss of your own, so call ganvas.train with loss= and this config"
    if config.data.source.startswith(_IN_MEMORY):
        return f"its images were {config.data.source} of a Python program, so call ganvas.train with them and this config"
    return ""


def _facts(config: RunConfig | None, stats: Sequence[Mapping[str, Any]], trained: int,
           execution: Environment | None) -> list[tuple[str, str]]:
    """(what, text) to stand right under the title."""
    last = stats[-1] if stats else {}
    epoch, elapsed, step, nimg = (number(last, key) for key in ("epoch", "elapsed_sec", "step", "nimg"))
    if nimg:                                       # the last row of statistics is older than the last checkpoint
        epoch, step = (value and value * trained / nimg for value in (epoch, step))
    facts = [("trained on", f"{seen(trained)}" + (f", {epoch:,.1f} epochs" if epoch else ""))] if trained else []
    if config is not None:
        done = {"kimg": trained / 1000, "epochs": epoch, "steps": step}[config.length.unit]
        if done is not None and trained and done < 0.99 * config.length.value:
            facts.append(("planned", f"{config.length}: not finished yet"))
    if elapsed:
        asked = f" of --time {duration(execution.time_sec)}" if execution and execution.time_sec else ""
        facts.append(("time", duration(elapsed) + asked))
    if config is not None:
        images = f"{execution.images:,} as " if execution and execution.images else ""
        held_out = f", {execution.holdout:,} held out" if execution and execution.holdout else ""
        facts += [("images", f"{config.data.source}: {images}{config.data.size}, {config.data.channels} channel"
                   + ("s" if config.data.channels > 1 else "") + held_out),
                  ("preset", config.preset or "none: chosen from the images")]
    return facts


# Pictures.

def _samples(folder: RunFolder, config: RunConfig | None, stats: Sequence[Mapping[str, Any]],
             measurements: Sequence[Mapping[str, Any]], best: Best | None, trained: int) -> dict[str, Any]:
    """The frames with their captions, which of them is the best, and the real images beside them."""
    grids = folder.list_grids()
    shown = frames(grids, [best.nimg] if best else [], _FRAMES_CHARS)
    ends = [(nimg, epoch) for row in stats if (nimg := number(row, "nimg")) and (epoch := number(row, "epoch"))]
    epochs_per_image = ends[-1][1] / ends[-1][0] if ends else 0.0
    figures = {number(row, "nimg"): number(row, "kid") for row in measurements}

    def caption(frame: Shown) -> str:
        parts = [seen(frame.nimg) if frame.nimg else "before training"]
        if epochs_per_image and frame.nimg:
            parts.append(f"epoch {frame.nimg * epochs_per_image:,.1f}")
        if figures.get(frame.nimg) is not None:
            parts.append(f"KID {figure(figures[frame.nimg])}")
        return ", ".join(parts)

    best_frame = min(range(len(shown)), key=lambda index: abs(shown[index].nimg - best.nimg)) if best and shown else None
    return {
        "frames": [(frame, caption(frame)) for frame in shown], "frames_of": len(grids), "best_frame": best_frame,
        "reals": picture(folder.reals_grid, _REALS_CHARS), "grid_n": config.output.grid_n if config else None,
        "reals_inside": config is not None and config.output.grid_reals,
        "fresh": config is not None and config.output.grid_z == "fresh",
    }


# Settings and files.

def _settings(config: RunConfig | None) -> dict[str, Any]:
    """What differs from the preset (without one: from the defaults), and all options with their meaning."""
    if config is None:
        return {"differing": [], "options": [], "compared_with": ""}
    compared_with, values = "the defaults", {}
    if config.preset:
        try:
            values, compared_with = load_preset(config.preset).values, config.preset
        except ConfigError:                        # a preset that this version no longer has
            compared_with = f"the defaults ({config.preset} is no preset of this version)"
    options = table(config)
    usual = {name: value for name, value, _ in table(make_config(values))}
    differing = [Setting(name, value, usual[name], meaning) for name, value, meaning in options
                 if value != usual[name] and not name.startswith(_OF_THE_MACHINE)]
    return {"differing": differing, "options": options, "compared_with": compared_with}


def _files(folder: RunFolder) -> list[File]:
    """What lies in the run folder, with what it is good for."""
    known = [
        (folder.config, "all options; goes into --config"), (folder.execution, "what machine and clock decided"),
        (folder.stats, "a line of statistics for each row of the log"), (folder.metrics, "what was measured on the way"),
        (folder.best, "which checkpoint is the best"), (folder.evaluation, "the evaluation's figures"),
        (folder.data_page, "the data sheet, with pictures"), (folder.sheet, "the data sheet's rows"),
        (folder.images, "each image with its part: training, held out, left out"),
        (folder.curves, "losses and D's opinion"), (folder.gif, "the progress pictures, animated"),
        (folder.mp4, "the same as a video"), (folder.neighbours, "samples beside the nearest training images"),
        (folder.reals_grid, "real images"), (folder.latest_grid, "the newest progress picture"),
    ]
    files = [_file(folder, path, what) for path, what in known if path.is_file()]
    checkpoints = folder.list_checkpoints()
    if checkpoints:
        total = sum(path.stat().st_size for _, path in checkpoints)
        at = ", ".join(seen(nimg) for nimg, _ in checkpoints[-6:])
        files.append(File(f"{folder.checkpoints.name}/", "", f"{len(checkpoints):,} training states: {at}", _size(total)))
    return files


def _file(folder: RunFolder, path: Path, what: str) -> File:
    name = path.relative_to(folder.path).as_posix()
    opens = path.suffix in (".html", ".png", ".gif", ".mp4")
    return File(name, name if opens else "", what, _size(path.stat().st_size))


def _size(size_bytes: int) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:.3g} {name}"
    return f"{size_bytes} bytes"
