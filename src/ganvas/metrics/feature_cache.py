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
_TORN = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


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
    """The features of `images`, or of those at `indices` (n,): from the file in `home` that an earlier call left, or made now.

    home: the folder of the pack whose images these are; None = nothing is kept. A file that is damaged, or of another number of
    images, is made again, and `tell` hears why. Raises DataError as `extract` does.
    """
    chosen = images if indices is None else _Chosen(images, np.asarray(indices, np.int64))
    if home is None:
        return extract(extractor, chosen, progress)
    which = "" if indices is None else f"-{hashlib.sha256(np.asarray(indices, '<i8').tobytes()).hexdigest()[:12]}"
    path = home / f"features-{extractor.key[:20]}{which}.npz"
    if path.exists():
        try:
            kept = _read(path)
            if kept.key != extractor.key:
                raise ValueError("it is of another extractor")
            if len(kept.features.vectors) != len(chosen):
                raise ValueError(f"it holds {len(kept.features.vectors):,} images, not {len(chosen):,}")
            return kept.features
        except _TORN as error:
            tell(f"{path}: these kept features are not used ({error or type(error).__name__}); they are computed again")
    features = extract(extractor, chosen, progress)
    with contextlib.suppress(OSError):                     # a disk that is full: they are computed again next time
        _write(path, features, extractor, "")
    return features


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
        kept = _read(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist.") from error
    except _TORN as error:
        raise DataError(f"{path}: cannot be used as features ({error or type(error).__name__}). "
                        "Get the file again, or make it anew from the images.") from error
    check_finite(kept.features, f"{kept.extractor} in {path}")
    if extractor is not None and kept.key != extractor.key:
        what = (f"by the extractor {kept.extractor}, but {extractor.name} is in use" if kept.extractor != extractor.name else
                f"by {kept.extractor} with other weights or another preprocessing ({kept.preprocessing})")
        raise DataError(f"{path}: these features were made {what}. Use one and the same extractor for both sides.")
    return kept


def _write(path: Path, features: Features, extractor: Extractor, source: str) -> None:
    arrays: dict[str, Any] = {"vectors": np.ascontiguousarray(features.vectors, "<f4")}
    if features.probabilities is not None:
        arrays["probabilities"] = np.ascontiguousarray(features.probabilities, "<f4")
    about = {"format": _FORMAT, "extractor": extractor.name, "key": extractor.key, "preprocessing": extractor.preprocessing,
             "relative_only": extractor.relative_only, "classes": extractor.classes, "source": source,
             "n": len(features.vectors), "check": _check(arrays)}
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez(file, about=np.array(json.dumps(about)), **arrays)


def _read(path: Path) -> Reference:
    """Raises one of _TORN where the file is not whole."""
    with np.load(path, allow_pickle=False) as archive:
        if "about" not in archive.files:
            raise ValueError("it is no file of features")
        about = json.loads(str(archive["about"]))
        if about["format"] != _FORMAT:
            raise ValueError(f"its format is {about['format']!r}, not {_FORMAT!r}")
        arrays = {name: archive[name] for name in ("vectors", "probabilities") if name in archive.files}
    if _check(arrays) != about["check"] or len(arrays["vectors"]) != about["n"]:
        raise ValueError("its checksum does not fit: it is damaged")
    classes = None if about["classes"] is None else tuple(map(str, about["classes"]))
    return Reference(Features(arrays["vectors"], arrays.get("probabilities")), str(about["extractor"]), str(about["key"]),
                     str(about["preprocessing"]), bool(about["relative_only"]), classes, str(about["source"]))


def _check(arrays: dict[str, Any]) -> str:
    """A hash of the arrays, with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
        digest.update(array.data)
    return digest.hexdigest()
