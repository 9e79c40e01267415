"""Which row of a table belongs to which image, and which classes its values make."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ganvas.data.source_base import Labels, printable
from ganvas.data.source_tables import Cell, Table, is_nested
from ganvas.errors import DataError

MAX_CLASSES = 1000

_NAME_COLUMNS = ("file_name", "filename", "file", "image", "path", "image_path", "filepath", "image_id", "image_name",
                 "img", "name", "id")
_LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target")
PARTS = re.compile(r"split|partition|subset|fold", re.IGNORECASE)      # what says which part of a set an image belongs to
_ALL_DIFFERENT = 20                    # so many labels without a repetition are names or captions, not classes


@dataclass(frozen=True)
class Found:
    """Labels for the images in their order, or None; what to tell the user; the table inside the source that was used."""

    labels: Labels | None = None
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    table: str | None = None
    unlabelled: frozenset[int] = frozenset()       # images without a label, if there are few; the number of theirs means nothing
    why_unlabelled: str = ""


def labels_of_table(table: Table, column: str | None, images: Sequence[str], folder: str, option: str,
                    keys: "Keys | None" = None) -> Found:
    """The label of each of `images` in `table`. folder: where the table lies among them, for names relative to it.

    An image is found by its relative name, else by its base name if no other image has that, with or without ending.
    Images without a label are `unlabelled`. option: the file as the user named it for --labels. Raises DataError: no such
    column, or several that may be it; two labels for one image, half of the images without one, values that are no classes.
    """
    keys = keys or Keys(images)
    naming = name_column(table, keys, images, folder)
    label_column = _label_column(table, column, naming, option)
    names = table.column(naming)
    at_paths = [None if name is None else keys.at_path(name, folder) for name in names]
    taken = set(at_paths)                  # what one row names by its path, another folder's file of that name does not mean
    values: list[Cell] = [None] * len(images)
    given_at: dict[int, int] = {}
    unmatched = 0
    for name, at_path, value, line in zip(names, at_paths, table.column(label_column), table.lines, strict=True):
        alike = None if name is None or at_path is not None else keys.of_base_name(name)
        index = at_path if alike is None or alike in taken else alike
        if index is None:
            unmatched += 1
        elif value is not None:
            if values[index] not in (None, value):
                raise DataError(f"{table.what}: {printable(images[index])} is {values[index]!r} in {table.place} "
                                f"{given_at[index]}, but {value!r} in {table.place} {line}. An image can have one label only: "
                                "remove one of them.")
            values[index], given_at[index] = value, line

    unlabelled = frozenset(index for index, value in enumerate(values) if value is None)
    if 2 * len(unlabelled) >= len(images):         # the names do not fit, rather than that some images are new
        missing = [images[index] for index in sorted(unlabelled)]
        few = ", ".join(map(printable, missing[:3])) + (", ..." if len(missing) > 3 else "")
        raise DataError(f"{table.what}: {len(missing):,} of {len(images):,} images have no label in its column "
                        f"{label_column!r}: {few}. Add rows for them, remove these images, or pass --labels none.")
    found, class_names = _classes([value for value in values if value is not None], table, label_column)
    labels = np.zeros(len(images), np.int64)
    labels[[index for index in range(len(images)) if index not in unlabelled]] = found
    notes = [f"labels are taken from the column {label_column!r} of {table.what}: {len(class_names)} classes"]
    if unmatched:
        notes.append(f"{unmatched:,} row{'' if unmatched == 1 else 's'} of {table.what} name{'s' if unmatched == 1 else ''} "
                     "no image here")
    why = f"it has no label in the column {label_column!r} of {table.what}"
    return Found(labels, class_names, tuple(notes), None, unlabelled, why)


class Keys:
    """Finds the index of an image by the ways in which tables name one."""

    def __init__(self, images: Sequence[str]):
        paths = [normal(name) for name in images]
        bases = [path.rsplit("/", 1)[-1] for path in paths]
        self._paths, self._stems, self._bases, self._base_stems = (
            _only_once(keys) for keys in (paths, map(_stem, paths), bases, map(_stem, bases)))

    def at_path(self, name: str, folder: str) -> int | None:
        """The image at the path `name`, relative to `folder` or to the top, with or without its ending."""
        key = normal(name)
        inside = f"{normal(folder)}/{key}" if folder else key
        found = (keys.get(tried) for keys in (self._paths, self._stems) for tried in (inside, key))
        return next((index for index in found if index is not None), None)

    def of_base_name(self, name: str) -> int | None:
        """The only image of the base name of `name`, with or without its ending."""
        base = normal(name).rsplit("/", 1)[-1]
        index = self._bases.get(base)
        return index if index is not None else self._base_stems.get(base)


def _only_once(keys: Iterable[str]) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for index, key in enumerate(keys):
        found[key] = None if key in found else index
    return found


def normal(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/")).removeprefix("./")


def _stem(path: str) -> str:
    head, slash, base = path.rpartition("/")
    return head + slash + (base.rpartition(".")[0] or base)


def name_column(table: Table, keys: Keys, images: Sequence[str], folder: str) -> str:
    """The column that names images: a usual name whose values do, else the only column whose values do."""
    def names_an_image(column: str) -> bool:
        cells = set(table.column(column)) - {None}
        return any(keys.at_path(cell, folder) is not None or keys.of_base_name(cell) is not None for cell in cells if cell)

    naming = [name for name in table.columns if names_an_image(name)]
    usual = sorted((name for name in naming if _plain(name) in _NAME_COLUMNS), key=lambda name: _NAME_COLUMNS.index(_plain(name)))
    if usual or len(naming) == 1:
        return (usual or naming)[0]
    if naming:
        raise DataError(f"{table.what}: several columns name images ({', '.join(naming)}). Rename the right one to file_name.")
    row = zip(table.columns, table.rows[0], strict=True) if table.rows else ()
    first = ", ".join(f"{name}: {cell}" for name, cell in row) or "missing"
    raise DataError(f"{table.what}: none of its columns names an image here. Its first row is {printable(first[:200])}; "
                    f"the first image is {printable(images[0])}. Give the file names relative to the folder in a column "
                    "file_name.")


def _label_column(table: Table, asked: str | None, naming: str, option: str) -> str:
    others = [name for name in table.columns if name != naming]
    if asked is not None:
        if asked in others:
            return asked
        alike = [name for name in others if _plain(name) == _plain(asked)]
        if len(alike) == 1:
            return alike[0]
        raise DataError(f"{table.what}: there is no column {asked!r} of labels. It has {listed(others)}; {naming!r} "
                        "names the images.")
    usual = [name for name in others if _plain(name) in _LABEL_COLUMNS]
    fitting = usual or [name for name in others if not PARTS.fullmatch(name)]
    if len(fitting) == 1:
        return fitting[0]
    if not others:
        raise DataError(f"{table.what}: {naming!r} is its only column: there are no labels in it. Pass --labels none.")
    if not fitting:
        raise DataError(f"{table.what}: {listed(others)} says which part of the set an image belongs to, not its class. "
                        f"To use it all the same: --labels {option}:{others[0]}")
    raise DataError(f"{table.what}: several columns may be the labels: {listed(fitting)}. Choose one: --labels "
                    f"{option}:{fitting[0]}")


def listed(columns: Sequence[str]) -> str:
    shown = ", ".join(map(printable, columns[:50]))
    return shown + (f" and {len(columns) - 50} more" if len(columns) > 50 else "")


def _plain(column: str) -> str:
    return re.sub(r"[\s\-]+", "_", column.strip().lower())


def _classes(values: Sequence[str], table: Table, column: str) -> tuple[Labels, tuple[str, ...]]:
    """The values as numbers of classes, and the classes: by value if all are whole numbers, else by text."""
    counts = Counter(values)
    what = f"{table.what}: the column {column!r}"
    if is_nested(counts):
        raise DataError(f"{what} holds lists or objects, but a label is one number or word. Choose another as "
                        "--labels FILE:COLUMN.")
    numbers = {value: _number(value) for value in counts}
    whole = {value: int(number) for value, number in numbers.items() if number is not None and number.is_integer()}
    if all(number is not None for number in numbers.values()) and len(whole) < len(counts):
        example = next(value for value in counts if value not in whole)
        raise DataError(f"{what} holds measurements such as {example}, not classes. Group them into classes, or pass "
                        "--labels none.")
    texts = {value: str(whole[value]) for value in whole} if len(whole) == len(counts) else {value: value for value in counts}
    distinct = sorted(set(texts.values()), key=int) if len(whole) == len(counts) else sorted(set(texts.values()))
    if len(distinct) > MAX_CLASSES:
        raise DataError(f"{what} holds {len(distinct):,} different values: names, ids or measurements rather than classes "
                        f"(at most {MAX_CLASSES:,}). Choose another as --labels FILE:COLUMN, or pass --labels none.")
    if len(distinct) == len(values) > _ALL_DIFFERENT:
        raise DataError(f"{what} holds another value for each of {len(values)} images: names or captions rather than classes. "
                        "Choose another as --labels FILE:COLUMN, or pass --labels none.")
    if len(distinct) < 2:
        raise DataError(f"{what} holds only one value, {distinct[0]!r}, but labels need two or more. Pass --labels none.")
    places = {text: index for index, text in enumerate(distinct)}
    labels = np.array([places[texts[value]] for value in values], dtype=np.int64)
    if distinct == ["-1", "1"]:                    # an attribute, as in CelebA
        distinct = [f"not {column}", column]
    return labels, tuple(map(printable, distinct))


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if abs(number) < 2**53 else None
