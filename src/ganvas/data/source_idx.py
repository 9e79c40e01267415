"""MNIST's idx files (http://yann.lecun.com/exdb/mnist): magic, sizes as big-endian 32 bit, then bytes."""

import gzip
import math
import re
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from ganvas.data.source_arrays import DEFLATE_BEST_RATIO, ArraySource, images_in, labels_in, stamp_of_files
from ganvas.data.source_base import Pixels
from ganvas.errors import DataError

IDX_IMAGES = re.compile(r"(?P<part>.+)-images[-.]idx3-ubyte(?:\.gz)?", re.IGNORECASE)


def idx_training_file(folder: Path) -> Path | None:
    """The training images of an MNIST-like set in `folder`, unpacked rather than packed; None if there are none."""
    found = [path for path in sorted(folder.iterdir())
             if (match := IDX_IMAGES.fullmatch(path.name)) and match["part"].lower() == "train" and path.is_file()]
    return found[0] if found else None


def source_from_idx(path: Path, where: str, name: str) -> ArraySource:
    """An idx file of images, with the file of labels that lies beside it, if there is one."""
    match = IDX_IMAGES.fullmatch(path.name)
    assert match, f"{path} was chosen by another pattern"
    part = match["part"]
    beside = f"{where}: {path.name}" if path.name != Path(where).name else where
    images = _read_idx(path, 3, beside)
    notes = []
    used = [path]
    labels = None
    labels_path = _labels_beside(path, part)
    if labels_path is None:
        notes.append(f"no {part}-labels-idx1-ubyte beside {path.name}: the images have no labels")
    else:
        used.append(labels_path)
        labels = labels_in(_read_idx(labels_path, 1, f"{labels_path}"), len(images), f"{labels_path}")
    return ArraySource(images_in(images, beside), where, name, f"{part}-images", stamp_of_files(used),
                       labels=labels, notes=notes)


def _labels_beside(path: Path, part: str) -> Path | None:
    names = [f"{part}-labels{mark}idx1-ubyte{ending}" for mark in "-." for ending in ("", ".gz")]
    return next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)


def _read_idx(path: Path, dimensions: int, what: str) -> Pixels:
    """The array of an idx file, optionally gzipped. Checks magic and sizes before it allocates."""
    packed = path.suffix.lower() == ".gz"
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as opened:
            file = cast(BinaryIO, opened)
            header = file.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions or header[:4] != bytes((0, 0, 8, dimensions)):
                kind = "images" if dimensions == 3 else "labels"
                raise DataError(f"{what}: is no idx file of {kind}: it begins with {header[:4].hex(' ')}, not with "
                                f"00 00 08 {dimensions:02x}. Download it again.")
            shape = np.frombuffer(header, dtype=">u4", offset=4).tolist()
            wanted = math.prod(shape)
            most = path.stat().st_size * (DEFLATE_BEST_RATIO if packed else 1)
            data = file.read(wanted + 1) if wanted <= most else b""
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{what}: cannot be read ({error}). It may be cut short: download it again.") from error
    if len(data) != wanted:
        fault = "has bytes left over" if len(data) > wanted else "is cut short"
        raise DataError(f"{what}: {fault}: its header promises {' x '.join(map(str, shape))} = {wanted:,} bytes. "
                        "Download it again.")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def idx_folder_notes(folder: Path) -> list[str]:
    """Says that only the training part is used, and what else lies there."""
    other = [path.name for path in sorted(folder.iterdir())
             if (match := IDX_IMAGES.fullmatch(path.name)) and match["part"].lower() != "train"]
    rest = f"; not {', '.join(other)}" if other else ""
    return [f"only the training images of this MNIST set are used{rest}"]
