"""Sets that come as arrays in files of their own: CIFAR's binary version, SVHN's cropped digits."""

import io
import pickle
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from ganvas.data.sources import open_source
from ganvas.errors import DataError

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def batch(labels, seed, label_bytes=1):
    """CIFAR records, and their images as (N, 32, 32, 3)."""
    planes = np.random.default_rng(seed).integers(0, 256, (len(labels), 3, 32, 32), dtype=np.uint8)
    column = np.array(labels, dtype=np.uint8)[:, None]
    coarse = np.full((len(labels), label_bytes - 1), 7, dtype=np.uint8)
    return np.hstack([coarse, column, planes.reshape(len(labels), -1)]).tobytes(), planes.transpose(0, 2, 3, 1)


def cifar10():
    first, images = batch([3, 9, 3], 0)
    second, more = batch([0], 1)
    test, _ = batch([5], 2)
    return {"data_batch_1.bin": first, "data_batch_2.bin": second, "test_batch.bin": test, "readme.html": b"<html>",
            "batches.meta.txt": "\n".join([*CLASSES, ""]).encode()}, np.concatenate([images, more])


def as_folder(path, contents):
    for name, data in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def as_tar(path, contents):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in contents.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def as_zip(path, contents):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(f"cifar-10-batches-bin/{name}", data)
    return path


@pytest.mark.parametrize(("make", "name"), [(as_folder, "cifar-10-batches-bin"), (as_tar, "cifar-10-binary.tar.gz"),
                                            (as_zip, "cifar.zip")])
def test_cifar_10_gives_its_training_batches_with_named_classes(tmp_path, make, name):
    contents, images = cifar10()
    source = open_source(make(tmp_path / name, contents))
    assert len(source) == 4
    np.testing.assert_array_equal([source.load(index) for index in range(4)], images)
    assert [source.class_names[label] for label in source.labels] == ["cat", "truck", "cat", "airplane"]
    assert source.class_names == tuple(CLASSES)                            # also those that no image has
    assert source.notes == ["only the training images of this CIFAR-10 set are used; not test_batch.bin"]
    assert source.item_name(2) == f"{name.removesuffix('.tar.gz').removesuffix('.zip')}[2]"


def test_the_folder_above_and_the_folder_itself_are_the_same_set(tmp_path):
    contents, _ = cifar10()
    as_folder(tmp_path / "up" / "cifar-10-batches-bin", contents)
    assert len(open_source(tmp_path / "up")) == 4
    before = open_source(tmp_path / "up").stamp
    assert open_source(tmp_path / "up" / "cifar-10-batches-bin").stamp == before
    (tmp_path / "up" / "cifar-10-batches-bin" / "data_batch_2.bin").write_bytes(batch([1], 1)[0])
    assert open_source(tmp_path / "up").stamp != before


def test_one_batch_alone_is_used_whole(tmp_path):
    contents, images = cifar10()
    folder = as_folder(tmp_path / "c", {name: contents[name] for name in ("data_batch_1.bin", "test_batch.bin")})
    source = open_source(folder / "data_batch_1.bin")
    np.testing.assert_array_equal(source.load(2), images[2])
    assert (len(source), source.labels.tolist(), source.class_names, source.notes) == (3, [3, 9, 3], tuple("0123456789"), [])
    assert open_source(folder / "test_batch.bin").labels.tolist() == [5]


def test_cifar_100_gives_the_fine_labels(tmp_path):
    data, images = batch([99, 0], 0, label_bytes=2)
    names = "\n".join(f"class{number}" for number in range(100)).encode()
    folder = as_folder(tmp_path / "cifar-100-binary", {"train.bin": data, "test.bin": data, "fine_label_names.txt": names})
    source = open_source(folder)
    np.testing.assert_array_equal(source.load(1), images[1])
    assert [source.class_names[label] for label in source.labels] == ["class99", "class0"]
    assert source.notes == ["only the training images of this CIFAR-100 set are used; not test.bin",
                            "labels are the 100 fine ones, not the 20 coarse ones"]
    assert len(open_source(folder / "train.bin")) == 2


def test_damaged_batches_are_named(tmp_path):
    contents, _ = cifar10()
    folder = as_folder(tmp_path / "c", contents)
    (folder / "data_batch_2.bin").write_bytes(contents["data_batch_2.bin"][:-1])
    with pytest.raises(DataError, match=r"c: data_batch_2\.bin has 3,072 bytes, which are no whole number .*CIFAR-10.*download"):
        open_source(folder)
    (folder / "data_batch_2.bin").write_bytes(bytes([77] * 3073))
    with pytest.raises(DataError, match=r"data_batch_2\.bin holds the label 77, but CIFAR-10 has 10 classes"):
        open_source(folder)
    (folder / "data_batch_2.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"data_batch_2\.bin has 0 bytes"):
        open_source(folder)


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was run')",)


@pytest.mark.parametrize("contents", [{"cifar-10-batches-py/data_batch_1": b"", "cifar-10-batches-py/batches.meta": b""},
                                      {"cifar-100-python/train": b"", "cifar-100-python/meta": b""}])
def test_the_python_version_is_refused_with_the_binary_one_as_remedy(tmp_path, contents):
    folder = as_folder(tmp_path / "c", dict.fromkeys(contents, pickle.dumps(Evil())))
    for where in (folder, as_zip(tmp_path / "c.zip", {f"../{name}"[3:]: b"x" for name in contents})):
        with pytest.raises(DataError, match=r"c.*: is the Python version of CIFAR, made of pickles, .*cifar-10-binary\.tar\.gz"):
            open_source(where)


def test_images_beside_a_batch_are_what_is_meant(tmp_path):
    contents, _ = cifar10()
    folder = as_folder(tmp_path / "c", contents)
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    source = open_source(folder)
    assert [source.item_name(index) for index in range(len(source))] == ["c/a.png"]


# SVHN.

def svhn(path, **changes):
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    savemat(path, {"X": images, "y": np.array([[1], [10], [9], [10]], dtype=np.uint8), **changes}, do_compression=True)
    return images


def test_svhn_gives_images_and_digits_with_ten_for_zero(tmp_path):
    images = svhn(tmp_path / "train_32x32.mat")
    source = open_source(tmp_path / "train_32x32.mat")
    np.testing.assert_array_equal(source.load(2), images[..., 2])
    assert [source.class_names[label] for label in source.labels] == ["1", "0", "9", "0"]
    assert (len(source), source.item_name(1), source.notes) == (4, "train_32x32.mat[1]", [])
    (tmp_path / "test_32x32.mat").write_bytes(b"")
    folder = open_source(tmp_path)
    assert (len(folder), folder.notes) == (4, ["only train_32x32.mat of this SVHN set is used"])


@pytest.mark.parametrize(("changes", "words"), [
    ({"X": np.zeros((32, 32, 3), np.uint8)}, r"holds X \(32, 32, 3\), y \(4, 1\)\. Expected are uint8 X"),
    ({"X": np.zeros((32, 32, 3, 4))}, r"its X is float64"),
    ({"y": np.zeros((3, 1), np.uint8)}, r"its y is uint8 \(3, 1\), but 4 images"),
    ({"y": np.full((4, 1), 0.5)}, r"its y is float64"),
])
def test_a_mat_file_of_another_shape_is_refused(tmp_path, changes, words):
    svhn(tmp_path / "a.mat", **changes)
    with pytest.raises(DataError, match=rf"a\.mat: {words}"):
        open_source(tmp_path / "a.mat")


def test_a_mat_file_in_hdf5_is_refused_with_what_it_is(tmp_path):
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    (tmp_path / "digitStruct.mat").write_bytes(header.ljust(4096, b"\0"))
    with pytest.raises(DataError, match=r"digitStruct\.mat: is a MATLAB 7\.3 file \(HDF5\).*the full set.*train_32x32\.mat"):
        open_source(tmp_path / "digitStruct.mat")


def test_a_damaged_mat_file_is_refused(tmp_path):
    svhn(tmp_path / "whole.mat")
    whole = (tmp_path / "whole.mat").read_bytes()
    for broken in (b"", b"junk", whole[:200], whole[:len(whole) // 2], whole[:150] + bytes(40) + whole[190:]):
        (tmp_path / "a.mat").write_bytes(broken)
        with pytest.raises(DataError, match=r"a\.mat: "):
            open_source(tmp_path / "a.mat")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_mat_file_reads_as_scipy_reads_it(tmp_path, compressed):
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 3, 7), dtype=np.uint8)
    content = {"note": "text", "X": images, "y": np.arange(1.0, 8)[:, None], "cell": np.array([{}, "x"], object)}
    savemat(tmp_path / "a.mat", content, do_compression=compressed)
    theirs, source = loadmat(tmp_path / "a.mat"), open_source(tmp_path / "a.mat")
    np.testing.assert_array_equal([source.load(index) for index in range(7)], theirs["X"].transpose(3, 0, 1, 2))
    assert [int(source.class_names[label]) for label in source.labels] == theirs["y"][:, 0].tolist()


def test_a_mat_file_with_any_byte_changed_is_read_or_refused(tmp_path):
    path = tmp_path / "a.mat"                                              # scipy's own reader crashes on some of these
    for compressed in (False, True):
        savemat(path, {"X": np.zeros((2, 2, 3, 2), np.uint8), "y": np.array([[1], [2]])}, do_compression=compressed)
        whole = path.read_bytes()
        for place in range(len(whole)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1:])
            try:
                open_source(path)
            except DataError as error:
                assert "a.mat" in str(error)


def test_a_mat_file_that_promises_too_much_is_refused_before_memory_is_used(tmp_path):
    packed = zlib.compress(struct.pack("<II", 14, 2**31) + bytes(64))
    header = b"MATLAB 5.0".ljust(124) + b"\x00\x01IM"
    (tmp_path / "a.mat").write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(DataError, match=r"a\.mat: cannot be read as \.mat \(\d+ bytes that promise to become 2,147,483,648"):
        open_source(tmp_path / "a.mat")
