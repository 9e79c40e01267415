import gzip
from functools import partial

import numpy as np
import pytest

from ganvas.data import fetch as fetching
from ganvas.data.cache import cache_root, entries
from ganvas.data.public_sets import DATASETS
from ganvas.data.sources import open_source
from ganvas.data.stacked import stack_digits
from ganvas.errors import DataError


def mnist_like(folder, labels=True, n=20):
    """MNIST's training files with n images: image i is all i, its class i % 10."""
    folder.mkdir()
    header = bytes((0, 0, 8, 3)) + np.array([n, 28, 28], ">u4").tobytes()
    pixels = np.repeat(np.arange(n, dtype=np.uint8), 28 * 28)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + pixels.tobytes()))
    if labels:
        header = bytes((0, 0, 8, 1)) + np.array([n], ">u4").tobytes()
        classes = (np.arange(n) % 10).astype(np.uint8)
        (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(header + classes.tobytes()))
    return folder


def test_each_colour_is_a_digit_and_the_label_names_the_three(tmp_path):
    path = stack_digits(mnist_like(tmp_path / "mnist"), tmp_path / "stacked.npz", count=3000)
    source = open_source(str(path))
    images = np.stack([source.load(i) for i in range(len(source))])
    assert images.shape == (3000, 28, 28, 3) and (images == images[:, :1, :1]).all()
    wanted = ["".join(str(digit % 10) for digit in image[0, 0]) for image in images]
    assert [source.class_names[label] for label in source.labels] == wanted
    assert len(source.class_names) > 900 and len(set(source.class_names[0])) <= 3


def test_digits_come_equally_often_and_independently_in_each_colour(tmp_path):
    path = stack_digits(mnist_like(tmp_path / "mnist"), tmp_path / "stacked.npz", count=4000)
    with np.load(path) as kept:
        digits = kept["images"][:, 0, 0].astype(int)
    for k in range(3):
        assert np.bincount(digits[:, k]).min() > 140                       # 200 expected
        assert abs(np.corrcoef(digits[:, k], digits[:, (k + 1) % 3])[0, 1]) < 0.06


def test_it_is_always_the_same_set_and_a_whole_file_stays_while_a_torn_one_is_made_again(tmp_path):
    mnist = mnist_like(tmp_path / "mnist")
    first = stack_digits(mnist, tmp_path / "a.npz", count=50)
    content = first.read_bytes()
    assert stack_digits(mnist, tmp_path / "b.npz", count=50).read_bytes() == content
    stamp = first.stat().st_mtime_ns
    assert stack_digits(mnist, first, count=50).stat().st_mtime_ns == stamp
    first.write_bytes(content[:-200])
    assert stack_digits(mnist, first, count=50).read_bytes() == content


def test_without_mnist_or_its_labels_it_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: MNIST's training images"):
        stack_digits(tmp_path / "empty", tmp_path / "stacked.npz")
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: MNIST's labels"):
        stack_digits(mnist_like(tmp_path / "bare", labels=False), tmp_path / "stacked.npz")


def test_fetching_it_fetches_mnist_and_stacks_it_in_the_cache_or_where_the_user_wants(tmp_path, monkeypatch):
    mnist = mnist_like(tmp_path / "mnist")

    def download(name, file, folder, *args):
        assert name == "mnist"
        given = mnist / file.name
        (folder / file.name).write_bytes(given.read_bytes() if given.exists() else b"")

    monkeypatch.setattr(fetching, "_download", download)
    monkeypatch.setattr("ganvas.data.stacked.stack_digits", partial(stack_digits, count=40))
    path = fetching.fetch("stacked-mnist")
    assert path == cache_root() / "downloads" / "stacked-mnist" / "stacked-mnist.npz"
    assert {(entry.kind, entry.name) for entry in entries()} == {("downloads", "mnist"), ("downloads", "stacked-mnist")}
    assert len(open_source(str(path))) == 40
    assert fetching.fetch("stacked-mnist", tmp_path / "mine") == tmp_path / "mine" / "stacked-mnist.npz"


def test_a_folder_of_something_else_is_not_accepted_for_it(tmp_path):
    with pytest.raises(DataError, match=r"is not train-(images|labels)-idx\d-ubyte\.gz: .* was expected"):
        fetching.accept("stacked-mnist", mnist_like(tmp_path / "mnist"))


def test_the_public_set_downloads_what_mnist_does():
    assert DATASETS["stacked-mnist"].stacks == "mnist"
    assert DATASETS["stacked-mnist"].files == DATASETS["mnist"].files
