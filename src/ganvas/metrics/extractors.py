"""From the name that a user gives to the extractor itself."""

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ganvas.data.source_base import Labels
from ganvas.errors import ConfigError, DataError, GanvasError
from ganvas.metrics.extractor_classifier import make_classifier
from ganvas.metrics.extractor_custom import CustomExtractor, from_file
from ganvas.metrics.extractor_inception import InceptionExtractor, cached_weights
from ganvas.metrics.extractor_random import RandomExtractor
from ganvas.metrics.features import Extractor, ImageArray, Images

NAMES = ("auto", "classifier", "inception", "random")

HARMLESS = ("classifier", "inception", "random")          # run no code and read no file of others

_EXAMPLES = 2                          # images that a user's own function is tried on


def make_extractor(
    name: str | Callable[..., Any], *, images: Images | npt.NDArray[np.uint8] | None = None, labels: Labels | None = None,
    class_names: Sequence[str] = (), groups: npt.NDArray[np.int64] | None = None, home: Path | None = None,
    weights: Path | None = None, device: str = "cpu", progress: Callable[[int, int], None] | None = None,
    downloading: Callable[[str, int, int | None], None] | None = None, tell: Callable[[str], None] = lambda text: None,
) -> Extractor:
    """The extractor called `name`: auto, classifier, inception, inception:PATH, random, FILE.py:FUNCTION, or a function itself.

    auto is the classifier where there are labels that it can learn, else inception where its weights are in the cache and
    `device` is not the CPU (on which an image takes it a tenth of a second), else random; it downloads nothing and tells why.
    images: the reals, which the classifier learns and the user's function is tried on; labels: (N,) of them, or None;
    groups: (N,), images of one number belong together. home: where the classifier is kept, such as the pack's folder.
    weights: a file for inception. progress(done, total) hears the classifier's training, downloading(file, done, total)
    inception's weights. Raises ConfigError for an unknown name, DataError where the extractor cannot be had or is too poor.
    """
    reals = ImageArray(images) if isinstance(images, np.ndarray) else images
    if not isinstance(name, str):
        return CustomExtractor(name, _example(reals, "a function"), device=device)
    kind, _, given = name.partition(":")
    if kind == "random" and not given:
        return RandomExtractor(device)
    if kind == "inception":
        path = Path(given).expanduser() if given else weights
        return InceptionExtractor(path, device, downloading)
    if kind == "classifier" and not given:
        return _classifier(reals, labels, class_names, groups, home, device, progress)
    if name.rpartition(":")[0].lower().endswith(".py"):
        return from_file(name, _example(reals, name), device)
    if name != "auto":
        raise ConfigError(_unknown(name))

    if labels is not None:
        try:
            return _classifier(reals, labels, class_names, groups, home, device, progress)
        except DataError as error:
            tell(f"not the extractor classifier: {error}")
    if device != "cpu" and cached_weights() is not None:
        try:
            return InceptionExtractor(None, device)
        except GanvasError as error:
            tell(f"not the extractor inception: {error}")
    return RandomExtractor(device)


def noted_name(name: str, where: Path) -> str:
    """`name`, which the file `where` holds, if it may be made without the user's asking for it by name.

    Raises ConfigError for FILE.py:FUNCTION, which runs code, for inception:PATH, and for all that is no name: files come from
    others.
    """
    if name not in HARMLESS:
        raise ConfigError(f"{where}: names the extractor {name[:200]!r}, which is not taken from a file: it may run code. "
                          "If you have it and trust it, name it yourself, as --extractor FILE.py:FUNCTION or inception:PATH.")
    return name


def _classifier(images: Images | None, labels: Labels | None, class_names: Sequence[str], groups: npt.NDArray[np.int64] | None,
                home: Path | None, device: str, progress: Callable[[int, int], None] | None) -> Extractor:
    if labels is None:
        raise DataError("the extractor classifier learns from labels, and these images have none. Train or read them with "
                        "--labels, or use random, inception, or a function of your own as FILE.py:FUNCTION.")
    assert images is not None, "make_extractor needs the images of these labels"
    return make_classifier(images, labels, class_names, groups=groups, home=home, device=device, progress=progress)


def _example(images: Images | None, name: str) -> npt.NDArray[np.uint8]:
    assert images is not None and len(images), f"make_extractor needs images to try {name} on"
    return images.read(np.arange(min(_EXAMPLES, len(images))))


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), NAMES, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]}?" if close else ""
    return (f"{name!r}: no such extractor.{hint} Known: {', '.join(NAMES)}, inception:PATH for a file of its weights, "
            "FILE.py:FUNCTION for a function of your own.")
