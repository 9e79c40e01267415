"""From a source and the data options to what training reads: the pack, its twins, the split, and the data sheet."""

import csv
import gzip
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ganvas.config import DataConfig
from ganvas.data.layout import Layout
from ganvas.data.pack import Pack, build_pack, plan_pack
from ganvas.data.sheet import Sheet, make_sheet
from ganvas.data.sources import Source
from ganvas.data.split import Split, Subset, grouped, split_images, wanted_holdout
from ganvas.data.twins import Twins, load_twins
from ganvas.files import whole_file

PARTS = ("train", "holdout", "dropped")
_NAMED = 3                     # images named of each kind of change


class Dataset(NamedTuple):
    """A set of images, ready to train on."""

    pack: Pack
    twins: Twins
    split: Split
    sheet: Sheet

    @property
    def train(self) -> Subset:
        """The images to train on."""
        return Subset(self.pack, self.split.train)


def layout_of(data: DataConfig) -> Layout:
    """How the images are stored."""
    return Layout(height=data.size.height, width=data.size.width, channels=data.channels, fit=data.fit,
                  transparency=data.transparency, native=data.native)


def prepare(
    source: Source, data: DataConfig, tell: Callable[[str], None] = lambda text: None,
    decoding: Callable[[int, int], None] | None = None, comparing: Callable[[int, int], None] | None = None,
    table: Path | None = None,
) -> Dataset:
    """Decodes, compares and divides the images, or takes all that from the cache; says what takes long.

    table: a run's table of images, whose division is kept where it is about these very images.
    decoding, comparing: hear (done, total), and may raise to stop. Raises DataError.
    """
    layout = layout_of(data)
    plan = plan_pack(source, layout)
    if not plan.cached:
        megabytes = max(0.1, plan.bytes_needed / 1e6)
        tell(f"decoding {len(source):,} images, once: {megabytes:,.1f} MB are kept in {plan.path.parent}")
    pack = build_pack(source, layout, plan=plan, skip_bad=data.skip_bad, progress=decoding)
    try:
        if pack.replaced:
            tell(f"{pack.home}: the pack of these images was damaged ({pack.replaced}) and has been made again")
        twins = load_twins(pack, comparing)
        kept = _kept_split(table, pack)
        split = kept or split_images(pack, twins, data.holdout, data.group_by, data.drop_duplicates)
        wanted = wanted_holdout(data.holdout, len(pack) - len(split.dropped))
        if len(split.holdout) < wanted and kept is None:
            tell(f"held out: {len(split.holdout):,} images, not {wanted:,}: the other groups that stay together are too large")
        if data.group_by != "none" and not data.holdout:
            tell(f"--group-by {data.group_by}: has no effect, because nothing is held out; pass --holdout")
        return Dataset(pack, twins, split, make_sheet(source, pack, twins, split))
    except BaseException:
        pack.close()
        raise


def write_table(path: Path, dataset: Dataset, group_by: str) -> None:
    """Writes a gzipped CSV with a row for each image: its name, label, part (train, holdout, dropped), group and content's hash.

    Groups are numbers; twins, and what group_by puts together, share one.
    """
    pack, split = dataset.pack, dataset.split
    part = np.zeros(len(pack), np.int8)
    part[split.holdout], part[split.dropped] = 1, 2
    groups = grouped(pack, dataset.twins, group_by)
    with whole_file(path) as partial, partial.open("wb") as file, \
            gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as packed, \
            io.TextIOWrapper(packed, encoding="utf-8", errors="backslashreplace", newline="") as text:
        rows = csv.writer(text)
        rows.writerow(["image", "label", "part", "group", "content"])
        for index, name in enumerate(pack.names):
            label = "" if pack.labels is None else pack.class_names[pack.labels[index]]
            rows.writerow([name, label, PARTS[part[index]], groups[index], f"{pack.facts['content'][index]:016x}"])


def is_whole(table: Path) -> bool:
    """Whether a run's table of images is there and can be read."""
    return _read(table) is not None


def changes_since(table: Path, pack: Pack) -> str:
    """What is different in `pack` from the images of a run's table, for people; "" where nothing is, or nothing is known."""
    rows = _read(table)
    if rows is None:
        return ""
    before = {name: content for name, _, content in rows}
    now = {_written(name): f"{content:016x}" for name, content in zip(pack.names, pack.facts["content"].tolist(), strict=True)}
    lists = {
        "added": [name for name in now if name not in before],
        "removed": [name for name in before if name not in now],
        "changed": [name for name, content in now.items() if before.get(name, content) != content],
    }
    told = [f"{len(names):,} {what} ({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''})"
            for what, names in lists.items() if names]
    return "; ".join(told) or "the images are the same, but they are prepared or labelled differently"


def _kept_split(table: Path | None, pack: Pack) -> Split | None:
    """The division that the table holds, if it is about these images in this order."""
    rows = None if table is None else _read(table)
    if rows is None or [content for _, _, content in rows] != [f"{content:016x}" for content in pack.facts["content"].tolist()]:
        return None
    part = np.array([PARTS.index(part) for _, part, _ in rows])
    return Split(*(np.flatnonzero(part == number) for number in range(len(PARTS))))


def _read(table: Path) -> list[tuple[str, str, str]] | None:
    """(name, part, content) of each image in a table; None where there is none, or a damaged one."""
    try:
        with gzip.open(table, "rt", encoding="utf-8", newline="") as text:
            rows = [(row["image"], row["part"], row["content"]) for row in csv.DictReader(text)]
    except (OSError, EOFError, KeyError, ValueError, zlib.error, csv.Error):
        return None
    return rows if all(part in PARTS for _, part, _ in rows) else None


def _written(name: str) -> str:
    """A name as it comes back from the table."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
