"""Decoded once, read for ever."""

import errno
import os
import shutil
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganvas.data import packing
from ganvas.data.decode import Layout, open_image, to_pixels
from ganvas.data.pack import Pack, build_pack, plan_pack
from ganvas.data.source_arrays import ArraySource
from ganvas.data.sources import open_source
from ganvas.errors import DataError
from makers import image_folder

LAYOUT = Layout(height=8, width=6, channels=3, fit="stretch", transparency="white")


def in_cache(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache").iterdir())


@pytest.fixture
def source(tmp_path):
    return open_source(image_folder(tmp_path / "images", 10))


def test_a_pack_holds_each_image_in_order_and_is_found_again(source, tmp_path):
    plan = plan_pack(source, LAYOUT, tmp_path / "cache")
    assert not plan.cached
    assert plan.bytes_needed >= 10 * 3 * 8 * 6
    first = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    assert (len(first), first.channels, first.image_size, first.from_cache) == (10, 3, (8, 6), False)
    for i in range(10):
        direct = to_pixels(open_image(source.load(i), "x"), LAYOUT)
        assert np.array_equal(first.read([i])[0], direct)
    assert np.array_equal(first.read([3, 1, 3]), np.stack([first.read([i])[0] for i in (3, 1, 3)]))
    again = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    assert again.from_cache
    assert again.fingerprint == first.fingerprint
    assert plan_pack(source, LAYOUT, tmp_path / "cache").cached


def test_a_moved_folder_has_the_same_fingerprint_and_a_changed_pixel_another(source, tmp_path):
    before = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache").fingerprint
    moved = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "images", moved)
    assert build_pack(open_source(moved), LAYOUT, cache_dir=tmp_path / "cache").fingerprint == before
    Image.new("RGB", (24, 24), "blue").save(moved / "004.png")
    assert build_pack(open_source(moved), LAYOUT, cache_dir=tmp_path / "cache").fingerprint != before


def test_unreadable_files_are_all_told_or_left_out_on_request(source, tmp_path):
    folder = tmp_path / "images"
    for name in ("002.png", "007.png"):
        (folder / name).write_bytes(b"no picture")
    bad = open_source(folder)
    with pytest.raises(DataError, match="2 of 10") as caught:
        build_pack(bad, LAYOUT, cache_dir=tmp_path / "cache")
    assert "002.png" in str(caught.value)
    assert "007.png" in str(caught.value)
    assert "--skip-bad" in str(caught.value)
    assert not list((tmp_path / "cache").glob("*"))                # no half pack stays
    kept = build_pack(bad, LAYOUT, cache_dir=tmp_path / "cache", skip_bad=True)
    assert len(kept) == 8
    assert len(kept.skipped) == 2
    with pytest.raises(DataError, match="2 of 10"):                # the cache does not hide them
        build_pack(bad, LAYOUT, cache_dir=tmp_path / "cache")


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="none"):
        build_pack(open_source(tmp_path / "images"), LAYOUT, cache_dir=tmp_path / "cache", skip_bad=True)


@pytest.mark.parametrize("damage", ["truncate", "flip", "manifest"])
def test_a_damaged_pack_is_made_again(source, tmp_path, damage):
    pack = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    good = pack.read(range(10))
    pack.close()
    images = pack.path / "images.npy"
    data = bytearray(images.read_bytes())
    if damage == "truncate":
        images.write_bytes(data[:-5])
    elif damage == "flip":
        data[-5] ^= 1
        images.write_bytes(data)
    else:
        (pack.path / "manifest.json").write_text("{", encoding="utf-8")
    again = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    assert not again.from_cache
    assert np.array_equal(again.read(range(10)), good)


def test_a_full_disk_is_told_before_anything_is_written(source, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 100))
    with pytest.raises(DataError, match="GANVAS_CACHE"):
        plan_pack(source, LAYOUT, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_full_disk_is_told_of_a_torn_pack_too_whose_own_room_counts_as_free(source, tmp_path, monkeypatch):
    images = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache").path / "images.npy"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 100))
    assert plan_pack(source, LAYOUT, tmp_path / "cache").cached                     # a whole one needs no room
    images.write_bytes(images.read_bytes()[:100])
    with pytest.raises(DataError, match="GANVAS_CACHE"):
        build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 12_000))
    plan = plan_pack(source, LAYOUT, tmp_path / "cache")
    assert plan.bytes_needed > 12_000 and not plan.cached


def test_a_plan_is_not_found_out_twice(source, tmp_path, monkeypatch):
    build_pack(source, LAYOUT, cache_dir=tmp_path / "cache").close()
    hashed, is_intact = [], Pack.is_intact
    monkeypatch.setattr(Pack, "is_intact", lambda pack, pixels=True: hashed.append(pixels) or is_intact(pack, pixels))
    plan = plan_pack(source, LAYOUT, tmp_path / "cache")
    assert build_pack(source, LAYOUT, plan=plan).path == plan.path
    assert hashed == [True]


def test_a_pack_that_is_removed_after_it_was_planned_is_made_again(source, tmp_path):
    build_pack(source, LAYOUT, cache_dir=tmp_path / "cache").close()
    plan = plan_pack(source, LAYOUT, tmp_path / "cache")
    shutil.rmtree(plan.path)
    pack = build_pack(source, LAYOUT, plan=plan)
    assert (len(pack), pack.from_cache, pack.replaced) == (10, False, "")


def test_an_interrupted_build_leaves_nothing_and_two_builders_end_well(source, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        build_pack(source, LAYOUT, cache_dir=tmp_path / "cache", progress=stop)
    assert not list((tmp_path / "cache").glob("*"))

    found = []
    builders = [threading.Thread(target=lambda: found.append(build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")))
                for _ in range(4)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert len({pack.fingerprint for pack in found}) == 1
    assert len(list((tmp_path / "cache").glob("*"))) == 1


def test_labels_go_with_their_images(tmp_path):
    digits = build_pack(open_source("digits"), Layout(height=8, width=8, channels=1, fit="stretch", transparency="white"),
                        cache_dir=tmp_path / "cache")
    source = open_source("digits")
    assert np.array_equal(digits.labels, source.labels)
    assert np.array_equal(digits.read([5])[0, 0], source.load(5)[..., 0])


def test_labels_follow_the_images_that_are_left(tmp_path):
    for i, owner in enumerate(["cat", "cat", "dog", "dog", "emu"]):
        (tmp_path / "images" / owner).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 8), (i, 0, 0)).save(tmp_path / "images" / owner / f"{i}.png")
    (tmp_path / "images" / "cat" / "1.png").write_bytes(b"")
    source = open_source(tmp_path / "images", labels="folder")
    pack = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache", skip_bad=True)
    assert pack.skipped == [("images/cat/1.png", "the file is empty")]
    assert (pack.labels.tolist(), pack.class_names) == ([0, 1, 1, 2], ("cat", "dog", "emu"))
    assert pack.read(range(4))[:, 0, 0, 0].tolist() == [0, 2, 3, 4]
    assert list(pack.names) == ["images/cat/0.png", "images/dog/2.png", "images/dog/3.png", "images/emu/4.png"]
    unlabelled = build_pack(open_source(tmp_path / "images"), LAYOUT, cache_dir=tmp_path / "cache", skip_bad=True)
    assert unlabelled.labels is None
    assert unlabelled.fingerprint != pack.fingerprint


def test_another_layout_is_another_pack(source, tmp_path):
    layouts = [LAYOUT, replace(LAYOUT, fit="crop"), replace(LAYOUT, height=9), replace(LAYOUT, channels=1),
               replace(LAYOUT, transparency="black")]
    assert len({plan_pack(source, layout, tmp_path / "cache").path for layout in layouts}) == 5


def test_a_pack_is_a_plain_npy_that_cannot_be_written_through(source, tmp_path):
    pack = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    assert np.array_equal(np.load(pack.path / "images.npy"), pack.read(range(10)))
    batch = pack.read([1])
    batch[:] = 0                                                   # a copy, and the caller's own
    assert pack.read([1]).max() > 0
    with pytest.raises(IndexError):
        pack.read([10])
    pack.close()
    with pytest.raises(ValueError, match="closed"):
        pack.read([0])


def test_only_the_first_ten_of_many_bad_files_are_listed(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(13):
        (tmp_path / "images" / f"{i:02}.png").write_bytes(b"text")
    with pytest.raises(DataError, match=r"(?s)13 of 13.*09\.png: its content is not an image.*\n  \.\.\. and 3 more\n") as caught:
        build_pack(open_source(tmp_path / "images"), LAYOUT, cache_dir=tmp_path / "cache")
    assert "10.png" not in str(caught.value)


def test_progress_reaches_the_end_in_order_with_any_number_of_threads(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (333, 8, 6, 3)).astype(np.uint8)
    packs = []
    for workers in (1, 7):
        told = []
        packs.append(build_pack(open_source(array), LAYOUT, cache_dir=tmp_path / f"{workers}", workers=workers,
                                progress=lambda done, total, told=told: told.append((done, total))))
        assert told == sorted(told)
        assert told[-1] == (333, 333)
        assert np.array_equal(packs[-1].read(range(333)), array.transpose(0, 3, 1, 2))
    assert packs[0].fingerprint == packs[1].fingerprint


def test_memory_stays_flat_while_a_pack_is_made(tmp_path):
    def peak_bytes(count):
        images = np.broadcast_to(np.zeros((1, 8, 8), dtype=np.uint8), (count, 8, 8))
        source = ArraySource(images[..., None], "x", "x", "x", str(count))
        tracemalloc.start()
        build_pack(source, Layout(128, 128, 3), cache_dir=tmp_path, workers=2).close()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak
    assert peak_bytes(2000) < peak_bytes(1000) + 10e6             # 49 MB more of pixels


def test_a_disk_that_fills_up_on_the_way_leaves_nothing(source, tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(packing, "_sync", full)
    with pytest.raises(DataError, match=r"became full while .*images was packed\. Set GANVAS_CACHE"):
        build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    assert not in_cache(tmp_path)


def test_a_cache_that_cannot_be_written_is_named(source, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"file.packs: the pack of .* cannot be written there .*Set GANVAS_CACHE"):
        build_pack(source, LAYOUT, cache_dir=tmp_path / "file" / "packs")


def test_the_cache_lies_where_the_environment_says(source, tmp_path, monkeypatch):
    monkeypatch.setenv("GANVAS_CACHE", str(tmp_path / "mine"))
    assert build_pack(source, LAYOUT).path.parent == tmp_path / "mine" / "packs"


def test_leftovers_of_killed_builders_go_after_a_day_and_not_before(source, tmp_path):
    for name, age in ((".old.0123456789ab.partial", 25), (".new.0123456789ab.partial", 23)):
        (tmp_path / "cache" / name).mkdir(parents=True)
        (tmp_path / "cache" / name / "images.npy").write_bytes(b"half")
        for path in (tmp_path / "cache" / name / "images.npy", tmp_path / "cache" / name):
            os.utime(path, (time.time() - age * 3600,) * 2)
    pack = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    assert in_cache(tmp_path) == sorted([".new.0123456789ab.partial", pack.path.name])


def test_builders_that_all_find_a_torn_pack_end_well(source, tmp_path):
    good = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    good.close()
    for _ in range(10):
        (good.path / "images.npy").write_bytes(b"torn")
        with ThreadPoolExecutor(4) as threads:
            builds = [threads.submit(build_pack, source, LAYOUT, cache_dir=tmp_path / "cache") for _ in range(4)]
        packs = [build.result() for build in builds]
        assert all(pack.is_intact() and pack.fingerprint == good.fingerprint for pack in packs)
        for pack in packs:
            pack.close()
        assert in_cache(tmp_path) == [good.path.name]


def test_the_real_sprites_have_clean_white_edges(tmp_path):
    archive = Path(os.environ["GANVAS_TEST_DATA"]) / "pokemon-sprites.zip"
    if not archive.is_file():
        pytest.skip(f"no real data at {archive}")
    source = open_source(archive)
    whole = build_pack(source, Layout(32, 32), cache_dir=tmp_path / "cache")
    assert (len(whole), whole.skipped) == (1634, [])
    corners = whole.read(range(1634))[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 255).all(axis=(1, 2)).mean() > 0.95         # hidden colours would make many of them black
