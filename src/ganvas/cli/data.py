"""`ganvas data`: what has to do with images before training."""

import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ganvas.cli.options import config_option

if TYPE_CHECKING:
    from ganvas.data.cache import CacheEntry, Kind

app = typer.Typer(help="Look at images before training, fetch public sets, manage the cache.", no_args_is_help=True)
cache_app = typer.Typer(help="List or remove packs, downloads and node-local copies: all of them can be made again.",
                        no_args_is_help=True)
app.add_typer(cache_app, name="cache")

KIND = typer.Option("--kind", help="packs, downloads or scratch; all three if left out")
OLDER_THAN = typer.Option("--older-than", help="only what was not used for so long: 12h, 30d, 8w")
NAME = typer.Option("--name", help="only what has this name in `ganvas data cache list`, or lies in a folder of this name")

_DAYS = {"h": 1 / 24, "d": 1.0, "w": 7.0}


# Looking at images.

@app.command()
def inspect(
    source: Annotated[str, typer.Argument(help="folder, archive or file of images; or digits")],
    preset: Annotated[str | None, typer.Option(help="look with the eyes of this preset")] = None,
    size: Annotated[str | None, config_option("size")] = None,
    channels: Annotated[str | None, config_option("channels")] = None,
    fit: Annotated[str | None, config_option("fit")] = None,
    transparency: Annotated[str | None, config_option("transparency")] = None,
    native: Annotated[str | None, config_option("native")] = None,
    mirror: Annotated[str | None, config_option("mirror")] = None,
    labels: Annotated[str | None, config_option("labels")] = None,
    tile: Annotated[str | None, config_option("tile")] = None,
    frames: Annotated[str | None, config_option("frames")] = None,
    holdout: Annotated[str | None, config_option("holdout")] = None,
    group_by: Annotated[str | None, config_option("group_by")] = None,
    drop_duplicates: Annotated[bool | None, config_option("drop_duplicates")] = None,
    html: Annotated[str | None, typer.Option(help="the page to write; <name of the source>-data.html if left out")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for another program to read; a page only with --html")] = False,
) -> None:
    """Look at images before training: what the networks will see, copies, broken files, labels. Writes one page."""
    import json

    from rich.table import Table

    from ganvas.cli.terminal import TerminalWatcher
    from ganvas.config import flatten
    from ganvas.inspection import inspect as inspect_images
    from ganvas.watcher import Silent

    watch = Silent() if as_json else TerminalWatcher()
    asked: dict[str, Any] = {
        "preset": preset, "size": size, "channels": channels, "fit": fit, "transparency": transparency, "native": native,
        "mirror": mirror,
        "labels": labels, "tile": tile, "frames": frames, "holdout": holdout, "group_by": group_by,
        "drop_duplicates": drop_duplicates}
    try:
        seen = inspect_images(source, page=html or (None if as_json else ""), watch=watch, **asked)
    finally:
        if isinstance(watch, TerminalWatcher):
            watch.progress.stop()
    if not isinstance(watch, TerminalWatcher):
        options = flatten({"data": seen.config.data.model_dump(mode="json", exclude={"skip_bad"})})
        page = None if seen.page is None else str(seen.page)
        print(json.dumps(seen.sheet.as_dict() | {"page": page, "options": options, "why": seen.why}))
        return
    listing = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for what, text in seen.sheet.rows():
        listing.add_row(what, text)
    watch.console.print(listing, markup=False)
    words = ["ganvas", "train", source, "--time", "10min"]
    for name, value in asked.items():
        if value:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    words += ["--skip-bad"] if seen.sheet.unreadable else []
    print(f"\npage with pictures: {seen.page}\ntrain on it:        {shlex.join(words)}")


# Public sets.

@app.command()
def fetch(
    name: Annotated[str | None, typer.Argument(help="the set's name, as --list shows it", show_default=False)] = None,
    out: Annotated[str | None, typer.Option(help="folder for the files; the cache if left out")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="a file of the set that you have, or a folder of them")] = None,
    list_: Annotated[bool, typer.Option("--list", help="show the sets that are known, and stop")] = False,
) -> None:
    """Download a public set of images, check it, and print how to train on it."""
    from ganvas.data.cache import megabytes
    from ganvas.data.fetch import accept
    from ganvas.data.public_sets import find

    if list_ or name is None:
        _list_sets()
        return
    dataset = find(name)
    size = "" if dataset.bytes is None else f", {megabytes(dataset.bytes)}"
    print(f"{name}: {dataset.title}{size}\nlicence: {dataset.licence}\nsource:  {dataset.page}")
    folder = None if out is None else Path(out).expanduser()
    path = _fetch_and_show(name, folder) if from_ is None else accept(name, Path(from_).expanduser(), folder)
    print(f"\n{path}\ntrain on it:  ganvas train {shlex.quote(str(path))} {dataset.train}")


def _list_sets() -> None:
    from ganvas.data.cache import megabytes
    from ganvas.data.public_sets import DATASETS

    rows = [("name", "size", "what it is")]
    for name, dataset in DATASETS.items():
        size = "by hand" if dataset.by_hand else "?" if dataset.bytes is None else megabytes(dataset.bytes)
        rows.append((name, size, dataset.title))
    _print_columns(rows)
    print("\nganvas data fetch NAME downloads one; of those by hand it prints the steps.")


def _fetch_and_show(name: str, folder: Path | None) -> Path:
    """Fetches with a bar for each file where output is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    from ganvas.data.fetch import fetch as fetch_set

    console = Console(highlight=False)
    bars: dict[str, TaskID] = {}
    with Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=console,
                  disable=not console.is_terminal) as progress:
        def show(file: str, done: int, total: int | None) -> None:
            if file not in bars:
                bars[file] = progress.add_task(file, total=total)
            progress.update(bars[file], completed=done, total=total)

        try:
            return fetch_set(name, folder, progress=show)
        except KeyboardInterrupt:
            progress.stop()
            print(f"ganvas: {name}: stopped; no half file is left, and whole ones are kept. The same command goes on.",
                  file=sys.stderr)
            sys.exit(130)


# The cache.

@cache_app.command("list")
def list_cache(as_json: Annotated[bool, typer.Option("--json", help="for another program to read")] = False) -> None:
    """Show what is in the cache: its size, when it was last used, and where it lies."""
    import json

    from ganvas.data.cache import cache_root, entries, megabytes

    found = entries()
    if as_json:
        print(json.dumps({"version": 1, "root": str(cache_root()), "entries": [{
            "kind": entry.kind, "name": entry.name, "shape": entry.shape, "path": str(entry.path), "bytes": entry.bytes,
            "used_at": entry.used_at, "whole": entry.whole} for entry in found]}))
        return
    _print_entries(found)
    print(f"{megabytes(sum(entry.bytes for entry in found))} in {_count(len(found))} of {cache_root()}")


@cache_app.command()
def clean(
    kind: Annotated[str | None, KIND] = None,
    older_than: Annotated[str | None, OLDER_THAN] = None,
    name: Annotated[str | None, NAME] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Remove what is in the cache, after asking. Runs and your own images are never touched."""
    from ganvas.data.cache import KINDS, entries, megabytes, select
    from ganvas.data.cache import clean as clean_cache
    from ganvas.errors import ConfigError

    chosen: Kind | None = next((known for known in KINDS if known == kind), None)
    if kind is not None and chosen is None:
        raise ConfigError(f"--kind {kind}: must be {', '.join(KINDS[:-1])} or {KINDS[-1]}.")
    days = None if older_than is None else _days(older_than)
    if name is not None and not select(name=name) and (known := sorted({entry.name for entry in entries()})):
        raise ConfigError(f"--name {name}: nothing in the cache has this name; there is {', '.join(known)}.")
    found = select(chosen, days, name)
    if not found:
        print("nothing to remove")
        return
    _print_entries(found)
    if not yes:
        if not _can_ask():
            raise ConfigError(f"nothing was removed: there is no terminal to ask about these {len(found)}. Pass --yes to agree.")
        if not typer.confirm(f"Remove {_count(len(found))}, {megabytes(sum(entry.bytes for entry in found))}?"):
            print("nothing was removed")
            return
    done = clean_cache(chosen, days, name)
    for entry, reason in done.kept:
        print(f"kept {entry.path}: {reason}")
    print(f"removed {_count(len(done.removed))}: {megabytes(done.freed)} freed")


def _days(text: str) -> float:
    from ganvas.errors import ConfigError

    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([hdw])", text.strip().lower())
    if match is None:
        raise ConfigError(f"--older-than {text}: must be a number of hours, days or weeks, such as 12h, 30d or 8w.")
    return float(match[1]) * _DAYS[match[2]]


def _can_ask() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _count(number: int) -> str:
    return "1 entry" if number == 1 else f"{number} entries"


def _print_entries(found: "list[CacheEntry]") -> None:
    from ganvas.data.cache import megabytes

    rows = [("kind", "name", "images", "size", "last used", "folder")]
    for entry in found:
        shape = "" if entry.shape is None else "x".join(map(str, entry.shape))
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used_at))
        rows.append((entry.kind, entry.name, shape, megabytes(entry.bytes), used, str(entry.path)))
    _print_columns(rows)


def _print_columns(rows: Sequence[tuple[str, ...]]) -> None:
    """Prints rows in columns, two blanks apart. Lines are not cut: they hold paths to be copied."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
