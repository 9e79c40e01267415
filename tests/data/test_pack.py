"""Decoded once, read for ever."""

import shutil
import threading

import numpy as np
import pytest
from PIL import Image

from ganvas.data import pack as pack_module
from ganvas.data.decode import Layout
from ganvas.data.pack import build_pack, plan_pack
from ganvas.data.sources import open_source
from ganvas.errors import DataError
from makers import image_folder

LAYOUT = Layout(height=8, width=6, channels=3, fit="stretch", transparency="white")


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
        direct = pack_module.to_pixels(pack_module.open_image(source.load(i), "x"), LAYOUT)
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
