"""`ganvas data inspect`: the data sheet on the terminal, as JSON and as a page."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ganvas
from ganvas.watcher import Watcher
from makers import image_folder


@pytest.fixture
def pile():
    """A folder `pile` of 24 pictures, an exact copy and a torn file."""
    image_folder(Path("pile"), n=24)
    Image.open("pile/003.png").save("pile/copy.bmp")
    Path("pile/torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return Path("pile")


def test_the_sheet_and_the_page_are_made_and_nothing_else(cli, pile):
    done = cli("data", "inspect", pile)
    assert done.code == 0, done.err
    assert "25 readable, 1 unreadable" in done.out
    assert "24 of 25: 1 exact copy" in done.out
    assert "pile-data.html" in done.out and "ganvas train pile" in done.out
    assert sorted(path.name for path in Path().iterdir()) == ["pile", "pile-data.html"]
    page = Path("pile-data.html").read_text(encoding="utf-8")
    HTMLParser().feed(page)
    assert "torn.png" in page and "data:image/png;base64" in page


def test_only_what_concerns_the_images_is_explained(cli, pile):
    out = cli("data", "inspect", pile).out
    assert "size 24x24" in out and "holdout 0.1" in out
    assert "optimizer" not in out and "kimg" not in out


def test_as_json_it_is_one_object_and_no_page_unless_asked(cli, pile):
    done = cli("data", "inspect", pile, "--json")
    sheet = json.loads(done.out)
    assert (sheet["version"], sheet["images"], sheet["distinct"], sheet["page"]) == (1, 25, 24, None)
    assert sheet["unreadable"][0][0] == "pile/torn.png"
    assert sheet["options"]["data.size"] == "24x24"
    assert not Path("pile-data.html").exists()
    done = cli("data", "inspect", pile, "--json", "--html", "deep/page.html")
    assert json.loads(done.out)["page"] == "deep/page.html"
    assert Path("deep/page.html").is_file()


def test_options_change_what_is_seen(cli, pile):
    def seen(*args):
        done = cli("data", "inspect", pile, "--json", *args)
        assert done.code == 0, done.err
        return json.loads(done.out)
    assert seen("--size", "12x16", "--holdout", "0")["stored"].startswith("12x16")
    assert seen("--holdout", "5")["holdout"] == 5
    assert seen("--holdout", "40%")["holdout"] == 10
    assert seen("--drop-duplicates", "--holdout", "0")["dropped"] == 1
    assert seen("--channels", "1")["stored"].split(", ")[1] == "grey"
    assert seen("--preset", "udacity-pokemon-32")["holdout"] == 0


def test_the_command_that_trains_on_it_takes_the_options_that_were_looked_with(cli, pile):
    done = cli("data", "inspect", pile, "--size", "16", "--drop-duplicates", "--group-by", "(.)", "--holdout", "2")
    assert done.out.rstrip().endswith(
        "ganvas train pile --time 10min --size 16 --holdout 2 --group-by '(.)' --drop-duplicates --skip-bad")


def test_a_holdout_that_cannot_be_filled_or_has_no_use_for_groups_is_said(cli, pile):
    done = cli("data", "inspect", pile, "--holdout", "5", "--group-by", "folder")
    assert "held out: 0 images, not 5" in done.out
    assert "--group-by folder: has no effect" in cli("data", "inspect", pile, "--holdout", "0", "--group-by", "folder").out


def test_a_sprite_sheet_is_cut_into_tiles(cli):
    Path("sheets").mkdir()
    pixels = np.zeros((32, 64, 4), np.uint8)
    pixels[2:14, 2:14] = [255, 0, 0, 255]
    pixels[18:30, 36:46] = [0, 0, 255, 255]
    Image.fromarray(pixels, "RGBA").save("sheets/all.png")
    sheet = json.loads(cli("data", "inspect", "sheets", "--tile", "16x16", "--json").out)
    assert sheet["images"] == 2
    done = cli("data", "inspect", "sheets", "--tile", "16 by 16")
    assert done.code == 1 and "data.tile = '16 by 16'" in done.err


@pytest.mark.parametrize(("args", "words"), [
    (("nowhere",), ["nowhere: does not exist"]),
    (("pile", "--holdout", "many"), ["data.holdout = 'many'"]),
    (("pile", "--holdout", "100"), ["--holdout 100"]),
    (("pile", "--group-by", "(x"), ["data.group_by = '(x'", "regular expression"]),
    (("pile", "--holdout", "100%"), ["data.holdout = '100%'", "below 100"]),
    (("pile", "--holdout", "2.5"), ["data.holdout", "whole number"]),
    (("pile", "--mirror", "maybe"), ["data.mirror = 'maybe'"]),
    (("pile", "--transparency", "pink"), ["data.transparency = 'pink'", "checker"]),
    (("pile", "--labels", "nothing.csv"), ["nothing.csv"]),
    (("pile", "--html", "pile/003.png/x.html"), ["x.html"]),
])
def test_what_cannot_be_is_named(cli, pile, args, words):
    done = cli("data", "inspect", *args)
    assert done.code in (1, 2)
    assert all(word in done.err for word in words), done.err
    assert "Traceback" not in done.err


def test_from_python_it_is_a_sheet(pile):
    sheet = ganvas.inspect("pile", size=16, page="page.html", watch=Silent())
    assert (sheet.images, sheet.stored.split(",")[0]) == (25, "16x16")
    assert Path("page.html").is_file()
    assert ganvas.inspect(np.zeros((4, 8, 8, 3), np.uint8), watch=Silent()).twins["exact"] == 3


class Silent(Watcher):
    def tell(self, text):
        pass


def test_a_training_starts_with_the_same_sheet_and_keeps_it(cli, train, pile):
    done = train("pile", "--skip-bad")
    assert done.code == 0, done.err
    assert "24 of 25: 1 exact copy" in done.out
    assert Path("runs/pile/data.html").is_file() and Path("runs/pile/images.csv.gz").is_file()
    again = train("pile", "--skip-bad", "--steps", 2)
    assert again.code == 0 and "exact cop" not in again.out
