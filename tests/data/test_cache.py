import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from ganvas.data import cache
from ganvas.data.cache import cache_root, clean, entries, local_copy, mark_used, section
from ganvas.errors import DataError

DAY = 24 * 3600


def pack(folder: Path, source: str = "sprites", pixels: bytes = b"p" * 1000) -> Path:
    folder.mkdir(parents=True)
    (folder / "images.npy").write_bytes(pixels)
    about = {"format": 1, "source": source, "shape": [20, 3, 8, 8], "fingerprint": "f" * 64,
             "checks": {"images.npy": "c" * 64}}
    (folder / "manifest.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


def download(name: str) -> Path:
    folder = cache_root() / "downloads" / name
    folder.mkdir(parents=True)
    (folder / ".ganvas-download.json").write_text(json.dumps({"source": name}), encoding="utf-8")
    (folder / "set.zip").write_bytes(b"z" * 500)
    return folder


def unfinished(folder: Path, name: str = "a" * 32, days: float = 0) -> Path:
    left = folder / f".{name}.{'0' * 12}.partial"
    left.mkdir(parents=True)
    (left / "images.npy").write_bytes(b"half")
    aged(left / "images.npy", days)
    return aged(left, days)


def aged(path: Path, days: float) -> Path:
    then = time.time() - days * DAY
    os.utime(path, (then, then))
    return path


@pytest.fixture
def packs():
    return cache_root() / "packs"


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("GANVAS_SCRATCH", str(tmp_path / "node disk"))
    return tmp_path / "node disk" / "ganvas"


def test_the_cache_is_where_the_variable_says_and_else_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("GANVAS_CACHE", "~/somewhere")
    assert cache_root() == Path.home() / "somewhere"
    monkeypatch.delenv("GANVAS_CACHE")
    assert cache_root().name.lower() in ("ganvas", "cache") and cache_root().is_absolute()


def test_an_absent_cache_is_empty():
    assert entries() == []
    assert clean().freed == 0


def test_entries_tell_name_shape_size_and_last_use(packs):
    folder = aged(pack(packs / "0f"), days=3)
    download("mnist")
    (one, two) = entries()
    assert (one.kind, one.name, one.shape, one.path) == ("packs", "sprites", (20, 3, 8, 8), folder)
    assert one.bytes == sum(file.stat().st_size for file in folder.iterdir())
    assert one.used_at == pytest.approx(time.time() - 3 * DAY, abs=10)
    assert (two.kind, two.name, two.shape) == ("downloads", "mnist", None)


def test_what_was_used_last_comes_first(packs):
    old, new = aged(pack(packs / "a", "old"), 5), aged(pack(packs / "b", "new"), 1)
    assert [entry.path for entry in entries()] == [new, old]
    mark_used(old)
    assert [entry.path for entry in entries()] == [old, new]


def test_folders_that_ganvas_did_not_make_are_neither_listed_nor_removed(packs):
    holiday = cache_root() / "downloads" / "holiday"         # GANVAS_CACHE may be the home folder
    holiday.mkdir(parents=True)
    (holiday / "beach.jpg").write_bytes(b"sun")
    other = packs / "other"
    other.mkdir(parents=True)
    (other / "manifest.json").write_text('{"source": "a web page", "shape": [1]}', encoding="utf-8")
    (packs / "torn").mkdir()
    (packs / "torn" / "manifest.json").write_text("{", encoding="utf-8")
    assert entries() == []
    clean()
    assert (holiday / "beach.jpg").is_file() and other.is_dir()


@pytest.mark.parametrize(("asked", "left"), [
    ({}, set()), ({"kind": "downloads"}, {"sprites", "faces"}), ({"older_than_days": 30}, {"faces", "mnist"}),
    ({"name": "faces"}, {"sprites", "mnist"}), ({"kind": "packs", "older_than_days": 30}, {"faces", "mnist"}),
    ({"kind": "downloads", "name": "faces"}, {"sprites", "faces", "mnist"}),
])
def test_cleaning_removes_what_was_asked_for_and_says_how_much(packs, asked, left):
    aged(pack(packs / "a", "sprites"), 40)
    pack(packs / "b", "faces")
    download("mnist")
    before = sum(entry.bytes for entry in entries())
    done = clean(**asked)
    assert {entry.name for entry in entries()} == left
    assert done.freed == before - sum(entry.bytes for entry in entries())
    assert not list(cache_root().rglob("*.partial"))


def test_a_pack_can_be_named_by_its_folder(packs):
    pack(packs / "0f3a")
    assert clean(name="0f3a").freed > 0


def test_an_unfinished_folder_is_removed_only_once_it_has_not_grown_for_a_day(packs):
    young, old = unfinished(packs, "a"), unfinished(packs, "b", days=2)
    done = clean()
    assert [entry.path for entry in done.removed] == [old]
    assert [(entry.path, "in the making" in why) for entry, why in done.kept] == [(young, True)]
    assert young.is_dir() and not old.exists()


def test_a_set_that_is_being_downloaded_stays(packs):
    folder = download("mnist")
    unfinished(folder, "download")
    assert clean().removed == []
    assert (folder / "set.zip").is_file()


def test_what_the_system_holds_is_reported_and_the_rest_removed(packs, monkeypatch):
    held, free = pack(packs / "held"), pack(packs / "free")
    rename = Path.rename

    def refuse(path, target):
        if path == held:
            raise PermissionError(13, "in use by another process")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    done = clean()
    assert [entry.path for entry in done.removed] == [free]
    assert [entry.path for entry, _ in done.kept] == [held] and "in use by another process" in done.kept[0][1]


# ---------------------------------------------------------------- node-local copies


def test_without_scratch_a_pack_is_read_where_it_lies(packs, monkeypatch):
    monkeypatch.delenv("GANVAS_SCRATCH", raising=False)
    folder = pack(packs / "0f")
    assert local_copy(folder) == folder
    assert section("scratch") is None


def test_a_local_copy_is_whole_under_the_same_name_and_listed(packs, scratch):
    folder = pack(packs / "0f")
    copy = local_copy(folder)
    assert copy == scratch / "0f"
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()}
    assert [(entry.kind, entry.name) for entry in entries()] == [("packs", "sprites"), ("scratch", "sprites")]
    assert local_copy(copy) == copy
    clean(kind="scratch")
    assert folder.is_dir() and not copy.exists()


def test_a_local_copy_is_used_again_and_marked(packs, scratch):
    folder = pack(packs / "0f")
    copy = local_copy(folder)
    (copy / "images.npy").write_bytes(b"q" * 1000)           # of the same size: a second copying would bring the p back
    aged(copy, 9)
    assert local_copy(folder) == copy
    assert (copy / "images.npy").read_bytes() == b"q" * 1000
    assert time.time() - copy.stat().st_mtime < 100


def test_what_is_later_put_beside_a_pack_is_not_copied_and_makes_no_copy_old(packs, scratch):
    folder = pack(packs / "0f")
    copy = local_copy(folder)
    (copy / "images.npy").write_bytes(b"q" * 1000)           # a second copying would bring the p back
    (folder / "twins.npz").write_bytes(b"t" * 100)
    assert local_copy(folder) == copy
    assert (copy / "images.npy").read_bytes() == b"q" * 1000
    shutil.rmtree(copy)
    local_copy(folder)
    assert {file.name for file in copy.iterdir()} == {"images.npy", "manifest.json"}


@pytest.mark.parametrize("harm", [
    lambda copy: (copy / "images.npy").write_bytes(b"p"), lambda copy: (copy / "images.npy").unlink(),
    lambda copy: (copy / "manifest.json").unlink(),
    lambda copy: (copy / "manifest.json").write_text("{}"), shutil.rmtree])
def test_a_torn_or_older_local_copy_is_made_again(packs, scratch, harm):
    folder = pack(packs / "0f")
    harm(local_copy(folder))
    copy = local_copy(folder)
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()}
    assert list(scratch.iterdir()) == [copy]


def test_a_copy_that_breaks_off_leaves_nothing(packs, scratch, monkeypatch):
    def full(source, target, **_):
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")
    folder = pack(packs / "0f")
    monkeypatch.setattr(cache.shutil, "copyfile", full)
    with pytest.raises(DataError, match=r"GANVAS_SCRATCH=.*node disk.*No space left"):
        local_copy(folder)
    assert list(scratch.iterdir()) == []


def test_an_original_with_a_missing_part_is_named_and_not_half_copied(packs, scratch):
    folder = pack(packs / "0f")
    (folder / "images.npy").unlink()
    with pytest.raises(DataError, match=r"GANVAS_SCRATCH=.*0f cannot be copied there \(.*0f.images\.npy\)"):
        local_copy(folder)
    assert list(scratch.iterdir()) == []


def test_a_node_disk_without_room_is_named_with_the_need_and_the_remedy(packs, scratch, monkeypatch):
    folder = pack(packs / "0f")
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(DataError) as raised:
        local_copy(folder)
    assert all(word in str(raised.value) for word in ("GANVAS_SCRATCH=", "0.0 MB", str(folder), "--kind scratch", "unset"))


def test_a_node_disk_that_cannot_be_written_is_named(packs, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("GANVAS_SCRATCH", str(tmp_path / "file"))
    folder = pack(packs / "0f")
    with pytest.raises(DataError, match=r"GANVAS_SCRATCH=.*file: .*cannot be copied there.*unset"):
        local_copy(folder)


def test_several_processes_that_copy_at_once_all_get_a_whole_copy(packs, scratch):
    folder = pack(packs / "0f", pixels=b"p" * 3_000_000)
    got, failed = [], []

    def copy():
        try:
            found = local_copy(folder)
            got.append((found, (found / "images.npy").stat().st_size))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=copy) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert got == [(scratch / "0f", 3_000_000)] * 8
    assert [path.name for path in scratch.iterdir()] == ["0f"]


def test_what_killed_copies_left_is_removed_after_a_day(packs, scratch):
    old, young = unfinished(scratch, "a", days=2), unfinished(scratch, "b")
    local_copy(pack(packs / "0f"))
    assert not old.exists() and young.exists()
