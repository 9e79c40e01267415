"""Where images come from."""

import gzip
import io
import os
import pickle
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganvas.data import source_files, source_zip
from ganvas.data.source_base import UnreadableError
from ganvas.data.sources import open_source
from ganvas.errors import ConfigError, DataError
from makers import image_folder

RED = Image.new("RGB", (4, 4), "red")
BLUE = Image.new("RGB", (4, 4), "blue")


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


def write_files(root, contents):
    for name, data in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_idx(path, array):
    path.write_bytes(gzip.compress(idx(array)) if path.suffix == ".gz" else idx(array))
    return path


def few_images(count=5):
    return np.random.default_rng(0).integers(0, 256, (count, 6, 7), dtype=np.uint8)


def test_composed_and_decomposed_accents_sort_alike(tmp_path):
    orders = []
    for form in ("\u00e9.png", "e\u0301.png"):
        names, _ = source_files.images_among(["f.png", form, "e.png", "\u00ea.png"])
        orders.append([name.replace(form, "é.png") for name in names])
    assert orders[0] == orders[1]


def test_files_that_are_no_images_are_counted_by_reason(tmp_path):
    junk = ["notes.txt", "more.txt", ".hidden.png", ".git/x.png", "__MACOSX/a.png", "._a.png", "Thumbs.db", "README"]
    folder = write_files(tmp_path / "x", {"a.png": png()} | dict.fromkeys(junk, b"junk"))
    source = open_source(folder)
    assert names(source) == ["x/a.png"]
    assert source.notes == ["8 files ignored: 2 .txt, 2 hidden, 2 macOS metadata, 1 Thumbs.db, 1 without an ending"]


def test_a_folder_without_images_says_what_was_looked_for_and_found(tmp_path):
    folder = write_files(tmp_path / "papers", {"a.pdf": b"", "b.pdf": b"", "faces.zip": b""})
    with pytest.raises(DataError, match=r"papers: no images.*\.png.*2 \.pdf.*Pass the \.zip file itself"):
        open_source(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no images.*There are no files at all"):
        open_source(tmp_path / "empty")


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need rights on Windows")
def test_linked_folders_are_followed_once_and_loops_end(tmp_path):
    write_files(tmp_path / "elsewhere", {"b.png": png()})
    folder = write_files(tmp_path / "x", {"a.png": png()})
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    source = open_source(folder)
    assert names(source) == ["x/a.png", "x/link/b.png"]
    assert source.notes == ["1 file ignored: 1 linked folder met twice"]


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need rights on Windows")
def test_a_link_to_nowhere_is_an_unreadable_item_not_a_crash(tmp_path):
    folder = write_files(tmp_path / "x", {"a.png": png()})
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    source = open_source(folder)
    with pytest.raises(UnreadableError, match=r"x/gone\.png: .*No such file"):
        source.load(1)


def test_the_stamp_of_a_folder_follows_its_files_and_not_its_place(tmp_path):
    folder = write_files(tmp_path / "x", {"a.png": png()})
    before = open_source(folder).stamp
    moved = folder.rename(tmp_path / "y")
    assert open_source(moved).stamp == before
    os.utime(moved / "a.png", ns=(1, 1))
    touched = open_source(moved).stamp
    assert touched != before
    write_files(moved, {"b.png": png()})
    assert open_source(moved).stamp != touched


def frozen(path):
    """`path` as a restored backup or an unpacked archive leaves it: dated 1970."""
    os.utime(path, (0, 0))
    return path


@pytest.mark.parametrize("name", ["images", "set.npz", "set.npy", "train-images-idx3-ubyte", "set.tar"])
def test_other_images_of_the_same_name_size_and_time_have_another_stamp(tmp_path, name):
    def made(place, shade):
        place.mkdir()
        images = np.full((3, 4, 4), shade, np.uint8)
        bitmap = io.BytesIO()
        Image.fromarray(images[0]).save(bitmap, "BMP")
        path = place / name
        if name == "images":
            frozen(write_files(path, {"a.bmp": bitmap.getvalue()}) / "a.bmp")
        elif name == "set.npz":
            np.savez(path, images=images)
        elif name == "set.npy":
            np.save(path, images)
        elif name == "set.tar":
            with tarfile.open(path, "w") as archive:
                member = tarfile.TarInfo("a.bmp")
                member.size = len(bitmap.getvalue())
                archive.addfile(member, io.BytesIO(bitmap.getvalue()))
        else:
            path.write_bytes(b"\0\0\x08\x03" + np.array(images.shape, ">u4").tobytes() + images.tobytes())
        return frozen(path)

    first, second = made(tmp_path / "1", 10), made(tmp_path / "2", 200)
    assert first.stat().st_size == second.stat().st_size
    assert open_source(first).stamp != open_source(second).stamp
    assert open_source(first).stamp == open_source(first).stamp


def test_opening_can_be_watched_and_stopped_and_closes_what_is_open(tmp_path, monkeypatch):
    sheet = Image.new("RGB", (8, 4), "white")
    sheet.putpixel((0, 0), (255, 0, 0))
    archive = make_zip(tmp_path / "x.zip", {"a.png": png(sheet), "b.png": png(sheet)})
    told, closed = [], []
    open_source(archive, tile=(4, 4), progress=lambda *at: told.append(at))
    open_source([few_images()[0]] * 3, progress=lambda *at: told.append(at))
    assert told == [(1, 2), (2, 2), (1, 3), (2, 3), (3, 3)]

    def stop(done, total):
        raise KeyboardInterrupt

    monkeypatch.setattr(source_zip.Zip, "close", lambda self, close=source_zip.Zip.close: (closed.append(self), close(self)))
    for source, options in ((archive, {"tile": (4, 4)}), ([few_images()[0]], {})):
        with pytest.raises(KeyboardInterrupt):
            open_source(source, progress=stop, **options)
    assert len(closed) == 1


def test_a_folder_that_wraps_all_classes_is_passed_over(tmp_path):
    archive = make_zip(tmp_path / "x.zip", {"set/fire/a.png": png(), "set/water/b.png": png()})
    assert open_source(archive, labels="folder").class_names == ("fire", "water")


def test_unused_class_folders_are_mentioned_and_splits_are_not_taken_for_classes(tmp_path):
    classes = write_files(tmp_path / "x", {"fire/a.png": png(), "water/b.png": png()})
    assert open_source(classes).notes == ["labels found in 2 sub-folders: pass --labels folder to keep them"]
    splits = write_files(tmp_path / "y", {"train/a.png": png(), "test/b.png": png()})
    for labels in ("none", "folder"):
        assert "test, train look like parts of a set, not classes" in open_source(splits, labels).notes[0]


def test_labels_that_folders_cannot_give_are_refused(tmp_path):
    loose = write_files(tmp_path / "x", {"fire/a.png": png(), "b.png": png()})
    with pytest.raises(DataError, match=r"x: b\.png lies in no class folder \(1 of 2.*--labels none"):
        open_source(loose, labels="folder")
    single = write_files(tmp_path / "y", {"fire/a.png": png()})
    with pytest.raises(DataError, match=r"y: only one class folder, 'fire'.*--labels none"):
        open_source(single, labels="folder")
    with pytest.raises(DataError, match=r"the array: --labels folder needs sub-folders.*--labels none"):
        open_source(few_images(), labels="folder")
    with pytest.raises(ConfigError, match=r"labels 'folders': must be none or folder"):
        open_source(single, labels="folders")


def test_the_stamp_of_a_zip_follows_its_content_and_not_its_time(tmp_path):
    first = open_source(make_zip(tmp_path / "a.zip", {"x.png": png()})).stamp
    os.utime(tmp_path / "a.zip", (1, 1))
    assert open_source(tmp_path / "a.zip").stamp == first
    assert open_source(make_zip(tmp_path / "b.zip", {"x.png": png(BLUE)})).stamp != first


def test_many_threads_read_one_zip(tmp_path):
    contents = {f"{index:03}.png": png(Image.new("RGB", (4, 4), (index, 0, 0))) for index in range(60)}
    source = open_source(make_zip(tmp_path / "x.zip", contents))
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(source.load, [*range(60)] * 5)) == [*contents.values()] * 5


def test_a_zip_bomb_is_refused_and_a_big_file_that_is_no_image_is_not(tmp_path, monkeypatch):
    bomb = make_zip(tmp_path / "bomb.zip", {"big.bmp": bytes(9 * 2**20)})
    with pytest.raises(DataError, match=r"bomb\.zip: its member 'big\.bmp' unpacks from .* to 9,437,184 bytes"):
        open_source(bomb)
    fine = make_zip(tmp_path / "fine.zip", {"a.png": png(), "log.csv": bytes(9 * 2**20)})
    assert len(open_source(fine)) == 1
    monkeypatch.setattr(source_zip, "MAX_FILE_BYTES", 1000)
    with pytest.raises(DataError, match=r"large\.zip: its member 'a\.png' unpacks"):
        open_source(make_zip(tmp_path / "large.zip", {"a.png": bytes(1001)}))


def test_a_member_larger_than_it_declares_is_unreadable(tmp_path):
    archive = make_zip(tmp_path / "x.zip", {"a.bmp": bytes(100_000)})
    data = archive.read_bytes()
    for place in (22, data.rindex(b"PK\x01\x02") + 24):           # the declared size, in both headers
        data = data[:place] + (10).to_bytes(4, "little") + data[place + 4:]
    archive.write_bytes(data)
    with pytest.raises(UnreadableError, match=r"x\.zip!a\.bmp: .*damaged in the archive"):
        open_source(archive).load(0)


def test_an_encrypted_zip_says_so(tmp_path):
    archive = make_zip(tmp_path / "secret.zip", {"a.png": png()})
    data = bytearray(archive.read_bytes())
    data[6] |= 1
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(DataError, match=r"secret\.zip: its member 'a\.png' is encrypted\. Unpack"):
        open_source(archive)


def test_of_two_members_with_one_name_the_later_counts(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a.png", png())
        archive.writestr("a.png", png(BLUE))
    source = open_source(tmp_path / "x.zip")
    assert [source.load(index) for index in range(len(source))] == [png(BLUE)]
    assert source.notes == ["1 file in the archive replaced by a later one of the same name"]


def test_a_member_without_a_name_is_left_out(tmp_path):
    archive = make_zip(tmp_path / "x.zip", {"a.png": png(), "none.png": png()})
    archive.write_bytes(archive.read_bytes().replace(b"none.png", b"\0one.png"))
    source = open_source(archive)
    assert names(source) == ["x.zip!a.png"]
    assert source.ignored == [("x.zip!", "member without a name")]


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_an_idx_folder_gives_its_training_part_with_labels_and_says_so(tmp_path, ending):
    folder = tmp_path / "mnist"
    folder.mkdir()
    images = few_images()
    write_idx(folder / f"train-images-idx3-ubyte{ending}", images)
    write_idx(folder / f"train-labels-idx1-ubyte{ending}", np.array([7, 2, 7, 0, 2], dtype=np.uint8))
    write_idx(folder / f"t10k-images-idx3-ubyte{ending}", images[:2])
    source = open_source(folder)
    assert (source.name, names(source)[4]) == ("mnist", "train-images[4]")
    np.testing.assert_array_equal(source.load(3), images[3, :, :, None])
    assert source.labels is not None and source.labels.tolist() == [2, 1, 2, 0, 1]
    assert source.class_names == ("0", "2", "7")
    assert source.notes == [f"only the training images of this MNIST set are used; not t10k-images-idx3-ubyte{ending}"]
    part = open_source(folder / f"t10k-images-idx3-ubyte{ending}")
    assert (part.name, len(part), part.labels) == ("t10k-images", 2, None)
    assert "no t10k-labels-idx1-ubyte beside" in part.notes[0]


def test_damaged_idx_files_are_named_with_their_fault(tmp_path):
    whole = write_idx(tmp_path / "whole", few_images()).read_bytes()
    faults = {
        whole[:-1]: r"is cut short: its header promises 5 x 6 x 7 = 210 bytes",
        whole + b"x": r"has bytes left over",
        b"\x00\x00\x08\x01" + whole[4:]: r"no idx file of images: it begins with 00 00 08 01, not with 00 00 08 03",
        b"": r"no idx file of images",
        whole[:4] + b"\xff" * 12: r"is cut short",
    }
    for data, fault in faults.items():
        for name, content in (("train-images-idx3-ubyte", data), ("train-images-idx3-ubyte.gz", gzip.compress(data))):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(DataError, match=rf"{name}: .*{fault}.*[Dd]ownload it again"):
                open_source(tmp_path / name)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(whole)[:-20])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: cannot be read .*cut short"):
        open_source(tmp_path / "train-images-idx3-ubyte.gz")


def test_idx_labels_of_another_number_are_refused(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte", few_images(5))
    labels = write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(4, dtype=np.uint8))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte has the shape \(4,\), but 5 images need 5 labels"):
        open_source(tmp_path)
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte: holds labels\. Pass the file of images"):
        open_source(labels)


@pytest.mark.parametrize(("shape", "item"), [
    ((5, 6, 7), (6, 7, 1)), ((5, 6, 7, 3), (6, 7, 3)), ((5, 4, 6, 7), (6, 7, 4)), ((5, 6, 7, 1), (6, 7, 1)),
    ((5, 3, 6, 4), (3, 6, 4)),
])
def test_arrays_are_understood_with_channels_first_last_or_none(tmp_path, shape, item):
    array = np.arange(np.prod(shape), dtype=np.uint32).astype(np.uint8).reshape(shape)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", images=array)
    for where in (array, tmp_path / "a.npy", tmp_path / "a.npz"):
        source = open_source(where)
        image = source.load(2)
        assert isinstance(image, np.ndarray) and (len(source), image.shape, image.dtype) == (5, item, np.uint8)
        expected = array[2].transpose(1, 2, 0) if item != shape[1:] and len(shape) == 4 else array[2].reshape(item)
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(("images_key", "labels_key"), [
    ("images", "labels"), ("x", "y"), ("x_train", "y_train"), ("arr_0", "y"), ("pictures", "labels")])
def test_an_npz_is_understood_by_its_usual_keys_or_its_only_suitable_one(tmp_path, images_key, labels_key):
    objects = np.array([{}, []], dtype=object)
    np.savez(tmp_path / "set.npz", **{images_key: few_images(), labels_key: np.array([[3], [9], [3], [3], [9]]),
                                      "weights": np.zeros((5, 2, 2)), "meta": objects})
    source = open_source(tmp_path / "set.npz")
    assert source.labels is not None and source.labels.tolist() == [0, 1, 0, 0, 1]
    assert (source.name, source.class_names, source.item_name(1)) == ("set", ("3", "9"), "set.npz[1]")
    assert source.notes == [f"images are taken from {images_key!r}; not used: weights, meta"]


def test_text_labels_of_an_npz_become_class_names(tmp_path):
    np.savez(tmp_path / "set.npz", images=few_images(3), labels=np.array(["dog", "cat", "dog"]))
    source = open_source(tmp_path / "set.npz")
    assert source.labels is not None and source.labels.tolist() == [1, 0, 1] and source.class_names == ("cat", "dog")


def test_an_npz_that_leaves_the_choice_open_or_mismatches_is_refused(tmp_path):
    path, images = tmp_path / "set.npz", few_images()
    np.savez(path, first=images, second=images)
    with pytest.raises(DataError, match=r"set\.npz: 2 arrays may be the images \(first, second\)\. Save them as"):
        open_source(path)
    np.savez(path, weights=np.zeros(3))
    with pytest.raises(DataError, match=r"set\.npz: no array of images in it; it holds weights"):
        open_source(path)
    np.savez(path, images=images, labels=np.eye(5, dtype=np.uint8))
    with pytest.raises(DataError, match=r"set\.npz: 'labels' has the shape \(5, 5\).*argmax"):
        open_source(path)
    np.savez(path, images=images, labels=np.zeros(5))
    with pytest.raises(DataError, match=r"set\.npz: 'labels' holds float64 values"):
        open_source(path)


@pytest.mark.parametrize(("array", "advice"), [
    (np.array([[[0.0, 1.0]]]), r"float64 values from 0 to 1.*\(x \* 255\)\.round\(\)"),
    (np.array([[[-1.0, 1.0]]], dtype=np.float32), r"from -1 to 1.*\(\(x \+ 1\) \* 127\.5\)"),
    (np.array([[[0, 200]]]), r"int64 values from 0 to 200.*x\.round\(\)\.astype\(np\.uint8\)"),
    (np.array([[[0, 9000]]]), r"from 0 to 9000.*high - low"),
    (np.array([[[True]]]), r"bool.*\* 255"),
])
def test_values_that_are_not_uint8_are_refused_with_the_line_that_converts_them(tmp_path, array, advice):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=rf"a\.npy holds .*{advice}"):
        open_source(tmp_path / "a.npy")


@pytest.mark.parametrize("shape", [(4, 4), (2, 5, 6, 7), (0, 4, 4), (1, 2, 3, 4, 5)])
def test_arrays_of_another_shape_are_refused(shape):
    with pytest.raises(DataError, match=r"the array has the shape"):
        open_source(np.zeros(shape, dtype=np.uint8))


def test_a_pickle_is_never_loaded(tmp_path):
    objects = np.array([{}], dtype=object)
    np.save(tmp_path / "a.npy", objects)
    np.savez(tmp_path / "a.npz", images=objects)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(DataError, match=rf"{name}: .*Python objects, which could run code"):
            open_source(tmp_path / name)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_damaged_array_files_are_named(tmp_path, name):
    (np.save if name == "a.npy" else np.savez)(tmp_path / name, few_images())
    data = (tmp_path / name).read_bytes()
    for broken in (b"", b"junk", data[:len(data) // 2]):
        (tmp_path / name).write_bytes(broken)
        with pytest.raises(DataError, match=rf"{name}: cannot be read as"):
            open_source(tmp_path / name)


def test_the_stamp_of_an_array_is_its_content():
    array = few_images()
    before = open_source(array).stamp
    assert open_source(array.copy()).stamp == before
    array[4, 5, 6] ^= 1
    assert open_source(array).stamp != before


def test_digits_are_the_1797_of_scikit_learn_in_full_range(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = open_source("digits")
    image = source.load(0)
    assert isinstance(image, np.ndarray) and image.shape == (8, 8, 1)
    assert (len(source), source.name, source.item_name(3)) == (1797, "digits", "digits[3]")
    assert source.labels is not None and source.labels[:10].tolist() == list(range(10))
    assert source.class_names == tuple("0123456789") and source.notes == []
    assert max(int(np.max(source.load(index))) for index in range(20)) == 255
    write_files(tmp_path / "digits", {"a.png": png()})
    assert "write ./digits for the folder here" in open_source("digits").notes[0]
    assert names(open_source(f".{os.sep}digits")) == ["digits/a.png"]


def test_tiles_and_frames_are_images_of_their_own_with_the_label_of_their_sheet(tmp_path):
    sheet = Image.new("RGB", (8, 4), "white")
    sheet.putpixel((0, 0), (255, 0, 0))
    sheet.putpixel((5, 0), (0, 0, 255))
    write_files(tmp_path / "x", {"a/s.png": png(sheet), "b/s.png": png(sheet)})
    source = open_source(tmp_path / "x", labels="folder", tile=(4, 4), frames="all")
    assert source.labels is not None and source.labels.tolist() == [0, 0, 1, 1]
    assert names(source)[1].startswith("x/a/s.png[")
    for wrong in ({"tile": (0, 4)}, {"frames": "some"}):
        with pytest.raises(ConfigError, match=str(next(iter(wrong)))):
            open_source(tmp_path / "x", **wrong)


def test_the_real_mnist_has_60000_training_images():
    folder = Path(os.environ["GANVAS_TEST_DATA"]) / "mnist"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    source = open_source(folder)
    assert source.labels is not None and np.bincount(source.labels)[[0, 1]].tolist() == [5923, 6742]
    assert (len(source), source.class_names) == (60000, tuple("0123456789"))
