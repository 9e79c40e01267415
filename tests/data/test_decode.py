"""One image of any kind becomes the pixels that the networks see."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ganvas.data.decode import Layout, open_image, to_pixels
from ganvas.errors import ConfigError, DataError


def layout(size=4, channels=3, fit="stretch", transparency="white", width=None):
    return Layout(height=size, width=width or size, channels=channels, fit=fit, transparency=transparency)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(image, kind="PNG", save=None, **how):
    return to_pixels(open_image(encoded(image, kind, **(save or {})), "x"), layout(**how))


def sprite():
    """Half opaque red, half transparent with green hidden under it."""
    image = Image.new("RGBA", (4, 4), (0, 255, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 2, 4))
    return image


@pytest.mark.parametrize(("transparency", "behind"), [("white", (255,) * 3), ("black", (0,) * 3), ("#102030", (16, 32, 48))])
def test_transparency_is_composed_on_the_chosen_colour(transparency, behind):
    made = pixels(sprite(), transparency=transparency)
    assert made[:, 0, 0].tolist() == [255, 0, 0]
    assert made[:, 0, 3].tolist() == list(behind)


@pytest.mark.parametrize("channels", [3, 4])
def test_a_hidden_colour_never_shows_even_after_resizing(channels):
    big = sprite().resize((64, 64), Image.Resampling.NEAREST)
    made = pixels(big, size=7, channels=channels, transparency="keep" if channels == 4 else "black")
    assert made[1].max() == 0                                      # no green anywhere
    if channels == 4:
        assert made[0][made[3] > 0].min() >= 254                   # and no darkened edge


def test_every_mode_is_read_with_its_own_values():
    grey = Image.new("L", (4, 4), 100)
    assert pixels(grey, channels=1).tolist() == np.full((1, 4, 4), 100).tolist()
    assert pixels(Image.new("1", (4, 4), 1), channels=1).max() == 255
    assert pixels(Image.new("LA", (4, 4), (100, 0)))[0, 0, 0] == 255
    palette = sprite().convert("P")
    palette.info["transparency"] = palette.getpixel((3, 0))
    assert pixels(palette, save={"transparency": palette.info["transparency"]})[:, 0, 3].tolist() == [255] * 3
    deep = Image.fromarray(np.full((4, 4), 257 * 40, np.uint16))
    assert pixels(deep, channels=1)[0, 0, 0] == 40
    inks = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    assert pixels(inks, "TIFF")[:, 0, 0].tolist() == [255, 0, 0]
    floats = Image.fromarray(np.full((4, 4), 0.5, np.float32))
    assert pixels(floats, "TIFF", channels=1)[0, 0, 0] in (127, 128)


def test_an_image_lying_on_its_side_is_turned_upright():
    image = Image.new("RGB", (4, 4))
    image.paste((255, 255, 255), (0, 0, 4, 2))                     # white above
    exif = Image.Exif()
    exif[0x0112] = 6                                               # turn by 90 degrees clockwise to show
    made = pixels(image, save={"exif": exif})
    assert made[0, :, 3].tolist() == [255] * 4                     # white to the right
    assert made[0, :, 0].tolist() == [0] * 4


def test_fits():
    wide = Image.new("RGB", (12, 4))
    wide.paste((255, 255, 255), (4, 0, 8, 4))                      # black, white, black
    assert pixels(wide, fit="crop").min() == 255
    stretched = pixels(wide, fit="stretch")
    assert stretched[0, 0, 0] < 128 < stretched[0, 0, 1] + 1
    padded = pixels(Image.new("RGB", (8, 4)), fit="pad", size=8)
    assert padded[0, 0].tolist() == [255] * 8                      # white bars above and below
    assert padded[0, 4].tolist() == [0] * 8
    assert pixels(Image.new("RGB", (8, 4)), fit="pad", size=8, channels=4, transparency="keep")[3, 0, 0] == 0


def test_crop_equals_torchvision():
    transforms = pytest.importorskip("torchvision.transforms")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 77, 3)).astype(np.uint8))
    theirs = transforms.CenterCrop(32)(transforms.Resize(32)(noise))
    assert np.array_equal(to_pixels(noise, layout(32, fit="crop")), np.asarray(theirs).transpose(2, 0, 1))


def test_one_pixel_is_enough():
    assert pixels(Image.new("RGB", (1, 1), (1, 2, 3)), fit="crop")[:, 3, 3].tolist() == [1, 2, 3]


def bomb():
    """A PNG whose header claims 60000 x 60000 pixels."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("data", "reason"), [
    (b"", "empty"), (b"hello", "not an image"), (encoded(Image.new("RGB", (64, 64), "red"), "BMP")[:900], "x.png"),
    (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:400], "truncated"), (bomb(), "limit"),
], ids=["empty", "text", "half a BMP", "half a JPEG", "bomb"])
def test_what_is_no_image_is_named_with_its_reason_and_the_remedy(data, reason):
    with pytest.raises(DataError, match=reason) as caught:
        open_image(data, "x.png")
    assert "x.png" in str(caught.value)
    assert "--skip-bad" in str(caught.value)


def test_layouts_that_cannot_be_are_refused():
    for how in ({"channels": 2}, {"transparency": "pink"}, {"transparency": "keep"}):
        with pytest.raises((ConfigError, ValueError)):
            layout(**how)
