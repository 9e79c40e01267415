"""SVHN's cropped digits (http://ufldl.stanford.edu/housenumbers): MATLAB files with X (32, 32, 3, N) and y (N, 1).

Reads MATLAB's level 5 format (MathWorks, "MAT-File Format") itself: scipy's reader ends the whole process on damaged files.
"""

import math
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ganvas.data.source_arrays import ArraySource, stamp_of_files
from ganvas.data.source_zip import MAX_COMPRESSION_RATIO, SMALL_MEMBER_BYTES
from ganvas.errors import DataError

_WANTED = "Expected are uint8 X of the shape (height, width, 3, N) and y with N labels, as in SVHN's train_32x32.mat."

_MATRIX, _COMPRESSED, _NAME, _DIMENSIONS, _FLAGS = 14, 15, 1, 5, 6       # types of elements
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}


@dataclass(frozen=True)
class _Variable:
    shape: tuple[int, ...]
    values: npt.NDArray[Any] | None        # None: not read, because it is neither X nor y, or holds no numbers


def source_from_mat(path: Path, where: str) -> ArraySource:
    """The images of a .mat like SVHN's, with labels; its label 10 is the digit 0. Raises DataError."""
    try:
        variables = _read_mat(path)
    except _Hdf5Error as error:
        full = " This is the full set; the cropped digits are train_32x32.mat." if path.name.lower() == "digitstruct.mat" else ""
        raise DataError(f"{where}: is a MATLAB 7.3 file (HDF5), which is not read here.{full} Save it with save(..., '-v7'), "
                        "or as .npz.") from error
    except (OSError, ValueError, struct.error, zlib.error, OverflowError) as error:
        raise DataError(f"{where}: cannot be read as .mat ({error}). It may be damaged or cut short: download it "
                        "again.") from error

    images = variables["X"].values if "X" in variables else None
    if images is None or images.ndim != 4:
        held = ", ".join(f"{name} {variable.shape}" for name, variable in variables.items()) or "nothing"
        raise DataError(f"{where}: holds {held}. {_WANTED}")
    if images.dtype != np.uint8 or images.shape[2] not in (1, 3, 4) or 0 in images.shape:
        raise DataError(f"{where}: its X is {images.dtype} {images.shape}. {_WANTED}")
    labels, notes = variables["y"].values if "y" in variables else None, []
    if labels is None:
        notes.append("no y in the file: the images have no labels")
    else:
        if labels.size != images.shape[3] or (labels != np.rint(labels)).any():
            raise DataError(f"{where}: its y is {labels.dtype} {labels.shape}, but {images.shape[3]:,} images need as many whole "
                            f"numbers. {_WANTED}")
        labels = labels.reshape(-1).astype(np.int64)
        if labels.min() >= 1 and labels.max() == 10:
            labels[labels == 10] = 0
    return ArraySource(np.moveaxis(images, 3, 0), where, path.stem, path.name, stamp_of_files([path]), labels=labels, notes=notes)


def svhn_training_file(folder: Path) -> Path | None:
    """SVHN's cropped training digits in `folder`, or None."""
    path = folder / "train_32x32.mat"
    return path if path.is_file() else None


class _Hdf5Error(Exception):
    pass


def _read_mat(path: Path) -> dict[str, _Variable]:
    """All variables by name, with the values of X and y. Raises _Hdf5Error, or ValueError and the like for damaged files."""
    variables: dict[str, _Variable] = {}
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size - 128
        header = file.read(128)
        if header.startswith((b"MATLAB 7.3", b"\x89HDF")):
            raise _Hdf5Error
        order = {b"IM": "<", b"MI": ">"}.get(header[126:])
        if order is None:
            raise ValueError("it does not begin like one")
        while left > 0:
            kind, size = struct.unpack(f"{order}II", file.read(8))
            left -= 8 + size
            if left < 0:
                raise ValueError("it ends in the middle of a variable")
            body = file.read(size)
            if kind == _COMPRESSED:
                body = _inflated(body, order)
            elif kind != _MATRIX:
                raise ValueError(f"an element of type {kind} where a variable should be")
            name, variable = _variable(body, order)
            variables[name] = variable
    return variables


def _inflated(packed: bytes, order: str) -> bytes:
    """The variable in a compressed element, without its tag."""
    unpacker = zlib.decompressobj()
    kind, size = struct.unpack(f"{order}II", unpacker.decompress(packed, 8))
    if kind != _MATRIX or not size:
        raise ValueError(f"a compressed element of type {kind}")
    if size > max(SMALL_MEMBER_BYTES, MAX_COMPRESSION_RATIO * len(packed)):
        raise ValueError(f"{len(packed):,} bytes that promise to become {size:,}")
    body = unpacker.decompress(unpacker.unconsumed_tail, size)
    unpacker.decompress(unpacker.unconsumed_tail, 8)       # to the checksum at the end, which is compared
    if len(body) < size or not unpacker.eof:
        raise ValueError("it ends in the middle of compressed data")
    return body


def _variable(body: bytes, order: str) -> tuple[str, _Variable]:
    """Name, shape and, for numbers called X or y, values, in MATLAB's order (the first axis fastest)."""
    position = 0

    def element(wanted: int | None = None) -> tuple[int, memoryview]:
        nonlocal position
        kind, size = struct.unpack_from(f"{order}II", body, position)
        start = position + 8
        if kind >> 16:                                     # up to four bytes share the tag
            kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
        position = start + size + (-(start + size) % 8)
        if start + size > len(body) or (wanted is not None and kind != wanted):
            raise ValueError("a variable does not follow the format")
        return kind, memoryview(body)[start:start + size]

    flags = np.frombuffer(element(_FLAGS)[1], dtype=f"{order}u4")
    shape = tuple(np.frombuffer(element(_DIMENSIONS)[1], dtype=f"{order}i4").tolist())
    name = bytes(element(_NAME)[1]).decode("latin-1")
    kind = int(flags[0]) & 0xFF if flags.size else 0
    if name not in ("X", "y") or kind not in _CLASSES:
        return name, _Variable(shape, None)
    stored, data = element()
    if stored not in _STORED:
        raise ValueError(f"{name} holds values of type {stored}")
    values = np.frombuffer(data, dtype=f"{order}{_STORED[stored]}")
    if min(shape, default=-1) < 0 or math.prod(shape) != values.size:
        raise ValueError(f"{name} of {shape} holds {values.size:,} values")
    return name, _Variable(shape, values.astype(_CLASSES[kind], copy=False).reshape(shape, order="F"))
