"""Trains in the terminal: shows the run, says where everything is, exits with the code of an interruption."""

import sys
from typing import Any

from ganvas import app
from ganvas.best import read_best, which_of
from ganvas.cli.terminal import TerminalWatcher
from ganvas.run_folder import RunFolder
from ganvas.watcher import seen

EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143}


def train_and_show(source: str | None, **options: Any) -> app.Run:
    """Trains with a progress display, says where everything is, and exits with the code of an interruption."""
    watcher = TerminalWatcher()
    try:
        run = app.train(source, watch=watcher, **options)
    finally:
        watcher.progress.stop()
    if not options.get("dry_run") and not options.get("explain") and options.get("profile") is None:
        folder = RunFolder(run.path)
        for what, path in (("samples", folder.latest_grid), ("real images", folder.reals_grid), ("curves", folder.curves),
                           ("progress", folder.gif), ("video", folder.mp4), ("data sheet", folder.data_page),
                           ("report", folder.report)):
            if path.is_file():
                watcher.tell(f"{what + ':':<12} {path}")
        if read_best(folder) is not None:
            watcher.tell(f"{'best:':<12} {which_of(folder, run.nimg)}")
    if run.end in EXIT_CODES:
        where = "; the same command goes on from there" if options.get("profile") is None else ", and nothing is kept"
        watcher.tell(f"stopped by {run.end} at {seen(run.nimg)}{where}")
        sys.exit(EXIT_CODES[run.end])
    return run
