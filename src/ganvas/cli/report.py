"""`ganvas report`."""

from typing import Annotated

from ganvas.cli.options import RUN


def report(run: Annotated[str | None, RUN] = None) -> None:
    """Write a run's report: one HTML page with its pictures, curves, figures, health and settings."""
    from pathlib import Path

    from ganvas.run_end import report as write
    from ganvas.run_folder import newest_run, open_run

    folder = open_run(Path(run)) if run is not None else newest_run()
    for found in write(folder):
        print(f"{found.severity}: {found.name}. {found.evidence} {found.advice}")
    print(folder.report)
