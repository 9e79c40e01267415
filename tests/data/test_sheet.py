"""The data sheet says what is true of the images."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganvas.data.layout import Layout
from ganvas.data.pack import build_pack
from ganvas.data.sheet import make_sheet
from ganvas.data.sources import open_source
from ganvas.data.split import split_images
from ganvas.data.twins import load_twins

DATA = Path(os.environ["GANVAS_TEST_DATA"])


def sheet_of(where, layout=None, holdout=0.0, drop_duplicates=False, **how):
    source = open_source(where, **how)
    pack = build_pack(source, layout or Layout(16, 16), skip_bad=True)
    twins = load_twins(pack)
    return make_sheet(source, pack, twins, split_images(pack, twins, holdout, drop_duplicates=drop_duplicates))


def soft(seed, size=(24, 24)):
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def mixed(tmp_path):
    """Sixteen images of many kinds in two folders, one broken file, two that are no images."""
    for owner in ("cat", "dog"):
        (tmp_path / "images" / owner).mkdir(parents=True)
        for i in range(6):
            soft(i + 10 * (owner == "dog")).save(tmp_path / "images" / owner / f"{i}.png")
    at = tmp_path / "images"
    soft(0).save(at / "dog" / "0-again.bmp")                                       # an exact copy under another label
    soft(3).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(at / "cat" / "3-mirrored.png")
    soft(50).convert("L").save(at / "cat" / "grey.png")
    sprite = Image.new("RGBA", (40, 30))
    sprite.paste((255, 0, 0, 255), (0, 0, 40, 15))
    sprite.save(at / "dog" / "sprite.png")
    (at / "cat" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (at / "notes.txt").write_text("hello", encoding="utf-8")
    (at / "Thumbs.db").write_bytes(b"x")
    return at


def test_the_counts_are_true(mixed):
    sheet = sheet_of(mixed, holdout=0.2)
    assert (sheet.images, sheet.distinct, len(sheet.unreadable), len(sheet.ignored)) == (16, 15, 1, 2)
    assert sheet.unreadable[0][0] == "images/cat/torn.png"
    assert dict(sheet.ignored) == {"images/notes.txt": ".txt", "images/Thumbs.db": "Thumbs.db"}
    assert sheet.sizes == {"24x24": 15, "40x30": 1}
    assert (sheet.smallest, sheet.largest) == ((24, 24), (40, 30))
    assert sheet.formats == {"PNG RGB": 13, "BMP RGB": 1, "PNG grey": 1, "PNG RGBA, transparent": 1}
    assert (sheet.grey, sheet.transparent, sheet.clear_area) == (1, 1, 0.5)
    assert sheet.twins == {"exact": 1, "mirrored": 1, "recoloured": 0, "near": 0}
    assert sheet.images_with_twins == 4
    assert (sheet.train, sheet.holdout, sheet.dropped) == (13, 3, 0)


def test_folders_are_shown_as_labels_that_could_be_and_a_picture_in_two_is_found(mixed):
    for labels in ("none", "folder"):
        sheet = sheet_of(mixed, labels=labels) if labels == "none" else None
        if sheet is None:
            (mixed / "notes.txt").unlink()
            sheet = sheet_of(mixed, labels=labels)
        assert sheet.labels_used == (labels == "folder")
        assert sorted(sheet.labels.values()) == [8, 8]
        assert sheet.two_labels == 1
        assert sheet.two_labels_examples[0].names == ("images/cat/0.png", "images/dog/0-again.bmp")
        assert len(set(sheet.two_labels_examples[0].labels)) == 2


def test_turned_animated_and_enlarged_images_are_counted(tmp_path):
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    soft(1).save(tmp_path / "images" / "turned.jpg", exif=exif)
    soft(2).save(tmp_path / "images" / "moves.gif", save_all=True, append_images=[soft(3), soft(4)])
    art = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    art.resize((48, 48), Image.Resampling.NEAREST).save(tmp_path / "images" / "art.png")
    sheet = sheet_of(tmp_path / "images")
    assert (sheet.turned, sheet.animated, dict(sheet.upscaled)) == (1, 1, {"3x": 1})


def test_dropped_copies_are_counted_and_the_rest_divided(mixed):
    sheet = sheet_of(mixed, holdout=3, drop_duplicates=True)
    assert (sheet.train, sheet.holdout, sheet.dropped) == (12, 3, 1)


def test_dominant_colours_are_those_that_show(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(4):
        pixels = np.zeros((20, 20, 4), np.uint8)
        pixels[:10] = [250, 10, 10, 255]
        pixels[10:, :, :3] = [0, 255, i]                                           # hidden
        Image.fromarray(pixels, "RGBA").save(tmp_path / "images" / f"{i}.png")
    sheet = sheet_of(tmp_path / "images")
    assert [colour for colour, share in sheet.colours if share > 0.1] == ["#fa0a0a"]


def test_it_can_be_written_as_json_and_read_by_people(mixed):
    sheet = sheet_of(mixed)
    read = json.loads(json.dumps(sheet.as_dict()))
    assert (read["version"], read["images"], read["twins"]["exact"]) == (1, 16, 1)
    rows = dict(sheet.rows())
    assert rows["images"] == "16 readable, 1 unreadable; 2 other files ignored"
    assert rows["distinct"].startswith("15 of 16: 1 exact copy;")
    assert "images/cat/0.png and images/dog/0-again.bmp" in rows["two folders"]
    assert all(text for text in rows.values())


def test_one_image_has_a_sheet_too(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGBA", (3, 3)).save(tmp_path / "images" / "empty.png")
    sheet = sheet_of(tmp_path / "images")
    assert (sheet.images, sheet.colours, sheet.images_with_twins, sheet.labels) == (1, (), 0, None)
    assert dict(sheet.rows())["twins"].startswith("no mirrored")


def test_the_artworks_sheet_is_true():
    if not (DATA / "pokemon-artwork.zip").is_file():
        pytest.skip(f"no real data at {DATA}")
    sheet = sheet_of(DATA / "pokemon-artwork.zip")
    assert (sheet.images, sheet.distinct, sheet.two_labels) == (1209, 800, 409)
    assert len(sheet.labels) == 18
    assert sheet.colours[0][0] in ("#ffffff", "#fefefe")
