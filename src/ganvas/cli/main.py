"""The `ganvas` command: the list of its commands, and what becomes of an error."""

import sys
import warnings
from typing import Annotated

import typer

from ganvas import __version__
from ganvas.cli import compare, data, demo, doctor, evaluate, presets, report, sample, score, train
from ganvas.errors import GanvasError

NEXT_STEPS = """\
Ganvas turns a folder of images into a generator of new ones. Next:
  ganvas demo                         two minutes: handwritten digits, then where to look
  ganvas train FOLDER --time 10min    your own images; the same command again goes on
  ganvas --help                       every command; `ganvas data inspect FOLDER` looks at images first"""

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
    help="Turns a folder of images into a generator of new ones.")
for command in (
        train.train, demo.demo, sample.sample, evaluate.evaluate, compare.compare, report.report, score.score, presets.presets,
        doctor.doctor):
    app.command()(command)
app.add_typer(data.app, name="data")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="print the version and stop")] = False,
) -> None:
    if version:
        print(f"ganvas {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(NEXT_STEPS)


def main() -> None:
    """Runs the command line. Exit codes: 0 done, 1 a user's error, 2 wrong usage, 3 a --fail-if gate, 130 and 143 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")           # a cp1252 terminal shows ? for what it lacks
    warnings.filterwarnings("ignore", module="PIL")        # damaged EXIF and the like: what matters is in our own messages
    try:
        app()
    except GanvasError as error:
        print(f"ganvas: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:                              # outside training, where there is nothing to keep
        sys.exit(130)
