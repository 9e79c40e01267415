"""Every mode becomes 8-bit grey, RGB or RGBA with the values that it stands for."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from ganvas.data.modes import image_of_array, to_plain_mode
from ganvas.data.opening import open_image
from ganvas.errors import DataError


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tiff(samples, photometric=1, bits=None, extra=None, kind=1, order="<"):
    """An uncompressed TIFF of `samples` (H, W, C), whose dtype says the depth. kind: 1 unsigned, 2 signed, 3 float."""
    height, width, channels = samples.shape
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    depth = bits or samples.dtype.itemsize * 8
    tags = {256: [width], 257: [height], 258: [depth] * channels, 259: [1], 262: [photometric], 273: None, 277: [channels],
            278: [height], 279: [len(data)], 284: [1], 339: [kind] * channels}
    if extra is not None:
        tags[338] = [extra]
    offset, body, tail = 8 + 2 + 12 * len(tags) + 4, b"", b""
    sizes = sum(2 * len(values) for values in tags.values() if values and len(values) > 2)
    for tag in sorted(tags):
        if tag in (273, 279):
            body += struct.pack(order + "HHII", tag, 4, 1, offset + sizes if tag == 273 else len(data))
            continue
        values = struct.pack(order + "H" * len(tags[tag]), *tags[tag])
        if len(values) > 4:
            tail, values = tail + values, struct.pack(order + "I", offset + len(tail))
        body += struct.pack(order + "HHI", tag, 3, len(tags[tag])) + values.ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "IH", 8, len(tags)) + body + b"\0\0\0\0" + tail + data


def values(image):
    return image.mode, np.asarray(image).reshape(image.height * image.width, -1).squeeze().tolist()


@pytest.mark.parametrize(("image", "pixel"), [
    (Image.new("YCbCr", (2, 2), (76, 85, 255)), (254, 0, 0)),
    (Image.new("HSV", (2, 2), (0, 255, 255)), (255, 0, 0)),
    (Image.new("LAB", (2, 2), (255, 128, 128)), (255, 255, 255)),
    (Image.new("CMYK", (2, 2), (0, 255, 255, 0)), (255, 0, 0)),
    (Image.new("CMYK", (2, 2), (0, 0, 0, 128)), (127, 127, 127)),
    (Image.new("RGBX", (2, 2), (1, 2, 3, 0)), (1, 2, 3)),
    (Image.new("RGBa", (2, 2), (128, 0, 0, 128)), (255, 0, 0, 128)),
    (Image.new("La", (2, 2), (64, 128)), (127, 127, 127, 128)),
    (Image.new("LA", (2, 2), (64, 128)), (64, 64, 64, 128)),
    (Image.new("P", (2, 2)), (0, 0, 0)),
    (Image.new("P", (2, 2)).convert("PA"), (0, 0, 0, 255)),
    (Image.new("1", (2, 2), 1), 255),
    (Image.new("I", (2, 2), 65535), 255),
    (Image.new("I", (2, 2), 200), 200),
    (Image.new("I;16", (2, 2), 257 * 40), 40),
    (Image.new("I;16B", (2, 2), 257 * 40), 40),
    (Image.new("F", (2, 2), 255.0), 255),
    (Image.new("F", (2, 2), 0.2), 51),
], ids=lambda value: value.mode if isinstance(value, Image.Image) else str(value))
def test_a_colour_of_each_mode_is_itself(image, pixel):
    assert to_plain_mode(image).getpixel((0, 0)) == pytest.approx(pixel, abs=2)


BROWN = (200, 100, 50)


@pytest.mark.parametrize(("mode", "kind", "pixel"), [
    ("1", "TIFF", 255), ("1", "PNG", 255), ("LA", "PNG", (64, 64, 64, 128)), ("LA", "TIFF", (64, 64, 64, 128)),
    ("CMYK", "TIFF", BROWN), ("CMYK", "JPEG", BROWN), ("YCbCr", "JPEG", BROWN), ("YCbCr", "TIFF", BROWN), ("LAB", "TIFF", BROWN),
    ("I;16", "PNG", 64), ("I;16", "TIFF", 64), ("I;16B", "TIFF", 64), ("I;16", "JPEG2000", 64), ("I", "TIFF", 64),
    ("F", "TIFF", 64), ("RGBX", "TIFF", BROWN), ("P", "TIFF", BROWN), ("P", "BMP", BROWN), ("P", "GIF", BROWN),
    ("RGB", "TGA", BROWN), ("RGB", "PPM", BROWN), ("RGB", "AVIF", BROWN),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_colour_stored_in_each_kind_of_file_comes_back(mode, kind, pixel):
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow cannot write {kind}")
    rgb = Image.new("RGB", (8, 8), BROWN)
    if mode == "LAB":
        from PIL import ImageCms
        image = ImageCms.profileToProfile(rgb, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
    elif isinstance(pixel, int):
        deep = {"1": 1, "I;16": 64 * 257, "I;16B": 64 * 257, "I": 64 * 257, "F": 64 / 255}
        image = Image.new(mode, (8, 8), deep[mode])
    else:
        made = {"LA": lambda: Image.new("LA", (8, 8), (64, 128)), "P": rgb.quantize}
        image = made.get(mode, lambda: rgb.convert(mode))()
    opened = open_image(encoded(image, kind), "x")
    assert opened.mode in ("L", "RGB", "RGBA")
    assert opened.getpixel((4, 4)) == pytest.approx(pixel, abs=6 if kind in ("JPEG", "AVIF") or mode == "LAB" else 2)


@pytest.mark.parametrize("order", "<>")
def test_deep_tiffs_of_both_byte_orders_keep_their_values(order):
    colours = np.array([[[0, 128 * 257, 65535], [257, 514, 771]]], dtype=np.uint16)
    assert values(open_image(tiff(colours, 2, order=order), "x")) == ("RGB", [[0, 128, 255], [1, 2, 3]])
    grey = np.array([[[0], [128 * 257], [65535]]], dtype=np.uint16)
    assert values(open_image(tiff(grey, order=order), "x")) == ("L", [0, 128, 255])
    floats = np.array([[[0.0], [0.2], [1.0]]], dtype=np.float32)
    assert values(open_image(tiff(floats, kind=3, order=order), "x")) == ("L", [0, 51, 255])


def test_alpha_that_is_premultiplied_in_a_tiff_is_divided_out():
    stored = np.array([[[100, 50, 0, 128], [0, 0, 0, 0], [255, 255, 255, 255]]], dtype=np.uint8)
    assert values(open_image(tiff(stored, 2, extra=1), "x")) == ("RGBA", [[199, 99, 0, 128], [0, 0, 0, 0], [255] * 4])
    assert values(open_image(tiff(stored, 2, extra=2), "x")) == ("RGBA", stored[0].tolist())


@pytest.mark.parametrize(("samples", "kind"), [
    (np.array([[[0], [51], [255]]], dtype=np.uint8), 1), (np.array([[[0], [51 * 257], [65535]]], dtype=np.uint16), 1),
    (np.array([[[0.0], [0.2], [1.0]]], dtype=np.float32), 3)], ids=["8 bits", "16 bits", "float"])
def test_a_tiff_whose_zero_is_white_is_turned_round_at_every_depth(samples, kind):
    assert values(open_image(tiff(samples, photometric=0, kind=kind), "x")) == ("L", [255, 204, 0])


def test_white_in_a_12_bit_tiff_is_4095():
    packed = np.frombuffer(bytes([0xFF, 0xF8, 0x00, 0x00, 0x00, 0x00]), dtype=np.uint8)          # 4095, 2048, 0, 0
    six_wide, four_wide = (struct.pack("<HHIHH", 256, 3, 1, width, 0) for width in (6, 4))
    data = tiff(packed.reshape(1, 6, 1), bits=12).replace(six_wide, four_wide)
    assert values(open_image(data, "x")) == ("L", [255, 128, 0, 0])


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_grey_is_the_same_however_many_strips_it_is_cut_into(mode, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 65536, (31, 17))
    image = Image.fromarray(noise.astype(np.uint16)) if mode == "I;16" else Image.fromarray(noise.astype(np.int32))
    if mode == "F":
        image = Image.fromarray((noise / 65535).astype(np.float32))
    whole = np.asarray(to_plain_mode(image))
    assert np.array_equal(whole, np.rint(noise / 257).astype(np.uint8)) or mode == "F"
    monkeypatch.setattr("ganvas.data.modes._STRIP_PIXELS", 40)
    assert np.array_equal(np.asarray(to_plain_mode(image)), whole)


@pytest.mark.parametrize(("mode", "value"), [("I", 70000), ("I", -1), ("F", 300.0), ("F", -0.5)])
def test_grey_without_an_agreed_black_and_white_is_refused_with_its_range(mode, value):
    with pytest.raises(DataError, match=r"x\.tif: .*grey values from .* no agreed black and white"):
        open_image(encoded(Image.new(mode, (2, 2), value), "TIFF"), "x.tif")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floats_that_are_no_numbers_are_refused_wherever_they_stand(value):
    pixels = np.full((5, 5), 0.5, dtype=np.float32)
    pixels[2, 3] = value
    with pytest.raises(DataError, match=r"x\.tif: .*infinite or not a number"):
        open_image(encoded(Image.fromarray(pixels), "TIFF"), "x.tif")


@pytest.mark.parametrize("shape", [(9, 7, 2), (9,), (1, 9, 7, 3)])
def test_an_array_that_is_no_image_is_refused(shape):
    with pytest.raises(DataError, match="is no image: it must be"):
        image_of_array(np.zeros(shape, dtype=np.uint8))
    with pytest.raises(DataError, match="type float64 is no image"):
        image_of_array(np.zeros((4, 4)))
