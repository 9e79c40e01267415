"""One image of any kind becomes the pixels that the networks see."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ganvas.data.decode import Layout, Look, image_extensions, look, open_image, to_pixels
from ganvas.data.sources import open_source
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


@pytest.mark.parametrize(("orientation", "corner"), [
    (1, (0, 0)), (2, (0, 2)), (3, (1, 2)), (4, (1, 0)), (5, (0, 0)), (6, (0, 1)), (7, (2, 1)), (8, (2, 0))])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_every_orientation_puts_the_first_pixel_where_exif_says(orientation, corner, kind):
    image = Image.new("L", (3, 2))
    image.putpixel((0, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = open_image(encoded(image, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {})), "x").convert("L")
    assert np.argwhere(np.asarray(upright) == 255).tolist() == [list(corner)]
    assert upright.size == ((3, 2) if orientation < 5 else (2, 3))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_cost_the_image():
    assert open_image(encoded(Image.new("L", (3, 2), 7), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), "x").size == (3, 2)


@pytest.mark.parametrize(("image", "pixel"), [
    (Image.new("YCbCr", (2, 2), (76, 85, 255)), (254, 0, 0)),
    (Image.new("HSV", (2, 2), (0, 255, 255)), (255, 0, 0)),
    (Image.new("LAB", (2, 2), (255, 128, 128)), (255, 255, 255)),
    (Image.new("RGBa", (2, 2), (128, 0, 0, 128)), (255, 127, 127)),
    (Image.new("La", (2, 2), (0, 128)), (127, 127, 127)),
    (Image.new("P", (2, 2)).convert("PA"), (0, 0, 0)),
    (Image.new("I", (2, 2), 65535), (255, 255, 255)),
    (Image.new("I", (2, 2), 200), (200, 200, 200)),
    (Image.new("I;16B", (2, 2)), (0, 0, 0)),
    (Image.new("F", (2, 2), 255.0), (255, 255, 255)),
], ids=lambda value: value.mode if isinstance(value, Image.Image) else "")
def test_rare_modes_have_their_colour_too(image, pixel):
    assert to_pixels(image, layout(2))[:, 0, 0].tolist() == pytest.approx(pixel, abs=1)


@pytest.mark.parametrize(("mode", "value"), [("I", 70000), ("I", -1), ("F", 300.0), ("F", float("nan"))])
def test_grey_without_an_agreed_black_and_white_is_refused_with_its_range(mode, value):
    with pytest.raises(DataError, match=r"x\.tif: .*grey values from .* no agreed black and white"):
        open_image(encoded(Image.new(mode, (2, 2), value), "TIFF"), "x.tif")


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_one_value_declared_transparent_in_a_png_shows_the_background(mode):
    image = Image.new(mode, (2, 1))
    image.putpixel((1, 0), {"L": 200, "RGB": (9, 9, 9), "I;16": 51400}[mode])
    image = open_image(encoded(image, transparency={"L": 200, "RGB": (9, 9, 9), "I;16": 51400}[mode]), "x")
    made = to_pixels(image, Layout(1, 2, 3, "stretch", "#ff8000"))
    assert made[:, 0].T.tolist() == [[0, 0, 0], [255, 128, 0]]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame(kind):
    first, second = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
    exact = {"lossless": True} if kind == "WEBP" else {}
    made = pixels(first, kind, save={"save_all": True, "append_images": [second], **exact})
    assert made[:, 0, 0].tolist() == [255, 0, 0]


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


@pytest.mark.parametrize(("size", "height", "width"), [
    ((50, 77), 24, 40), ((77, 50), 40, 24), ((10, 90), 32, 48), ((33, 33), 5, 7)])
def test_a_crop_is_the_middle_of_the_smallest_image_that_covers_the_target(size, height, width):
    ramp = np.broadcast_to(np.linspace(0, 255, size[0])[None, :, None], (size[1], size[0], 3)).astype(np.uint8)
    made = to_pixels(Image.fromarray(ramp), Layout(height, width, 3, "crop"))[0].astype(float)
    assert made.shape == (height, width)
    assert made.mean() == pytest.approx(127.5, abs=4)              # the middle
    shown = min(1.0, width / (size[0] * height / size[1]))         # share of the image's width that is left
    assert made[0, -1] - made[0, 0] == pytest.approx(255 * shown * (width - 1) / width, abs=14)


def test_a_thread_of_an_image_cannot_fill_the_memory():
    with pytest.raises(DataError, match=r"1x1000000 is too long to be cropped to 64x64: pass --fit pad"):
        to_pixels(Image.new("L", (1, 1_000_000)), layout(64, fit="crop"))
    assert to_pixels(Image.new("L", (1, 1_000_000)), layout(64, fit="pad")).shape == (3, 64, 64)


@pytest.mark.parametrize("channels", [1, 3])
def test_padding_has_the_background_colour_on_both_sides(channels):
    made = pixels(Image.new("RGB", (4, 8)), fit="pad", size=8, channels=channels, transparency="#0000ff")
    bar = [29] if channels == 1 else [0, 0, 255]                   # ITU-R 601: 0.114 * 255
    for column, colour in ((0, bar), (1, bar), (2, [0] * channels), (5, [0] * channels), (6, bar), (7, bar)):
        assert made[:, 3, column].tolist() == colour


def test_grey_is_itu_601_and_an_opaque_image_has_full_alpha():
    for colour, grey in (((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29)):
        assert pixels(Image.new("RGB", (4, 4), colour), channels=1)[0, 0, 0] == grey
    assert pixels(Image.new("RGB", (4, 4)), channels=4, transparency="keep")[3].min() == 255


def test_half_transparent_pixels_mix_with_the_background():
    assert pixels(Image.new("RGBA", (4, 4), (255, 0, 0, 128)), transparency="white")[:, 0, 0].tolist() == [255, 127, 127]
    assert pixels(Image.new("RGBA", (4, 4), (255, 0, 0, 128)), transparency="black")[:, 0, 0].tolist() == [128, 0, 0]


def test_arrays_and_images_of_the_same_pixels_give_the_same():
    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 4)).astype(np.uint8)
    for array in (noise, noise[..., :3], noise[..., :1], noise[..., 0]):
        image = Image.fromarray(array.squeeze())
        assert np.array_equal(to_pixels(array, layout(5)), to_pixels(image, layout(5)))
    with pytest.raises(DataError, match=r"shape \(9, 7, 2\) and type uint8 is no image"):
        to_pixels(noise[..., :2], layout(5))


def test_a_look_tells_sizes_greyness_transparency_and_failures(tmp_path):
    Image.new("RGB", (8, 4), (9, 9, 9)).save(tmp_path / "a.png")
    Image.new("L", (8, 4)).save(tmp_path / "b.png")
    Image.new("RGB", (2, 16), (9, 8, 9)).save(tmp_path / "c.png")
    Image.new("RGBA", (8, 4), (9, 8, 7, 0)).save(tmp_path / "d.png")       # no colour shows
    (tmp_path / "e.png").write_bytes(b"text")
    seen = look(open_source(tmp_path))
    assert seen == Look(looked=4, unreadable=1, common_size=(8, 4), min_size=(2, 4), max_size=(8, 16),
                        grey_share=0.75, transparent_share=0.25)


def test_a_look_spreads_over_the_whole_source_and_fails_only_if_nothing_is_readable(tmp_path):
    array = np.zeros((1000, 2, 2, 3), dtype=np.uint8)
    array[500:, ..., 0] = 255                                              # the later half is red
    seen = look(open_source(array), count=10)
    assert (seen.looked, seen.grey_share) == (10, 0.5)
    (tmp_path / "a.png").write_bytes(b"text")
    with pytest.raises(DataError, match=r"none of 1 images tried can be read\. The first: .*a\.png"):
        look(open_source(tmp_path))
