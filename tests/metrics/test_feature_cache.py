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


class Bare(Pixels):
    """Without probabilities."""

    classes = None

    def __call__(self, images):
        return Features(super().__call__(images).vectors, None)


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


def test_only_what_is_missing_is_computed_and_all_images_share_one_file(tmp_path):
    extractor, whole, seen = Pixels(), extract(Pixels(), IMAGES), []
    for indices, computed in (([5, 2], 2), ([2, 5, 2], 0), ([8, 5, 0, 3], 3), (None, 4), ([1], 0), (None, 0)):
        before = len(seen)
        found = real_features(extractor, IMAGES, tmp_path, None if indices is None else np.array(indices),
                              progress=lambda done, total: seen.extend(range(total)))
        assert equal(found, Features(*(array if indices is None else array[indices] for array in whole)))
        assert len(seen) - before == computed
    assert len(list(tmp_path.iterdir())) == 1
    real_features(Pixels("m" * 32), IMAGES, tmp_path, np.array([1]))
    assert len(list(tmp_path.iterdir())) == 2


def test_features_without_probabilities_grow_as_well(tmp_path):
    def shown(indices):
        return real_features(Bare(), IMAGES, tmp_path, np.array(indices))

    assert np.array_equal(shown([3, 1]).vectors, extract(Bare(), IMAGES.array[[3, 1]]).vectors)
    assert np.array_equal(shown([2, 3]).vectors, extract(Bare(), IMAGES.array[[2, 3]]).vectors)
    assert shown([1]).probabilities is None


def checked(arrays):
    return feature_cache._check({name: array for name, array in arrays.items() if name != "about"})


def hostile(path, **changed):
    """The file at `path` with some of its arrays changed, and a checksum that fits."""
    with np.load(path) as archive:
        arrays = dict(archive) | changed
    about = json.loads(str(arrays["about"]))
    if "vectors" in changed and changed["vectors"].ndim:
        about["n"] = len(changed["vectors"])
    arrays["about"] = np.array(json.dumps(about | {"check": checked(arrays)}))
    np.savez(path, **arrays)


HOSTILE = {
    "one row": {"vectors": np.ones(16, np.float32)}, "text": {"vectors": np.full((9, 16), "a")},
    "a number": {"vectors": np.array(1, np.float32)}, "float64": {"vectors": np.ones((9, 16))},
    "three axes": {"vectors": np.ones((9, 4, 4), np.float32)}, "nothing": {"vectors": np.ones((0, 16), np.float32)},
    "of no width": {"vectors": np.ones((9, 0), np.float32)}, "other byte order": {"vectors": np.ones((9, 16), ">f4")},
    "complex": {"vectors": np.ones((9, 16), np.complex64)}, "dates": {"vectors": np.zeros((9, 16), "M8[s]")},
    "fewer probabilities": {"probabilities": np.ones((5, 2), np.float32)},
    "other classes": {"probabilities": np.ones((9, 3), np.float32)},
    "probabilities in a row": {"probabilities": np.ones(9, np.float32)},
    "known by number": {"known": np.ones(9, np.int64)}, "known in a table": {"known": np.ones((3, 3), bool)},
    "fewer known": {"known": np.arange(9) > 2},
}


@pytest.mark.parametrize("changed", HOSTILE.values(), ids=HOSTILE)
def test_arrays_of_another_type_or_shape_are_refused_in_both_kinds_of_file(tmp_path, changed):
    extractor, told = Pixels(), []
    first = real_features(extractor, IMAGES, tmp_path)
    path = next(tmp_path.iterdir())
    hostile(path, **changed)
    with pytest.raises(DataError, match=r"features-k+\.npz: cannot be used as features \(it"):
        load_features(path)
    assert equal(real_features(extractor, IMAGES, tmp_path, tell=told.append), first)
    assert len(told) == 1 and "computed again" in told[0] and extractor.calls == 2


def test_columns_of_another_number_than_the_extractor_has_are_not_used(tmp_path):
    first = real_features(Pixels(), IMAGES, tmp_path)
    hostile(next(tmp_path.iterdir()), vectors=np.ones((9, 15), np.float32))
    assert equal(real_features(Pixels(), IMAGES, tmp_path), first)


def test_a_column_major_array_is_as_good(tmp_path):
    first = real_features(Pixels(), IMAGES, tmp_path)
    hostile(next(tmp_path.iterdir()), vectors=np.asfortranarray(first.vectors))
    extractor = Pixels()
    assert equal(real_features(extractor, IMAGES, tmp_path), first) and extractor.calls == 0


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
            about |= {"n": 5, "check": checked(arrays)}
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
