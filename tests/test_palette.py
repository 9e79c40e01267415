import numpy as np
import pytest
from PIL import Image

from ganvas.errors import ConfigError
from ganvas.palette import MOST_COLOURS, oklab, palette_of, read_palette, repaint

PICO = """GIMP Palette
Name: three of them
Columns: 2
# a comment

0 0 0\tblack
255   0  77 red
255 255 255
255   0  77 red again
"""


class Kept:
    """Images (n, C, H, W) as a subset of a pack gives them."""

    def __init__(self, images):
        self.images, self.image_size, self.asked = images, images.shape[2:], []

    def __len__(self):
        return len(self.images)

    def read(self, indices):
        self.asked.append(np.asarray(indices))
        return self.images[indices]


def colours(*rows):
    return np.array(rows, np.uint8)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def nearest_one_by_one(pixel, palette):
    return palette[((oklab(palette) - oklab(colours(pixel))) ** 2).sum(axis=1).argmin()]


# ---------------------------------------------------------------- the space


def test_oklab_gives_the_known_values_of_white_and_the_primaries():
    found = oklab(colours([255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]))
    known = [[1, 0, 0], [0, 0, 0], [0.62796, 0.22486, 0.12585], [0.86644, -0.23389, 0.17950], [0.45201, -0.03246, -0.31153]]
    assert np.allclose(found, known, atol=2e-5)


def test_greys_have_no_hue_and_get_lighter():
    found = oklab(np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1))
    assert np.abs(found[:, 1:]).max() < 1e-4
    assert (np.diff(found[:, 0]) > 0).all()


# ---------------------------------------------------------------- repainting


def test_each_pixel_gets_the_colour_that_looks_nearest():
    pictures, palette = noise(3, 5, 4, 3), noise(12, 3, seed=1)
    painted = repaint(pictures, palette)
    for before, after in zip(pictures.reshape(-1, 3), painted.reshape(-1, 3), strict=True):
        assert np.array_equal(after, nearest_one_by_one(before, palette))


def test_near_is_what_looks_near_and_not_what_has_near_numbers():
    navy, black, purple = [0, 0, 110], [0, 0, 0], [90, 0, 190]          # nearer to black by its numbers
    assert repaint(colours(navy).reshape(1, 1, 1, 3), colours(black, purple)).tolist() == [[[purple]]]


def test_colours_of_the_palette_stay_what_they_are():
    palette = np.unique(noise(400, 3), axis=0)
    pictures = palette.reshape(1, 1, -1, 3)
    assert np.array_equal(repaint(pictures, palette), pictures)
    assert np.array_equal(repaint(repaint(noise(2, 9, 9, 3), palette), palette), repaint(noise(2, 9, 9, 3), palette))


def test_alpha_and_what_is_under_alpha_0_stay_as_they_were():
    pictures = noise(2, 8, 8, 4)
    pictures[:, :3, :, 3] = 0
    before, painted = pictures.copy(), repaint(pictures, colours([1, 2, 3], [200, 9, 9]))
    assert np.array_equal(pictures, before)
    assert np.array_equal(painted[..., 3], pictures[..., 3])
    assert np.array_equal(painted[:, :3], pictures[:, :3])
    assert {tuple(pixel) for pixel in painted[:, 3:, :, :3].reshape(-1, 3)} == {(1, 2, 3), (200, 9, 9)}


def test_grey_pictures_stay_grey_in_greys_and_become_rgb_in_colours():
    pictures = noise(2, 4, 4, 1)
    greys = repaint(pictures, colours([0, 0, 0], [90, 90, 90], [255, 255, 255]))
    assert greys.shape == (2, 4, 4, 1) and set(greys.ravel()) == {0, 90, 255}
    green = repaint(pictures, colours([15, 56, 15], [155, 188, 15]))
    assert green.shape == (2, 4, 4, 3)
    assert green[pictures[..., 0] < 40].tolist() == [[15, 56, 15]] * int((pictures < 40).sum())


# ---------------------------------------------------------------- of images


def test_few_colours_are_found_exactly_and_laid_out_from_dark_to_light():
    wanted = colours([255, 255, 255], [0, 0, 0], [200, 30, 30], [20, 20, 90])
    images = wanted[np.random.default_rng(0).integers(0, 4, (2100, 3, 3))].transpose(0, 3, 1, 2)
    found, exact = palette_of(Kept(images), seed=0)
    assert exact and found.tolist() == [[0, 0, 0], [20, 20, 90], [200, 30, 30], [255, 255, 255]]


def test_a_colour_that_one_image_alone_has_is_not_missed():
    images = np.zeros((300, 3, 64, 64), np.uint8)      # more than are read at once
    images[299, 0, 1, 1] = 7
    assert palette_of(Kept(images), seed=0)[0].tolist() == [[0, 0, 0], [7, 0, 0]]


def test_pixels_less_than_half_opaque_lend_no_colour():
    images = np.zeros((1, 4, 1, 3), np.uint8)
    images[0, :, 0, 0], images[0, :, 0, 1], images[0, :, 0, 2] = (10, 20, 30, 128), (40, 50, 60, 127), (70, 80, 90, 0)
    assert palette_of(Kept(images), seed=0)[0].tolist() == [[10, 20, 30]]
    images[:, 3] = 0
    with pytest.raises(ConfigError, match="clear all over"):
        palette_of(Kept(images), seed=0)


def test_greys_are_a_palette_of_greys():
    found, exact = palette_of(Kept(np.arange(256, dtype=np.uint8).reshape(4, 1, 8, 8)), seed=0)
    assert exact and found.tolist() == [[level] * 3 for level in range(256)]


def test_many_colours_are_reduced_to_256_that_are_near_to_all_the_same_each_time():
    images = noise(40, 3, 16, 16) // 2 + 60
    found, exact = palette_of(Kept(images), seed=3)
    assert not exact and len(np.unique(found, axis=0)) == len(found) <= MOST_COLOURS
    assert len(found) > 200
    assert {tuple(colour) for colour in found} <= {tuple(pixel) for pixel in images.transpose(0, 2, 3, 1).reshape(-1, 3)}
    assert np.array_equal(found, palette_of(Kept(images), seed=3)[0])
    pictures = images.transpose(0, 2, 3, 1)
    away = np.abs(repaint(pictures, found).astype(int) - pictures).mean()
    assert away < 9                                    # of 128 levels in each of three channels


def test_of_many_images_a_seeded_sample_is_reduced():
    images = noise(1500, 3, 3, 3)
    chosen = []
    for seed in (0, 0, 1):
        kept = Kept(images)
        palette_of(kept, seed)
        chosen.append(kept.asked[-1].tolist())
    assert len(chosen[0]) == 1024 and chosen[0] == chosen[1] != chosen[2]


# ---------------------------------------------------------------- of files


@pytest.mark.parametrize("text", [
    PICO, PICO.replace("\n", "\r\n"), "\ufeff" + PICO, PICO.replace("Name: three of them\nColumns: 2\n", ""),
    PICO.replace("red", "rouge \N{LATIN SMALL LETTER E WITH ACUTE}"),
])
def test_a_gimp_palette_is_read_with_and_without_all_that_may_stand_in_it(tmp_path, text):
    path = tmp_path / "p.GPL"
    path.write_bytes(text.encode("utf-8"))
    assert read_palette(path).tolist() == [[0, 0, 0], [255, 0, 77], [255, 255, 255]]
    path.write_bytes(text.encode("utf-8").replace(b"black", b"schw\xe4rz"))         # of days before UTF-8
    assert len(read_palette(path)) == 3


def test_clear_colours_of_a_palette_with_alpha_are_left_out(tmp_path):
    path = tmp_path / "p.gpl"
    path.write_text("GIMP Palette\nChannels: RGBA\n0 0 0 0 clear\n1 2 3 255 dark\n")
    assert read_palette(path).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_the_colours_of_a_picture_are_a_palette_in_their_order(tmp_path, mode):
    pixels = colours([9, 9, 9], [0, 0, 0], [9, 9, 9], [250, 1, 2]).reshape(2, 2, 3)
    image = Image.fromarray(pixels)
    (image.quantize(3) if mode == "P" else image.convert(mode)).save(tmp_path / "p.png")
    assert read_palette(tmp_path / "p.png").tolist() == [[9, 9, 9], [0, 0, 0], [250, 1, 2]]


def test_a_single_colour_may_be_a_palette(tmp_path):
    Image.new("RGB", (1, 1), (4, 5, 6)).save(tmp_path / "p.png")
    assert repaint(noise(1, 2, 2, 3), read_palette(tmp_path / "p.png")).reshape(-1, 3).tolist() == [[4, 5, 6]] * 4


@pytest.mark.parametrize(("name", "content", "words"), [
    ("p.gpl", b"JASC-PAL\n0100\n16\n", ["p.gpl, line 1", "'JASC-PAL'", "GIMP palette"]),
    ("p.gpl", b"", ["p.gpl, line 1"]),
    ("p.gpl", b"GIMP Palette\nName: x\n1 2 3\n\n1 2 red\n", ["p.gpl, line 5", "'1 2 red'", "0 to 255"]),
    ("p.gpl", b"GIMP Palette\n0 0 256 over\n", ["p.gpl, line 2", "256 over"]),
    ("p.gpl", b"GIMP Palette\n0 0 " + b"1" * 5000, ["p.gpl, line 2", "0 to 255"]),      # more digits than int() takes
    ("p.gpl", b"GIMP Palette\n-1 0 0\n", ["p.gpl, line 2", "'-1 0 0'"]),
    ("p.gpl", b"GIMP Palette\n1 2 3\nName: late\n", ["p.gpl, line 3", "Name: late"]),
    ("p.gpl", b"GIMP Palette\nName: x\n# 1 2 3\n", ["p.gpl", "no colours"]),
    ("p.gpl", b"GIMP Palette\nChannels: RGBA\n1 2 3\n", ["p.gpl, line 3", "4 whole numbers"]),
    ("p.png", b"hello", ["p.png", "cannot be read as an image"]),
    ("p.png", b"", ["p.png", "the file is empty"]),
    ("p.act", b"\0" * 768, ["p.act", ".gpl", ".png", "data"]),
    ("dat", b"", ["--palette", "dat", "the word data"]),
])
def test_what_is_no_palette_is_named_with_its_line(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as told:
        read_palette(tmp_path / name)
    assert all(word in str(told.value) for word in words), told.value


def test_pictures_that_are_no_palettes_are_named(tmp_path):
    Image.fromarray(noise(17, 17, 3)).save(tmp_path / "many.png")
    with pytest.raises(ConfigError, match=r"many\.png: has 289 colours, a palette at most 256"):
        read_palette(tmp_path / "many.png")
    Image.new("RGBA", (2, 2)).save(tmp_path / "clear.png")
    with pytest.raises(ConfigError, match=r"clear\.png: is clear all over"):
        read_palette(tmp_path / "clear.png")
    with pytest.raises(ConfigError, match=r"none\.png: cannot be read \(No such file"):
        read_palette(tmp_path / "none.png")
