"""`ganvas compare`."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ganvas.comparison import Comparison


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="run folders; those that differ only in their seed "
                                              "are taken together", show_default=False)],
    checkpoint: Annotated[str, typer.Option(help="best or last, of each run")] = "best",
    n: Annotated[int | None, typer.Option("--n", help="samples, and reals, in each comparison", show_default="2000")] = None,
    repeats: Annotated[int | None, typer.Option(help="comparisons, each with fresh samples", show_default="5")] = None,
    extractor: Annotated[str | None, typer.Option(help="as for `ganvas evaluate`", show_default="auto")] = None,
    split: Annotated[str | None, typer.Option(help="train, holdout or all", show_default="train")] = None,
    seed: Annotated[int | None, typer.Option(help="seed of the samples and of every choice", show_default="0")] = None,
    again: Annotated[bool, typer.Option("--again", help="evaluate even where a run has been evaluated in this way")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps; auto takes the fastest")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="for another program to read")] = False,
) -> None:
    """Runs beside each other: which is better, and whether that is more than luck."""
    import json

    from ganvas import judging
    from ganvas.cli.terminal import TerminalWatcher
    from ganvas.config import make_config
    from ganvas.errors import ConfigError
    from ganvas.recipe import best_device, check_device

    if checkpoint not in ("best", "last"):
        raise ConfigError(f"--checkpoint {checkpoint}: runs are compared at their best or last checkpoint.")
    device = best_device() if device == "auto" else device
    make_config({"execution.device": device})
    check_device(device)
    watcher = TerminalWatcher(to_stderr=as_json)
    try:
        found = judging.compare(runs, checkpoint=checkpoint, again=again, device=device, watch=watcher, n=n, repeats=repeats,
                                extractor=extractor, split=split, seed=seed)
    finally:
        watcher.progress.stop()
    print(json.dumps(found.as_dict(), indent=1) if as_json else table(found))


def table(found: "Comparison") -> str:
    """A row for each group of runs, then what can be said of them."""
    names = [f"{group.name} ({len(group.runs)} seeds)" if len(group.runs) > 1 else group.name for group in found.groups]
    first = max(map(len, [*names, "reals"])) + 2
    metrics = [metric for metric in found.labels if metric != "is"]
    lines = ["".ljust(first) + "".join(f"{found.labels[metric]:>22}" for metric in metrics) + "copies".rjust(10)]
    for name, group in zip(names, found.groups, strict=True):
        cells = [group.cells[metric] for metric in metrics]
        texts = [f"{cell.value:.3g}" + ("" if cell.low == cell.high else f" ({cell.low:.3g}…{cell.high:.3g})") for cell in cells]
        copies = "" if group.copies is None else f"{group.copies:.1%}"
        lines.append(name.ljust(first) + "".join(f"{text:>22}" for text in texts) + f"{copies:>10}")
    floors = [found.groups[0].cells[metric].floor for metric in metrics]
    lines.append("reals".ljust(first) + "".join(f"{'' if floor is None else f'{floor:.3g}':>22}" for floor in floors))
    return "\n".join([*lines, "", *found.sayings])
