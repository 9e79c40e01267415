"""`ganvas demo`."""

import shutil
import sys
from typing import Annotated

import typer


def demo(
    out: Annotated[str, typer.Option(help="run folder")] = "runs/demo",
    time: Annotated[str, typer.Option(help="how long to train: 90s, 10min")] = "2min",
) -> None:
    """Two minutes: train on scikit-learn's handwritten digits, and see what comes out."""
    from ganvas.cli.watch import train_and_show

    ganvas = "ganvas" if shutil.which("ganvas") else sys.argv[0]
    run = train_and_show("digits", preset="digits-16", out=out, time=time)
    print(f"\nMore of them:  {ganvas} sample {run.path} --n 64 --seed 1\nYour images:   {ganvas} train FOLDER --time 10min")
