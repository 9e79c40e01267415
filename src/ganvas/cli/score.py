"""`ganvas score`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ganvas.cli.options import CHECKPOINT, config_option


def score(
    paths: Annotated[list[str], typer.Argument(metavar="[RUN] IMAGES...", help="images, or folders of them; a run folder first, "
                                               "or the newest run in runs/ is taken", show_default=False)],
    checkpoint: Annotated[str, CHECKPOINT] = "best",
    skip_bad: Annotated[bool, config_option("skip_bad")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for another program to read")] = False,
) -> None:
    """How real the discriminator finds images: its probability for each, 0 to 1; its logit where the loss gives none."""
    import json

    from ganvas import app
    from ganvas.data.source_base import UnreadableError
    from ganvas.errors import DataError
    from ganvas.run_folder import RunFolder, newest_run

    has_run = RunFolder(Path(paths[0])).config.is_file()
    run, images = (Path(paths[0]), paths[1:]) if has_run else (newest_run().path, paths)
    if not images:
        raise DataError(f"score {run}: name the images to judge after the run folder.")
    def left_out(error: UnreadableError) -> None:
        print(f"left out: {error.item}: {error.reason}", file=sys.stderr)

    scores = app.score(run, list(images), checkpoint, skip_bad=left_out if skip_bad else None)
    if as_json:
        print(json.dumps({"version": 1, "run": str(run), "scores": [
            {"image": name, "real": probability, "logit": logit} for name, logit, probability in scores]}))
        return
    what = ("probability that an image is real (compare images with each other, not with D(x))"
            if scores[0].probability is not None else "logit: larger looks more real, and only differences mean something")
    print(f"{run}: the discriminator's {what}")
    for name, logit, probability in scores:
        print(f"{logit if probability is None else probability:<10.4g}  {name}")
