"""Turns what the user names (a folder, an archive, MNIST files, a dataset, "digits") into a `Source` of images."""

import difflib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from ganvas.data.decode import image_extensions
from ganvas.data.source_arrays import source_from_array, source_from_digits, source_from_npy, source_from_npz
from ganvas.data.source_base import Source, UnreadableError
from ganvas.data.source_cifar import cifar_file, cifar_in
from ganvas.data.source_dataset import DatasetSource, array_of_tensor, is_a_tensor
from ganvas.data.source_files import FileSource, Folder, FolderSource, ListedFiles, images_among
from ganvas.data.source_idx import IDX_IMAGES, idx_folder_notes, idx_training_file, source_from_idx
from ganvas.data.source_labels import check_labels_option
from ganvas.data.source_listing import Files, no_images
from ganvas.data.source_parts import parts_of
from ganvas.data.source_svhn import source_from_mat, svhn_training_file
from ganvas.data.source_tar import TAR_ENDINGS, Tar, name_without_ending
from ganvas.data.source_zip import Zip
from ganvas.errors import DataError

__all__ = ["KINDS", "Source", "UnreadableError", "open_source"]

KINDS = ("a folder of images, a .zip or .tar (.gz, .bz2, .xz) of them, MNIST idx files, CIFAR's binary version, SVHN's .mat, "
         ".npz, .npy, or the word digits")

_PICKLES = (".pkl", ".pickle", ".pt", ".pth")
_PACKED = {".7z": "7-Zip", ".rar": "RAR", ".zst": "Zstandard", ".lz4": "LZ4"}


def open_source(where: Any, labels: str = "none", tile: tuple[int, int] | None = None,
                frames: Literal["first", "all"] = "first", progress: Callable[[int, int], None] | None = None) -> Source:
    """The images at `where`: found, listed in a fixed order, not decoded.

    where: one of `KINDS` as a path. From Python also an array (N, H, W), (N, H, W, C) or (N, C, H, W) of uint8; a list of
    paths, or of arrays or PIL images of any sizes; or any map-style dataset (`__len__`, `__getitem__`) whose items are an
    image or (image, label, ...), all of which are read once here.
    labels: "folder" takes each image's class from its first sub-folder; FILE or FILE:COLUMN from a table (.csv, .tsv,
    .jsonl, .json, CelebA's .txt) inside the source or on disk. Labels stored beside arrays come in any case.
    tile: (width, height) of the pictures on a sprite sheet: each is an image of its own. frames: "all" for every frame of
    animated images. progress(done, all): called after each item of a dataset or list and each picture searched for parts,
    which take long; it may raise to stop the opening. Nothing is unpacked under a name of its own, and no pickle is ever loaded.
    What the user should know is in the source's `notes`, what was left out in `ignored`.
    Raises ConfigError for options that cannot be, DataError, naming `where` and the remedy: not found, no images, damaged,
    dangerous.
    """
    check_labels_option(labels)
    source = _open(where, labels, progress)
    try:
        if labels != "none" and not isinstance(source, FileSource):
            _refuse_missing_labels(source, labels)
        return parts_of(source, tile, frames, progress)
    except BaseException:
        source.close()
        raise


def _refuse_missing_labels(source: Source, labels: str) -> None:
    if labels != "folder":
        raise DataError(f"{source.where}: --labels {labels} needs image files, whose names it can list, but these images have "
                        "none. Pass "
                        "--labels none: labels stored with them are used in any case.")
    if source.labels is None:
        raise DataError(f"{source.where}: --labels folder needs sub-folders, and there are no labels in it either. "
                        "Pass --labels none.")


def _open(where: Any, labels: str, progress: Callable[[int, int], None] | None) -> Source:
    if not isinstance(where, (str, os.PathLike)):
        return _open_object(where, labels, progress)
    if where == "digits":
        clash = Path("digits").exists()
        return source_from_digits(["these are the built-in digits: write ./digits for the folder here"] if clash else [])

    shown, path = str(where), Path(where).expanduser()
    try:
        there = path.exists()
    except OSError as error:                       # a name that is too long, a circle of links
        raise DataError(f"{shown}: cannot be opened ({error.strerror or error}).") from error
    if not there:
        raise DataError(_not_found(shown, path))
    return _open_folder(path, shown, labels) if path.is_dir() else _open_file(path, shown, labels)


def _open_folder(path: Path, shown: str, labels: str) -> Source:
    name = path.resolve().name or "images"
    try:
        idx_file = idx_training_file(path)
    except OSError as error:
        raise DataError(f"{shown}: the folder cannot be read ({error.strerror or error}).") from error
    if idx_file is not None:
        source = source_from_idx(idx_file, shown, path.resolve().name)
        source.notes = [*idx_folder_notes(path), *source.notes]
        return source
    svhn_file = svhn_training_file(path)
    files = Folder(path, shown)
    return _open_files(files, name, labels, FolderSource, svhn_file)


def _open_files(files: Files, name: str, labels: str, kind: type[FileSource] = FileSource,
                svhn_file: Path | None = None) -> Source:
    """The images among `files`, or the set of arrays that lies there instead."""
    try:
        images, ignored = images_among(files.names, files.head)
        if images:
            return kind(files, name, images, ignored, labels)
        if svhn_file is not None:
            source: Source | None = source_from_mat(svhn_file, files.where)
            assert source is not None
            source.notes.insert(0, f"only {svhn_file.name} of this SVHN set is used")
        else:
            source = cifar_in(files, name)
        if source is None:
            raise DataError(no_images(files, [*files.left_out, *ignored]))
    except BaseException:
        files.close()
        raise
    files.close()
    return source


def _open_file(path: Path, shown: str, labels: str) -> Source:
    ending = path.suffix.lower()
    if not path.is_file():
        raise DataError(f"{shown}: is neither a file nor a folder. A source is {KINDS}.")
    if match := IDX_IMAGES.fullmatch(path.name):
        return source_from_idx(path, shown, f"{match['part']}-images")
    if ending == ".zip":
        return _open_files(Zip(path, shown), path.stem, labels)
    if path.name.lower().endswith(TAR_ENDINGS):
        return _open_files(Tar(path, shown), name_without_ending(path), labels)
    if ending == ".npz":
        return source_from_npz(path, shown)
    if ending == ".npy":
        return source_from_npy(path, shown)
    if ending == ".mat":
        return source_from_mat(path, shown)
    if ending == ".bin" and (cifar := cifar_file(path, shown)) is not None:
        return cifar
    if ending in image_extensions():
        raise DataError(f"{shown}: is a single image. Pass the folder that holds all of them: {path.parent}")
    if "labels" in path.name and "idx1" in path.name:
        raise DataError(f"{shown}: holds labels. Pass the file of images beside it: its labels are found by themselves.")
    if ending in _PICKLES:
        raise DataError(f"{shown}: is a pickle, which could run code and is never loaded. Save the images as .npz with "
                        "np.savez(path, images=..., labels=...), or as image files.")
    if ending in _PACKED:
        raise DataError(f"{shown}: {_PACKED[ending]} archives are not read. Unpack it and pass the folder.")
    raise DataError(f"{shown}: is no kind of file that holds images here. A source is {KINDS}.")


def _open_object(where: Any, labels: str, progress: Callable[[int, int], None] | None) -> Source:
    """The images in a Python object: an array, a tensor, a list, a dataset."""
    kind = type(where).__name__
    if isinstance(where, np.ndarray):
        return source_from_array(where)
    if isinstance(where, Image.Image):
        raise DataError("source: is a single image. Pass a list of images, or the folder that holds them.")
    if is_a_tensor(where):
        array = array_of_tensor(where)
        if array.dtype == np.uint8:
            return source_from_array(array)
        return DatasetSource(where, "the tensor", "tensor", "tensor", progress)
    if any(base.__name__ == "IterableDataset" for base in type(where).__mro__) or \
            (isinstance(where, Iterable) and not (hasattr(where, "__len__") and hasattr(where, "__getitem__"))):
        own = f" or its .dataset, if {kind} has that" if hasattr(where, "dataset") else ""
        raise DataError(f"source: {kind} can only be walked through, but images are asked for by their number. Pass list(...) "
                        f"of it{own}.")
    if not (hasattr(where, "__len__") and hasattr(where, "__getitem__")) or isinstance(where, (dict, bytes, set)):
        raise DataError(f"source: {kind} is no source of images. Pass a path, an array, a list of images or paths, or a "
                        "dataset with "
                        "__len__ and __getitem__.")
    if not isinstance(where, (list, tuple)):
        return DatasetSource(where, f"the dataset {kind}", kind.lower(), kind, progress)
    if not len(where):
        raise DataError("the list: there is no image in it.")
    if not all(isinstance(item, (str, os.PathLike)) for item in where):
        return DatasetSource(where, "the list", "list", "list", progress)
    paths = [Path(item).expanduser() for item in where]
    missing = [path for path in paths if not path.exists() and not path.is_symlink()]
    if missing:
        raise DataError(f"{missing[0]}: does not exist ({len(missing):,} of {len(paths):,} files in the list do not).")
    files = ListedFiles(paths)
    return FileSource(files, "files", files.names, [], labels)


def _not_found(shown: str, path: Path) -> str:
    parent = path.parent
    if not parent.is_dir():
        while not parent.exists():
            parent = parent.parent
        return f"{shown}: does not exist, and {parent} is as far as the path goes. A source is {KINDS}."
    try:
        names = [*sorted(entry.name for entry in parent.iterdir()), "digits"]
    except OSError:                                # a folder that may be entered but not listed
        names = ["digits"]
    near = {name.lower(): name for name in names}
    close = [near[name] for name in difflib.get_close_matches(path.name.lower(), near, n=3)]
    hint = f"Did you mean {' or '.join(close)}?" if close else f"A source is {KINDS}."
    return f"{shown}: does not exist. {hint}"
