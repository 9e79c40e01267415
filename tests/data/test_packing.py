"""What is written into a pack is noticed when it changes, in whichever file; large images are decoded one at a time."""

import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from ganvas.config import DataConfig
from ganvas.data import cache, chunks, opening, packing
from ganvas.data import pack as pack_module
from ganvas.data.layout import Layout
from ganvas.data.pack import build_pack
from ganvas.data.sources import open_source
from ganvas.data.twins import Kind, load_twins
from ganvas.dataset import prepare
from ganvas.errors import DataError
from makers import image_folder

LAYOUT = Layout(8, 6)
FILES = ("images.npy", "facts.npy", "thumbs.npy", "sums.npy", "names.jsonl", "labels.npy", "manifest.json", "twins.npz")


@pytest.fixture
def source(tmp_path):
    """Ten images of two classes, the first of which is there twice."""
    for name in ("cat", "dog"):
        image_folder(tmp_path / "images" / name, n=5, seed=len(name) + ord(name[0]))
    (tmp_path / "images" / "dog" / "copy.png").write_bytes((tmp_path / "images" / "cat" / "000.png").read_bytes())
    return open_source(tmp_path / "images", labels="folder")


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", ["start", "middle", "end"])
def test_a_flipped_bit_in_any_file_is_noticed_said_and_mended(source, tmp_path, name, place):
    first = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    pixels, names, fingerprint = first.read(range(11)), list(first.names), first.fingerprint
    facts, thumbs, pairs = first.facts.copy(), first.thumbs.copy(), load_twins(first).pairs.tolist()
    first.close()
    size = (first.path / name).stat().st_size
    flip(first.path / name, {"start": 1, "middle": size // 2, "end": size - 2}[place])

    again = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    if name == "twins.npz":
        assert again.from_cache                            # made again without a word: nothing but time is lost
    else:
        assert not again.from_cache
        assert again.replaced
    assert np.array_equal(again.read(range(11)), pixels)
    assert list(again.names) == names
    assert again.labels.tolist() == [0] * 5 + [1] * 6
    assert again.fingerprint == fingerprint
    assert np.array_equal(again.facts, facts)
    assert np.array_equal(again.thumbs, thumbs)
    twins = load_twins(again)
    assert twins.pairs.tolist() == pairs
    assert (0, 10, Kind.EXACT) in [(a, b, kind) for a, b, kind, *_ in twins.pairs.tolist()]
    again.close()
    assert build_pack(source, LAYOUT, cache_dir=tmp_path / "cache").replaced == ""


def test_no_byte_of_a_manifest_can_change_unnoticed(source, tmp_path):
    (tmp_path / "images" / "cat" / "bad.png").write_bytes(b"")
    source = open_source(tmp_path / "images", labels="folder")
    pack = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache", skip_bad=True)
    pack.close()
    manifest = pack.path / "manifest.json"
    whole, unnoticed = manifest.read_bytes(), []

    def told(pack):
        return pack.class_names, pack.layout, pack.skipped, pack.fingerprint, pack.channels, pack.image_size

    for at in range(len(whole)):
        flip(manifest, at)
        opened, _ = pack_module._open_cached(pack.path)
        if opened is not None:
            opened.close()
            if told(opened) != told(pack):
                unnoticed.append(whole[max(0, at - 20):at + 20])
        manifest.write_bytes(whole)
    assert not unnoticed


def test_preparing_the_images_says_that_a_damaged_pack_was_made_again(source, tmp_path, monkeypatch):
    monkeypatch.setenv("GANVAS_CACHE", str(tmp_path / "cache"))
    data = DataConfig(size="8", holdout=0, labels="folder")
    first = prepare(source, data).pack
    first.close()
    flip(first.path / "images.npy", -5)
    told, progress = [], []
    again = prepare(source, data, told.append, lambda done, total: progress.append((done, total))).pack
    assert any("was damaged (its content has changed on the disk) and has been made again" in line for line in told), told
    assert str(again.path) in "".join(told)
    assert told[0].startswith("decoding 11 images") and progress[-1] == (11, 11)     # as the first time


def test_a_pack_too_large_to_be_hashed_finds_a_flipped_pixel_when_it_is_read(source, tmp_path, monkeypatch):
    monkeypatch.setattr(pack_module, "_CHECKED_BYTES", 1)
    first = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    pixels = first.read(range(11))
    first.close()
    flip(first.path / "images.npy", -1)                    # of the last image
    damaged = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    assert damaged.from_cache
    assert np.array_equal(damaged.read(range(10)), pixels[:10])
    with pytest.raises(DataError, match=r"images/dog/copy\.png is damaged in this pack.*the same command makes it anew"):
        damaged.read([3, 10])
    damaged.close()
    again = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    assert not again.from_cache
    assert np.array_equal(again.read(range(11)), pixels)


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("images.npy", "twins.npz")])
def test_of_a_pack_too_large_to_be_hashed_all_but_the_pixels_is_checked_when_it_is_opened(source, tmp_path, monkeypatch, name):
    monkeypatch.setattr(pack_module, "_CHECKED_BYTES", 1)
    first = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    labels, names = first.labels.tolist(), list(first.names)
    first.close()
    flip(first.path / name, -2 if name.endswith(("json", "jsonl")) else -8)
    again = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    assert again.replaced and not again.from_cache
    assert (again.labels.tolist(), list(again.names)) == (labels, names)


# ---------------------------------------------------------------- copies on a node's own disk


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("GANVAS_SCRATCH", str(tmp_path / "node disk"))
    return tmp_path / "node disk" / "ganvas"


def test_a_second_run_reads_the_same_copy(source, tmp_path, scratch):
    first = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    pairs = load_twins(first).pairs.tolist()               # kept in the cache, after the copy was made
    assert first.path.parent == scratch and (first.home / "twins.npz").is_file()
    inode = (first.path / "images.npy").stat().st_ino
    again = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    assert (again.from_cache, again.replaced, again.path, again.home) == (True, "", first.path, first.home)
    assert (again.path / "images.npy").stat().st_ino == inode
    assert load_twins(again).pairs.tolist() == pairs


@pytest.mark.parametrize("name", [name for name in FILES if name != "twins.npz"])
def test_a_flipped_bit_in_a_copy_is_noticed_said_and_copied_again(source, tmp_path, scratch, name):
    first = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    pixels = first.read(range(11))
    first.close()
    flip(first.path / name, -2 if name.endswith(("json", "jsonl")) else -8)
    again = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    assert again.from_cache                                # nothing is decoded for that
    assert (again.path, again.home) == (first.path, first.home)
    if name != "manifest.json":                            # a copy with another manifest is one of an older pack
        assert again.replaced == "its copy in GANVAS_SCRATCH: its content has changed on the disk"
    assert np.array_equal(again.read(range(11)), pixels) and again.is_intact()
    assert [path.name for path in scratch.iterdir()] == [first.path.name]
    again.close()
    assert build_pack(source, LAYOUT, cache_dir=tmp_path / "cache").replaced == ""


def test_a_disk_on_which_no_copy_stays_whole_is_named(source, tmp_path, scratch, monkeypatch):
    copyfile = cache.shutil.copyfile

    def flipped(original, copy):
        copyfile(original, copy)
        if copy.name == "images.npy":
            flip(copy, -1)

    monkeypatch.setattr(cache.shutil, "copyfile", flipped)
    with pytest.raises(DataError, match=r"GANVAS_SCRATCH=.*node disk: copies of .* do not stay whole there .*or unset it"):
        build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")


def test_processes_that_all_find_a_torn_copy_end_well(source, tmp_path, scratch):
    first = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    pixels = first.read(range(11))
    first.close()
    for _ in range(5):
        flip(first.path / "images.npy", -1)
        with ThreadPoolExecutor(4) as threads:
            builds = [threads.submit(build_pack, source, LAYOUT, cache_dir=tmp_path / "cache") for _ in range(4)]
        for build in builds:
            assert np.array_equal(build.result().read(range(11)), pixels)
            build.result().close()


@pytest.mark.parametrize("also_the_original", [False, True])
def test_a_pixel_of_a_large_copy_that_is_damaged_in_the_original_too_is_made_anew(
        source, tmp_path, scratch, monkeypatch, also_the_original):
    monkeypatch.setattr(pack_module, "_CHECKED_BYTES", 1)
    first = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    pixels = first.read(range(11))
    first.close()
    for folder in (first.path, first.home)[:1 + also_the_original]:
        flip(folder / "images.npy", -1)
    with pytest.raises(DataError, match=r"images/dog/copy\.png is damaged in this pack.*the same command makes it anew"):
        build_pack(source, LAYOUT, cache_dir=tmp_path / "cache").read([10])
    again = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    assert np.array_equal(again.read(range(11)), pixels)
    assert again.from_cache != also_the_original


# ---------------------------------------------------------------- decoding


def test_large_images_are_decoded_one_at_a_time_however_small_their_files_are(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    for number in range(8):
        file = io.BytesIO()
        Image.new("1", (200 if number % 2 else 20, 100)).save(file, "PNG")
        assert len(file.getvalue()) < 200
        (tmp_path / "images" / f"{number}.png").write_bytes(file.getvalue())
    monkeypatch.setattr(opening, "LARGE_PIXELS", 10_000)
    lock, at_once, most, decoded = threading.Lock(), {True: 0, False: 0}, {True: 0, False: 0}, chunks._noted

    def watched(opened, layout):
        large = opened.image.width == 200
        with lock:
            at_once[large] += 1
            most[large] = max(most[large], at_once[large])
        time.sleep(0.05)
        with lock:
            at_once[large] -= 1
        return decoded(opened, layout)

    monkeypatch.setattr(chunks, "_noted", watched)
    build_pack(open_source(tmp_path / "images"), LAYOUT, cache_dir=tmp_path / "cache", workers=4)
    assert most[True] == 1


def test_an_image_that_needs_more_memory_than_there_is_is_unreadable(source, tmp_path, monkeypatch):
    noted = chunks._noted

    def hungry(opened, layout):
        if opened.image.getpixel((0, 0)) == first:
            raise MemoryError
        return noted(opened, layout)

    first = Image.open(io.BytesIO(source.load(0))).getpixel((0, 0))
    monkeypatch.setattr(chunks, "_noted", hungry)
    pack = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache", skip_bad=True)
    assert pack.skipped == [("images/cat/000.png", "there is not enough memory to decode it"),
                            ("images/dog/copy.png", "there is not enough memory to decode it")]


def test_the_arrays_of_a_pack_open_with_plain_numpy(source, tmp_path):
    pack = build_pack(source, LAYOUT, cache_dir=tmp_path / "cache")
    for name, shape in (("images", (3, 8, 6)), ("facts", ()), ("thumbs", (16, 16, 4)), ("sums", ()), ("labels", ())):
        assert np.load(pack.path / f"{name}.npy").shape == (11, *shape)
    names = [json.loads(line) for line in (pack.path / "names.jsonl").read_text(encoding="utf-8").splitlines()]
    assert names == list(pack.names)


def test_large_files_are_not_all_loaded_before_the_first_is_decoded(tmp_path, monkeypatch):
    source = open_source(image_folder(tmp_path / "images", 300))
    whole = build_pack(source, LAYOUT, cache_dir=tmp_path / "a", workers=1)
    at_once, decode = [], packing.Decoders.decode
    monkeypatch.setattr(packing, "_LOADED_BYTES", 1)
    monkeypatch.setattr(packing.Decoders, "decode", lambda self, items: (at_once.append(len(items)), decode(self, items))[1])
    parts = build_pack(source, LAYOUT, cache_dir=tmp_path / "b", workers=1)
    assert max(at_once) == 1
    assert (parts.fingerprint, list(parts.names)) == (whole.fingerprint, list(whole.names))
