"""The options that several commands share: one flag, one meaning, its help taken from the config's own description."""

from typing import Any

import typer

from ganvas.config import FROM_IMAGES, SHORT, describe


def config_option(name: str) -> Any:
    """The flag of a config option by its short name, `--batch` for train.batch."""
    auto = "; auto = what suits the images" if SHORT[name] in FROM_IMAGES else (
        "; auto = what this machine is made for" if name == "precision" else "")
    return typer.Option(f"--{name.replace('_', '-')}", help=describe(SHORT[name]) + auto + _written(SHORT[name]))


def _written(option: str) -> str:
    return " (on or off)" if option in ("data.native", "data.mirror") else ""


RUN = typer.Argument(help="run folder; the newest one in runs/ if left out", show_default=False)
CHECKPOINT = typer.Option(
    "--checkpoint", help="best (as measured in training, or the last), last, or a checkpoint's number of images")
