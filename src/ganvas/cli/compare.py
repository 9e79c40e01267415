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
    print(json.dumps(found.as_dict(), indent=1, allow_nan=False) if as_json else table(found))


def table(found: "Comparison") -> str:
    """The groups, a row for each figure with a column for each group and one for reals, then what can be said of them."""
    letters = [chr(ord("A") + number % 26) * (1 + number // 26) for number in range(len(found.groups))]
    lines = [f"{letter}: {group.name}" + (f" ({len(group.seeds)} seeds)" if len(group.seeds) > 1 else "")
             for letter, group in zip(letters, found.groups, strict=True)]
    lines += ["", f"{'':<20}" + "".join(f"{letter:>26}" for letter in letters) + f"{'reals get':>12}"]
    for metric, label in found.labels.items():
        cells = [group.cells[metric] for group in found.groups]
        texts = [f"{cell.value:.3g}" + (f" ({cell.low:.3g} … {cell.high:.3g})" if cell.low < cell.high else "") for cell in cells]
        floor = "" if cells[0].floor is None else f"{cells[0].floor:.3g}"
        lines.append(f"{label:<20}" + "".join(f"{text:>26}" for text in texts) + f"{floor:>12}")
    rates = ["" if group.copies is None else f"{group.copies:.1%}" for group in found.groups]
    if any(rates):
        lines.append(f"{'copies':<20}" + "".join(f"{rate:>26}" for rate in rates))
    return "\n".join([*lines, "", *found.sayings])
