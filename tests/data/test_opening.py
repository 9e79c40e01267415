"""Bytes of every kind become a plain upright picture, or are refused with the reason."""

import io
import struct
import subprocess
import sys
import textwrap
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from ganvas.data.opening import Frames, image_extensions, open_image, open_picture
from ganvas.data.source_base import UnreadableError
from ganvas.errors import DataError


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, *chunks, interlaced=0):
    """A PNG of raw `rows`; colour: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    packed = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def pixels(data):
    return np.asarray(open_image(data, "x").convert("RGBA")).reshape(-1, 4).tolist()


NOISE = Image.effect_noise((64, 64), 50)
BOMB = png(60000, 60000, 8, 2, [b""])


def test_what_is_known_of_a_picture_comes_with_it():
    grey, flat = Image.new("I;16", (3, 2), 7), Image.new("RGB", (3, 2), "red")
    assert open_picture(encoded(grey), "x").mode == "I;16"
    quantized = open_picture(encoded(flat.quantize()), "x")
    assert (quantized.format, quantized.mode, quantized.frames, quantized.turned) == ("PNG", "P", 1, False)
    assert (quantized.image.mode, quantized.image.size) == ("RGB", (3, 2))
    inks = open_picture(encoded(flat.convert("CMYK"), "JPEG"), "photo.png")            # whatever it is called
    assert (inks.format, inks.mode) == ("JPEG", "CMYK")
    lying = Image.Exif()
    lying[0x0112] = 6
    for kind in ("PNG", "JPEG", "TIFF", "WEBP"):
        turned = open_picture(encoded(flat, kind, exif=lying), "x")
        assert (turned.turned, turned.image.size) == (True, (2, 3)), kind


@pytest.mark.parametrize(("orientation", "corner"), [
    (1, (0, 0)), (2, (0, 2)), (3, (1, 2)), (4, (1, 0)), (5, (0, 0)), (6, (0, 1)), (7, (2, 1)), (8, (2, 0)), (9, (0, 0)),
    (0, (0, 0))])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_every_orientation_puts_the_first_pixel_where_exif_says(orientation, corner, kind):
    image = Image.new("L", (3, 2))
    image.putpixel((0, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = open_image(encoded(image, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {})), "x").convert("L")
    assert np.argwhere(np.asarray(upright) == 255).tolist() == [list(corner)]
    assert upright.size == ((3, 2) if orientation < 5 or orientation == 9 else (2, 3))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [
    b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\2\0\0\0\4abcd"])
def test_damaged_exif_does_not_cost_the_image(exif):
    for kind in ("JPEG", "PNG"):
        assert open_image(encoded(Image.new("L", (3, 2), 7), kind, exif=exif), "x").size == (3, 2)


# Transparency of PNG.

PALETTE = chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9]))


@pytest.mark.parametrize(("transparent", "alphas"), [
    (b"", [255, 255, 255, 255]), (b"\0", [0, 255, 255, 255]), (b"\xff\xff\0", [255, 255, 0, 255]),
    (b"\0\x80\xff\x01", [0, 128, 255, 1])], ids=["none", "one", "a later one", "several"])
def test_each_colour_of_a_palette_has_its_transparency(transparent, alphas):
    extra = [chunk(b"tRNS", transparent)] if transparent else []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = pixels(png(4, 1, 8, 3, [bytes([0, 1, 2, 3])], PALETTE, *extra))
    colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]
    assert found == [[*colour, alpha] for colour, alpha in zip(colours, alphas, strict=True)]


@pytest.mark.parametrize(("depth", "row", "value", "greys"), [
    (1, b"\x40", 1, [0, 255]), (2, b"\x60", 2, [85, 170]), (4, b"\x6a", 10, [102, 170]), (8, b"\x07\xc8", 200, [7, 200]),
    (16, b"\x28\x28\xc8\xc8", 0xC8C8, [0x28, 0xC8])])
def test_one_grey_declared_transparent_is_so_at_every_depth(depth, row, value, greys):
    found = pixels(png(2, 1, depth, 0, [row], chunk(b"tRNS", struct.pack(">H", value))))
    assert found == [[greys[0]] * 3 + [255], [greys[1]] * 3 + [0]]


def test_one_colour_declared_transparent_is_so_with_8_and_16_bits():
    key = struct.pack(">HHH", 9, 8, 7)
    assert pixels(png(2, 1, 8, 2, [bytes([1, 2, 3, 9, 8, 7])], chunk(b"tRNS", key))) == [[1, 2, 3, 255], [9, 8, 7, 0]]
    key = struct.pack(">HHH", 0x1234, 0x8080, 0xFFFF)
    row = struct.pack(">6H", 0x1234, 0x8080, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF)
    assert pixels(png(2, 1, 16, 2, [row], chunk(b"tRNS", key))) == [[0x12, 0x80, 0xFF, 0], [255] * 4]


def test_colours_of_16_bits_keep_their_upper_byte():
    row = struct.pack(">8H", 0x1234, 0x8080, 0xFFFF, 0x8000, 0x00FF, 0xFF00, 0x0100, 0)
    assert pixels(png(2, 1, 16, 6, [row])) == [[0x12, 0x80, 0xFF, 0x80], [0, 255, 1, 0]]
    assert pixels(png(2, 1, 16, 4, [row[:8]])) == [[0x12] * 3 + [0x80], [255] * 3 + [0x80]]


def test_interlaced_and_progressive_images_are_those_that_went_in():
    one_pixel = png(1, 1, 8, 0, [b"\x2a"], interlaced=1)                 # a single pass of the seven
    assert pixels(one_pixel) == [[42, 42, 42, 255]]
    for options in ({"progressive": True}, {"progressive": False, "optimize": True}):
        opened = np.asarray(open_image(encoded(NOISE, "JPEG", quality=100, **options), "x"), dtype=int)
        assert np.abs(opened - np.asarray(NOISE, dtype=int)).max() <= 3


# Junk beside the pixels.

@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_a_colour_profile_changes_nothing_even_if_it_is_junk(kind):
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    plain = open_image(encoded(image, kind), "x")
    assert np.array_equal(open_image(encoded(image, kind, icc_profile=b"junk" * 100), "x"), plain)


def test_a_profile_or_text_that_is_damaged_does_not_cost_the_image():
    assert pixels(png(1, 1, 8, 0, [b"\x2a"], chunk(b"iCCP", b"name\0\0not deflated"))) == [[42, 42, 42, 255]]
    assert pixels(png(1, 1, 8, 0, [b"\x2a"], chunk(b"iCCP", b"name"))) == [[42, 42, 42, 255]]
    broken = chunk(b"tEXt", b"comment\0text")[:-4] + b"\0\0\0\0"              # with a wrong checksum
    assert pixels(png(1, 1, 8, 0, [b"\x2a"], broken)) == [[42, 42, 42, 255]]


@pytest.mark.parametrize("before", [True, False], ids=["before the pixels", "behind them"])
def test_huge_texts_do_not_cost_the_image(before):
    text = chunk(b"zTXt", b"comment\0\0" + zlib.compress(b"a" * (PngImagePlugin.MAX_TEXT_CHUNK + 1)))
    data = png(1, 1, 8, 0, [b"\x2a"], *([text] if before else []))
    if not before:
        data = data[:-12] + text + data[-12:]
    assert pixels(data) == [[42, 42, 42, 255]]
    opened = open_picture(data, "x")
    assert (opened.mode, opened.frames, opened.turned) == ("L", 1, False)


# What is no image.

@pytest.mark.parametrize(("data", "reason"), [
    (b"", "the file is empty"),
    (bytes(5000), "all its bytes are zero"),
    (b"hello", "its content is not an image of a known format"),
    (b"\n<!DOCTYPE html><html>404</html>", "it is a web page, not an image"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "run git lfs pull"),
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC photograph"),
    (b"\x89PNG\r\n\x1a\n" + bytes(30), "begins as a PNG, but its header is damaged"),
    (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "begins as a TIFF, .* save it with 8 or 16 bits"),
    (encoded(NOISE, "BMP")[:900], "truncated"),
    (encoded(NOISE, "JPEG")[:400], "truncated"),
    (encoded(NOISE, "PNG")[:900], "truncated"),
    (encoded(NOISE, "WEBP")[:300], "x.png"),
    (encoded(NOISE, "GIF")[:1500], "truncated"),
    (encoded(NOISE, "TIFF")[:3000], "x.png"),
    (BOMB, r"3,600,000,000 pixels; the limit is 64,000,000 pixels"),
    (png(9000, 9000, 8, 0, [b""]), r"9000x9000 is 81,000,000 pixels; the limit is 64,000,000 pixels"),
], ids=["empty", "zeros", "text", "web page", "lfs", "heic", "PNG header", "TIFF header", "half a BMP", "half a JPEG",
        "half a PNG", "half a WEBP", "half a GIF", "half a TIFF", "bomb", "too large"])
def test_what_is_no_image_is_named_with_its_reason_and_the_remedy(data, reason):
    with pytest.raises(UnreadableError, match=reason) as caught:
        open_picture(data, "x.png")
    assert caught.value.item == "x.png"
    assert "--skip-bad" in str(caught.value)
    with pytest.raises(UnreadableError, match=reason):
        open_image(data, "x.png")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_every_cut_through_a_file_is_either_refused_or_still_the_picture():
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"):
        data = encoded(Image.effect_noise((16, 16), 50), kind)
        for end in range(0, len(data), 7):
            try:
                opened = open_picture(data[:end], "x")
            except UnreadableError:
                continue
            assert opened.image.size == (16, 16), (kind, end)


def test_the_pixel_limit_is_checked_before_decoding(monkeypatch):
    data = encoded(Image.new("L", (100, 50)))
    assert open_image(data, "x", max_pixels=5000).size == (100, 50)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"x: .*100x50 is 5,000 pixels; the limit is 4,999 pixels"):
        open_image(data, "x", max_pixels=4999)


def test_content_that_would_start_another_program_is_no_image():
    with pytest.raises(DataError, match=r"x\.png: .*not an image of a known format"):
        open_image(encoded(Image.new("RGB", (4, 4)), "EPS"), "x.png")
    assert {".eps", ".wmf", ".h5", ".mpg", ".pdf"}.isdisjoint(image_extensions())
    assert {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".tga", ".ppm", ".mpo"} <= image_extensions()


def test_images_of_odd_shapes_are_read():
    assert open_image(encoded(Image.new("L", (1, 1), 5)), "x").getpixel((0, 0)) == 5
    assert open_image(encoded(Image.new("L", (20000, 2))), "x").size == (20000, 2)


# Frames.

COLOURS = [(255, 0, 0), (0, 0, 255), (0, 255, 0), (0, 255, 0)]


def film(kind, colours=COLOURS, **options):
    frames = [Image.new("RGB", (4, 4), colour) for colour in colours]
    exact = {"lossless": True} if kind == "WEBP" else {}
    # Pillow drops a frame that repeats the one before unless their durations differ.
    times = {} if kind == "TIFF" else {"duration": [100 + 10 * index for index in range(len(frames))]}
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **exact, **times, **options)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame_and_their_number(kind):
    count = Image.open(io.BytesIO(film(kind))).n_frames
    opened = open_picture(film(kind), "x")
    assert opened.image.getpixel((0, 0)) == COLOURS[0]
    assert opened.frames == count >= 3
    assert open_picture(encoded(Image.new("RGB", (4, 4)), kind), "x").frames == 1


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_frames_are_read_in_any_order(kind):
    frames = Frames(film(kind), "x")
    for number in (2, 0, 1, 1, 2):
        assert frames.read(number).convert("RGB").getpixel((3, 3)) == COLOURS[number], number
    with pytest.raises(UnreadableError, match="x: cannot be read"):
        frames.read(99)


def test_a_gif_of_partial_frames_is_composed_as_a_viewer_shows_it():
    background, dot = Image.new("RGBA", (8, 8), (0, 0, 0, 0)), Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    background.paste((255, 0, 0, 255), (0, 0, 4, 8))
    dot.paste((0, 0, 255, 255), (6, 6, 8, 8))
    kept = Frames(encoded(background, "GIF", save_all=True, append_images=[dot], disposal=1, duration=50), "x").read(1)
    cleared = Frames(encoded(background, "GIF", save_all=True, append_images=[dot], disposal=2, duration=50), "x").read(1)
    assert kept.getpixel((0, 0)) == (255, 0, 0, 255)
    assert cleared.getpixel((0, 0))[3] == 0
    for image in (kept, cleared):
        assert image.getpixel((7, 7)) == (0, 0, 255, 255)
        assert image.getpixel((5, 0))[3] == 0


def test_the_picture_for_viewers_without_animation_is_no_frame():
    poster = Image.new("RGB", (4, 4), (9, 9, 9))
    frames = [Image.new("RGB", (4, 4), colour) for colour in COLOURS[:2]]
    opened = open_picture(encoded(poster, save_all=True, append_images=frames, default_image=True), "x")
    assert (opened.frames, opened.image.getpixel((0, 0))) == (2, COLOURS[0])


def test_a_header_that_promises_billions_of_frames_is_not_believed():
    control = chunk(b"acTL", struct.pack(">II", 2_000_000_000, 0))
    first = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 1, 1, 0, 0, 1, 1, 0, 0))
    assert open_picture(png(1, 1, 8, 0, [b"\x2a"], control, first), "x").frames == 1


def test_pages_are_measured_one_by_one():
    pages = encoded(Image.new("L", (4, 4)), "TIFF", save_all=True, append_images=[Image.new("L", (100, 50))])
    frames = Frames(pages, "x", max_pixels=4999)
    assert (frames.count(), frames.read(0).size) == (2, (4, 4))
    with pytest.raises(UnreadableError, match="100x50 is 5,000 pixels"):
        frames.read(1)


@pytest.mark.skipif(sys.platform != "linux", reason="counts the process's memory as Linux tells it")
def test_an_image_of_64_megapixels_fits_into_700_megabytes():
    script = textwrap.dedent("""
        import struct, sys, zlib
        from pathlib import Path
        from ganvas.data.decode import Layout, open_image, to_pixels

        def chunk(kind, data):
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        side, (depth, colour, size), keep = 8000, {"RGBA": (8, 6, 4), "I;16": (16, 0, 2)}[sys.argv[1]], sys.argv[2] == "keep"
        packer = zlib.compressobj(1)
        rows = b"".join([packer.compress(bytes(1 + side * size)) for _ in range(side)]) + packer.flush()
        exif = b"MM\\0*\\0\\0\\0\\x08\\0\\1\\1\\x12\\0\\3\\0\\0\\0\\1\\0\\6\\0\\0\\0\\0\\0\\0"
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)) + chunk(b"eXIf", exif)
        data = b"\\x89PNG\\r\\n\\x1a\\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
        del rows
        layout = Layout(64, 64, 4, "pad", "keep", native=True) if keep else Layout(64, 64, 3, "crop", "checker")
        to_pixels(open_image(data, "x"), layout)
        status = Path("/proc/self/status").read_text()          # ru_maxrss would begin with the parent's
        print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
    """)
    for mode, keep in (("RGBA", "keep"), ("RGBA", "no"), ("I;16", "no")):
        command = [sys.executable, "-c", script, mode, keep]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) < 700, f"{mode} {keep}: {done.stdout} MB"
