"""Folders as they are: pipes, loops, wrong endings, odd names. Nothing hangs, nothing crashes, everything is named."""

import io
import os
import socket
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from ganvas.data import source_files
from ganvas.data.source_base import UnreadableError, printable
from ganvas.data.source_listing import begins_like_an_image, images_among
from ganvas.data.sources import open_source
from ganvas.errors import DataError

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")


def encoded(kind="PNG", colour="red"):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(file, kind)
    return file.getvalue()


def write(root, **contents):
    for name, data in contents.items():
        path = root / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def names(source):
    return [source.item_name(index) for index in range(len(source))]


def why(source, name):
    with pytest.raises(UnreadableError) as caught:
        source.load(names(source).index(name))
    assert caught.value.item == name
    return caught.value.reason


def test_every_file_left_out_is_listed_with_its_reason_and_summed_up_in_a_note(tmp_path):
    folder = write(tmp_path / "x", a_png=encoded(), notes_txt=b"hello", deep__Thumbs_db=b"junk", README=b"words")
    (folder / ".hidden.png").write_bytes(encoded())
    source = open_source(folder)
    assert sorted(source.ignored) == [("x/.hidden.png", "hidden"), ("x/README", "without an ending"),
                                      ("x/deep/Thumbs.db", "Thumbs.db"), ("x/notes.txt", ".txt")]
    assert source.notes == ["4 files ignored: 1 .txt, 1 Thumbs.db, 1 hidden, 1 without an ending"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_an_image_with_another_ending_or_none_is_found_by_its_first_bytes(tmp_path, kind):
    data = encoded(kind)
    folder = write(tmp_path / "x", picture=data, a_dat=data, b_txt=data, text_txt=b"BM is not enough", half_dat=data[:2])
    source = open_source(folder)
    assert names(source) == ["x/a.dat", "x/b.txt", "x/picture"]
    assert source.load(2) == data
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("picture", data)
        archive.writestr("text", "no picture")
    zipped = open_source(tmp_path / "x.zip")
    assert names(zipped) == ["x.zip!picture"]
    assert zipped.ignored == [("x.zip!text", "without an ending")]


def test_a_camera_raw_file_is_not_taken_for_the_thumbnail_in_it(tmp_path):
    folder = write(tmp_path / "x", a_png=encoded(), photo_nef=encoded("TIFF"))
    assert open_source(folder).ignored == [("x/photo.nef", ".nef")]


def test_hidden_files_are_not_looked_into():
    asked = []
    found, _ = images_among([".a", "._b.dat", "__MACOSX/c", "d.dat"], lambda name: asked.append(name) or b"")
    assert (found, asked) == ([], ["d.dat"])


@pytest.mark.parametrize("head", [b"", b"BM", b"BM" + bytes(30), b"RIFF\0\0\0\0WAVE", b"GIF90a", b"II*", b"%PDF-1.7"])
def test_first_bytes_that_are_no_images(head):
    assert not begins_like_an_image(head)


@posix_only
def test_pipes_sockets_and_devices_are_never_opened(tmp_path, monkeypatch):
    folder = write(tmp_path / "x", a_png=encoded())
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "pipe")
    (folder / "null.png").symlink_to("/dev/null")
    monkeypatch.chdir(folder)                      # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        source = open_source(folder)
        assert names(source) == ["x/a.png", "x/null.png", "x/pipe.png", "x/socket.png"]
        assert why(source, "x/pipe.png") == "is a named pipe, not a file"
        assert why(source, "x/null.png") == "is a device, not a file"
        assert why(source, "x/socket.png") == "is a socket, not a file"
        assert source.load(0) == encoded()
    assert ("x/pipe", "is a named pipe, not a file") in source.ignored


@posix_only
def test_links_to_nowhere_and_in_circles_are_items_or_ignored_with_their_reason(tmp_path):
    folder = write(tmp_path / "x", a_png=encoded())
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "gone").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "up").symlink_to(folder)
    source = open_source(folder)
    assert "No such file" in why(source, "x/gone.png")
    assert "symbolic links" in why(source, "x/circle.png")
    reasons = dict(source.ignored)
    assert reasons["x/gone"] == "link to nowhere"
    assert reasons["x/loop"].startswith("cannot be opened")
    assert reasons["x/up"] == "linked folder met twice"


def test_a_folder_named_like_an_image_is_a_folder(tmp_path):
    folder = write(tmp_path / "x", a_png__b_png=encoded())
    (folder / "empty.png").mkdir()
    assert names(open_source(folder)) == ["x/a.png/b.png"]


def test_an_unreadable_sub_folder_is_told_and_the_rest_is_used(tmp_path, monkeypatch):
    folder = write(tmp_path / "x", a_png=encoded(), secret__b_png=encoded())
    scandir = os.scandir

    def denied(path="."):                          # tests may run as root, whom no permission stops
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    source = open_source(folder)
    assert names(source) == ["x/a.png"]
    assert source.ignored == [("x/secret", "unreadable folder (Permission denied)")]
    assert "x/secret: this folder cannot be read (Permission denied), so images in it are missing" in source.notes
    with pytest.raises(DataError, match=r"secret: the folder cannot be read \(Permission denied\)"):
        open_source(folder / "secret")


def test_an_unreadable_file_is_one_unreadable_item(tmp_path, monkeypatch):
    folder = write(tmp_path / "x", a_png=encoded(), b_png=encoded())
    really = os.open

    def denied(path, *args, **kwargs):
        if str(path).endswith("b.png"):
            raise PermissionError(13, "Permission denied", str(path))
        return really(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", denied)
    source = open_source(folder)
    assert why(source, "x/b.png") == "Permission denied"
    assert source.load(0) == encoded()


def test_a_file_larger_than_an_image_is_refused_unread(tmp_path, monkeypatch):
    folder = write(tmp_path / "x", a_png=encoded())
    with (folder / "huge.png").open("wb") as file:
        file.truncate(2**29)
    source = open_source(folder)
    assert "536,870,912 bytes are more than an image should have" in why(source, "x/huge.png")
    monkeypatch.setattr(source_files, "MAX_FILE_BYTES", len(encoded()))
    assert source.load(0) == encoded()


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode elsewhere")
def test_names_of_any_bytes_and_length_are_read_and_printed_on_one_line(tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    for name in (b"two\nlines.png", b"bytes\xff.png", b" spaces .png", b"n" * 251 + b".png", "日本 ü.png".encode()):
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:  # noqa: PTH118, PTH123
            file.write(encoded())
    source = open_source(folder)
    assert names(source) == ["x/ spaces .png", "x/bytes\\udcff.png", f"x/{'n' * 251}.png", "x/two\\nlines.png", "x/日本 ü.png"]
    assert all(source.load(index) == encoded() for index in range(5))
    "\n".join([*names(source), *source.notes]).encode("utf-8")


def test_what_would_tear_a_line_or_turn_it_around_is_escaped():
    assert printable("a\tb\r\u202ec\u2028d\x9b\x7f") == "a\\tb\\r\\u202ec\\u2028d\\x9b\\x7f"
    assert printable("é 日本 👩‍🚀.png") == "é 日本 👩‍🚀.png"


def test_paths_longer_than_260_characters_are_read(tmp_path):
    deep = tmp_path / "x" / "/".join(["d" * 60] * 6)
    deep.mkdir(parents=True)
    (deep / "a.png").write_bytes(encoded())
    source = open_source(tmp_path / "x")
    assert len(str(deep)) > 260
    assert source.load(0) == encoded()


@posix_only
def test_folders_nested_deeper_than_pythons_stack_are_walked(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.png").write_bytes(encoded())
    place = os.open(tmp_path / "x", os.O_RDONLY)   # step by step: the whole path is longer than the system takes

    def go(name):
        nonlocal place
        there = os.open(name, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = there

    depth = 2500
    for _ in range(depth):
        os.mkdir("d", dir_fd=place)
        go("d")
    try:
        source = open_source(tmp_path / "x")
    finally:                                       # nor can pytest's own cleaning up go down there
        for _ in range(depth):
            go("..")
            os.rmdir("d", dir_fd=place)
        os.close(place)
    assert names(source) == ["x/a.png"]
    assert [reason for _, reason in source.ignored] == ["unreadable folder (File name too long)"]


def test_a_list_of_paths_keeps_its_order_and_names_what_is_missing(tmp_path):
    folder = write(tmp_path, b_png=encoded(), a_png=encoded(colour="blue"))
    source = open_source([folder / "b.png", str(folder / "a.png"), folder / "b.png"])
    assert [Path(name).name for name in names(source)] == ["b.png", "a.png", "b.png"]
    assert source.load(1) == encoded(colour="blue")
    assert source.stamp != open_source([folder / "a.png", folder / "b.png"]).stamp
    with pytest.raises(DataError, match=r"c\.png: does not exist \(1 of 2 files in the list"):
        open_source([folder / "a.png", folder / "c.png"])


@posix_only
def test_what_is_neither_file_nor_folder_is_no_source(tmp_path):
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(DataError, match=r"pipe\.zip: is neither a file nor a folder"):
        open_source(tmp_path / "pipe.zip")
    with pytest.raises(DataError, match=r"nnn.*: (does not exist|cannot be opened)"):
        open_source("n" * 5000)


@pytest.mark.parametrize(("name", "words"), [("a.pkl", "is a pickle, which could run code"), ("a.pt", "np.savez"),
                                             ("a.7z", "7-Zip archives are not read. Unpack it"), ("a.rar", "RAR")])
def test_files_that_cannot_be_sources_say_what_to_do(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"junk")
    with pytest.raises(DataError, match=words) as caught:
        open_source(tmp_path / name)
    assert name in str(caught.value)
