"""A grid shows every image once, in order, unchanged."""

import numpy as np
import pytest
import torch
from PIL import Image

from ganvas.report.grid import best_columns, save_png, side_by_side, tile


def random_images(n: int, channels: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, channels, height, width), dtype=np.uint8)


@pytest.mark.parametrize(("n", "columns", "rows"), [
    (1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 2, 2), (6, 3, 2), (8, 4, 2), (9, 3, 3), (12, 4, 3), (16, 4, 4), (21, 7, 3),
    (32, 8, 4), (64, 8, 8), (100, 10, 10), (144, 12, 12)])
def test_square_images_make_a_nearly_square_grid_without_empty_cells(n, columns, rows):
    assert best_columns(n) == columns
    assert rows * columns == n


@pytest.mark.parametrize("n", [5, 7, 11, 13, 17, 23, 37, 97, 127])
def test_a_prime_number_of_images_does_not_become_a_ribbon(n):
    columns = best_columns(n)
    rows = -(-n // columns)
    assert rows * columns - n <= max(3, n // 8)
    assert columns / rows <= 5


def test_wide_images_get_fewer_columns_than_high_ones():
    assert best_columns(8, aspect=2) == 2
    assert best_columns(8, aspect=0.5) == 4


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_image_is_in_its_cell_in_reading_order(channels):
    images = random_images(7, channels, 5, 6)
    picture = tile(images, columns=3, gap=2)
    assert picture.shape == (3 * 5 + 2 * 2, 3 * 6 + 2 * 2, channels)
    for index, image in enumerate(images):
        top, left = index // 3 * 7, index % 3 * 8
        np.testing.assert_array_equal(picture[top:top + 5, left:left + 6], image.transpose(1, 2, 0))


def test_gaps_and_empty_cells_are_white_and_transparent_where_the_images_can_be():
    black = np.zeros((3, 3, 4, 4), np.uint8)
    picture = tile(black, columns=2, gap=1)
    assert (picture[:, 4] == 255).all()
    assert (picture[5:, 5:] == 255).all()
    assert (tile(np.zeros((3, 4, 4, 4), np.uint8), columns=2, gap=1)[5:, 5:] == (255, 255, 255, 0)).all()


def test_a_background_can_be_given():
    picture = tile(np.zeros((2, 3, 4, 4), np.uint8), gap=1, background=(1, 2, 3))
    assert (picture[:, 4] == (1, 2, 3)).all()


def test_a_tensor_gives_the_same_picture_as_an_array():
    images = random_images(4, 3, 4, 4)
    np.testing.assert_array_equal(tile(torch.from_numpy(images)), tile(images))


def test_without_a_gap_the_images_touch():
    images = random_images(4, 1, 3, 3)
    assert tile(images, gap=0).shape == (6, 6, 1)


@pytest.mark.parametrize("wrong", [np.zeros((2, 3, 4, 4)), np.zeros((2, 2, 4, 4), np.uint8),
                                   np.zeros((3, 4, 4), np.uint8), np.zeros((0, 3, 4, 4), np.uint8)])
def test_what_is_no_batch_of_images_is_refused_with_its_shape(wrong):
    with pytest.raises(ValueError, match="uint8 images") as error:
        tile(wrong)
    assert str(tuple(wrong.shape)) in str(error.value)


def test_side_by_side_keeps_both_pictures_and_fills_the_lower_one_up():
    left, right = random_images(2, 3, 10, 4).transpose(0, 2, 3, 1)
    both = side_by_side(left, right[:6], gap=5)
    assert both.shape == (10, 13, 3)
    np.testing.assert_array_equal(both[:, :4], left)
    np.testing.assert_array_equal(both[:6, 9:], right[:6])
    assert (both[6:, 9:] == 255).all()
    assert (both[:, 4:9] == 255).all()


def test_side_by_side_refuses_pictures_of_different_channels():
    with pytest.raises(ValueError, match="3 channels, the right one 1"):
        side_by_side(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 1), np.uint8))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_a_png_gives_back_the_picture_and_its_text(tmp_path, channels, mode):
    picture = tile(random_images(2, channels, 4, 4))
    save_png(tmp_path / "samples" / "x.png", picture, text={"ganvas": "nimg 64, γ ½"})
    with Image.open(tmp_path / "samples" / "x.png") as image:
        assert image.mode == mode
        assert image.text == {"ganvas": "nimg 64, γ ½"}
        np.testing.assert_array_equal(np.asarray(image).reshape(picture.shape), picture)
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["x.png"]


def test_scale_makes_each_pixel_a_block(tmp_path):
    picture = tile(random_images(1, 3, 2, 3))
    save_png(tmp_path / "x.png", picture, scale=3)
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (9, 6)
        np.testing.assert_array_equal(np.asarray(image)[1::3, 1::3], picture)
        np.testing.assert_array_equal(np.asarray(image)[::3, 2::3], picture)
