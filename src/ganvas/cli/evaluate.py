"""`ganvas evaluate`."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ganvas.cli.options import CHECKPOINT, config_option

if TYPE_CHECKING:
    from ganvas.evaluation import Evaluation

EXIT_GATE = 3


def evaluate(
    what: Annotated[str | None, typer.Argument(
        metavar="[RUN | SOURCE]", help="run folder, the newest one in runs/ if left out; with --samples the real images",
        show_default=False)] = None,
    samples: Annotated[str | None, typer.Option(
        help="judge these images instead of a run: a folder, archive, .npz or .npy of any model's images")] = None,
    reference: Annotated[str | None, typer.Option(
        help="with --samples: compare with features that --save-features made, instead of with SOURCE")] = None,
    data: Annotated[str | None, typer.Option(help="the run's images, where they are elsewhere now")] = None,
    checkpoint: Annotated[str, CHECKPOINT] = "best",
    n: Annotated[int, typer.Option("--n", help="samples, and reals, in each comparison")] = 2000,
    repeats: Annotated[int, typer.Option(help="comparisons, each with fresh samples: they make the intervals")] = 5,
    extractor: Annotated[str, typer.Option(help="what sees the images: auto, classifier (needs labels), random, inception, "
                                           "inception:PATH or FILE.py:FUNCTION")] = "auto",
    split: Annotated[str, typer.Option(help="real images to compare with: train, holdout or all")] = "train",
    seed: Annotated[int, typer.Option(help="seed of the samples and of every choice")] = 0,
    size: Annotated[str | None, config_option("size")] = None,
    fit: Annotated[str | None, config_option("fit")] = None,
    transparency: Annotated[str | None, config_option("transparency")] = None,
    labels: Annotated[str | None, config_option("labels")] = None,
    holdout: Annotated[str | None, config_option("holdout")] = None,
    skip_bad: Annotated[bool | None, config_option("skip_bad")] = None,
    sheet: Annotated[str | None, typer.Option(
        help="with --samples: a PNG of samples beside the real images nearest to them; a run has its neighbours.png")] = None,
    save_features: Annotated[str | None, typer.Option(help="an .npz of the reals' features, to give to others")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps; auto takes the fastest")] = "cpu",
    fail_if: Annotated[list[str] | None, typer.Option(
        help="exit with 3 where it holds, such as 'kid>0.05' or 'copies>0.02'")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for another program to read")] = False,
) -> None:
    """How good samples are, how sure that is, and whether they copy: of a run, or with --samples of any images."""
    import json
    from pathlib import Path

    from ganvas import judging
    from ganvas.cli.terminal import TerminalWatcher
    from ganvas.config import make_config
    from ganvas.errors import ConfigError
    from ganvas.gates import Gate, shut_gates
    from ganvas.recipe import best_device, check_device
    from ganvas.run_folder import RunFolder, newest_run

    gates = [Gate.parse(text) for text in fail_if or []]
    device = best_device() if device == "auto" else device
    make_config({"execution.device": device})
    check_device(device)
    if samples is not None and (data is not None or checkpoint != "best"):
        idle = f"--data {data}" if data is not None else f"--checkpoint {checkpoint}"
        raise ConfigError(f"{idle}: is for runs. With --samples name the real images as SOURCE, and no checkpoint.")
    if sheet is not None and Path(sheet).suffix.lower() != ".png":
        raise ConfigError(f"--sheet {sheet}: pictures are PNG files; name it {Path(sheet).stem}.png.")
    run = None if samples is not None else what if what is not None else str(newest_run().path)
    reading: dict[str, Any] = {"size": size, "fit": fit, "transparency": transparency, "labels": labels, "holdout": holdout,
                               "skip_bad": skip_bad}
    watcher = TerminalWatcher(to_stderr=as_json)
    try:
        found = judging.evaluate(
            run, samples=samples, source=what if samples is not None else data, reference=reference, checkpoint=checkpoint, n=n,
            repeats=repeats, extractor=extractor, split=split, seed=seed, device=device, sheet=sheet, save_features=save_features,
            watch=watcher, **{name: value for name, value in reading.items() if value is not None})
    finally:
        watcher.progress.stop()
    print(json.dumps(found.as_dict(), indent=1, allow_nan=False) if as_json else table(found))
    if not as_json:
        if run is not None:
            folder = RunFolder(Path(run))
            print(f"\nnearest real images: {folder.neighbours}\nreport:              {folder.report}")
        elif sheet is not None:
            print(f"\nnearest real images: {sheet}")
    shut = shut_gates(gates, found.value, [*(figure.metric for figure in found.figures), "copies"])
    if shut:
        print("\n".join(shut), file=sys.stderr)
        sys.exit(EXIT_GATE)


def table(found: "Evaluation") -> str:
    """The figures for people: value, interval and floor, then the copies and what else is to be known."""
    from ganvas.watcher import seen

    which = f", {found.chosen} checkpoint at {seen(found.checkpoint)}" if found.chosen else ""
    lines = [f"{found.subject}{which}, against {found.source} ({found.options.split})", "",
             f"{'':<20}{'value':>10}   {'interval':<19}{'reals get':>10}   {'n':>6}  {'better':<8}"]
    for figure in found.figures:
        interval = "" if figure.low == figure.high else f"{figure.low:.4g} … {figure.high:.4g}"
        floor = "" if figure.floor is None else f"{figure.floor:.4g}"
        lines.append(f"{figure.label:<20}{figure.value:>10.4g}   {interval:<19} {floor:>9}   {figure.n:>6,}  "
                     f"{figure.better if figure.better != 'none' else 'like reals':<10}  {figure.note}".rstrip())
    first = next((figure for figure in found.figures if figure.extractor != "pixels"), None)
    if first is not None:
        relative = ". Relative only: it compares models on these images, with no published figure" if first.relative_only else ""
        lines += ["", f"seen by {first.extractor} ({first.preprocessing}){relative}"]
    if found.copies is not None:
        lines += ["", f"copies: {found.copies.text}"]
    if found.copying_test is not None:
        lines.append(f"data-copying test: {found.copying_test.text}")
    lines += [f"note: {note}" for note in found.notes]
    return "\n".join(lines)
