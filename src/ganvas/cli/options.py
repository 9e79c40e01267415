"""The options that several commands share: one flag, one meaning, its help taken from the config's own description."""

from typing import Any

import typer

from ganvas.config import SHORT, describe


def config_option(name: str) -> Any:
    """The flag of a config option by its short name, `--batch` for train.batch."""
    return typer.Option(f"--{name.replace('_', '-')}", help=describe(SHORT[name]))


RUN = typer.Argument(help="run folder; the newest one in runs/ if left out", show_default=False)
CHECKPOINT = typer.Option("--checkpoint", help="last, or a checkpoint's number of images")
