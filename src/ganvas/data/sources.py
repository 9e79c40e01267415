"""Turns what the user names (a folder, a zip, MNIST files, an array, "digits") into a `Source` of images."""

import difflib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ganvas.data.decode import image_extensions
from ganvas.data.source_arrays import (
    IDX_IMAGES,
    idx_folder_notes,
    idx_training_file,
    source_from_array,
    source_from_digits,
    source_from_idx,
    source_from_npy,
    source_from_npz,
)
from ganvas.data.source_base import Source, UnreadableError
from ganvas.data.source_files import FolderSource, ZipSource
from ganvas.errors import ConfigError, DataError

__all__ = ["KINDS", "Source", "UnreadableError", "open_source"]

KINDS = "a folder of images, a .zip of them, MNIST idx files, .npz, .npy, or the word digits"


def open_source(where: str | Path | npt.NDArray[Any], labels: Literal["none", "folder"] = "none") -> Source:
    """The images at `where`: found, listed in a fixed order, not decoded. See `KINDS`; an array is one of the caller's.

    labels: "folder" takes each image's class from its first sub-folder; labels stored in a file come in any case.
    Nothing is unpacked to disk and no pickle is ever loaded. What the user should know is in the source's `notes`.
    Raises DataError, naming `where` and the remedy: not found, no images, damaged, dangerous.
    """
    if labels not in ("none", "folder"):
        raise ConfigError(f"labels {labels!r}: must be none or folder.")
    source = _open(where, by_folder=labels == "folder")
    if labels == "folder" and source.labels is None:
        source.close()
        raise DataError(f"{source.where}: --labels folder needs sub-folders, and there are no labels in it either. "
                        "Pass --labels none.")
    return source


def _open(where: str | Path | npt.NDArray[Any], by_folder: bool) -> Source:
    if isinstance(where, np.ndarray):
        return source_from_array(where)
    if where == "digits":
        clash = Path("digits").exists()
        return source_from_digits(["these are the built-in digits: write ./digits for the folder here"] if clash else [])

    shown, path = str(where), Path(where).expanduser()
    if not path.exists():
        raise DataError(_not_found(shown, path))
    if path.is_dir():
        idx_file = idx_training_file(path)
        if idx_file is None:
            return FolderSource(path, shown, by_folder)
        source = source_from_idx(idx_file, shown, path.resolve().name)
        source.notes = [*idx_folder_notes(path), *source.notes]
        return source

    ending = path.suffix.lower()
    if match := IDX_IMAGES.fullmatch(path.name):
        return source_from_idx(path, shown, f"{match['part']}-images")
    if ending == ".zip":
        return ZipSource(path, shown, by_folder)
    if ending == ".npz":
        return source_from_npz(path, shown)
    if ending == ".npy":
        return source_from_npy(path, shown)
    if ending in image_extensions():
        raise DataError(f"{shown}: is a single image. Pass the folder that holds all of them: {path.parent}")
    if "labels" in path.name and "idx1" in path.name:
        raise DataError(f"{shown}: holds labels. Pass the file of images beside it: its labels are found by themselves.")
    raise DataError(f"{shown}: is no kind of file that holds images here. A source is {KINDS}.")


def _not_found(shown: str, path: Path) -> str:
    parent = path.parent
    if not parent.is_dir():
        while not parent.exists():
            parent = parent.parent
        return f"{shown}: does not exist, and {parent} is as far as the path goes. A source is {KINDS}."
    names = [*sorted(entry.name for entry in parent.iterdir()), "digits"]
    near = {name.lower(): name for name in names}
    close = [near[name] for name in difflib.get_close_matches(path.name.lower(), near, n=3)]
    hint = f"Did you mean {' or '.join(close)}?" if close else f"A source is {KINDS}."
    return f"{shown}: does not exist. {hint}"
