"""Where images come from."""

import gzip
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganvas.data.sources import open_source
from ganvas.errors import DataError
from makers import image_folder

RED = Image.new("RGB", (4, 4), "red")


def png(image=RED):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def names(source):
    return [source.item_name(i) for i in range(len(source))]


def refusal(where, *parts, **how):
    with pytest.raises(DataError) as caught:
        open_source(where, **how)
    for part in (*parts, Path(where).name):
        assert part in str(caught.value)


def test_a_folder_gives_every_image_in_any_case_and_depth_in_one_order(tmp_path):
    for name in ("b.PNG", "a/z.Jpg", "a/c.png", "weird name ü.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        RED.save(tmp_path / name)
    for junk in ("notes.txt", "Thumbs.db", "._b.PNG", ".hidden.png", "__MACOSX/x.png"):
        (tmp_path / junk).parent.mkdir(exist_ok=True)
        (tmp_path / junk).write_bytes(b"junk")
    source = open_source(tmp_path)
    assert [name.split(tmp_path.name + "/")[-1] for name in names(source)] == ["a/c.png", "a/z.Jpg", "b.PNG", "weird name ü.gif"]
    assert any("ignored" in note for note in source.notes)


def test_labels_are_the_first_sub_folder_only_on_request(tmp_path):
    for name in ("cat/1.png", "cat/deep/2.png", "dog/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        RED.save(tmp_path / name)
    assert open_source(tmp_path).labels is None
    labelled = open_source(tmp_path, labels="folder")
    assert labelled.class_names == ("cat", "dog")
    assert labelled.labels.tolist() == [0, 0, 1]
    RED.save(tmp_path / "loose.png")
    refusal(tmp_path, "loose.png", labels="folder")


def test_what_is_no_source_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").write_text("hello", encoding="utf-8")
    RED.save(tmp_path / "one.png")
    (tmp_path / "torn.zip").write_bytes(b"PK\x03\x04 no more")
    refusal(tmp_path / "empty", "no images")
    refusal(tmp_path / "emty", "Did you mean empty")
    refusal(tmp_path / "one.png", "single image")
    refusal(tmp_path / "notes.md")
    refusal(tmp_path / "torn.zip", "zip")


def make_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_a_zip_is_read_like_a_folder(tmp_path):
    source = open_source(make_zip(tmp_path / "x.zip", {"b.png": png(), "a/c.PNG": png(), "__MACOSX/._b.png": b"", "r.txt": b""}))
    assert names(source) == ["x.zip!a/c.PNG", "x.zip!b.png"]
    assert source.load(0) == png()


def test_dangerous_zips_are_refused(tmp_path):
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    refusal(make_zip(tmp_path / "slip.zip", {"../evil.png": png()}), "../evil.png", "outside")
    refusal(make_zip(tmp_path / "root.zip", {"/etc/evil.png": png()}), "evil.png")
    refusal(make_zip(tmp_path / "drive.zip", {"C:\\evil.png": png()}), "evil.png")
    refusal(make_zip(tmp_path / "link.zip", {link: b"/etc/passwd"}), "link")
    refusal(make_zip(tmp_path / "bomb.zip", {"big.png": bytes(64_000_000)}), "big.png")


def test_a_damaged_member_is_one_unreadable_item(tmp_path):
    path = make_zip(tmp_path / "x.zip", {"a.png": os.urandom(2000), "b.png": png()})
    data = bytearray(path.read_bytes())
    data[500] ^= 255
    path.write_bytes(data)
    source = open_source(path)
    with pytest.raises(DataError, match=r"a\.png"):
        source.load(0)
    assert source.load(1) == png()


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def test_mnist_files_in_the_original_format_with_their_labels(tmp_path):
    images = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.array([7, 1, 7], np.uint8)))
    source = open_source(tmp_path)
    assert np.array_equal(source.load(1)[..., 0], images[1])
    assert [source.class_names[label] for label in source.labels] == ["7", "1", "7"]
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)[:-1]))
    refusal(tmp_path, "cut short")
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"no gzip at all")
    refusal(tmp_path)


def test_arrays_of_each_layout_and_never_a_pickle(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 6, 3)).astype(np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=[1, 0])
    np.save(tmp_path / "b.npy", images.transpose(0, 3, 1, 2))
    for where in (tmp_path / "a.npz", tmp_path / "b.npy", images):
        assert np.array_equal(open_source(where).load(1), images[1])
    assert open_source(tmp_path / "a.npz").labels.tolist() == [1, 0]
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.savez(tmp_path / "floats.npz", images=images / 255)
    (tmp_path / "pickled.npz").write_bytes(pickle.dumps(images))
    np.savez(tmp_path / "none.npz")
    refusal(tmp_path / "objects.npy", "objects")
    refusal(tmp_path / "floats.npz", "astype(np.uint8)")
    refusal(tmp_path / "pickled.npz")
    refusal(tmp_path / "none.npz")


def test_the_built_in_digits():
    digits = open_source("digits")
    assert len(digits) == 1797
    assert digits.load(0).shape == (8, 8, 1)
    assert len(set(digits.labels.tolist())) == 10


def test_the_stamp_changes_with_the_content(tmp_path):
    folder = image_folder(tmp_path / "a", 3)
    before = open_source(folder).stamp
    assert open_source(folder).stamp == before
    Image.new("RGB", (9, 9)).save(folder / "001.png")
    assert open_source(folder).stamp != before
