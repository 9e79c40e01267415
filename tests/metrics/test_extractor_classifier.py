import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from ganvas.data.sources import open_source
from ganvas.errors import DataError
from ganvas.metrics import extractor_classifier
from ganvas.metrics.extractor_classifier import _parted, make_classifier
from ganvas.metrics.features import ImageArray, extract

MNIST = Path(os.environ.get("GANVAS_TEST_DATA", "")) / "mnist" / "train-images-idx3-ubyte.gz"
DIGITS = tuple("0123456789")


@pytest.fixture(scope="module")
def digits():
    bunch = load_digits()
    return (bunch.images * 15.9).astype(np.uint8)[:, None], bunch.target.astype(np.int64)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(extractor_classifier, "_MOST_PASSES", 8)
    monkeypatch.setattr(extractor_classifier, "_LEAST_STEPS", 20)


def noise(n, channels=1, size=8):
    return np.random.Generator(np.random.Philox(0)).integers(0, 256, (n, channels, size, size), dtype=np.uint8)


def test_digits_are_learnt_and_features_and_probabilities_come_of_it(digits):
    images, labels = digits
    extractor = make_classifier(ImageArray(images), labels, DIGITS)
    assert extractor.accuracy > 0.85 and 200 < len(extractor.unseen) < 230
    assert extractor.classes == DIGITS and not extractor.relative_only
    found = extract(extractor, images[:500])
    assert found.vectors.shape == (500, extractor.dim) and found.probabilities.shape == (500, 10)
    assert np.allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)
    assert (found.probabilities.argmax(axis=1) == labels[:500]).mean() > 0.85
    pairs = np.linalg.norm(found.vectors[:, None] - found.vectors[None, :200], axis=2)
    same = labels[:500, None] == labels[None, :200]
    assert np.median(pairs[same]) < 0.7 * np.median(pairs[~same]), "features tell classes apart"


def test_features_do_not_hang_on_how_images_are_divided(digits):
    images, labels = digits
    extractor = make_classifier(ImageArray(images[:400]), labels[:400], DIGITS, least_accuracy=0)
    whole = extract(extractor, images[:30])
    single = extract(extractor, [images[i:i + 1] for i in range(30)])
    assert np.allclose(whole.vectors, single.vectors, rtol=1e-4, atol=1e-5)


def test_the_same_images_give_the_same_network_whatever_was_drawn_before(digits):
    images, labels = (part[:400] for part in digits)
    first = make_classifier(ImageArray(images), labels, DIGITS, least_accuracy=0)
    state = torch.get_rng_state()
    torch.rand(3)
    again = make_classifier(ImageArray(images), labels, DIGITS, least_accuracy=0)
    assert again.key == first.key and again.accuracy == first.accuracy
    torch.set_rng_state(state)
    make_classifier(ImageArray(images), labels, DIGITS, least_accuracy=0)
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers are left as they were"


def test_a_kept_network_is_taken_with_its_accuracy_and_a_damaged_one_is_trained_again(digits, tmp_path, monkeypatch):
    images, labels = (part[:400] for part in digits)
    trained = []
    fit = extractor_classifier._fit
    monkeypatch.setattr(extractor_classifier, "_fit", lambda *args: trained.append(1) or fit(*args))

    def made(labels=labels):
        return make_classifier(ImageArray(images), labels, DIGITS, home=tmp_path, least_accuracy=0)

    first = made()
    second = made()
    assert len(trained) == 1 and (second.key, second.accuracy) == (first.key, first.accuracy)
    assert np.array_equal(second.unseen, first.unseen)
    assert np.array_equal(first(images[:9]).vectors, second(images[:9]).vectors)
    path = next(tmp_path.iterdir())
    content = bytearray(path.read_bytes())
    content[-10] ^= 255
    path.write_bytes(content)
    assert made().key == first.key and len(trained) == 2
    path.write_bytes(bytes(content[:5000]))
    assert made().key == first.key and len(trained) == 3
    made(labels=np.roll(labels, 1))
    assert len(trained) == 4 and len(list(tmp_path.iterdir())) == 2


def test_one_that_has_not_learnt_is_refused_with_its_accuracy_and_the_alternatives():
    with pytest.raises(DataError, match=r"one of 2 classes for \d+\.\d% of 36 real images.*under 75\.0%.*'random', 'inception'"):
        make_classifier(ImageArray(noise(300)), np.arange(300) % 2, ("a", "b"))


def test_naming_only_the_commonest_class_is_not_enough():
    labels = (np.arange(400) % 10 == 0).astype(np.int64)               # 90 % are of class 0
    with pytest.raises(DataError, match=r"under 9\d\.\d%"):
        make_classifier(ImageArray(noise(400)), labels, ("many", "few"))


@pytest.mark.parametrize(("labels", "what"), [
    (np.zeros(40, np.int64), r"all images are of one \(a\)"),
    (np.r_[np.zeros(35, np.int64), np.ones(5, np.int64)], r"at least 10 images of each class.*b \(5\)"),
    (np.arange(39) % 2, "39 labels for 40 images"),
])
def test_labels_that_cannot_be_learnt_are_refused_before_training(labels, what, monkeypatch):
    monkeypatch.setattr(extractor_classifier, "_fit", None)
    with pytest.raises(DataError, match=what):
        make_classifier(ImageArray(noise(40)), labels, ("a", "b"))


def test_a_share_of_each_class_is_kept_from_training():
    labels = np.repeat(np.arange(3), [500, 100, 10])
    train, test = _parted(labels, None)
    assert sorted([*train, *test]) == list(range(610))
    assert np.bincount(labels[test]).tolist() == [60, 12, 1]


def test_groups_are_never_parted():
    labels, groups = np.arange(600) % 2, np.arange(600) // 4
    train, test = _parted(labels, groups)
    assert not set(groups[train]) & set(groups[test])
    assert len(train) + len(test) == 600 and np.bincount(labels[test]).tolist() == [36, 36]
    with pytest.raises(DataError, match="cannot be tested"):
        _parted(labels, np.arange(600) // 300)


def test_where_labels_are_digits_of_the_channels_one_network_reads_each(digits, monkeypatch):
    images, labels = digits
    monkeypatch.setattr(extractor_classifier, "_MOST_PASSES", 4)
    chosen = np.random.Generator(np.random.Philox(3)).integers(0, len(images), (2000, 3))
    stacked = np.stack([images[chosen[:, k], 0] for k in range(3)], axis=1)
    names, numbers = np.unique(["".join(map(str, labels[row])) for row in chosen], return_inverse=True)
    extractor = make_classifier(ImageArray(stacked), numbers.astype(np.int64), list(names))
    assert extractor.dim == 3 * 128 and len(extractor.classes) == 1000 and extractor.classes[123] == "123"
    assert extractor.accuracy > 0.8, "all three digits right"
    found = extract(extractor, stacked[:300])
    assert found.probabilities.shape == (300, 1000) and np.allclose(found.probabilities.sum(axis=1), 1, atol=1e-4)
    named = [extractor.classes[column] for column in found.probabilities.argmax(axis=1)]
    assert np.mean([name == names[number] for name, number in zip(named, numbers, strict=False)]) > 0.8
    alone = extractor(stacked[:300, [1, 0, 2]]).vectors                # channels are looked at one by one
    assert np.allclose(alone[:, :128], found.vectors[:, 128:256], atol=1e-5)
    with pytest.raises(DataError, match="3 channels with a digit in each, but these have 1"):
        extractor(images[:2])


def test_images_of_another_size_and_transparency_are_brought_to_what_it_learnt(digits):
    images, labels = (part[:400] for part in digits)
    extractor = make_classifier(ImageArray(images), labels, DIGITS, least_accuracy=0)
    opaque = np.concatenate([images[:5].repeat(3, axis=1), np.full_like(images[:5], 255)], axis=1)
    assert np.array_equal(extractor(opaque).vectors, extractor(images[:5]).vectors)
    assert extractor(noise(2, size=30)).vectors.shape == (2, extractor.dim)
    assert "8x8" in extractor.preprocessing


def test_progress_is_told_until_all_is_done(digits):
    images, labels = (part[:400] for part in digits)
    told = []
    make_classifier(ImageArray(images), labels, DIGITS, least_accuracy=0, progress=lambda *args: told.append(args))
    assert told[-1][0] == told[-1][1] and told == sorted(told)


@pytest.mark.skipif(not MNIST.is_file(), reason="MNIST is not in $GANVAS_TEST_DATA")
def test_a_part_of_mnist_is_learnt_well(monkeypatch):
    monkeypatch.setattr(extractor_classifier, "_MOST_PASSES", 3)
    source = open_source(str(MNIST))
    images = np.stack([source.load(i).transpose(2, 0, 1) for i in range(2000)])
    extractor = make_classifier(ImageArray(images), source.labels[:2000], source.class_names)
    assert extractor.accuracy > 0.85
