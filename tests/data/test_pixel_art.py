"""Enlarged pixel art is recognised, and nothing else is."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ganvas.data.decode import open_image, to_pixels
from ganvas.data.layout import Layout
from ganvas.data.pixel_art import at_native_size, upscale_factor

DATA = Path(os.environ.get("GANVAS_TEST_DATA", "../shared/data"))


def art(size=16, mode="RGBA", seed=0):
    """A noisy sprite with a transparent margin of two pixels."""
    pixels = np.random.default_rng(seed).integers(0, 4, (size, size, 4)).astype(np.uint8) * 60
    pixels[..., 3] = 0
    pixels[2:-2, 2:-2, 3] = 255
    image = Image.fromarray(pixels)
    return image if mode == "RGBA" else image.convert(mode)


def enlarged(image, factor):
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


@pytest.mark.parametrize("factor", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("mode", ["RGBA", "RGB", "L"])
def test_the_factor_is_found_and_undone_without_loss(factor, mode):
    small = art(mode=mode)
    large = enlarged(small, factor)
    assert upscale_factor(large) == factor
    assert np.array_equal(np.asarray(at_native_size(large, factor)), np.asarray(small))


def test_colours_hidden_under_transparent_pixels_do_not_hide_the_factor():
    pixels = np.array(enlarged(art(), 2))
    hidden = pixels[..., 3] == 0
    pixels[hidden, :3] = np.random.default_rng(1).integers(0, 256, (hidden.sum(), 3))
    assert upscale_factor(Image.fromarray(pixels)) == 2


@pytest.mark.parametrize("shift", [(1, 0), (0, 1), (2, 1)])
def test_art_that_was_shifted_after_its_enlargement_is_found_too(shift):
    canvas = Image.new("RGBA", (48, 48))
    canvas.paste(enlarged(art(), 3), shift)
    assert upscale_factor(canvas) == 3
    native, small = np.asarray(at_native_size(canvas, 3)), np.asarray(art())
    assert native.shape == (16, 16, 4)
    top, left = np.argwhere(native[..., 3]).min(axis=0)
    assert np.array_equal(native[top : top + 12, left : left + 12], small[2:-2, 2:-2])
    assert abs(top - 2) <= 1 and abs(left - 2) <= 1


def one_pixel_off():
    image = enlarged(art(mode="RGB"), 4)
    image.putpixel((31, 5), (1, 2, 3))
    return image


def drawn(how):
    image = Image.new("RGB", (64, 64), "white")
    how(ImageDraw.Draw(image))
    return image


@pytest.mark.parametrize("image", [
    Image.new("RGB", (64, 64), "red"),
    drawn(lambda d: d.rectangle((16, 16, 47, 47), fill="red")),
    drawn(lambda d: [d.rectangle((0, 16 * k, 63, 16 * k + 15), fill=colour) for k, colour in enumerate(("red", "blue"))]),
    drawn(lambda d: d.ellipse((8, 8, 55, 55), fill="red")),
    Image.effect_noise((64, 64), 60),
    enlarged(art(4), 16),
    enlarged(art(mode="RGB"), 4).resize((65, 64)),
    enlarged(art(mode="RGB"), 4).resize((72, 72), Image.Resampling.NEAREST),
    enlarged(art(mode="RGB"), 2).resize((64, 64), Image.Resampling.BILINEAR),
    one_pixel_off(), Image.new("L", (1, 1)), Image.new("L", (20000, 2)),
], ids=["blank", "square", "stripes", "disc", "noise", "too small", "odd side", "uneven", "blurred",
        "a pixel off", "1x1", "20000x2"])
def test_other_pictures_have_no_factor(image):
    assert upscale_factor(image) == 1
    assert at_native_size(image, 1) is image


def test_pictures_looked_at_in_several_blocks_of_rows_give_the_same(monkeypatch):
    monkeypatch.setattr("ganvas.data.pixel_art._BLOCK_PIXELS", 200)
    assert upscale_factor(enlarged(art(), 4)) == 4
    assert upscale_factor(one_pixel_off()) == 1


def test_a_native_layout_gives_enlarged_and_original_art_the_same_pixels():
    small = art()
    layout = Layout(32, 32, 4, "pad", "keep", native=True)
    wanted = np.asarray(small)[..., None, :].repeat(2, 0).repeat(2, 1).reshape(32, 32, 4)
    wanted[wanted[..., 3] == 0] = 0
    for factor in (1, 2, 4, 6):
        assert np.array_equal(to_pixels(enlarged(small, factor), layout), wanted.transpose(2, 0, 1))
    blurred = to_pixels(small, Layout(32, 32, 4, "pad", "keep"))
    assert not np.array_equal(blurred, wanted.transpose(2, 0, 1))


@pytest.mark.skipif(not (DATA / "pokemon-sprites.zip").is_file(), reason="no $GANVAS_TEST_DATA/pokemon-sprites.zip")
def test_half_of_the_real_sprites_are_doubled_and_no_photograph_or_native_character_is():
    def factors(name, step):
        with zipfile.ZipFile(DATA / name) as archive:
            files = sorted(each for each in archive.namelist() if not each.endswith("/"))[::step]
            return [(upscale_factor(image), image.size) for image in (open_image(archive.read(file), file) for file in files)]

    sprites = factors("pokemon-sprites.zip", 8)
    assert {factor for factor, _ in sprites} == {1, 2}
    doubled = sum(factor == 2 for factor, size in sprites if size == (160, 160))
    assert doubled >= 0.95 * sum(size == (160, 160) for _, size in sprites)
    assert not any(factor == 2 for factor, size in sprites if size in ((96, 96), (80, 80)))
    assert {factor for factor, _ in factors("faces-96.zip", 100) + factors("characters.zip", 100)} == {1}
