"""Sources that hold pixels, not image files: .npz, .npy, scikit-learn's digits, an array of the caller's."""

import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ganvas.data.source_base import Pixels, Source, stamp_of, stamp_of_file
from ganvas.errors import DataError

IMAGE_KEYS = ("images", "x", "x_train", "arr_0")
LABEL_KEYS = ("labels", "y", "y_train")
DEFLATE_BEST_RATIO = 1100              # it cannot pack tighter than about 1,032 to 1


class ArraySource(Source):
    """Images that lie in one uint8 array."""

    def __init__(self, images: Pixels, where: str, name: str, item_prefix: str, stamp: str, *,
                 labels: npt.NDArray[Any] | None = None, class_names: Sequence[str] = (), notes: Iterable[str] = ()):
        """images: (N, H, W, C). labels: (N,) of any integer or text type; the distinct ones in order become the classes,
        unless `class_names` are given, which labels of 0 .. K-1 point into."""
        numbers = None
        if labels is not None:
            numbers, class_names = (labels.astype(np.int64), class_names) if class_names else numbered(labels)
        super().__init__(where, name, stamp, labels=numbers, class_names=class_names, notes=notes)
        self._images, self._item_prefix = images, item_prefix

    def __len__(self) -> int:
        return len(self._images)

    def item_name(self, index: int) -> str:
        return f"{self._item_prefix}[{index}]"

    def load(self, index: int) -> Pixels:
        return np.asarray(self._images[index])


def numbered(labels: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], list[str]]:
    """`labels` (N,) as 0 .. K-1 in the order of their values, and the K values as text."""
    values, numbers = np.unique(labels, return_inverse=True)
    return numbers.reshape(-1).astype(np.int64), [str(value) for value in values]


# Arrays: .npy, .npz, the caller's own.

def source_from_array(array: npt.NDArray[Any]) -> ArraySource:
    """An array of the caller's. Its stamp is a hash of the pixels."""
    images = images_in(array, "the array")
    return ArraySource(images, "the array", "array", "array", stamp_of_pixels(images))


def source_from_npy(path: Path, where: str) -> ArraySource:
    """A .npy file, mapped into memory, not read."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise DataError(f"{where}: cannot be read as .npy ({_npy_reason(error)}).") from error
    return ArraySource(images_in(array, where), where, path.stem, path.name, stamp_of_files([path]))


def source_from_npz(path: Path, where: str) -> ArraySource:
    """An .npz file: the array of images is read into memory; labels too, if it has some."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            key, images = _images_of_npz(archive, where)
            paired = LABEL_KEYS[IMAGE_KEYS.index(key)] if key in IMAGE_KEYS[:3] else ""
            label_key = next((name for name in (paired, *LABEL_KEYS) if name in archive.files), None)
            labels = None if label_key is None else labels_in(archive[label_key], len(images), f"{where}: {label_key!r}")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, SyntaxError, MemoryError) as error:
        raise DataError(f"{where}: cannot be read as .npz ({_npy_reason(error)}).") from error
    others = [name for name in archive.files if name not in (key, label_key)]
    notes = [f"images are taken from {key!r}; not used: {', '.join(others)}"] if others else []
    return ArraySource(images, where, path.stem, path.name, stamp_of_files([path]), labels=labels, notes=notes)


def _images_of_npz(archive: Mapping[str, npt.NDArray[Any]], where: str) -> tuple[str, Pixels]:
    keys = list(archive)
    for key in IMAGE_KEYS:
        if key in keys:
            return key, images_in(archive[key], f"{where}: {key!r}")
    suitable = [key for key in keys if _may_be_images(archive, key)]
    if len(suitable) == 1:
        return suitable[0], images_in(archive[suitable[0]], f"{where}: {suitable[0]!r}")
    fault = (f"{len(suitable)} arrays may be the images ({', '.join(suitable)})" if suitable
             else f"no array of images in it; it holds {', '.join(keys) or 'nothing'}")
    raise DataError(f"{where}: {fault}. Save them as np.savez(path, images=..., labels=...), with uint8 images.")


def _may_be_images(archive: Mapping[str, npt.NDArray[Any]], key: str) -> bool:
    try:
        array = archive[key]
    except ValueError:                 # Python objects, which are not loaded
        return False
    return array.ndim in (3, 4) and array.dtype == np.uint8


def _npy_reason(error: BaseException) -> str:
    if "Python objects" in str(error) or "Object arrays" in str(error):
        return "it holds Python objects, which could run code; save a plain uint8 array instead"
    if "allow_pickle" in str(error):             # what numpy says of any content that it does not know
        return "it is no numpy file, or a pickle, which could run code; save a plain uint8 array instead"
    return str(error) or type(error).__name__


def images_in(array: npt.NDArray[Any], what: str) -> Pixels:
    """`array` as (N, H, W, C). Accepts uint8 (N, H, W), (N, H, W, C) and (N, C, H, W) with C of 1, 3 or 4.

    Where both ends could be channels, the last is. Raises DataError, which begins with `what` and says how to convert.
    """
    if array.dtype != np.uint8:
        raise DataError(f"{what} holds {array.dtype} values{_how_to_convert(array)}")
    if array.ndim == 3:
        images = array[..., None]
    elif array.ndim == 4 and array.shape[3] in (1, 3, 4):
        images = array
    elif array.ndim == 4 and array.shape[1] in (1, 3, 4):
        images = np.moveaxis(array, 1, 3)
    else:
        raise DataError(f"{what} has the shape {array.shape}, but images are (N, H, W), (N, H, W, C) or (N, C, H, W) with "
                        "1, 3 or 4 channels.")
    if 0 in images.shape:
        raise DataError(f"{what} has the shape {array.shape}: there is no image in it.")
    return cast(Pixels, images)


def _how_to_convert(array: npt.NDArray[Any]) -> str:
    """The values' range and the line of Python that makes them uint8: a range alone is no proof, so the user decides."""
    wanted = ", but images are uint8 from 0 to 255."
    if array.dtype.kind not in "biuf" or not array.size:
        return wanted
    if array.dtype.kind == "b":
        return f"{wanted} Convert with x.astype(np.uint8) * 255."
    low, high = float(array.min()), float(array.max())
    if array.dtype.kind == "f" and low >= 0 and high <= 1:
        line = "(x * 255).round().astype(np.uint8)"
    elif low >= -1 and high <= 1:
        line = "((x + 1) * 127.5).round().astype(np.uint8)"
    elif low >= 0 and high <= 255:
        line = "x.round().astype(np.uint8)"
    else:
        line = "((x - low) / (high - low) * 255).round().astype(np.uint8), with the values that stand for black and white"
    return f" from {low:g} to {high:g}{wanted} Convert with {line}."


def labels_in(array: npt.NDArray[Any], count: int, what: str) -> npt.NDArray[Any]:
    if array.shape not in ((count,), (count, 1)):
        remedy = " Convert with labels.argmax(1)." if array.ndim == 2 and len(array) == count else ""
        raise DataError(f"{what} has the shape {array.shape}, but {count:,} images need {count:,} labels.{remedy}")
    if array.dtype.kind not in "biuUS":
        raise DataError(f"{what} holds {array.dtype} values, but labels are integers or text.")
    return array.reshape(count)


def stamp_of_files(paths: Sequence[Path]) -> str:
    return stamp_of((path.name, *stamp_of_file(path.stat())) for path in paths)


def stamp_of_pixels(images: Pixels) -> str:
    return stamp_of([images.shape, *(image.tobytes() for image in images)])


# The built-in digits.

def source_from_digits(notes: Iterable[str] = ()) -> ArraySource:
    """scikit-learn's 1,797 handwritten digits, 8x8 grey, with labels; its 17 levels spread over 0 to 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    return ArraySource(images, "digits", "digits", "digits", stamp_of_pixels(images), labels=digits.target, notes=notes)
