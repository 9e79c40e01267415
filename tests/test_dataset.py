"""From a source to what training reads."""

import csv
import gzip
from pathlib import Path

import pytest
from PIL import Image

from ganvas.config import make_config
from ganvas.data.sources import open_source
from ganvas.dataset import changes_since, prepare, write_table
from makers import image_folder


def data(**options):
    return make_config({"data.size": "16"} | {f"data.{name}": value for name, value in options.items()}).data


@pytest.fixture
def images(tmp_path):
    return image_folder(tmp_path / "images", n=30)


def rows(table):
    with gzip.open(table, "rt", encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def test_the_images_are_divided_as_the_options_say(images):
    dataset = prepare(open_source(images), data(holdout="10%"))
    assert (len(dataset.train), len(dataset.split.holdout), len(dataset.pack)) == (27, 3, 30)
    assert (dataset.train.channels, dataset.train.image_size) == (3, (16, 16))


def test_what_takes_long_is_told_and_watched_once(images):
    told, decoded, compared = [], [], []
    def watched():
        return prepare(open_source(images), data(), told.append, lambda done, total: decoded.append(done),
                       lambda done, total: compared.append(done))
    watched().pack.close()
    assert len(told) == 1 and "decoding 30 images, once" in told[0]
    assert decoded[-1] == 30 and compared
    decoded.clear(), compared.clear()
    watched()
    assert len(told) == 1 and decoded == compared == []


def test_the_table_names_each_image_with_its_part_and_group(images, tmp_path):
    Image.open(images / "003.png").save(images / "copy.png")
    (images / "sub").mkdir()
    Image.open(images / "003.png").save(images / "sub" / "ü.png")
    dataset = prepare(open_source(images), data(holdout=4, drop_duplicates=True))
    write_table(tmp_path / "images.csv.gz", dataset, "none")
    table = {row["image"]: row for row in rows(tmp_path / "images.csv.gz")}
    assert len(table) == 32
    assert [row["part"] for row in table.values()].count("holdout") == 4
    assert table["images/copy.png"]["part"] == table["images/sub/ü.png"]["part"] == "dropped"
    assert table["images/copy.png"]["group"] == table["images/003.png"]["group"] != table["images/004.png"]["group"]
    assert table["images/copy.png"]["content"] == table["images/003.png"]["content"]


def test_a_table_keeps_the_division_of_the_very_same_images(images, tmp_path):
    first = prepare(open_source(images), data(holdout=4))
    write_table(tmp_path / "images.csv.gz", first, "none")
    again = prepare(open_source(images), data(holdout=9), table=tmp_path / "images.csv.gz")
    assert again.split.holdout.tolist() == first.split.holdout.tolist()
    Image.new("RGB", (24, 24), "red").save(images / "red.png")
    changed = prepare(open_source(images), data(holdout=9), table=tmp_path / "images.csv.gz")
    assert len(changed.split.holdout) == 9
    (tmp_path / "images.csv.gz").write_bytes(b"torn")
    assert len(prepare(open_source(images), data(holdout=5), table=tmp_path / "images.csv.gz").split.holdout) == 5


def test_what_changed_since_a_table_is_named(images, tmp_path):
    table = tmp_path / "images.csv.gz"
    write_table(table, prepare(open_source(images), data()), "none")
    same = prepare(open_source(images), data())
    assert changes_since(table, same.pack) == "the images are the same, but they are prepared or labelled differently"
    Image.new("RGB", (24, 24), "red").save(images / "new.png")
    Image.new("RGB", (24, 24), "blue").save(images / "004.png")
    for i in (7, 8, 9, 10):
        (images / f"{i:03}.png").unlink()
    now = prepare(open_source(images), data())
    assert changes_since(table, now.pack) == (
        "1 added (images/new.png); 4 removed (images/007.png, images/008.png, images/009.png, ...); 1 changed (images/004.png)")
    assert changes_since(Path("nowhere"), now.pack) == ""
