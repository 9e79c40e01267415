"""CIFAR-10 and CIFAR-100 in their binary version (https://www.cs.toronto.edu/~kriz/cifar.html): records of label and pixels."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ganvas.data.source_arrays import ArraySource
from ganvas.data.source_base import Pixels, UnreadableError, printable
from ganvas.data.source_files import ListedFiles
from ganvas.data.source_listing import Files
from ganvas.errors import DataError

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE                        # red, green, blue planes
_PYTHON = re.compile(r"data_batch_\d|batches\.meta|cifar-100-python")


@dataclass(frozen=True)
class _Kind:
    name: str
    training: re.Pattern[str]
    test: str
    label_bytes: int                               # the last of them is the label that counts
    classes: int
    names_file: str


_KINDS = (_Kind("CIFAR-10", re.compile(r"data_batch_\d+\.bin"), "test_batch.bin", 1, 10, "batches.meta.txt"),
          _Kind("CIFAR-100", re.compile(r"train\.bin"), "test.bin", 2, 100, "fine_label_names.txt"))


def cifar_in(files: Files, name: str) -> ArraySource | None:
    """The training images of a binary CIFAR set that lies among `files`; None if there is none.

    Raises DataError if its files are damaged, or for the Python version, which is made of pickles.
    """
    for kind in _KINDS:
        batches = sorted(name for name in files.names if kind.training.fullmatch(_base(name)))
        # train.bin is a common name: CIFAR-100's has its list of class names beside it.
        if batches and (kind.classes == 10 or any(_base(name) == kind.names_file for name in files.names)):
            folder = PurePosixPath(batches[0]).parent
            others = [name for name in files.names if _base(name) == kind.test]
            rest = f"; not {', '.join(_base(name) for name in others)}" if others else ""
            note = f"only the training images of this {kind.name} set are used{rest}"
            return _read(files, [name for name in batches if PurePosixPath(name).parent == folder], kind, name, [note])
    if any(_PYTHON.fullmatch(part) for file in files.names for part in file.split("/")):
        raise DataError(f"{files.where}: is the Python version of CIFAR, made of pickles, which could run code. Download the "
                        "binary "
                        "version (cifar-10-binary.tar.gz or cifar-100-binary.tar.gz) instead: `ganvas data fetch cifar10` does.")
    return None


def cifar_file(path: Path, where: str) -> ArraySource | None:
    """One file of a binary CIFAR set, training or test, as its name says; None if the name says nothing."""
    for kind in _KINDS:
        if kind.training.fullmatch(path.name) or path.name == kind.test:
            files = ListedFiles([path, *([path.with_name(kind.names_file)] if path.with_name(kind.names_file).is_file() else [])])
            files.where = where
            return _read(files, files.names[:1], kind, path.stem, [])
    return None


def _base(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _read(files: Files, batches: Sequence[str], kind: _Kind, name: str, notes: list[str]) -> ArraySource:
    files.check(batches)
    record = kind.label_bytes + _PIXELS
    digest = hashlib.sha256()
    images: list[Pixels] = []
    labels: list[Pixels] = []
    for batch in batches:
        data = _content(files, batch)
        shown = printable(batch)
        if not data or len(data) % record:
            raise DataError(f"{files.where}: {shown} has {len(data):,} bytes, which are no whole number of {kind.name}'s "
                            "records of "
                            f"{record:,} bytes. It may be cut short: download it again.")
        records = np.frombuffer(data, dtype=np.uint8).reshape(-1, record)
        labels.append(records[:, kind.label_bytes - 1])
        if labels[-1].max() >= kind.classes:
            raise DataError(f"{files.where}: {shown} holds the label {labels[-1].max()}, but {kind.name} has {kind.classes} "
                            "classes. "
                            "It is damaged or no such file: download it again.")
        images.append(records[:, kind.label_bytes:].reshape(-1, 3, _SIDE, _SIDE))
        digest.update(data)
    pixels = images[0] if len(images) == 1 else np.concatenate(images)
    if kind.label_bytes == 2:
        notes = [*notes, "labels are the 100 fine ones, not the 20 coarse ones"]
    return ArraySource(np.moveaxis(pixels, 1, 3), files.where, name, name, digest.hexdigest(),
                       labels=np.concatenate(labels), class_names=_class_names(files, kind), notes=notes)


def _content(files: Files, name: str) -> bytes:
    try:
        return files.read(name)
    except UnreadableError as error:
        raise DataError(f"{files.where}: its {printable(name)} cannot be read ({error.reason}).") from error


def _class_names(files: Files, kind: _Kind) -> list[str]:
    """The names in the text file of the set, if it is there and lists all of them; else the numbers."""
    found = next((name for name in files.names if _base(name) == kind.names_file), None)
    names = _content(files, found).decode("utf-8", "replace").split() if found is not None else []
    return names if len(names) == len(set(names)) == kind.classes else [str(number) for number in range(kind.classes)]
