"""Evaluates, compares and reports runs and images that users name: what `evaluate`, `compare` and `report` call."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ganvas import execution
from ganvas.best import read_best
from ganvas.comparison import Comparison, compare_evaluations, refuse_other_images
from ganvas.config import RunConfig
from ganvas.data.sources import open_source
from ganvas.dataset import Dataset, changes_since, prepare
from ganvas.errors import ConfigError, DataError
from ganvas.evaluation import (
    Evaluation,
    Options,
    evaluate_against_features,
    evaluate_generator,
    evaluate_images,
    options_of_samples,
    read_evaluation,
)
from ganvas.generator import load
from ganvas.metrics.extractors import HARMLESS
from ganvas.request import Images, resolve
from ganvas.run_end import report
from ganvas.run_folder import RunFolder, open_run
from ganvas.watcher import Watcher

_WAY = ("n", "repeats", "split", "seed")       # in which evaluations must agree to be compared


def evaluate(
    run: str | Path | None = None, *, samples: str | Path | None = None, source: Images | None = None,
    reference: str | Path | None = None, checkpoint: str | int = "best", n: int = 2000, repeats: int = 5,
    extractor: str | Callable[..., Any] = "auto", split: str = "train", seed: int = 0, device: str = "cpu",
    generator: nn.Module | None = None, sheet: str | Path | None = None, save_features: str | Path | None = None,
    watch: Watcher | None = None, **data: Any,
) -> Evaluation:
    """How good a run's samples are, or any images: figures with intervals and floors, and whether training images are repeated.

    run: a run folder; its evaluation.json and neighbours.png are written. source: its images, where they have moved, or are
    no file. generator: your own module, for a run trained with one.
    samples: instead of a run: a folder, archive, .npz or .npy of any model's images, compared with `source` (options for
    reading it by short name: size, fit, transparency, labels, holdout, …) or with `reference`, a file that `save_features` made.
    n: samples and reals in each of `repeats` comparisons. extractor: auto, classifier, random, inception, inception:PATH,
    FILE.py:FUNCTION or a function. split: train, holdout or all. sheet: a PNG for samples beside their nearest training images.
    Raises GanvasError with a message for the user.
    """
    watch = watch or Watcher()
    options = Options(n, repeats, extractor, split, seed, device).check()
    save = None if save_features is None else Path(save_features)
    if samples is not None:
        if run is not None:
            raise ConfigError(f"evaluate: {run} is a run, and --samples {samples} are images: evaluate one of them at a time.")
        if reference is not None:
            idle = {"SOURCE": source, "--sheet": sheet, "--save-features": save_features,
                    "--split": None if split == "train" else split,
                    **{f"--{name.replace('_', '-')}": value for name, value in data.items() if name != "skip_bad"}}
            _refuse(f"--reference {reference}", "only features of the real images are at hand", idle)
            return evaluate_against_features(open_source(str(samples)), Path(reference), options,
                                             skip_bad=bool(data.get("skip_bad")), watch=watch)
        return _evaluate_samples(str(samples), source, options, data, None if sheet is None else Path(sheet), save, watch)
    if run is None:
        raise ConfigError("evaluate: name a run folder, or images as --samples with the real images they should look like.")
    if reference is not None:
        raise ConfigError(f"--reference {reference}: goes with --samples; a run is compared with its own images.")
    _refuse(f"evaluate {run}", "a run has its own neighbours.png", {"--sheet": sheet})
    if data:
        raise ConfigError(f"evaluate {run}: {', '.join(data)} cannot change, because the run's own options say how its images "
                          "are read.")
    return evaluate_run(Path(run), str(checkpoint), options, source=source, generator=generator, save=save, watch=watch)


def _refuse(what: str, why: str, given: dict[str, Any]) -> None:
    """Raises ConfigError that names the options of `given` that are there, but would be ignored."""
    idle = [f"{name} {value}" for name, value in given.items() if value is not None]
    if idle:
        raise ConfigError(f"{what}: {why}, so it does not go with {', '.join(idle)}. Leave that out.")


def evaluate_run(
    run: Path, checkpoint: str, options: Options, *, source: Images | None = None, generator: nn.Module | None = None,
    save: Path | None = None, watch: Watcher,
) -> Evaluation:
    """Evaluates a run's checkpoint as `evaluate` does, and writes its report anew."""
    folder = open_run(run)
    made = load(folder.path, checkpoint, generator, options.device)
    dataset = dataset_of(folder, made.config, source, watch)
    try:
        chosen = checkpoint if checkpoint != "best" or read_best(folder) is not None else "last"
        where = str(source) if isinstance(source, str | Path) else made.config.data.source
        found = evaluate_generator(made, dataset, options, subject=str(run), source=where, chosen=chosen, folder=folder,
                                   watch=watch, save=save)
    finally:
        dataset.pack.close()
    report(folder)
    return found


def dataset_of(folder: RunFolder, config: RunConfig, source: Images | None, watch: Watcher) -> Dataset:
    """The images that a run was trained on, divided as they were. Raises DataError where they are not there, or not the same."""
    where = config.data.source if source is None else source
    try:
        opened = open_source(where, config.data.labels, config.data.tile, config.data.frames, watch.opening)
    except DataError as error:
        hint = "" if source is not None else (f" If the run's images are elsewhere now, name them: "
                                                     f"`ganvas evaluate {folder.path} --data SOURCE`.")
        raise DataError(f"{error}{hint}") from error
    dataset = prepare(opened, config.data, watch.tell, watch.packing, watch.comparing, folder.images)
    trained_on = execution.noted(folder, "data_fingerprint")
    if trained_on is not None and trained_on != dataset.pack.fingerprint:
        changes = changes_since(folder.images, dataset.pack) or "images were added, removed or changed"
        dataset.pack.close()
        raise DataError(f"{opened.where}: is not what {folder.path} was trained on: {changes}. Its figures and its look for "
                        "copies would be wrong. Put the images back, or name a copy of them as --data.")
    return dataset


def _evaluate_samples(samples: str, source: Images | None, options: Options, data: dict[str, Any], sheet: Path | None,
                      save: Path | None, watch: Watcher) -> Evaluation:
    if source is None:
        raise ConfigError(f"--samples {samples}: name the real images too, those that the samples should look like: "
                          f"`ganvas evaluate --samples {samples} SOURCE`.")
    images = open_source(samples)
    own = options_of_samples(images)
    short = {"holdout": 0} | {name: value for name, value in data.items() if value is not None}
    given = {f"data.{name}" for name in short}
    own = {name: value for name, value in own.items() if name not in given}
    request = resolve(source, None, None, own, short, {"network.family": "custom", "execution.device": "cpu"}, tell=watch.tell,
                      opening=watch.opening)
    watch.tell(f"compared as {request.config.data.size}, {request.config.data.channels} channel"
               + ("s" if request.config.data.channels > 1 else ""))
    dataset = prepare(request.source, request.config.data, watch.tell, watch.packing, watch.comparing)
    try:
        return evaluate_images(images, dataset, request.config.data, options, source=request.source.where, watch=watch,
                               sheet=sheet, save=save)
    finally:
        dataset.pack.close()


def compare(
    runs: Sequence[str | Path], *, checkpoint: str = "best", again: bool = False, device: str = "cpu",
    watch: Watcher | None = None, **wanted: Any,
) -> Comparison:
    """Runs beside each other. Each is evaluated where it has not been in this way, or with `again`.

    wanted: fields of `Options` (n, repeats, extractor, split, seed). What is not given, or None, is as in the runs' own
    evaluations where these agree, or else as `evaluate` has it, with the greatest n among them: none is replaced by a smaller
    one. Raises GanvasError.
    """
    watch = watch or Watcher()
    wanted = {name: value for name, value in wanted.items() if value is not None and (name, value) != ("extractor", "auto")}
    Options(**wanted).check()
    folders = {name: open_run(Path(name)) for name in {Path(run).resolve(): str(run) for run in runs}.values()}
    if len(folders) < 2:
        raise ConfigError(f"compare: {', '.join(folders)} is a single run. Name at least two different ones.")
    trained_on = {name: execution.noted(folder, "data_fingerprint") for name, folder in folders.items()}
    refuse_other_images({name: images for name, images in trained_on.items() if images is not None})
    made = {name: load(folder.path, checkpoint) for name, folder in folders.items()}
    kept = {name: None if again else _kept(folder, wanted | {"checkpoint": made[name].nimg, "reals": None})
            for name, folder in folders.items()}
    if len({about and about.get("extractor_key") for about in kept.values()}) > 1:       # an extractor that one alone was seen by
        kept = {name: about if about and ("extractor" in wanted or about["extractor"] in HARMLESS) else None
                for name, about in kept.items()}
    whole = [about for about in kept.values() if about is not None]
    options = Options(device=device, **wanted)
    if len({tuple(about[name] for name in _WAY) for about in whole}) == 1:
        options = options._replace(**{name: whole[0][name] for name in _WAY if name not in wanted})
        if "extractor" not in wanted and whole[0]["extractor"] in HARMLESS:        # others may be files that run: not from there
            options = options._replace(extractor=whole[0]["extractor"])
    elif "n" not in wanted:
        options = options._replace(n=max([options.n, *(about["n"] for about in whole)]))
    evaluated = []
    for run, folder in folders.items():
        about = kept[run]
        if about is None or any(about[name] != getattr(options, name) for name in _WAY):
            watch.tell(f"evaluating {run}")
            about = evaluate_run(folder.path, checkpoint, options, watch=watch).as_dict()
        evaluated.append((run, made[run].config, about | {"time_sec": execution.noted(folder, "time_sec")}))
    return compare_evaluations(evaluated)


def _kept(folder: RunFolder, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """What evaluation.json holds, if it is of these options; None where it is not."""
    about = read_evaluation(folder)
    if "extractor" in wanted:
        kind, _, rest = wanted["extractor"].rpartition(":")
        wanted = wanted | {"extractor": f"{Path(kind).name}:{rest}" if kind.lower().endswith(".py") else wanted["extractor"]}
    return about if about is not None and all(about.get(name) == value for name, value in wanted.items()) else None
