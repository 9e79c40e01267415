"""Features on disk: those of the reals beside their pack, and files that can be given to others as the reference."""

import contextlib
import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ganvas.data.source_base import Pixels
from ganvas.errors import DataError, RunError
from ganvas.files import whole_file
from ganvas.metrics.features import Extractor, Features, Images, Progress, check_finite, extract

_FORMAT = "ganvas-features-1"
# RuntimeError: zipfile's for flags and versions that it does not know.
# MemoryError: of an array as large as its header pretends.
_TORN = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


class Reference(NamedTuple):
    """Features of real images, with all that says whether figures made from them compare with others."""

    features: Features
    extractor: str                     # its name
    key: str
    preprocessing: str
    relative_only: bool
    classes: tuple[str, ...] | None
    source: str                        # whose images these are, for people


class _Chosen:
    """Some of the images, read by position among them."""

    def __init__(self, images: Images, indices: npt.NDArray[np.int64]):
        self._images, self._indices = images, indices

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, positions: npt.ArrayLike, /) -> Pixels:
        return self._images.read(self._indices[np.asarray(positions, np.int64)])


def real_features(extractor: Extractor, images: Images, home: Path | None, indices: npt.NDArray[np.int64] | None = None, *,
                  progress: Progress | None = None, tell: Callable[[str], None] = lambda text: None) -> Features:
    """The features of `images`, or of those at `indices` (n,): from the one file in `home` for this extractor, or made now.

    home: the folder of the pack that `images` are; None = nothing is kept. The file holds the features of all images that were
    ever asked for, in the pack's order; what is missing is computed and added. A file that is damaged, or of another number of
    images, is made again, and `tell` hears why. progress(done, total) of those that are missing. Raises DataError as `extract`
    does.
    """
    indices = np.arange(len(images)) if indices is None else np.asarray(indices, np.int64)
    if home is None:
        return extract(extractor, _Chosen(images, indices), progress)
    path = home / f"features-{extractor.key[:20]}.npz"
    known, features = np.zeros(len(images), bool), None
    if path.exists():
        try:
            known, features = _kept(path, extractor, len(images))
        except _TORN as error:
            tell(f"{path}: these kept features are not used ({error or type(error).__name__}); they are computed again")
    wanted = np.zeros(len(images), bool)
    wanted[indices] = True
    missing = np.flatnonzero(wanted & ~known)
    if features is None or len(missing):
        more = extract(extractor, _Chosen(images, missing), progress)
        features = more if features is None else _merged(known, features, missing, more)
        known |= wanted
        with contextlib.suppress(OSError):                 # a disk that is full: they are computed again next time
            _write(path, features, extractor, "", known)
    rows = (np.cumsum(known) - 1)[indices]                 # of each position among the known ones
    return Features(features.vectors[rows], None if features.probabilities is None else features.probabilities[rows])


def _kept(path: Path, extractor: Extractor, images: int) -> tuple[npt.NDArray[np.bool_], Features]:
    """(which of the images are known (N,), their features). Raises one of _TORN."""
    kept, known = _read(path)
    if kept.key != extractor.key or kept.features.vectors.shape[1] != extractor.dim:
        raise ValueError("it is of another extractor")
    if known is None or len(known) != images:
        raise ValueError(f"it is about {0 if known is None else len(known):,} images, not {images:,}")
    return known, kept.features


def _merged(known: npt.NDArray[np.bool_], features: Features, missing: npt.NDArray[np.int64], more: Features) -> Features:
    """The features of the known images and of those that were missing, in the order of positions."""
    places = np.searchsorted(np.flatnonzero(known), missing)
    probabilities = None
    if features.probabilities is not None and more.probabilities is not None:
        probabilities = np.insert(features.probabilities, places, more.probabilities, axis=0)
    return Features(np.insert(features.vectors, places, more.vectors, axis=0), probabilities)


def save_features(path: Path, features: Features, extractor: Extractor, source: str) -> None:
    """Writes a file that others can use as the reference: plain arrays and text, no code. source: whose images, for people.

    Raises RunError where it cannot be written.
    """
    try:
        _write(path, features, extractor, source)
    except OSError as error:
        raise RunError(f"{path}: the features cannot be written there ({error.strerror or error}).") from error


def load_features(path: Path, extractor: Extractor | None = None) -> Reference:
    """What `save_features` wrote. With an `extractor`, only features that this very extractor made.

    Raises DataError: no such file, another kind of file, damaged, not finite, or of another extractor.
    """
    try:
        kept, _ = _read(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist.") from error
    except _TORN as error:
        raise DataError(f"{path}: cannot be used as features ({error or type(error).__name__}). "
                        "Get the file again, or make it anew from the images.") from error
    check_finite(kept.features, f"{kept.extractor} in {path}")
    if extractor is not None and kept.key != extractor.key:
        what = (f"by the extractor {kept.extractor}, but {extractor.name} is in use" if kept.extractor != extractor.name else
                f"by {kept.extractor} with other weights or another preprocessing ({kept.preprocessing}), or, if it is your own "
                "function, on another kind of machine")
        raise DataError(f"{path}: these features were made {what}. Use one and the same extractor for both sides.")
    return kept


def _write(path: Path, features: Features, extractor: Extractor, source: str, known: npt.NDArray[np.bool_] | None = None) -> None:
    """known: (N,), which images of a pack the rows are of; None = the rows are all there is."""
    arrays: dict[str, Any] = {"vectors": np.ascontiguousarray(features.vectors, "<f4")}
    if known is not None:
        arrays["known"] = known
    if features.probabilities is not None:
        arrays["probabilities"] = np.ascontiguousarray(features.probabilities, "<f4")
    about = {"format": _FORMAT, "extractor": extractor.name, "key": extractor.key, "preprocessing": extractor.preprocessing,
             "relative_only": extractor.relative_only, "classes": extractor.classes, "source": source,
             "n": len(features.vectors), "check": _check(arrays)}
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez(file, about=np.array(json.dumps(about)), **arrays)


def _read(path: Path) -> tuple[Reference, npt.NDArray[np.bool_] | None]:
    """What `_write` wrote: the features, and `known`. Raises one of _TORN where the file is not whole."""
    with np.load(path, allow_pickle=False) as archive:
        if "about" not in archive.files:
            raise ValueError("it is no file of features")
        about = json.loads(str(archive["about"]))
        if about["format"] != _FORMAT:
            raise ValueError(f"its format is {about['format']!r}, not {_FORMAT!r}")
        arrays = {name: archive[name] for name in ("vectors", "probabilities", "known") if name in archive.files}
    if _check(arrays) != about["check"]:
        raise ValueError("its checksum does not fit: it is damaged")
    vectors, probabilities, known = arrays["vectors"], arrays.get("probabilities"), arrays.get("known")
    classes = None if about["classes"] is None else tuple(map(str, about["classes"]))
    _expect("vectors", vectors, "<f4", (about["n"], None))
    if probabilities is not None:
        _expect("probabilities", probabilities, "<f4", (about["n"], None if classes is None else len(classes)))
    if known is not None:
        _expect("known", known, "|b1", (None,))
        if known.sum() != about["n"]:
            raise ValueError(f"it knows {known.sum():,} images and holds {about['n']:,}")
    return Reference(Features(vectors, probabilities), str(about["extractor"]), str(about["key"]), str(about["preprocessing"]),
                     bool(about["relative_only"]), classes, str(about["source"])), known


def _expect(name: str, array: npt.NDArray[Any], kind: str, shape: tuple[int | None, ...]) -> None:
    """Raises ValueError unless `array` is of this type and shape; None = any length from 1."""
    if array.dtype.str != kind or array.ndim != len(shape) or not array.size or \
            any(wanted is not None and wanted != have for wanted, have in zip(shape, array.shape, strict=True)):
        raise ValueError(f"its {name} are {array.dtype} of shape {array.shape}, not {np.dtype(kind)} of "
                         f"({', '.join('any' if wanted is None else str(wanted) for wanted in shape)})")


def _check(arrays: dict[str, Any]) -> str:
    """A hash of the arrays, with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()
