import numpy as np
import pytest

from ganvas.errors import ConfigError, DataError
from ganvas.metrics import extractors
from ganvas.metrics.extractor_classifier import ClassifierExtractor
from ganvas.metrics.extractors import make_extractor

NOISE = np.random.Generator(np.random.Philox(0)).integers(0, 256, (120, 1, 8, 8), dtype=np.uint8)
LABELS = np.arange(120) % 2
BRIGHT = (NOISE // 4 + 150 * LABELS[:, None, None, None]).astype(np.uint8)
NAMES = ("dark", "bright")


@pytest.fixture(autouse=True)
def no_download(monkeypatch):
    monkeypatch.setattr("ganvas.metrics.extractor_classifier._LEAST_STEPS", 60)

    def refused(*args, **kwargs):
        raise AssertionError("nothing may be downloaded here")
    monkeypatch.setattr("ganvas.metrics.extractor_inception.fetch_file", refused)


@pytest.mark.parametrize("name", ["random", "auto"])
def test_random_needs_nothing_and_auto_falls_back_on_it(name):
    extractor = make_extractor(name)
    assert extractor.name == "random" and extractor(NOISE[:2]).vectors.shape == (2, extractor.dim)


def test_auto_takes_the_classifier_where_it_learns_the_labels():
    told = []
    extractor = make_extractor("auto", images=BRIGHT, labels=LABELS, class_names=NAMES, tell=told.append)
    assert isinstance(extractor, ClassifierExtractor) and extractor.accuracy > 0.9 and not told


def test_auto_says_why_it_does_not_take_the_classifier():
    told = []
    extractor = make_extractor("auto", images=NOISE, labels=LABELS, class_names=NAMES, tell=told.append)
    assert extractor.name == "random"
    assert len(told) == 1 and "not the extractor classifier" in told[0] and "names the right one of 2 classes" in told[0]


def test_auto_takes_inception_only_from_the_cache_and_not_on_the_cpu(monkeypatch, tmp_path):
    monkeypatch.setattr(extractors, "InceptionExtractor", lambda weights, device: ("inception", weights, device))
    assert make_extractor("auto", device="meta").name == "random"
    monkeypatch.setattr(extractors, "cached_weights", lambda: tmp_path)
    assert make_extractor("auto").name == "random"
    assert make_extractor("auto", device="cuda") == ("inception", None, "cuda")


def test_inception_takes_a_path_in_either_way(tmp_path, monkeypatch):
    monkeypatch.setattr(extractors, "InceptionExtractor", lambda weights, device, downloading: weights)
    assert make_extractor(f"inception:{tmp_path}") == make_extractor("inception", weights=tmp_path) == tmp_path
    assert make_extractor("inception") is None


def test_a_function_and_a_function_in_a_file_are_extractors(tmp_path):
    extractor = make_extractor(lambda images: images.float().flatten(1), images=NOISE)
    assert extractor.dim == 64
    path = tmp_path / "mine.py"
    path.write_text("def own(images):\n    return images.float().mean(dim=(2, 3))\n")
    assert make_extractor(f"{path}:own", images=NOISE).dim == 1


def test_the_classifier_without_labels_is_refused_with_the_alternatives():
    with pytest.raises(DataError, match=r"have none.*random, inception"):
        make_extractor("classifier", images=NOISE)


@pytest.mark.parametrize(("name", "hint"), [("inceptoin", "Did you mean inception?"), ("Random", "Did you mean random?"),
                                            ("random:3", "Known: auto"), ("vgg", "FILE.py:FUNCTION")])
def test_an_unknown_name_is_refused_with_the_known_ones(name, hint):
    with pytest.raises(ConfigError) as caught:
        make_extractor(name)
    assert f"{name!r}: no such extractor" in str(caught.value) and hint in str(caught.value)
