"""Stacked MNIST: three digits in the three colour channels, so that 1,000 classes can be counted in what a generator makes."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from ganvas.data.source_idx import idx_training_file, source_from_idx
from ganvas.errors import DataError
from ganvas.files import whole_file
from ganvas.rng import Purpose, integers

COUNT = 60_000                         # as many as MNIST; each of the 1,000 classes has about 60
FILE = "stacked-mnist.npz"

_SEED = 0


def stack_digits(mnist: Path, target: Path, count: int = COUNT) -> Path:
    """Writes `target`, an .npz of images (count, 28, 28, 3) uint8 and labels "000" to "999" (Metz et al. 2017, Unrolled GAN).

    mnist: the folder of MNIST's files, of which the training part is used. Channel k of image i is the digit number
    integers(0, REPLACEMENT, 3 i + k): always the same set. A whole file that is there already stays.
    Raises DataError where MNIST is not in the folder, or has no labels.
    """
    if _is_whole(target):
        return target
    path = idx_training_file(mnist)
    if path is None:
        raise DataError(f"{mnist}: MNIST's training images (train-images-idx3-ubyte.gz) are not in this folder.")
    digits = source_from_idx(path, str(path), path.stem)
    if digits.labels is None:
        raise DataError(f"{path}: MNIST's labels (train-labels-idx1-ubyte.gz) do not lie beside it.")
    chosen = integers(_SEED, Purpose.REPLACEMENT, np.arange(3 * count), len(digits)).reshape(count, 3)
    pixels = np.stack([digits.load(index)[:, :, 0] for index in range(len(digits))])
    labels = digits.labels[chosen] @ np.array([100, 10, 1])
    with whole_file(target) as partial, partial.open("wb") as file:
        np.savez_compressed(file, images=np.stack([pixels[chosen[:, k]] for k in range(3)], axis=-1),
                            labels=np.array([f"{label:03d}" for label in labels]))
    return target


def _is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None and archive.namelist() == ["images.npy", "labels.npy"]
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError):
        return False
