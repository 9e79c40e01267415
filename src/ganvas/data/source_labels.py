"""Labels of image files: from the first sub-folder, or from a table beside them; and the hint where some are found."""

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ganvas.data.source_base import UnreadableError, printable
from ganvas.data.source_listing import MAX_FILE_BYTES, Files, is_looked_into
from ganvas.data.source_matching import PARTS, Found, Keys, labels_of_table, listed, name_column, normal
from ganvas.data.source_tables import TABLE_ENDINGS, Table, read_table
from ganvas.errors import ConfigError, DataError

_SPLIT_NAMES = {"train", "training", "test", "testing", "val", "valid", "validation"}
_ASKED = re.compile(rf"(?P<file>.+?(?:{'|'.join(map(re.escape, TABLE_ENDINGS))}))(?::(?P<column>.+))?", re.IGNORECASE | re.DOTALL)
_MOST_HINTED_BYTES = 64 * 2**20        # larger tables are not read only for a hint
_MOST_HINTED_TABLES = 8
_MOST_HINTED_CLASSES = 100             # of a column whose name does not say that it holds labels: coordinates have more values


def check_labels_option(labels: str) -> None:
    """Raises ConfigError if `labels` is neither none, folder, nor the name of a table."""
    if labels not in ("none", "folder") and not _ASKED.fullmatch(labels):
        raise ConfigError(f"labels {labels!r}: must be none or folder, or a table of labels as FILE or FILE:COLUMN, where "
                          f"FILE ends in {', '.join(TABLE_ENDINGS[:-1])} or {TABLE_ENDINGS[-1]}.")


def labels_of_files(files: Files, images: Sequence[str], labels: str) -> Found:
    """The labels of `images` as the option says: "none" (only hints), "folder", or "FILE" or "FILE:COLUMN".

    FILE is looked for among `files` by its name or its unique base name, then on disk. Raises DataError.
    """
    if labels == "none":
        hints = _hints(files, images)
        from_folders = folder_labels(images, files.where, False)
        return Found(notes=(*hints, *(() if hints else from_folders.notes)))
    if labels == "folder":
        return folder_labels(images, files.where, True)
    asked = _ASKED.fullmatch(labels)
    assert asked, "checked by check_labels_option"
    inside, folder, table, notes = _asked_table(files, asked["file"])
    found = labels_of_table(table, asked["column"], images, folder, asked["file"])
    return Found(found.labels, found.class_names, (*notes, *found.notes), inside, found.unlabelled, found.why_unlabelled)


def folder_labels(names: Sequence[str], where: str, by_folder: bool) -> Found:
    """Labels from the first folder of each name; only notes if not `by_folder`.

    A folder that wraps all of them, as in a zip made from one folder, is passed over. Raises DataError if an image lies
    in no class folder, or if there are fewer than two classes.
    """
    split = [name.split("/") for name in names]
    depth = 0
    while all(len(parts) > depth + 2 and parts[depth] == split[0][depth] for parts in split):
        depth += 1
    loose = [name for name, parts in zip(names, split, strict=True) if len(parts) <= depth + 1]
    owners = [parts[depth] for parts in split if len(parts) > depth + 1]
    class_names = sorted(set(owners))
    splits = f"the sub-folders {', '.join(class_names)} look like parts of a set, not classes"
    are_splits = len(class_names) > 1 and all(name.lower() in _SPLIT_NAMES for name in class_names)

    if not by_folder:
        if are_splits:
            return Found(notes=(f"{splits}: images of all of them are used",))
        if loose or len(class_names) < 2:
            return Found()
        return Found(notes=(f"labels found in {len(class_names)} sub-folders: pass --labels folder to keep them",))

    if loose:
        raise DataError(f"{where}: {printable(loose[0])} lies in no class folder ({len(loose):,} of {len(names):,} images "
                        "do), but "
                        "--labels folder takes the class from the first sub-folder. Move it into one, or pass "
                        "--labels none.")
    if len(class_names) < 2:
        raise DataError(f"{where}: only one class folder, {class_names[0]!r}, but labels need two or more. Pass --labels "
                        "none, or the folder above.")
    numbers = {name: number for number, name in enumerate(class_names)}
    labels = np.array([numbers[owner] for owner in owners], dtype=np.int64)
    return Found(labels, tuple(map(printable, class_names)), (splits,) if are_splits else ())


# Tables inside the source and on disk.

def _asked_table(files: Files, wanted: str) -> tuple[str | None, str, Table, list[str]]:
    """The table called `wanted`: (its name in `files` or None, its folder there, the table, notes)."""
    names = {normal(name): name for name in files.names}
    inside = names.get(normal(wanted)) if not wanted.startswith(("./", ".\\")) else None
    on_disk = Path(wanted).expanduser()
    is_there = os.path.isfile(on_disk)                 # noqa: PTH113 (Path's raises for names that are too long)
    if inside is None and not is_there:
        alike = [name for name in files.names if name.rsplit("/", 1)[-1] == wanted]
        if len(alike) > 1:
            raise DataError(f"{files.where}: --labels {wanted}: there are {len(alike)} of them: "
                            f"{', '.join(map(printable, alike[:3]))}. Name one with its folder.")
        if not alike:
            tables = [name for name in files.names if name.lower().endswith(TABLE_ENDINGS) and is_looked_into(name)]
            there = f" Tables there: {', '.join(map(printable, tables[:5]))}." if tables else ""
            raise DataError(f"--labels {wanted}: there is no such file, neither in {files.where} nor on disk.{there}")
        inside = alike[0]
    if inside is not None:
        both = is_there and not Path(files.where).is_dir()
        notes = [f"--labels {wanted} is the one in {files.where}: write ./{wanted} for the file here"] if both else []
        folder = PurePosixPath(inside).parent.as_posix()
        return inside, "" if folder == "." else folder, _read_inside(files, inside), notes
    return None, "", _read_on_disk(on_disk, wanted), []


def _read_on_disk(path: Path, shown: str) -> Table:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{shown}: is larger than {MAX_FILE_BYTES:,} bytes, more than a table of labels should be.")
        return read_table(path.read_bytes(), shown, shown)
    except OSError as error:
        raise DataError(f"{shown}: cannot be read ({error.strerror or error}).") from error


def _read_inside(files: Files, name: str) -> Table:
    files.check([name])
    try:
        return read_table(files.read(name), name, printable(name))
    except UnreadableError as error:
        raise DataError(f"{files.where}: its {printable(name)} cannot be read ({error.reason}).") from error


def _hints(files: Files, images: Sequence[str]) -> list[str]:
    """A line for each table among `files` that names the images' labels, at most three of them."""
    tables = [name for name in files.names if name.lower().endswith(TABLE_ENDINGS) and is_looked_into(name)
              and not PARTS.search(PurePosixPath(name).name)]
    tables.sort(key=lambda name: (name.count("/"), name))
    hints: list[str] = []
    keys: Keys | None = None                      # shared: with a million images, making it takes seconds
    for name in tables[:_MOST_HINTED_TABLES]:
        if len(hints) == 3 or not 0 < files.size(name) <= _MOST_HINTED_BYTES:
            continue
        try:
            table = _read_inside(files, name)
        except DataError:
            continue
        keys = keys or Keys(images)
        folder = PurePosixPath(name).parent.as_posix()
        if hint := _hint(table, images, "" if folder == "." else folder, keys):
            hints.append(hint)
    return hints or _celeba_hints(files, images)


def _celeba_hints(files: Files, images: Sequence[str]) -> list[str]:
    """For img_align_celeba alone, as folder or archive: its list of attributes lies beside it, or can."""
    place = Path(files.where).expanduser()
    if not place.name.lower().startswith("img_align_celeba"):
        return []
    for path in (place.with_name("list_attr_celeba.txt"), place.with_name("list_attr_celeba.csv")):
        try:
            if path.is_file() and (hint := _hint(_read_on_disk(path, str(path)), images, "", Keys(images))):
                return [hint]
        except DataError:
            continue
    return ["CelebA's 40 attributes are not here: put its list_attr_celeba.txt beside img_align_celeba and pass --labels with "
            "its path and an attribute, such as list_attr_celeba.txt:Smiling, to keep one as labels"]


def _hint(table: Table, images: Sequence[str], folder: str, keys: Keys) -> str | None:
    """What is said of one table, or None if it holds no labels of these images."""
    try:
        naming = name_column(table, keys, images, folder)
    except DataError:
        return None
    others = [column for column in table.columns if column != naming]
    attributes = [column for column in others if set(table.column(column)) <= {"-1", "1"}]
    if len(attributes) > 1:                        # CelebA's list
        example = "Smiling" if "Smiling" in attributes else attributes[0]
        return (f"{len(attributes)} attributes found in {table.what}: pass --labels {table.what}:{example}, or another of "
                "them, to keep one as labels")

    def classes(column: str | None) -> int:
        try:
            return len(labels_of_table(table, column, images, folder, "", keys).class_names)
        except DataError:
            return 0

    if count := classes(None):
        return f"labels found in {table.what} ({count} classes): pass --labels {table.what} to keep them"
    usable = [column for column in others[:20] if 0 < classes(column) <= _MOST_HINTED_CLASSES]
    if not usable:
        return None
    return f"labels found in {table.what} (columns {listed(usable)}): pass --labels {table.what}:{usable[0]} to keep them"
