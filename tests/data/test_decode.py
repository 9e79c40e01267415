"""One picture of any size and kind becomes the pixels that the networks see."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganvas.data.decode import (
    MAX_PIXELS,
    Fit,
    Layout,
    Look,
    image_extensions,
    look,
    open_image,
    open_picture,
    to_pixels,
    to_plain_mode,
)
from ganvas.errors import DataError

DATA = Path(os.environ.get("GANVAS_TEST_DATA", "../shared/data"))


def layout(size=4, channels=3, fit="stretch", transparency="white", width=None):
    return Layout(height=size, width=width or size, channels=channels, fit=fit, transparency=transparency)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(image, **how):
    return to_pixels(open_image(encoded(image), "x"), layout(**how))


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


def test_the_room_has_one_door():
    assert all((MAX_PIXELS, Fit, Look, look, open_picture, to_plain_mode, image_extensions()))


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("transparency", ["white", "black", "checker", "keep", "#123456"])
def test_a_hidden_colour_shows_in_no_way_of_fitting_or_composing(fit, transparency):
    shape = np.zeros((40, 30), dtype=np.uint8)
    shape[10:30, 8:21] = 255
    shape[20, 8:21] = 128
    channels = 4 if transparency == "keep" else 3
    made = []
    for hidden in ((0, 255, 0), (255, 0, 255)):
        image = np.full((40, 30, 4), (*hidden, 0), dtype=np.uint8)
        image[shape > 0, :3] = (200, 100, 50)
        image[..., 3] = shape
        made.append(to_pixels(Image.fromarray(image), Layout(17, 23, channels, fit, transparency)))
        made.append(to_pixels(image, Layout(40, 30, channels, fit, transparency)))             # not resized
    assert np.array_equal(made[0], made[2])
    assert np.array_equal(made[1], made[3])
    if channels == 4:
        for picture in made:
            assert picture[:3, picture[3] == 0].max() == 0
            clearly = picture[:3, picture[3] > 100].astype(int)
            assert np.abs(clearly - np.array([[200], [100], [50]])).max() <= 2                  # no edge is darkened


def test_a_checker_board_is_drawn_at_the_size_of_the_finished_picture():
    clear = Image.new("RGBA", (320, 320), (255, 0, 0, 0))
    made = to_pixels(clear, Layout(64, 64, 3, "crop", "checker"))
    y, x = np.mgrid[:64, :64] // 8
    assert np.array_equal(made, np.broadcast_to(np.where((y + x) % 2, 192, 255), (3, 64, 64)))
    assert np.array_equal(to_pixels(clear, Layout(64, 64, 1, "crop", "checker"))[0], made[0])
    half = to_pixels(Image.new("RGBA", (9, 9), (0, 0, 0, 128)), Layout(64, 64, 3, "stretch", "checker"))
    assert half[0, 0, :16].tolist() == pytest.approx([127] * 8 + [96] * 8, abs=1)
    bars = to_pixels(Image.new("L", (64, 32), 9), Layout(64, 64, 3, "pad", "checker"))
    assert np.array_equal(bars[:, :16], made[:, :16])
    assert (bars[:, 16:48] == 9).all()


def test_composing_after_resizing_is_what_composing_first_would_give():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (50, 60, 4)).astype(np.uint8))
    first = Image.alpha_composite(Image.new("RGBA", image.size, (10, 200, 30, 255)), image).convert("RGB")
    wanted = to_pixels(first, layout(16)).astype(int)
    assert np.abs(to_pixels(image, layout(16, transparency="#0ac81e")).astype(int) - wanted).max() <= 2


def test_kept_transparency_at_its_own_size_keeps_every_value():
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 4)).astype(np.uint8)
    noise[..., 3] |= 1
    assert np.array_equal(to_pixels(noise, layout(8, 4, "crop", "keep")), noise.transpose(2, 0, 1))


@pytest.mark.parametrize("size", [(20000, 2), (2, 20000), (1, 1), (63, 64)])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_every_shape_comes_out_whole(size, fit, mode):
    for channels, transparency in ((1, "black"), (3, "checker"), (4, "keep")):
        made = to_pixels(Image.new(mode, size, (7, 7, 7, 255)[: len(mode)] if mode != "L" else 7),
                         Layout(24, 32, channels, fit, transparency, native=True))
        assert made.shape == (channels, 24, 32)
        assert made.flags.c_contiguous
        assert (made[0] == 7).any()


def test_pixel_art_stays_sharp_only_where_it_is_enlarged_by_whole_factors():
    small = np.random.default_rng(0).integers(0, 2, (8, 8)).astype(np.uint8) * 255
    for size, sharp in ((16, True), (24, True), (12, False), (4, False)):
        values = set(np.unique(to_pixels(small, Layout(size, size, 1, "crop", native=True))).tolist())
        assert (values == {0, 255}) == sharp, size
    assert len(np.unique(to_pixels(small, Layout(16, 16, 1, "crop")))) > 2
    padded = to_pixels(small, Layout(16, 40, 1, "pad", "#808080", native=True))[0]
    assert np.array_equal(padded[:, 12:28], small.repeat(2, 0).repeat(2, 1))


@pytest.mark.skipif(not (DATA / "pokemon-sprites.zip").is_file(), reason="no $GANVAS_TEST_DATA/pokemon-sprites.zip")
def test_real_doubled_sprites_fill_a_native_layout_like_their_own_size():
    with zipfile.ZipFile(DATA / "pokemon-sprites.zip") as archive:
        sprite = open_image(archive.read("001.png"), "001.png")
    at_80 = to_pixels(sprite, Layout(80, 80, 4, "pad", "keep", native=True))
    at_160 = to_pixels(sprite, Layout(160, 160, 4, "pad", "keep", native=True))
    assert np.array_equal(at_80.repeat(2, 1).repeat(2, 2), at_160)
    assert set(np.unique(at_80[3])) == {0, 255}
