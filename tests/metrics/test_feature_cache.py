import json

import numpy as np
import pytest

from ganvas.errors import DataError, RunError
from ganvas.metrics import feature_cache
from ganvas.metrics.feature_cache import load_features, real_features, save_features
from ganvas.metrics.features import Extractor, Features, ImageArray, extract

IMAGES = ImageArray(np.random.Generator(np.random.Philox(0)).integers(0, 256, (9, 1, 4, 4), dtype=np.uint8))


class Pixels(Extractor):
    name, dim, preprocessing, classes = "pixels", 16, "none", ("dark", "light")

    def __init__(self, key="k" * 32):
        self.key, self.calls = key, 0

    def __call__(self, images):
        self.calls += 1
        vectors = images.reshape(len(images), -1).astype(np.float32) / 255
        light = vectors.mean(axis=1, keepdims=True)
        return Features(vectors, np.concatenate([1 - light, light], axis=1))


def equal(a, b):
    return np.array_equal(a.vectors, b.vectors) and np.array_equal(a.probabilities, b.probabilities)


def test_features_of_reals_are_computed_once(tmp_path):
    extractor, told = Pixels(), []
    first = real_features(extractor, IMAGES, tmp_path, tell=told.append)
    assert equal(first, extract(Pixels(), IMAGES))
    assert equal(real_features(extractor, IMAGES, tmp_path, tell=told.append), first)
    assert extractor.calls == 1 and not told and len(list(tmp_path.iterdir())) == 1


def test_without_a_folder_nothing_is_kept(tmp_path):
    assert equal(real_features(Pixels(), IMAGES, None), real_features(Pixels(), IMAGES, tmp_path))


def test_other_images_and_other_extractors_have_files_of_their_own(tmp_path):
    extractor = Pixels()
    whole = real_features(extractor, IMAGES, tmp_path)
    some = real_features(extractor, IMAGES, tmp_path, np.array([5, 2]))
    assert np.array_equal(some.vectors, whole.vectors[[5, 2]])
    assert np.array_equal(real_features(extractor, IMAGES, tmp_path, np.array([2, 5])).vectors, whole.vectors[[2, 5]])
    real_features(Pixels("m" * 32), IMAGES, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def spoilt(path, how):
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "no zip":
        path.write_bytes(b"hello")
    else:
        with np.load(path) as archive:
            arrays = dict(archive)
        if how == "a number":
            arrays["vectors"][3, 3] += 1
        elif how == "rows":
            arrays = {name: array if name == "about" else array[:5] for name, array in arrays.items()}
            about = json.loads(str(arrays["about"]))
            about |= {"n": 5, "check": feature_cache._check({name: arrays[name] for name in ("vectors", "probabilities")})}
            arrays["about"] = np.array(json.dumps(about))
        np.savez(path, **arrays)


@pytest.mark.parametrize(("how", "why"), [("cut", "not used"), ("no zip", "not used"), ("a number", "checksum"),
                                          ("rows", "5 images, not 9")])
def test_a_damaged_file_is_computed_again_and_that_is_said(tmp_path, how, why):
    extractor, told = Pixels(), []
    first = real_features(extractor, IMAGES, tmp_path)
    path = next(tmp_path.iterdir())
    spoilt(path, how)
    assert equal(real_features(extractor, IMAGES, tmp_path, tell=told.append), first)
    assert len(told) == 1 and str(path) in told[0] and why in told[0] and "computed again" in told[0]
    assert equal(real_features(extractor, IMAGES, tmp_path, tell=told.append), first)
    assert extractor.calls == 2 and len(told) == 1


def test_a_file_for_others_comes_back_whole_with_all_that_it_says(tmp_path):
    extractor = Pixels()
    features = extract(extractor, IMAGES)
    path = tmp_path / "reference.npz"
    save_features(path, features, extractor, "digits, train")
    kept = load_features(path, extractor)
    assert equal(kept.features, features)
    assert kept[1:] == ("pixels", "k" * 32, "none", False, ("dark", "light"), "digits, train")
    assert load_features(path).key == extractor.key


def test_features_without_probabilities_come_back_without(tmp_path):
    save_features(tmp_path / "f.npz", Features(np.ones((3, 16), np.float32), None), Pixels(), "ones")
    assert load_features(tmp_path / "f.npz").features.probabilities is None


def test_features_of_another_extractor_are_refused(tmp_path):
    path = tmp_path / "f.npz"
    save_features(path, extract(Pixels(), IMAGES), Pixels(), "")
    with pytest.raises(DataError, match=r"f\.npz: .*pixels with other weights"):
        load_features(path, Pixels("m" * 32))
    other = Pixels("m" * 32)
    other.name = "colours"
    with pytest.raises(DataError, match=r"f\.npz: .*extractor pixels, but colours is in use"):
        load_features(path, other)


def test_what_is_no_file_of_features_is_refused_by_name(tmp_path):
    path = tmp_path / "f.npz"
    with pytest.raises(DataError, match=r"f\.npz: does not exist"):
        load_features(path)
    save_features(path, extract(Pixels(), IMAGES), Pixels(), "")
    spoilt(path, "a number")
    with pytest.raises(DataError, match=r"f\.npz: .*checksum"):
        load_features(path)
    np.savez(path, images=np.zeros(3))
    with pytest.raises(DataError, match=r"f\.npz: .*no file of features"):
        load_features(path)
    np.savez(path, about=np.array([{"a": 1}], dtype=object))                 # a pickle
    with pytest.raises(DataError, match=r"f\.npz: cannot be used"):
        load_features(path)


def test_stored_features_that_are_not_finite_are_counted(tmp_path):
    vectors = np.ones((5, 16), np.float32)
    vectors[1, 3] = np.inf
    save_features(tmp_path / "f.npz", Features(vectors, None), Pixels(), "")
    with pytest.raises(DataError, match=r"1 of 5 images from the extractor pixels in .*f\.npz"):
        load_features(tmp_path / "f.npz")


def test_a_folder_that_is_a_file_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"f\.npz: the features cannot be written"):
        save_features(tmp_path / "file" / "f.npz", extract(Pixels(), IMAGES), Pixels(), "")
