"""`inception`: the network behind published FID, KID and IS figures, through torch-fidelity, with weights that run no code."""

import io
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganvas.data.fetch import Progress as Downloading
from ganvas.data.fetch import download_folder, fetch_file
from ganvas.data.public_sets import PublicFile
from ganvas.data.source_base import Pixels
from ganvas.errors import ConfigError, DataError
from ganvas.metrics.features import Extractor, Features, described, key_of, prepare

WEIGHTS = PublicFile("weights-inception-2015-12-05-6726825d.pth", 95_628_359,
                     "sha256:6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2")
MIRRORS = ("https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/",)

_FOLDER = "inception"                  # in the cache's downloads
_ALTERNATIVES = ("'random' (no download), 'classifier' (learns from labels), a file that you have as inception:PATH, "
                 "or a function of your own as FILE.py:FUNCTION")


class InceptionExtractor(Extractor):
    """The 2,048 pooled features of Inception-v3 as of 2015-12-05, and the softmax of its logits without biases (1,008).

    The network of Heusel et al. 2017 (FID) and of Salimans et al. 2016 (Inception Score), as torch-fidelity ported it. Its own
    resize to 299x299, bilinear as in TensorFlow 1 and without antialiasing, is part of the reference and stays.
    """

    dim = 2048
    chunk = 32

    def __init__(self, weights: Path | None = None, device: str = "cpu", downloading: Downloading | None = None):
        """weights: a file of the weights; None = from the cache, or downloaded there now.

        downloading: hears (file, bytes so far, bytes in all). Raises ConfigError without torch-fidelity; DataError: the weights
        cannot be downloaded, are not the file of that checksum, hold something else than weights, or not of this network.
        """
        network = _network_class()
        path = _downloaded(downloading) if weights is None else weights
        state = _read_weights(path)
        packed = io.BytesIO()
        # torch-fidelity unpickles what it is given, code and all; it gets what we have just written ourselves.
        torch.save(state, packed)
        packed.seek(0)
        try:
            self._network = network("inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=packed).to(device)
        except RuntimeError as error:
            reason = re.sub(r"\s+", " ", str(error))[:300]
            raise DataError(f"{path}: does not hold the weights of the reference Inception network ({reason}). "
                            f"The right file: {address()}") from error
        self._device = device
        self.relative_only = weights is not None and not is_reference(path)
        self.name = f"inception:{path.name}" if self.relative_only else "inception"
        self.preprocessing = (f"{described(3)}; to 299x299 inside the network (bilinear as in TensorFlow 1, not antialiased), "
                              "(x - 128) / 128")
        self.key = key_of(state, self.preprocessing)

    def __call__(self, images: Pixels) -> Features:
        with torch.inference_mode():
            vectors, logits = self._network(prepare(images, 3).to(self._device))
            probabilities = logits.softmax(dim=1)
        return Features(vectors.cpu().numpy(), probabilities.cpu().numpy())


def cached_weights() -> Path | None:
    """The weights in the cache, if they are there; whether they are whole is checked when they are used."""
    path = download_folder(_FOLDER) / WEIGHTS.name
    return path if path.is_file() else None


def address() -> str:
    """Where people get the weights by hand."""
    return MIRRORS[0] + WEIGHTS.name


def is_reference(path: Path) -> bool:
    """Whether the file at `path` is the published one, by its checksum."""
    import pooch

    return f"sha256:{pooch.file_hash(str(path), alg='sha256')}" == WEIGHTS.checksum


def _downloaded(downloading: Downloading | None) -> Path:
    return fetch_file(_FOLDER, WEIGHTS, MIRRORS,
                      f"Without a network, get {address()} by hand and pass it as inception:PATH, or take another extractor: "
                      f"{_ALTERNATIVES}.", progress=downloading)


def _network_class() -> Any:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ConfigError(f"the extractor inception needs torch-fidelity ({error}): pip install \"ganvas[inception]\". "
                          f"Or take another one: {_ALTERNATIVES}.") from error
    return FeatureExtractorInceptionV3


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors by name. Nothing in the file is run."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist. The weights of the extractor inception: {address()}") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, pickle.UnpicklingError) as error:
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise DataError(f"{path}: is not a file of plain weights, and nothing in it was run ({reason}). "
                        f"The right file: {address()}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{path}: holds something else than weights by name ({type(state).__name__}). "
                        f"The right file: {address()}")
    return state

