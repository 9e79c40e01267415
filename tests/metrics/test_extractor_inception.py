import builtins
import hashlib
import io
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from ganvas.data import fetch as fetching
from ganvas.data.cache import cache_root, entries
from ganvas.data.public_sets import PublicFile
from ganvas.errors import ConfigError, DataError
from ganvas.metrics import extractor_inception
from ganvas.metrics.extractor_inception import WEIGHTS, InceptionExtractor, address, cached_weights
from ganvas.metrics.features import prepare

IMAGES = np.random.Generator(np.random.Philox(0)).integers(0, 256, (3, 4, 20, 16), dtype=np.uint8)
network_class = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Weights of the right shapes with seeded values, as a file."""
    path = tmp_path_factory.mktemp("weights") / "seeded.pth"
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.setattr(network_class, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        state = network_class("seeded", ["2048"], feature_extractor_weights_path=empty).state_dict()
        # Torch's own first values shrink what passes a ReLU by sqrt(6): after 20 layers nothing would be left to compare.
        torch.save({name: tensor * 6**0.5 if tensor.ndim == 4 else tensor for name, tensor in state.items()}, path)
    return path


@pytest.fixture
def served(monkeypatch):
    """A server of `served["content"]` at the place of the weights; their checksum is that of b"weights"."""
    content = {"content": b"weights", "asked": 0}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content["asked"] += 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(content["content"])))
            self.end_headers()
            self.wfile.write(content["content"])

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetching, "FIRST_WAIT_SEC", 0.001)
    monkeypatch.setattr(extractor_inception, "MIRRORS", (f"http://127.0.0.1:{http.server_port}/",))
    checksum = hashlib.sha256(b"weights").hexdigest()
    monkeypatch.setattr(extractor_inception, "WEIGHTS", PublicFile(WEIGHTS.name, 7, f"sha256:{checksum}"))
    yield content
    http.shutdown()
    http.server_close()


def test_features_equal_torch_fidelitys_own_on_the_same_tensors(weights):
    extractor = InceptionExtractor(weights)
    found = extractor(IMAGES)
    reference = network_class("reference", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights))
    features, logits = reference(prepare(IMAGES, 3))
    assert found.vectors.shape == (3, 2048) and found.probabilities.shape == (3, 1008)
    assert np.array_equal(found.vectors, features.numpy())
    assert np.allclose(found.probabilities, logits.softmax(1).numpy(), atol=1e-7)
    assert np.ptp(found.vectors, axis=0).max() > 1e-3, "seeded weights that tell no images apart test nothing"


def test_other_weights_than_the_published_ones_are_marked(weights):
    extractor = InceptionExtractor(weights)
    assert extractor.relative_only and extractor.name == "inception:seeded.pth"
    assert "299" in extractor.preprocessing and "white" in extractor.preprocessing


def test_a_pickle_that_would_run_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    path = tmp_path / "evil.pth"
    torch.save({"fc.weight": Evil()}, path)
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists(), "this file is harmless: the test shows nothing"
    (tmp_path / "ran").unlink()
    with pytest.raises(DataError, match=r"evil\.pth: .*nothing in it was run"):
        InceptionExtractor(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("content", "what"), [
    ({"fc.weight": torch.zeros(2, 2)}, "does not hold the weights of the reference Inception network"),
    ([torch.zeros(2)], "holds something else than weights by name"),
    (b"hello", "is not a file of plain weights"),
    (b"", "is not a file of plain weights"),
    (None, "does not exist"),
])
def test_a_file_that_is_not_the_networks_is_named_with_the_right_one(tmp_path, content, what):
    path = tmp_path / "given.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(DataError, match=rf"(?s)given\.pth: {what}.*weights-inception-2015-12-05-6726825d\.pth"):
        InceptionExtractor(path)


def test_weights_are_downloaded_once_checked_and_listed_in_the_cache(served, weights, monkeypatch):
    content = weights.read_bytes()
    served["content"] = content
    monkeypatch.setattr(extractor_inception, "WEIGHTS",
                        PublicFile(WEIGHTS.name, len(content), f"sha256:{hashlib.sha256(content).hexdigest()}"))
    assert cached_weights() is None
    told = []
    first = InceptionExtractor(downloading=lambda *args: told.append(args))
    assert told[-1] == (WEIGHTS.name, len(content), len(content))
    assert cached_weights() == cache_root() / "downloads" / "inception" / WEIGHTS.name
    assert [(entry.kind, entry.name) for entry in entries()] == [("downloads", "inception")]
    assert (first.name, first.relative_only) == ("inception", False)
    assert InceptionExtractor().key == first.key and served["asked"] == 1


def test_what_comes_with_another_checksum_is_not_kept(served):
    served["content"] = b"WEIGHTS"
    with pytest.raises(DataError, match=r"7 bytes with sha256 \w+, but 7 bytes with sha256 \w+ was expected") as caught:
        InceptionExtractor()
    assert cached_weights() is None
    assert address() in str(caught.value)


def test_a_damaged_download_in_the_cache_is_replaced(served):
    path = fetching.download_folder("inception") / WEIGHTS.name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"wei")
    with pytest.raises(DataError, match="is not a file of plain weights"):          # b"weights" came, and is none
        InceptionExtractor()
    assert path.read_bytes() == b"weights"


def test_without_a_network_the_error_names_the_address_and_the_alternatives(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetching, "FIRST_WAIT_SEC", 0.001)
    monkeypatch.setattr(extractor_inception, "MIRRORS", ("http://127.0.0.1:9/",))
    with pytest.raises(DataError) as caught:
        InceptionExtractor()
    for named in ("no connection", address(), "inception:PATH", "'random'", "'classifier'", "FILE.py:FUNCTION"):
        assert named in str(caught.value), named
    assert "--out" not in str(caught.value) and "data fetch" not in str(caught.value)


def test_without_torch_fidelity_the_error_says_what_to_install(monkeypatch, tmp_path):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("torch_fidelity"):
            raise ImportError("No module named 'torch_fidelity'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r'pip install "ganvas\[inception\]"'):
        InceptionExtractor(tmp_path / "any.pth")


def test_the_published_weights_are_the_ones_that_torch_fidelity_would_load():
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    assert address() == URL_INCEPTION_V3
    assert WEIGHTS.checksum.removeprefix("sha256:").startswith(WEIGHTS.name.removesuffix(".pth").rpartition("-")[2])
