"""The data sheet's page shows the pack's own pixels, says only what there is to say, and cannot be broken by names."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganvas.data.layout import Layout
from ganvas.data.pack import Pack, build_pack
from ganvas.data.sheet import Sheet, TwinGroup, make_sheet
from ganvas.data.sources import open_source
from ganvas.data.split import split_images
from ganvas.data.twins import find_twins
from ganvas.report.data_page import contact_sheet, write_page
from makers import image_folder

TINY = Layout(8, 8)
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "a&amp;b", "'; --",
           "bad\udcff\udc80.png", "line\nbreak\x00\x1b[31m", "right\u202eto left")


class Page(HTMLParser):
    """What a browser would find; fails where tags do not nest."""

    def __init__(self, path: Path):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if self.open and self.open[-1] in ("h2", "h3"):
            self.headings.append(data)

    def images(self) -> list[np.ndarray]:
        """All pictures, (C, H, W), the contact sheet first."""
        found = []
        for tag, attributes in self.tags:
            if tag == "img":
                kind, data = attributes["src"].split(",")
                assert kind == "data:image/png;base64"
                pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data, validate=True))))
                found.append(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))
        return found


def made(folder: Path, layout: Layout = TINY, holdout: float = 0.0, labels: str = "none") -> tuple[Sheet, Pack]:
    source = open_source(folder, labels=labels)
    pack = build_pack(source, layout, skip_bad=True)
    twins = find_twins(pack.facts, pack.thumbs)
    return make_sheet(source, pack, twins, split_images(pack, twins, holdout)), pack


def page_of(path: Path, sheet: Sheet, pack: Pack) -> Page:
    write_page(path / "sheet.html", sheet, pack)
    assert (path / "sheet.html").stat().st_size <= 3_000_000
    return Page(path / "sheet.html")


def noise(path: Path, n: int, height: int, width: int, channels: int, seed: int = 0) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(seed).integers(0, 256, (n, height, width, channels), np.uint8)
    for i, image in enumerate(images):
        Image.fromarray(image[..., 0] if channels == 1 else image).save(path / f"{i:03d}.png")
    return path


# The contact sheet.

def test_a_contact_sheet_shows_images_from_the_first_to_the_last_of_the_pack(tmp_path):
    _, pack = made(noise(tmp_path / "a", 10, 8, 8, 3))
    picture = contact_sheet(pack, 4)
    assert picture.shape == (18, 18, 3)
    cells = [picture[y:y + 8, x:x + 8].transpose(2, 0, 1) for y in (0, 10) for x in (0, 10)]
    np.testing.assert_array_equal(np.stack(cells), pack.read([0, 3, 6, 9]))


def test_a_contact_sheet_of_fewer_images_than_wanted_shows_each_once(tmp_path):
    _, pack = made(noise(tmp_path / "a", 2, 8, 8, 1), Layout(8, 8, 1))
    picture = contact_sheet(pack)
    assert picture.shape == (8, 18, 1)
    np.testing.assert_array_equal(picture[:, 10:].transpose(2, 0, 1), pack.read([1])[0])


def test_transparent_images_lie_on_a_light_board_and_opaque_pixels_are_unchanged(tmp_path):
    pixels = np.full((16, 16, 4), (200, 10, 30, 255), np.uint8)
    pixels[:, 8:] = 0
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a" / "half.png")
    _, pack = made(tmp_path / "a", Layout(16, 16, 4, transparency="keep"))
    picture = contact_sheet(pack)
    assert picture.shape == (16, 16, 3)
    assert (picture[:, :8] == (200, 10, 30)).all()
    assert set(picture[:, 8:].reshape(-1).tolist()) == {255, 236}


# What stands on the page.

def test_a_plain_set_has_no_sections_about_faults(tmp_path):
    sheet, pack = made(noise(tmp_path / "plain", 5, 8, 8, 3))
    page = page_of(tmp_path, sheet, pack)
    assert page.headings == ["What is there", "What the networks will see", "Training and hold-out"]
    assert "plain" in page.text
    assert "All images as training gets them" in " ".join(page.text.split())
    assert [image.shape for image in page.images()] == [contact_sheet(pack).transpose(2, 0, 1).shape]
    np.testing.assert_array_equal(page.images()[0], contact_sheet(pack).transpose(2, 0, 1))


def test_a_page_needs_no_network_and_no_scripts(tmp_path):
    sheet, pack = made(image_folder(tmp_path / "a", 6))
    page = page_of(tmp_path, sheet, pack)
    assert not {"script", "link", "iframe", "object", "form", "a"} & {tag for tag, _ in page.tags}
    assert "http:" not in page.source and "https:" not in page.source and "url(" not in page.source
    assert "default-src 'none'" in page.source


@pytest.mark.parametrize(("channels", "layout"), [
    (1, Layout(12, 8, 1, "stretch")), (3, Layout(12, 8, 3, "stretch")), (4, Layout(12, 8, 4, "stretch", "keep"))])
def test_pictures_of_twins_are_the_packs_own_pixels_enlarged_by_a_whole_factor(tmp_path, channels, layout):
    sheet, pack = made(noise(tmp_path / "a", 6, 12, 8, channels), layout)
    sheet = replace(sheet, twin_groups=(TwinGroup("mirrored", (1, 4), ("x/1.png", "x/4.png"), ()),
                                        TwinGroup("exact", (2, 3), ("x/2.png", "x/3.png"), ())),
                    twins={"exact": 1, "mirrored": 1, "recoloured": 0, "near": 0}, images_with_twins=4)
    page = page_of(tmp_path, sheet, pack)
    first, *twins = page.images()
    assert first.shape[0] == (1 if channels == 1 else 3)
    np.testing.assert_array_equal(np.stack(twins), pack.read([2, 1, 4]))       # one picture shows all exact copies
    shown = [attributes for tag, attributes in page.tags if tag == "img"][1:]
    assert {(image["width"], image["height"]) for image in shown} == {("48", "72")}
    assert [heading for heading in page.headings if heading in ("Exact copies", "Mirrored", "Recoloured")] == [
        "Exact copies", "Mirrored"]
    for name in ("1.png", "2.png", "3.png", "4.png", "x/"):
        assert name in page.text


def test_one_image_makes_a_page(tmp_path):
    sheet, pack = made(noise(tmp_path / "one", 1, 8, 8, 3))
    page = page_of(tmp_path, sheet, pack)
    assert "The image as training gets it" in " ".join(page.text.split())
    np.testing.assert_array_equal(page.images()[0], pack.read([0])[0])


def test_one_picture_in_two_folders_is_shown_once_with_both_names(tmp_path):
    noise(tmp_path / "set" / "cats", 4, 8, 8, 3)
    noise(tmp_path / "set" / "dogs", 5, 8, 8, 3, seed=1)
    (tmp_path / "set" / "dogs" / "same.png").write_bytes((tmp_path / "set" / "cats" / "002.png").read_bytes())
    sheet, pack = made(tmp_path / "set")
    page = page_of(tmp_path, sheet, pack)
    assert {"One picture under two folders", "Folders"} <= set(page.headings)
    assert re.search(r"cats/002\.png\s*dogs/same\.png", page.text)
    np.testing.assert_array_equal(page.images()[1], pack.read([2])[0])
    assert len(page.images()) == 2                                             # not again among the exact copies
    assert "are shown above, under two folders" in page.text

    sheet, pack = made(tmp_path / "set", labels="folder")
    page = page_of(tmp_path, sheet, pack)
    assert {"One picture under two labels", "Labels"} <= set(page.headings)
    assert re.search(r"dogs\s*6\s*cats\s*4", page.text)


def test_labels_that_differ_are_told_where_the_names_do_not(tmp_path):
    sheet, pack = made(noise(tmp_path / "a", 4, 8, 8, 3))
    sheet = replace(sheet, labels={"cat": 3, "dog": 1}, labels_used=True, two_labels=1,
                    two_labels_examples=(TwinGroup("exact", (0, 3), ("0.png", "3.png"), ("cat", "dog")),))
    page = page_of(tmp_path, sheet, pack)
    assert re.search(r"cat0\.png\s*dog3\.png", page.text)


def test_many_classes_sizes_and_unreadable_files_are_counted_beyond_the_first(tmp_path):
    sheet, pack = made(noise(tmp_path / "a", 3, 8, 8, 3))
    sheet = replace(
        sheet, labels={f"class {i}.": 3 for i in range(50)}, labels_used=True, sizes={f"{i}x9": 2 for i in range(9, 20)},
        smallest=(9, 9), largest=(19, 9), unreadable=tuple((f"broken/{i}.png", f"cut off at byte {i}") for i in range(500)),
        ignored=(*((f"{i}.txt", ".txt") for i in range(7)), ("Thumbs.db", "hidden")), notes=("a note",) * 40)
    page = page_of(tmp_path, sheet, pack)
    assert "class 39." in page.text and "class 40." not in page.text
    assert "and 10 more classes with 30 images" in page.text
    assert "and 5 more sizes with 10 images; all from 9x9 to 19x9" in page.text
    assert "500 files cannot be read" in page.text
    assert "broken/199.png" in page.text and "broken/200.png" not in page.text and "and 300 more" in page.text
    assert "cut off at byte 199" in page.text
    assert ".txt, 7" in page.text and "0.txt, 1.txt, 2.txt, 3.txt and 3 more" in page.text and "hidden, 1" in page.text
    assert "8 files were left out" in page.text
    assert "and 10 more notes" in page.text


def test_the_split_is_told_with_what_is_held_out_and_left_out(tmp_path):
    sheet, pack = made(image_folder(tmp_path / "a", 20), holdout=0.2)
    page = page_of(tmp_path, replace(sheet, dropped=2), pack)
    assert f"{sheet.holdout} held out" in page.text and sheet.holdout
    assert "2 left out as copies" in page.text
    assert "Nothing is held out" in " ".join(page_of(tmp_path, replace(sheet, holdout=0), pack).text.split())


# What users' files may be called.

def test_nothing_from_the_users_files_becomes_markup(tmp_path):
    sheet, pack = made(noise(tmp_path / "a", 6, 8, 8, 3))
    plain_tags = {tag for tag, _ in page_of(tmp_path, sheet, pack).tags}
    pairs = tuple((name, name) for name in HOSTILE)
    groups = tuple(TwinGroup(kind, (0, 1), (name, f"{name}2"), (name, "b")) for name in HOSTILE for kind in ("exact", "near"))
    sheet = replace(sheet, source=HOSTILE[1], unreadable=pairs, ignored=pairs, notes=HOSTILE, formats=dict.fromkeys(HOSTILE, 1),
                    sizes=dict.fromkeys(HOSTILE, 1), labels=dict.fromkeys(HOSTILE, 1), labels_used=True, two_labels=9,
                    twin_groups=groups, two_labels_examples=groups[::2], images_with_twins=4)
    page = page_of(tmp_path, sheet, pack)
    assert {tag for tag, _ in page.tags} - plain_tags <= {"h3", "figcaption", "ul", "li"}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert all(attributes["src"].startswith("data:image/png;base64,") for tag, attributes in page.tags if tag == "img")
    for name in HOSTILE[:5]:
        assert name in page.text
    assert "bad\\udcff\\udc80.png" in page.text
    assert "line\\nbreak\\x00\\x1b[31m" in page.text
    assert "right\\u202eto left" in page.text


def test_long_names_keep_both_ends(tmp_path):
    sheet, pack = made(noise(tmp_path / "a", 2, 8, 8, 3))
    page = page_of(tmp_path, replace(sheet, unreadable=(("start" + "x" * 4000 + "end.png", "empty"),)), pack)
    assert re.search("start" + "x{55}…x{52}end.png", page.text)


# Its size.

def test_noise_under_the_longest_of_names_makes_no_page_over_3_megabytes(tmp_path):
    sheet, pack = made(noise(tmp_path / "a", 20, 256, 256, 4), Layout(256, 256, 4, transparency="keep"))
    groups = tuple(TwinGroup(kind, tuple(range(12)), ('"' * 5000,) * 12, tuple(f"{i}" + '"' * 200 for i in range(12)))
                   for kind in ("exact", "mirrored", "near", "recoloured") for _ in range(12))
    sheet = replace(sheet, twin_groups=groups, two_labels=12, two_labels_examples=groups[:12], images_with_twins=20,
                    twins=dict.fromkeys(("exact", "mirrored", "near", "recoloured"), 99), notes=('"' * 5000,) * 99,
                    unreadable=(('"' * 5000, '"' * 5000),) * 500, ignored=tuple(('"' * 500, f'{i}"') for i in range(500)))
    page = page_of(tmp_path, sheet, pack)
    assert "left out to keep this page small" in page.text
    assert "Shown here at 1/2 of that size" in page.text
    first, *twins = page.images()
    assert first.shape[1:] == (515, 515)                                       # 16 images with gaps, halved
    assert twins[0].shape == (4, 86, 86)
    assert len(twins) >= 8


def test_large_photographs_are_shown_at_full_size_where_sixteen_of_them_fit(tmp_path):
    sheet, pack = made(image_folder(tmp_path / "a", 40, size=128), Layout(400, 400))
    page = page_of(tmp_path, sheet, pack)
    assert "16 of 40 images, evenly spread" in page.text
    np.testing.assert_array_equal(page.images()[0], contact_sheet(pack, 16).transpose(2, 0, 1))
