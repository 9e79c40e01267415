"""Tiles of sheets and frames of animations are images of their own."""

import io
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganvas.data.layout import Layout
from ganvas.data.opening import Frames
from ganvas.data.pack import build_pack
from ganvas.data.source_base import Source, UnreadableError
from ganvas.data.source_parts import parts_of
from ganvas.errors import ConfigError, DataError


class Pictures(Source):
    """Named encoded images, or arrays, from a dict."""

    def __init__(self, items, labels=None, class_names=()):
        super().__init__("pictures", "pictures", "stamp", labels=None if labels is None else np.array(labels, dtype=np.int64),
                         class_names=class_names, notes=["a note"], ignored=[("a.txt", ".txt")])
        self.loads = 0
        self.closed = False
        self._names, self._items = list(items), list(items.values())

    def __len__(self):
        return len(self._items)

    def item_name(self, index):
        return self._names[index]

    def load(self, index):
        self.loads += 1
        return self._items[index]

    def close(self):
        self.closed = True


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def sheet(mode="RGB", size=(12, 8), empty=()):
    """Tiles of 4x4, each with its own two colours, but those at `empty` (row, column)."""
    image = Image.new(mode, size)
    for row in range(size[1] // 4):
        for column in range(size[0] // 4):
            if (row, column) not in empty:
                full = (50 * row, 50 * column, 9, 255)
                image.paste(full[: len(mode)], (4 * column, 4 * row, 4 * column + 4, 4 * row + 4))
                image.putpixel((4 * column, 4 * row), (1, 2, 3, 255)[: len(mode)])
    return image


def film(kind="GIF", count=4, size=4, **options):
    """Frames of one colour each: (40 * number, 0, 9)."""
    frames = [Image.new("RGB", (size, size), (40 * number % 256, number % 7, 9)) for number in range(count)]
    exact = {"lossless": True} if kind == "WEBP" else {}
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **exact, **options)


def names(source):
    return [source.item_name(index) for index in range(len(source))]


def test_nothing_wanted_is_the_source_itself():
    source = Pictures({"a.png": encoded(sheet())})
    assert parts_of(source, None, "first") is source


def test_tiles_are_cut_row_by_row():
    image = sheet()
    tiles = parts_of(Pictures({"sheet.png": encoded(image)}), (4, 4), "first")
    assert names(tiles) == [f"sheet.png[row {row}, column {column}]" for row in (1, 2) for column in (1, 2, 3)]
    for index, (row, column) in enumerate((row, column) for row in range(2) for column in range(3)):
        wanted = np.asarray(image)[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert np.array_equal(tiles.load(index), wanted)


def test_a_tile_is_width_by_height():
    tiles = parts_of(Pictures({"s.png": encoded(sheet())}), (6, 4), "first")
    assert len(tiles) == 4
    assert tiles.load(0).shape == (4, 6, 3)
    assert "4 tiles of 6x4 cut from 1 picture" in tiles.notes


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_empty_tiles_are_left_out_and_counted(mode):
    tiles = parts_of(Pictures({"s.png": encoded(sheet(mode, empty=[(0, 1), (1, 2)]))}), (4, 4), "first")
    assert names(tiles) == [f"s.png[row {row}, column {column}]" for row, column in ((1, 1), (1, 3), (2, 1), (2, 2))]
    assert tiles.notes == ["1 file ignored: 1 .txt", "a note", "4 tiles of 4x4 cut from 1 picture; 2 empty tiles left out"]
    assert tiles.ignored == [("a.txt", ".txt")]


def test_a_tile_of_one_colour_is_full_where_the_sheet_knows_transparency():
    image = sheet("RGBA", empty=[(0, 1), (1, 2)])
    image.paste((7, 7, 7, 255), (4, 0, 8, 4))
    assert "s.png[row 1, column 2]" in names(parts_of(Pictures({"s.png": encoded(image)}), (4, 4), "first"))
    opaque = Image.new("RGBA", (12, 8), (1, 1, 1, 255))            # has the channel, but does not use it
    opaque.putpixel((0, 0), (2, 2, 2, 255))
    assert names(parts_of(Pictures({"s.png": encoded(opaque)}), (4, 4), "first")) == ["s.png[row 1, column 1]"]


def test_colours_hidden_in_clear_tiles_do_not_fill_them():
    image = Image.new("RGBA", (8, 4), (255, 0, 0, 0))
    image.putpixel((1, 1), (0, 255, 0, 0))
    image.putpixel((6, 1), (0, 255, 0, 1))
    assert names(parts_of(Pictures({"s.png": encoded(image)}), (4, 4), "first")) == ["s.png[row 1, column 2]"]


def test_what_is_no_whole_tile_is_left_out_and_said():
    tiles = parts_of(Pictures({"s.png": encoded(sheet(size=(14, 9))), "t.png": encoded(sheet())}), (4, 4), "first")
    assert len(tiles) == 12
    assert "what is no whole tile at the right or bottom was left out of 1 picture (the first: s.png, 14x9)" in tiles.notes


def test_a_picture_smaller_than_a_tile_is_refused_with_both_sizes():
    with pytest.raises(DataError, match=r"small\.png: is 12x8, smaller than a tile of 16x4\. Pass a smaller --tile"):
        parts_of(Pictures({"small.png": encoded(sheet())}), (16, 4), "first")


def test_a_source_of_empty_tiles_only_is_refused():
    with pytest.raises(DataError, match=r"pictures: all 6 tiles of 4x4 are empty\. Pass another --tile"):
        parts_of(Pictures({"s.png": encoded(Image.new("RGBA", (12, 8)))}), (4, 4), "first")


def test_wishes_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="tile 0x4: both sides"):
        parts_of(Pictures({}), (0, 4), "first")
    with pytest.raises(ConfigError, match="frames 'some': must be first or all"):
        parts_of(Pictures({}), None, "some")


def test_arrays_are_cut_too_and_a_sheet_that_lies_on_its_side_is_turned_first():
    array = np.arange(8 * 4, dtype=np.uint8).reshape(8, 4, 1)
    tiles = parts_of(Pictures({"array[0]": array}), (4, 4), "first")
    assert np.array_equal(tiles.load(1), array[4:])
    lying = Image.Exif()
    lying[0x0112] = 6
    turned = parts_of(Pictures({"s.png": encoded(Image.effect_noise((8, 4), 50), exif=lying)}), (4, 8), "first")
    assert turned.load(0).shape == (8, 4, 1)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_every_frame_is_an_image(kind):
    frames = parts_of(Pictures({"walk.gif": film(kind), "still.png": encoded(sheet())}), None, "all")
    assert names(frames) == [*(f"walk.gif[frame {number}]" for number in (1, 2, 3, 4)), "still.png"]
    for index in (3, 0, 2, 1):
        assert frames.load(index)[0, 0, :3].tolist() == [40 * index, index, 9]
    assert frames.load(4) == encoded(sheet())                                 # a still comes as its file
    assert "4 frames of 1 animation" in frames.notes


def test_a_source_without_animations_stays_as_it_is_and_says_so():
    frames = parts_of(Pictures({"a.png": encoded(sheet()), "b.jpg": encoded(sheet(), "JPEG")}), None, "all")
    assert names(frames) == ["a.png", "b.jpg"]
    assert frames.notes[-1] == "no picture has more than one frame"


def test_repeated_frames_stay():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "red", "blue", "red")]
    data = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert len(parts_of(Pictures({"a.tif": data}), None, "all")) == 4


def test_frames_can_be_cut_into_tiles():
    first, second = sheet(size=(8, 4)), sheet(size=(8, 4), empty=[(0, 1)])
    data = encoded(first, "PNG", save_all=True, append_images=[second])
    tiles = parts_of(Pictures({"s.png": data}), (4, 4), "all")
    assert names(tiles) == [f"s.png[frame {frame}, row 1, column {column}]" for frame, column in ((1, 1), (1, 2), (2, 1))]
    assert np.array_equal(tiles.load(2), np.asarray(second)[:, :4])
    assert "2 frames of 1 animation" in tiles.notes
    assert len(parts_of(Pictures({"s.png": data}), (4, 4), "first")) == 2


def test_labels_follow_and_the_stamp_tells_the_cut():
    source = Pictures({"a.gif": film(count=2), "b.png": encoded(sheet()), "c.gif": film(count=3)}, [1, 0, 1], ("cat", "dog"))
    frames = parts_of(source, None, "all")
    assert frames.labels.tolist() == [1, 1, 0, 1, 1, 1]
    assert (frames.class_names, frames.where, frames.name) == (("cat", "dog"), "pictures", "pictures")
    stamps = {parts_of(source, tile, wanted).stamp for tile, wanted in
              ((None, "first"), (None, "all"), ((4, 4), "first"), ((4, 4), "all"), ((2, 4), "all"))}
    assert len(stamps) == 5
    frames.close()
    assert source.closed


@pytest.mark.parametrize(("tile", "wanted"), [((4, 4), "first"), (None, "all"), ((4, 4), "all")])
def test_an_unreadable_picture_stays_one_unreadable_item(tile, wanted):
    parts = parts_of(Pictures({"a.png": b"text", "b.png": encoded(sheet())}, [0, 1], ("x", "y")), tile, wanted)
    assert parts.item_name(0) == "a.png"
    assert parts.labels.tolist() == [0] + [1] * (6 if tile else 1)
    assert parts.load(0) == b"text"                                           # whoever opens it finds out why


def test_a_damaged_frame_is_named_and_those_before_it_are_read():
    noise = [Image.effect_noise((32, 32), 60) for _ in range(3)]
    cut = encoded(noise[0], "GIF", save_all=True, append_images=noise[1:])[:-500]
    parts = parts_of(Pictures({"walk.gif": cut}), None, "all")
    assert parts.load(0).shape[:2] == (32, 32)
    with pytest.raises(UnreadableError) as caught:
        parts.load(len(parts) - 1)
    assert caught.value.item == "walk.gif[frame 3]"
    assert parts.load(0).shape[:2] == (32, 32)                                # and nothing is broken afterwards
    tiles = parts_of(Pictures({"walk.gif": cut}), (16, 16), "all")
    assert names(tiles)[-2:] == ["walk.gif[frame 2, row 2, column 2]", "walk.gif[frame 3]"]


def test_a_sheet_is_decoded_once_for_all_its_tiles():
    source = Pictures({"s.png": encoded(Image.effect_noise((64, 64), 50))})
    tiles = parts_of(source, (4, 4), "first")
    source.loads = 0
    for index in range(len(tiles)):
        tiles.load(index)
    assert (len(tiles), source.loads) == (256, 1)


def test_a_long_animation_costs_each_thread_one_way_through_it(monkeypatch):
    source = Pictures({"long.gif": film(count=400)})
    frames = parts_of(source, None, "all")
    wanted = [[40 * number % 256, number % 7, 9] for number in range(400)]
    reads = []
    monkeypatch.setattr(Frames, "read", lambda self, frame, real=Frames.read: (reads.append(frame), real(self, frame))[1])
    source.loads = 0
    assert [frames.load(index)[0, 0].tolist() for index in range(400)] == wanted
    assert (source.loads, len(reads)) == (1, 400)
    source.loads = 0
    with ThreadPoolExecutor(4) as threads:                                    # in chunks, as packs are made
        chunks = threads.map(lambda start: [frames.load(i)[0, 0].tolist() for i in range(start, start + 25)], range(0, 400, 25))
        assert [pixel for chunk in chunks for pixel in chunk] == wanted
    assert source.loads <= 6


def test_open_animations_are_bounded(monkeypatch):
    monkeypatch.setattr("ganvas.data.source_pictures._MOST_KEPT", 3)
    source = Pictures({f"{number}.gif": film(count=2) for number in range(10)})
    frames = parts_of(source, None, "all")
    for index in range(len(frames)):
        frames.load(index)
    assert len(frames._open_films._readers) == 3
    monkeypatch.setattr("ganvas.data.source_pictures.MAX_PIXELS", 17)         # one picture has 16
    frames.load(0)
    assert len(frames._open_films._readers) == 1


def test_decoded_sheets_are_bounded(monkeypatch):
    monkeypatch.setattr("ganvas.data.source_pictures._MOST_KEPT", 3)
    tiles = parts_of(Pictures({f"{number}.png": encoded(sheet()) for number in range(10)}), (4, 4), "first")
    for index in range(len(tiles)):
        tiles.load(index)
    assert sorted(tiles._open_sheets._kept) == [7, 8, 9]
    monkeypatch.setattr("ganvas.data.source_pictures.MAX_PIXELS", 97)         # one picture has 96
    tiles.load(0)
    assert sorted(tiles._open_sheets._kept) == [0]


def test_many_threads_share_one_decoded_sheet():
    image = Image.effect_noise((64, 64), 50)
    source = Pictures({"s.png": encoded(image)})
    tiles = parts_of(source, (4, 4), "first")
    source.loads = 0
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(tiles.load, range(256)))
    assert source.loads == 1
    for index, pixels in enumerate(found):
        row, column = divmod(index, 16)
        assert np.array_equal(pixels[..., 0], np.asarray(image)[4 * row : 4 * row + 4, 4 * column : 4 * column + 4])


def test_threads_at_different_sheets_do_not_push_out_each_others(monkeypatch):
    monkeypatch.setattr("ganvas.data.source_pictures.MAX_PIXELS", 97)         # room for one
    monkeypatch.setattr("ganvas.data.source_pictures._PIXELS_A_SEC", 1)       # it would be waited for a minute and a half
    source = Pictures({"a.png": encoded(sheet()), "b.png": encoded(sheet())})
    tiles = parts_of(source, (4, 4), "first")
    source.loads = 0
    tiles.load(0)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(tiles.load, 1).result()                                # who goes on first was the last to read
        other = threads.submit(tiles.load, 6)
        for index in range(2, 6):
            assert not other.done()
            tiles.load(index)
        assert np.array_equal(other.result(10), tiles.load(6))
    assert source.loads == 2


def test_a_thread_that_does_not_go_on_is_waited_for_no_longer_than_decoding_takes(monkeypatch):
    monkeypatch.setattr("ganvas.data.source_pictures.MAX_PIXELS", 97)
    source = Pictures({"a.png": encoded(sheet()), "b.png": encoded(sheet())})
    tiles = parts_of(source, (4, 4), "first")
    tiles.load(0)
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(tiles.load, 6).result(10).shape == (4, 4, 3)
    assert sorted(tiles._open_sheets._kept) == [1]


def test_one_thread_alone_may_read_in_any_order_and_never_waits(monkeypatch):
    monkeypatch.setattr("ganvas.data.source_pictures.MAX_PIXELS", 97)
    monkeypatch.setattr("ganvas.data.source_pictures._PIXELS_A_SEC", 0.1)
    tiles = parts_of(Pictures({"a.png": encoded(sheet()), "b.png": encoded(sheet())}), (4, 4), "first")
    assert [tiles.load(index).shape for index in (0, 6, 1, 7, 2, 8)] == [(4, 4, 3)] * 6


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_two_large_sheets_in_eight_threads_need_less_than_a_gibibyte(tmp_path):
    script = textwrap.dedent("""
        import sys
        from concurrent.futures import ThreadPoolExecutor
        from pathlib import Path
        from PIL import Image
        from ganvas.data.sources import open_source

        folder, side = Path(sys.argv[1]), 7900
        cell = Image.linear_gradient("L").resize((50, 50))
        image = Image.new("RGBA", (side, 50))
        for left in range(0, side, 50):
            image.paste(Image.merge("RGBA", (cell, cell, cell, cell)), (left, 0))
        rows = image.tobytes()
        Image.frombuffer("RGBA", (side, side), rows * (side // 50), "raw", "RGBA", 0, 1).save(folder / "a.png", compress_level=1)
        (folder / "b.png").write_bytes((folder / "a.png").read_bytes())
        Path("/proc/self/clear_refs").write_text("5")           # forget the peak of making them
        source = open_source(folder, tile=(790, 790))
        loads, load = [], source._source.load
        source._source.load = lambda picture: (loads.append(picture), load(picture))[1]
        with ThreadPoolExecutor(8) as threads:
            assert sum(tile.shape == (790, 790, 4) for tile in threads.map(source.load, range(200))) == 200
        print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024, *loads)
    """)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    peak_mb, *loads = map(int, done.stdout.split())
    assert peak_mb < 1024
    assert loads == [0, 1]


@pytest.mark.parametrize(("tile", "wanted"), [((4, 4), "first"), (None, "all")])
def test_parts_tell_how_their_picture_was_stored(tile, wanted):
    palette = sheet().quantize(8)
    parts = parts_of(Pictures({"a.gif": film(count=3), "b.png": encoded(palette), "c": np.asarray(sheet()), "d.png": b"text"}),
                     tile, wanted)
    stored = dict(zip((name.split("[")[0] for name in names(parts)), map(parts.stored, range(len(parts))), strict=True))
    gif = Image.open(io.BytesIO(film(count=3))).mode
    if wanted == "all":
        assert stored == {"a.gif": ("GIF", gif, 1), "b.png": ("PNG", "P", 1), "c": ("", "", 1), "d.png": ("", "", 1)}
    else:                                                                     # of the animation one colour, so no tile
        assert stored == {"b.png": ("PNG", "P", 1), "c": ("", "", 1), "d.png": ("", "", 1)}


def test_a_tile_of_an_animation_of_which_one_frame_is_used_tells_the_frames():
    data = encoded(sheet(), "PNG", save_all=True, append_images=[sheet(size=(12, 8), empty=[(0, 0)])])
    assert parts_of(Pictures({"a.png": data}), (4, 4), "first").stored(0) == ("PNG", "RGB", 2)
    assert parts_of(Pictures({"a.png": data}), (4, 4), "all").stored(0) == ("PNG", "RGB", 1)


def test_the_search_for_parts_can_be_watched_and_stopped():
    source, told = Pictures({f"{number}.png": encoded(sheet()) for number in range(3)}), []
    parts_of(source, (4, 4), "first", lambda *at: told.append(at))
    assert told == [(1, 3), (2, 3), (3, 3)]

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parts_of(source, (4, 4), "first", stop)


def test_a_picture_that_changed_since_is_named():
    source = Pictures({"s.png": encoded(sheet())})
    tiles = parts_of(source, (4, 4), "first")
    source._items[0] = encoded(sheet(size=(8, 8)))
    assert tiles.load(0).shape == (4, 4, 3)
    with pytest.raises(UnreadableError, match=r"s\.png\[row 1, column 3\]: .*has become smaller: 8x8"):
        tiles.load(2)


def test_parts_can_be_packed(tmp_path):
    source = Pictures({"walk.gif": film(count=5), "s.png": encoded(sheet("RGBA"))})
    with_frames = build_pack(parts_of(source, (4, 4), "all"), Layout(4, 4, 4, "crop", "keep"), cache_dir=tmp_path, workers=2)
    assert len(with_frames) == 6
    with_frames.close()
