"""Tars: plain and compressed, whole and damaged, honest and hostile."""

import bz2
import gzip
import io
import lzma
import os
import shutil
import sys
import tarfile
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from ganvas.data import source_tar
from ganvas.data.source_base import UnreadableError
from ganvas.data.sources import open_source
from ganvas.errors import DataError

PACKERS = {".tar": bytes, ".tar.gz": gzip.compress, ".tgz": gzip.compress, ".tar.bz2": bz2.compress, ".tar.xz": lzma.compress}


def png(colour="red"):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(file, "PNG")
    return file.getvalue()


def tar(members, form=tarfile.PAX_FORMAT):
    """members: (name, bytes) of files, or TarInfo of anything else."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return file.getvalue()


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def written(path, data):
    path.write_bytes(data)
    return path


def names(source):
    return [source.item_name(index) for index in range(len(source))]


@pytest.mark.parametrize("ending", PACKERS)
def test_a_tar_is_read_like_a_folder_however_it_is_compressed(tmp_path, ending):
    members = [("b.png", png()), ("a/" + "long" * 60 + ".PNG", png("blue")), ("./é.jpg", b"x"), ("notes.txt", b"hi"),
               ("picture", png())]
    path = written(tmp_path / f"set{ending}", PACKERS[ending](tar(members)))
    source = open_source(path)
    assert names(source) == [f"set{ending}!{name}" for name in ("a/" + "long" * 60 + ".PNG", "b.png", "picture", "é.jpg")]
    assert [source.load(index) for index in range(3)] == [png("blue"), png(), png()]
    assert (source.name, source.ignored) == ("set", [(f"set{ending}!notes.txt", ".txt")])
    scratch = tmp_path / "ganvas-cache" / "scratch"
    assert not scratch.exists() or not list(scratch.iterdir())       # what is unpacked has no name
    source.close()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_of_tar_is_read(tmp_path, form):
    name = "/".join(["d" * 45] * 3) + "/a.png"
    assert names(open_source(written(tmp_path / "x.tar", tar([(name, png())], form)))) == [f"x.tar!{name}"]


def test_what_a_tar_is_compressed_with_is_seen_in_its_content_not_its_name(tmp_path):
    assert len(open_source(written(tmp_path / "x.tar", gzip.compress(tar([("a.png", png())]))))) == 1


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/etc/evil.png", "C:\\evil.png"])
def test_a_member_that_leaves_the_folder_refuses_the_archive(tmp_path, name):
    with pytest.raises(DataError, match=r"x\.tar: its member .*evil\.png' points outside the archive"):
        open_source(written(tmp_path / "x.tar", tar([("a.png", png()), (name, png())])))


def test_links_and_devices_are_left_out_with_their_reason(tmp_path):
    data = tar([("a.png", png()), special("soft.png", tarfile.SYMTYPE, "/etc/passwd"),
                special("hard.png", tarfile.LNKTYPE, "a.png"), special("pipe.png", tarfile.FIFOTYPE),
                special("null.png", tarfile.CHRTYPE), special("sub", tarfile.DIRTYPE)])
    source = open_source(written(tmp_path / "x.tar", data))
    assert names(source) == ["x.tar!a.png"]
    assert source.ignored == [("x.tar!soft.png", "link in the archive"), ("x.tar!hard.png", "link in the archive"),
                              ("x.tar!pipe.png", "named pipe in the archive"), ("x.tar!null.png", "device in the archive")]


def test_a_sparse_member_is_left_out(tmp_path):
    header = special("a.png", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT)
    source = open_source(written(tmp_path / "x.tar", header + tar([("b.png", png())])))
    assert source.ignored == [("x.tar!a.png", "sparse file in the archive")]


def test_of_two_members_with_one_name_the_later_counts(tmp_path):
    source = open_source(written(tmp_path / "x.tar", tar([("a.png", png()), ("./a.png", png("blue"))])))
    assert [source.load(index) for index in range(len(source))] == [png("blue")]
    assert source.notes == ["1 file in the archive replaced by a later one of the same name"]


def test_a_huge_member_is_one_unreadable_item(tmp_path, monkeypatch):
    source = open_source(written(tmp_path / "x.tar", tar([("a.png", png()), ("b.png", bytes(5000))])))
    monkeypatch.setattr(source_tar, "MAX_FILE_BYTES", 4000)
    assert source.load(0) == png()
    with pytest.raises(UnreadableError, match=r"x\.tar!b\.png.*5,000 bytes are more than an image should have"):
        source.load(1)


def test_many_threads_read_one_tar(tmp_path, monkeypatch):
    contents = [(f"{index:03}.png", png((index, 0, 0))) for index in range(60)]
    for ending in (".tar", ".tar.gz"):
        source = open_source(written(tmp_path / f"x{ending}", PACKERS[ending](tar(contents))))
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(source.load, [*range(60)] * 5)) == [data for _, data in contents] * 5
    monkeypatch.delattr(os, "pread", raising=False)      # as on Windows
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(source.load, [*range(60)] * 5)) == [data for _, data in contents] * 5


def damaged(data, place):
    return data[:place] + b"\xff" * 20 + data[place + 20:]


@pytest.mark.parametrize("data", [
    b"", b"no tar at all" * 100, tar([("a.png", png()), ("b.png", bytes(9000))])[:4000],
    damaged(tar([("a.png", png()), ("b.png", png())]), 1024), damaged(tar([("a.png", png())]), 0),
], ids=["empty", "text", "cut", "second header", "first header"])
def test_a_damaged_tar_is_refused_and_not_taken_for_a_shorter_one(tmp_path, data):
    with pytest.raises(DataError, match=r"x\.tar: cannot be read as a tar .*again"):
        open_source(written(tmp_path / "x.tar", data))


@pytest.mark.parametrize("ending", [".tar.gz", ".tar.bz2", ".tar.xz"])
def test_a_damaged_compressed_tar_is_refused(tmp_path, ending):
    whole = PACKERS[ending](tar([("a.png", os.urandom(5000))]))
    for broken in (whole[:len(whole) // 2], damaged(whole, 200), whole[:6] + b"junk"):
        with pytest.raises(DataError, match=rf"x{ending}: cannot be unpacked"):
            open_source(written(tmp_path / f"x{ending}", broken))


def test_streams_that_follow_each_other_are_one_tar(tmp_path):
    data = tar([("a.png", png()), ("b.png", os.urandom(3000))])
    for ending in (".tar.gz", ".tar.bz2", ".tar.xz"):
        pack = PACKERS[ending]
        padded = pack(data[:1000]) + (bytes(8) if ending == ".tar.xz" else b"") + pack(data[1000:])
        assert len(open_source(written(tmp_path / f"x{ending}", padded))) == 2


@pytest.mark.parametrize("size", [-1024, -512])
def test_a_header_that_points_backwards_ends_in_an_error_not_in_a_loop(tmp_path, size):
    info = tarfile.TarInfo("a.png")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (256**12 + size).to_bytes(12, "big")           # base 256, negative
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(DataError, match=r"x\.tar: cannot be read as a tar"):
        open_source(written(tmp_path / "x.tar", tar([("b.png", png())])[:1024] + bytes(header) + bytes(1024)))


@pytest.mark.skipif(sys.platform == "win32", reason="files there have no holes unless asked for")
def test_an_extended_header_of_any_length_is_not_read_into_memory(tmp_path):
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 2**35
    path = written(tmp_path / "x.tar", info.tobuf(tarfile.GNU_FORMAT))
    with path.open("r+b") as file:
        file.truncate(2**35)
    with pytest.raises(DataError, match=r"an extended header of 34,359,738,368 bytes"):
        open_source(path)


@pytest.mark.parametrize("ending", [".tar.gz", ".tar.bz2", ".tar.xz"])
def test_a_bomb_is_refused_and_leaves_nothing(tmp_path, ending):
    path = written(tmp_path / f"x{ending}", PACKERS[ending](tar([("a.bmp", bytes(40 * 2**20))])))
    with pytest.raises(DataError, match=rf"x{ending}: unpacks from .* to more than 200 times as many"):
        open_source(path)


def test_an_xz_that_asks_for_much_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(source_tar, "_XZ_MEMORY", 2**20)
    with pytest.raises(DataError, match=r"x\.tar\.xz: cannot be unpacked \(Memory usage limit"):
        open_source(written(tmp_path / "x.tar.xz", lzma.compress(tar([("a.png", png())]))))


def test_a_disk_without_room_is_named_with_the_remedy(tmp_path, monkeypatch):
    path = written(tmp_path / "x.tar.gz", gzip.compress(tar([("a.png", png())])))
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: usage(10, 9, 1))
        with pytest.raises(DataError, match=r"scratch: the disk has too little room to unpack .*x\.tar\.gz.*GANVAS_CACHE"):
            open_source(path)
    written(tmp_path / "file", b"")
    monkeypatch.setenv("GANVAS_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"x\.tar\.gz cannot be unpacked there.*GANVAS_CACHE"):
        open_source(path)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_the_stamp_follows_the_content(tmp_path, ending):
    pack = PACKERS[ending]
    path = written(tmp_path / f"x{ending}", pack(tar([("a.png", png())])))
    first = open_source(path).stamp
    assert open_source(path).stamp == first
    assert open_source(written(path, pack(tar([("a.png", png("blue"))])))).stamp != first


def test_labels_come_from_folders_in_a_tar_too(tmp_path):
    path = written(tmp_path / "x.tar", tar([("set/cat/1.png", png()), ("set/dog/2.png", png())]))
    assert open_source(path, labels="folder").class_names == ("cat", "dog")


def test_a_tar_cut_short_while_it_is_open_gives_an_unreadable_item(tmp_path):
    path = written(tmp_path / "x.tar", tar([("a.png", png())]))
    source = open_source(path)
    with path.open("r+b") as file:
        file.truncate(520)
    with pytest.raises(UnreadableError, match="cut short"):
        source.load(0)
