"""Labels that the images themselves contradict are noticed, and classes are counted, without decoding anything."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganvas.data.contradictions import contradicted
from ganvas.data.looks import class_counts
from ganvas.data.source_zip import Zip
from ganvas.data.sources import open_source

DATA = Path(os.environ.get("GANVAS_TEST_DATA", "../shared/data"))


def bmp(shade, size=(4, 4)):
    """A picture in one colour; pictures of one size have files of one size."""
    file = io.BytesIO()
    Image.new("RGB", size, (shade % 256, shade // 256, 7)).save(file, "BMP")
    return file.getvalue()


def folder(path, files):
    """{name: bytes} as files, with the source of it, labelled by its sub-folders."""
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return open_source(path, labels="folder")


@pytest.fixture
def reads(monkeypatch):
    """The names that are read from zips."""
    names = []
    read = Zip.read
    monkeypatch.setattr(Zip, "read", lambda files, name: names.append(name) or read(files, name))
    return names


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return open_source(path, labels="folder")


def test_the_share_counts_every_image_whose_bytes_stand_under_another_label(tmp_path):
    files = {"cat/1.bmp": bmp(1), "dog/1.bmp": bmp(1), "fox/one.bmp": bmp(1), "cat/2.bmp": bmp(2), "cat/copy of 2.bmp": bmp(2),
             "dog/3.bmp": bmp(3), "fox/4.bmp": bmp(4, (9, 9)), "fox/5.bmp": bmp(5, (9, 9))}
    assert contradicted(folder(tmp_path, files)) == 3 / 8          # copies under their own label contradict nothing


def test_without_labels_nothing_is_contradicted(tmp_path):
    for name in ("a.bmp", "b.bmp"):
        (tmp_path / name).write_bytes(bmp(1))
    source = open_source(tmp_path)
    assert (contradicted(source), class_counts(source)) == (0.0, {})


def test_only_files_of_a_size_that_another_label_has_are_read(tmp_path, reads):
    files = {"cat/1.bmp": bmp(1), "cat/2.bmp": bmp(2), "dog/3.bmp": bmp(3, (5, 5)), "dog/4.bmp": bmp(4, (6, 6)),
             "cat/5.bmp": bmp(4, (6, 6))}
    source = zipped(tmp_path / "pets.zip", files)
    del reads[:]
    assert contradicted(source) == 2 / 5
    assert sorted(reads) == ["cat/5.bmp", "dog/4.bmp"]


def test_arrays_are_compared_by_their_pixels(tmp_path):
    images = np.zeros((6, 4, 4), np.uint8)
    images[:, 0, 0] = [1, 1, 2, 3, 2, 4]
    np.savez(tmp_path / "set.npz", images=images, labels=np.array([5, 6, 5, 5, 5, 9]))
    source = open_source(tmp_path / "set.npz")
    assert contradicted(source) == 2 / 6
    assert class_counts(source) == {"5": 4, "6": 1, "9": 1}


def test_an_image_that_cannot_be_read_contradicts_nothing(tmp_path):
    source = folder(tmp_path, {"cat/1.bmp": bmp(1), "dog/1.bmp": bmp(1), "dog/2.bmp": bmp(2), "cat/2.bmp": bmp(2)})
    (tmp_path / "dog/2.bmp").unlink()
    assert contradicted(source) == 2 / 4


def test_images_without_a_label_in_the_table_count_neither_as_a_class_nor_as_contradicted(tmp_path):
    for number, shade in enumerate([1, 1, 1, 2, 2]):
        (tmp_path / f"{number}.bmp").write_bytes(bmp(shade))
    (tmp_path / "labels.csv").write_text("file,label\n0.bmp,cat\n1.bmp,dog\n2.bmp,\n3.bmp,dog\n4.bmp,dog\n")
    source = open_source(tmp_path, labels="labels.csv")
    assert class_counts(source) == {"cat": 1, "dog": 3}
    assert contradicted(source) == 2 / 4


def test_tiles_of_sheets_without_a_label_count_neither(tmp_path):
    for name, shades in (("0.bmp", (1, 2)), ("1.bmp", (3, 4)), ("2.bmp", (5, 6)), ("3.bmp", (7, 8))):
        sheet = Image.new("RGB", (8, 4))
        sheet.paste((shades[0], 9, 9), (0, 0, 3, 4))
        sheet.paste((shades[1], 9, 9), (5, 0, 8, 4))
        sheet.save(tmp_path / name)
    (tmp_path / "labels.csv").write_text("file,label\n0.bmp,cat\n1.bmp,dog\n2.bmp,\n3.bmp,dog\n")
    source = open_source(tmp_path, labels="labels.csv", tile=(4, 4))
    unlabelled = [source.item_name(index) for index in source.unlabelled]
    assert unlabelled and all("2.bmp" in name for name in unlabelled)
    assert class_counts(source) == {"cat": 2, "dog": 4}
    assert contradicted(source) == 0.0
    source.close()


def test_a_file_s_size_is_known_without_opening_it_and_a_tile_has_none(tmp_path):
    def two_tiles():
        file = io.BytesIO()
        sheet = Image.new("RGB", (8, 4))
        sheet.paste((9, 9, 9), (1, 1, 6, 3))
        sheet.save(file, "BMP")
        return file.getvalue()

    source = folder(tmp_path, {"cat/1.bmp": two_tiles(), "dog/2.bmp": two_tiles()})
    assert [source.file_size(index) for index in range(2)] == [len(two_tiles())] * 2
    (tmp_path / "cat/1.bmp").unlink()
    assert source.file_size(0) is None
    (tmp_path / "cat/1.bmp").write_bytes(two_tiles())
    tiles = open_source(tmp_path, labels="folder", tile=(4, 4), frames="all")
    assert [tiles.file_size(index) for index in range(len(tiles))] == [None] * len(tiles)
    tiles.close()
    wholes = open_source(tmp_path, labels="folder", frames="all")
    assert [wholes.file_size(index) for index in range(2)] == [len(two_tiles())] * 2
    wholes.close()


def test_classes_are_counted_in_their_order(tmp_path):
    source = folder(tmp_path, {"fox/1.bmp": bmp(1), "cat/2.bmp": bmp(2), "fox/3.bmp": bmp(3)})
    assert list(class_counts(source).items()) == [("cat", 1), ("fox", 2)]


def test_of_many_files_whole_sizes_are_looked_at_so_that_the_share_stays_right(tmp_path, reads):
    files = {}
    for number in range(600):                                      # a third of the pictures, half of the files, are contradicted
        size = (4 + number, 3)
        files[f"cat/{number}.bmp"] = bmp(number, size)
        if number % 3 == 0:
            files[f"dog/{number}.bmp"] = bmp(number, size)
    source = zipped(tmp_path / "pets.zip", files)
    assert contradicted(source) == 0.5
    del reads[:]
    assert contradicted(source, most=200) == pytest.approx(0.5, abs=0.1)
    assert 0 < len(reads) <= 200


def test_of_many_files_of_one_size_ones_evenly_spread_are_looked_at(tmp_path, reads):
    files = {f"{kind}/{number:03}.bmp": bmp(number) for kind in ("cat", "dog") for number in range(500)}
    source = zipped(tmp_path / "pets.zip", files)
    del reads[:]
    share = contradicted(source, most=100)
    assert 0 <= share < 1
    assert len(reads) == 100
    assert (reads[0], reads[-1]) == ("cat/000.bmp", "dog/499.bmp")


@pytest.mark.skipif(not (DATA / "pokemon-artwork.zip").exists(), reason="no real image sets here")
def test_pokemon_of_two_types_stand_in_two_folders():
    source = open_source(DATA / "pokemon-artwork.zip", labels="folder")
    assert round(contradicted(source) * len(source)) == 2 * 409
    counts = class_counts(source)
    assert (len(counts), sum(counts.values())) == (18, len(source))
