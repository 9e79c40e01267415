"""Sources that are Python objects: a map-style dataset, a list of arrays or pictures, a tensor. Nothing here needs torch."""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ganvas.data.decode import to_plain_mode
from ganvas.data.source_arrays import numbered
from ganvas.data.source_base import Labels, Pixels, Source, UnreadableError, printable
from ganvas.errors import DataError

_IMAGE_KEYS = ("image", "img", "pixel_values")
_LABEL_KEYS = ("label", "labels", "fine_label", "class")
_ASKED_TWICE = 4                       # so many items are read twice, to notice random transforms


class DatasetSource(Source):
    """The images of anything with `__len__` and `__getitem__`, asked for under one lock."""

    def __init__(self, dataset: Any, what: str, name: str, item_prefix: str,
                 progress: Callable[[int, int], None] | None = None):
        """Reads all items once: for the stamp, which is a hash of all pixels, for the labels, and for the range of floats.

        progress(items read, all): called after each; what it raises ends the reading.
        """
        self._dataset, self._what, self._prefix = dataset, what, item_prefix
        self._lock = threading.Lock()
        self._count = len(dataset)
        self._signed = False                       # whether floats run from -1, not from 0: one image alone cannot tell
        if not self._count:
            raise DataError(f"{what}: there is no image in it.")
        digest = hashlib.sha256()
        labels: list[Any] = []
        failures: list[UnreadableError] = []
        for index in range(self._count):
            try:
                raw, label = self._raw(index)
            except UnreadableError as error:
                failures.append(error)
                labels.append(None)
                digest.update(b"unreadable")
            else:
                labels.append(label)
                if raw.dtype.kind == "f" and raw.min() < 0:
                    self._signed = True
                digest.update(repr((raw.shape, raw.dtype.str)).encode())
                digest.update(np.ascontiguousarray(raw).data)
            if progress is not None:
                progress(index + 1, self._count)
        if len(failures) == self._count:
            raise DataError(f"{what}: none of its {self._count:,} items can be read. The first: "
                            f"{failures[0].reason}") from failures[0]

        numbers, class_names, notes = _labels(labels, bool(failures), getattr(dataset, "classes", None))
        if self._gives_others_again():
            notes.append(f"{what} gives other pixels each time an item is asked for: remove its random transforms, since "
                         "every image is "
                         "stored once and Ganvas mirrors and turns by itself")
        super().__init__(what, name, digest.hexdigest(), labels=numbers, class_names=class_names, notes=notes)

    def __len__(self) -> int:
        return self._count

    def item_name(self, index: int) -> str:
        return f"{self._prefix}[{index}]"

    def load(self, index: int) -> Pixels:
        raw, _ = self._raw(index)
        if raw.dtype != np.uint8:
            raw = np.rint(((raw + 1) * 127.5 if self._signed else raw * 255).clip(0, 255))
        return raw.astype(np.uint8, copy=False)

    def _raw(self, index: int) -> tuple[npt.NDArray[Any], Any]:
        """The item as (H, W, C), uint8 or floats in [-1, 1], and its label or None.

        Raises UnreadableError if the dataset raises anything, DataError if the item is no image.
        """
        try:
            with self._lock:
                item = self._dataset[index]
        except Exception as error:                 # the dataset's own code: a missing file is one bad item, not the end
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise UnreadableError(self.item_name(index), reason) from error
        image, label = _image_and_label(item)
        return _plain_array(image, self.item_name(index)), label

    def _gives_others_again(self) -> bool:
        for index in np.unique(np.linspace(0, self._count - 1, min(_ASKED_TWICE, self._count)).round().astype(int)):
            try:
                if not np.array_equal(self._raw(int(index))[0], self._raw(int(index))[0]):
                    return True
            except UnreadableError:
                continue
        return False


def _image_and_label(item: Any) -> tuple[Any, Any]:
    """The image and the label of an item: (image, label, ...), a mapping as in Hugging Face's sets, or an image alone."""
    if isinstance(item, Mapping):
        image = next((item[key] for key in _IMAGE_KEYS if key in item), item)
        return image, next((item[key] for key in _LABEL_KEYS if key in item), None)
    if isinstance(item, (tuple, list)) and item and not np.isscalar(item[0]):
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def _plain_array(image: Any, name: str) -> npt.NDArray[Any]:
    """A PIL image, array or tensor as (H, W, C), uint8 or floats in [-1, 1]. Raises DataError, UnreadableError."""
    wanted = ("an item must be an image or (image, label): a PIL image, a uint8 array of (H, W), (H, W, C) or (C, H, W), or "
              "floats from 0 "
              "to 1 or from -1 to 1")
    if isinstance(image, Image.Image):
        try:
            plain: npt.NDArray[Any] = np.asarray(to_plain_mode(image))
        except Exception as error:                 # an image opened lazily is decoded only now
            raise UnreadableError(name, str(error) or type(error).__name__) from error
        return plain if plain.ndim == 3 else plain[..., None]
    is_tensor = is_a_tensor(image)
    if is_tensor:
        image = array_of_tensor(image)
    if not isinstance(image, np.ndarray):
        raise DataError(f"{name} is of the type {type(image).__module__}.{type(image).__qualname__}, but {wanted}.")
    kind = f"{name} is an array of {image.dtype} {image.shape}"
    ends = (0, 2) if is_tensor else (2, 0)         # where the channels are expected first, if both ends may be channels
    if image.ndim == 2:
        image = image[..., None]
    elif image.ndim == 3 and (end := next((end for end in ends if image.shape[end] in (1, 3, 4)), None)) is not None:
        image = np.moveaxis(image, end, 2)
    else:
        raise DataError(f"{kind}, but {wanted}, with 1, 3 or 4 channels.")
    if 0 in image.shape:
        raise DataError(f"{kind}: there is no pixel in it.")
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    if image.dtype.kind != "f":
        raise DataError(f"{kind} from {image.min()} to {image.max()}, but {wanted}.")
    low, high = float(image.min()), float(image.max())
    if not (low >= -1 and high <= 1):              # also where one is NaN
        raise DataError(f"{kind} from {low:g} to {high:g}, but {wanted}. Scale it, as torchvision's ToTensor does.")
    floats: npt.NDArray[Any] = image.astype(np.float32)
    return floats


def is_a_tensor(value: Any) -> bool:
    """Whether `value` is a torch tensor, or whatever else has its three methods."""
    return all(hasattr(value, name) for name in ("detach", "cpu", "numpy"))


def array_of_tensor(tensor: Any) -> npt.NDArray[Any]:
    plain = tensor.detach().cpu()
    try:
        array: npt.NDArray[Any] = plain.numpy()
    except TypeError:                              # bfloat16, which numpy lacks
        array = plain.float().numpy()
    return array


def _labels(labels: Sequence[Any], some_failed: bool, classes: Any) -> tuple[Labels | None, list[str], list[str]]:
    """Labels as 0 .. K-1, the classes' names, and notes; no labels unless every item has a whole number or a word."""
    if all(label is None for label in labels):
        return None, [], []
    plain = [_plain_label(label) for label in labels]
    if some_failed:                                # an item that cannot be read has no label; any will do, it is left out
        known = next(label for label in plain if label is not None)
        plain = [known if original is None else label for label, original in zip(plain, labels, strict=True)]
    if None in plain or len({type(label) for label in plain}) > 1:
        odd = next((label for label, ours in zip(labels, plain, strict=True) if ours is None), None)
        said = f"such as one of the type {type(odd).__name__}" if odd is not None else "or some items have none"
        return None, [], [f"the items' second parts are not used as labels: they are not all whole numbers or all words, {said}"]
    values = np.array(plain)
    if values.dtype.kind == "i" and isinstance(classes, Sequence) and values.min() >= 0 and values.max() < len(classes):
        return values.astype(np.int64), [printable(str(name)) for name in classes], []
    numbers, names = numbered(values)
    return numbers, [printable(name) for name in names], []


def _plain_label(label: Any) -> int | str | None:
    if is_a_tensor(label):
        label = array_of_tensor(label)
    if isinstance(label, np.ndarray):
        label = label.item() if label.size == 1 else None
    if isinstance(label, (bool, np.bool_)):
        return None
    if isinstance(label, (int, np.integer)):
        return int(label)
    return str(label) if isinstance(label, str) else None
