"""What is noted of each image."""

import numpy as np
import pytest
from PIL import Image

from ganvas.data import facts
from ganvas.data.facts import measure
from ganvas.data.pixel_art import colours_of


def picture(width=40, height=30, mode="RGB", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
    return Image.fromarray(pixels[..., 0] if mode == "L" else pixels)


def sprite(alpha_around=0, colour_around=0):
    """A drawing of few colours in the middle of a clear canvas."""
    pixels = np.zeros((30, 40, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = colour_around, alpha_around
    pixels[8:22, 10:30] = np.array([(200, 40, 40, 255), (40, 40, 200, 255)])[np.arange(280).reshape(14, 20) // 3 % 2]
    return Image.fromarray(pixels)


@pytest.mark.parametrize("image", [picture(), picture(mode="L"), picture(mode="RGBA"), sprite()])
def test_colours_that_are_at_hand_change_nothing(image):
    given, found = measure(image, colours_of(image)), measure(image)
    assert given[:-1] == found[:-1]
    assert np.array_equal(given.thumb, found.thumb)


def test_an_opaque_alpha_channel_and_three_equal_channels_are_no_difference():
    colour, grey = picture(), picture(mode="L")
    assert measure(colour.convert("RGBA"))[:-1] == measure(colour)[:-1]
    assert measure(grey.convert("RGB"))[:-1] == measure(grey.convert("RGBA"))[:-1] == measure(grey)[:-1]
    assert (measure(grey).grey, measure(colour).grey) == (True, False)


def test_one_coloured_pixel_makes_a_grey_picture_colour():
    image = picture(mode="L").convert("RGB")
    image.putpixel((3, 4), (7, 7, 8))
    assert not measure(image).grey


def test_size_and_every_pixel_are_in_the_content():
    image = picture()
    contents = {measure(image).content, measure(image.transpose(Image.Transpose.ROTATE_90)).content}
    for x in range(40):
        changed = image.copy()
        changed.putpixel((x, x * 3 // 4), tuple(value ^ 1 for value in image.getpixel((x, x * 3 // 4))))
        contents.add(measure(changed).content)
    assert len(contents) == 42


def test_what_is_clear_is_measured_and_what_lies_under_it_is_not():
    seen = measure(sprite())
    assert (seen.transparent, seen.clear_area) == (True, 1 - 280 / 1200)
    assert measure(sprite(colour_around=99))[:-1] == seen[:-1]
    assert measure(sprite(alpha_around=127)).clear_area == seen.clear_area
    assert measure(sprite(alpha_around=128)).clear_area == 0


def test_recoloured_drawings_have_one_structure_and_mirrored_ones_the_mirrored():
    seen, mirrored = measure(sprite()), measure(sprite().transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    red, green, blue, alpha = sprite().split()
    recoloured = measure(Image.merge("RGBA", (green, red, blue, alpha)))
    assert recoloured.structure == seen.structure != 0
    assert recoloured.content != seen.content
    assert (mirrored.structure, mirrored.structure_mirrored) == (seen.structure_mirrored, seen.structure)


def test_large_pictures_are_measured_by_samples_that_show_what_an_eye_sees(monkeypatch):
    image = picture(10, 8).resize((320, 240), Image.Resampling.BICUBIC)
    exact = measure(image)
    monkeypatch.setattr(facts, "MEASURED_PIXELS", 20_000)
    seen = measure(image)
    assert seen.structure == 0
    assert np.abs(seen.thumb.astype(int) - exact.thumb).max() <= 16
    assert measure(image.convert("RGBA"))[:-1] == seen[:-1]
    for x, y in ((33, 44), (200, 7), (0, 0), (318, 238)):
        spotted = image.copy()
        spotted.paste(Image.eval(image.crop((x, y, x + 2, y + 2)), lambda value: 255 - value), (x, y))
        assert measure(spotted).content != seen.content


def test_a_jpeg_has_no_structure_and_is_else_measured_alike():
    seen, lossy = measure(picture()), measure(picture(), lossy=True)
    assert lossy.structure == 0
    assert (lossy.content, lossy.grey) == (seen.content, seen.grey)
    grey = picture(mode="L")
    assert measure(grey.convert("RGB"), lossy=True)[:-1] == measure(grey, lossy=True)[:-1]
    assert measure(grey, lossy=True).content == measure(grey).content
    spotted = grey.convert("RGB")
    spotted.putpixel((3, 4), (7, 7, 9))
    assert not measure(spotted, lossy=True).grey

def test_a_small_figure_on_a_large_canvas_keeps_its_structure(monkeypatch):
    exact = measure(sprite())
    monkeypatch.setattr(facts, "MEASURED_PIXELS", 1000)                    # the figure has 280, its canvas 1,200
    seen = measure(sprite())
    assert (seen.transparent, seen.structure) == (True, exact.structure)
    assert np.array_equal(seen.thumb, exact.thumb)
    assert measure(sprite(colour_around=99)).content == seen.content
