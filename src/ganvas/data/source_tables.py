"""Reads a table of labels: .csv, .tsv, .jsonl, .json (also StyleGAN's dataset.json), and CelebA's .txt."""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ganvas.data.decode import image_extensions
from ganvas.errors import DataError

TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".txt")

Cell = str | None                      # None: there is no value


@dataclass(frozen=True)
class Table:
    """Rows of text under named columns. `lines` are the places of the rows in the file, for messages."""

    what: str                          # as the user would call it
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    lines: list[int]
    place: str = "line"                # what `lines` counts

    def column(self, name: str) -> list[Cell]:
        index = self.columns.index(name)
        return [row[index] for row in self.rows]


def read_table(data: bytes, name: str, what: str) -> Table:
    """The table in the file `name`, whose ending says what kind it is; `what` is what messages call it.

    Raises DataError: not text, not of that kind, rows of another length, values that are lists.
    """
    ending = name[name.rfind("."):].lower()
    text = _text(data, what)
    if ending in (".csv", ".tsv"):
        return _from_csv(text, what, "\t" if ending == ".tsv" else None)
    if ending == ".jsonl":
        return _from_jsonl(text, what)
    if ending == ".json":
        return _from_json(text, what)
    return _from_columns_of_text(text, what)


def _text(data: bytes, what: str) -> str:
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{what}: line {line} is not UTF-8 text (byte 0x{data[error.start]:02x}). Save the table as "
                        "UTF-8.") from error
    if "\0" in text:
        raise DataError(f"{what}: is no text file: it holds zero bytes.")
    return text


def _from_csv(text: str, what: str, delimiter: str | None) -> Table:
    if delimiter is None:
        heading = text[:text.find("\n")] if "\n" in text else text
        delimiter = max(",;\t", key=heading.count)          # the comma where none occurs: one column
    rows, lines = [], []
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append(tuple(cell.strip() or None for cell in cells))
                lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"{what}: line {reader.line_num} cannot be read as a table ({error}).") from error
    return _with_heading(rows, lines, what)


def _from_columns_of_text(text: str, what: str) -> Table:
    """CelebA's: a count, the names of the attributes, then a file name and its values; or names and labels in two columns."""
    split = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    is_celeba = len(split) > 2 and len(split[0][1]) == 1 and split[0][1][0].isdigit() and len(split[2][1]) == len(split[1][1]) + 1
    if is_celeba:
        rows: list[tuple[Cell, ...]] = [("file_name", *split[1][1])]
        return _with_heading(rows + [tuple(cells) for _, cells in split[2:]], [number for number, _ in split[1:]], what)
    if split and all(len(cells) == 2 for _, cells in split):
        return _with_heading([tuple(cells) for _, cells in split], [number for number, _ in split], what)
    raise DataError(f"{what}: is neither CelebA's list of attributes nor two columns, file name and label. Save it as .csv.")


def _with_heading(rows: list[tuple[Cell, ...]], lines: list[int], what: str) -> Table:
    """The table whose first row may be the heading: it stays among the rows under numbered columns if it names a file itself."""
    if not rows:
        raise DataError(f"{what}: there is no row in it.")
    width = len(rows[0])
    for row, line in zip(rows, lines, strict=True):
        if len(row) != width:
            raise DataError(f"{what}: line {line} has {len(row)} fields, but the first row has {width}. Quote fields that hold "
                            "the separator, or mend that line.")
    heading = rows[0]
    if any(cell is not None and _looks_like_a_file(cell) for cell in heading):
        return Table(what, tuple(str(number + 1) for number in range(width)), rows, lines)
    names = tuple(cell or f"column {number + 1}" for number, cell in enumerate(heading))
    if len(set(names)) < width:
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{what}: two of its columns are called {twice!r}. Rename one of them.")
    return Table(what, names, rows[1:], lines[1:])


def _looks_like_a_file(cell: str) -> bool:
    return cell[cell.rfind("."):].lower() in image_extensions() if "." in cell else False


def _from_jsonl(text: str, what: str) -> Table:
    records, lines = [], []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            records.append(_parsed(line, what, number))
            lines.append(number)
    return _from_records(records, lines, what, "line")


def _from_json(text: str, what: str) -> Table:
    """dataset.json ({"labels": [[name, label], ...]}), a list of records or of pairs, or {name: label}."""
    content = _parsed(text, what, None)
    if isinstance(content, dict) and "labels" in content:
        content = content["labels"]
        if content is None:
            raise DataError(f"{what}: its \"labels\" are null: this set has none. Pass --labels none.")
    if isinstance(content, dict):
        content = [[name, label] for name, label in content.items()]
    if not isinstance(content, list):
        raise DataError(f"{what}: holds no list of labels. Expected is {{\"labels\": [[\"name.png\", 3], ...]}}, or a list of "
                        "records.")
    places = list(range(1, len(content) + 1))
    if content and all(isinstance(entry, list) and len(entry) == 2 for entry in content):
        content = [{"file_name": name, "label": label} for name, label in content]
    return _from_records(content, places, what, "entry")


def _parsed(text: str, what: str, line: int | None) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        at = "" if line is None else f"line {line} "
        raise DataError(f"{what}: {at}is no valid JSON ({error}).") from error


def _from_records(records: list[Any], lines: list[int], what: str, place: str) -> Table:
    columns: dict[str, None] = {}
    for record, line in zip(records, lines, strict=True):
        if not isinstance(record, dict):
            raise DataError(f'{what}: {place} {line} is no record such as {{"file_name": "a.png", "label": "cat"}}.')
        columns.update(dict.fromkeys(record))
    if not records:
        raise DataError(f"{what}: there is no row in it.")
    rows = [tuple(_cell(record.get(name)) for name in columns) for record in records]
    return Table(what, tuple(columns), rows, lines, place)


def _cell(value: Any) -> Cell:
    """A value of JSON as text. Lists and objects stay JSON: harmless in columns that nobody asks for."""
    if value is None:
        return None
    if isinstance(value, str):
        return value.strip() or None
    return json.dumps(value)


def is_nested(cells: Iterable[Cell]) -> bool:
    """Whether a value is a list or an object of JSON."""
    return any(cell is not None and cell[:1] in ("[", "{") and cell[-1:] in ("]", "}") for cell in cells)
