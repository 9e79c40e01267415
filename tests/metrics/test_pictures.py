"""By their pixels, pictures are near to themselves under any light and a pixel aside, and blank ones near to nothing."""

import numpy as np
import pytest

from ganvas.errors import DataError
from ganvas.metrics import pictures
from ganvas.metrics.features import ImageArray
from ganvas.metrics.pictures import Pictures


def noise(n: int, channels: int = 3, height: int = 28, width: int = 28, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, channels, height, width), dtype=np.uint8)


def smooth(n: int, channels: int = 3, size: int = 28, seed: int = 0) -> np.ndarray:
    coarse = noise(n, channels, 7, 7, seed).repeat(-(-size // 7), axis=2).repeat(-(-size // 7), axis=3)
    return coarse[:, :, :size, :size]


@pytest.mark.parametrize("size", [20, 28, 32, 64, 70])
@pytest.mark.parametrize("moved", [(1, 0), (0, -1), (1, 1), (-1, 1)])
def test_a_picture_moved_by_a_pixel_and_darkened_is_at_distance_nearly_zero(size, moved):
    images = smooth(40, size=size)
    darker = (np.roll(images, moved, axis=(2, 3)) * 0.5 + 20).round().astype(np.uint8)
    distances, indices = Pictures(ImageArray(images)).nearest(darker, 3)
    assert (indices[:, 0] == np.arange(40)).all()
    assert distances[:, 0].max() < 0.3 * distances[:, 1].min()


def test_the_distance_of_a_picture_to_itself_is_zero_and_to_its_negative_two():
    image = smooth(1)
    distances, _ = Pictures(ImageArray(np.concatenate([image, 255 - image]))).nearest(image, 2)
    assert distances[0, 0] < 2e-3
    assert 1.5 < distances[0, 1] <= 2


def test_a_blank_picture_resembles_none_not_even_a_blank_one():
    images = np.concatenate([smooth(5), np.full((1, 3, 28, 28), 200, np.uint8)])
    distances, _ = Pictures(ImageArray(images)).nearest(np.full((1, 3, 28, 28), 90, np.uint8), 6)
    np.testing.assert_allclose(distances, 2**0.5, rtol=1e-5)


def test_pairs_of_one_group_are_passed_over():
    images = smooth(6)
    groups = np.array([0, 0, 1, 1, 2, 2])
    distances, indices = Pictures(ImageArray(images)).nearest(images, 6, (groups, groups))
    assert not (np.isfinite(distances) & (groups[indices] == groups[:, None])).any()
    assert (np.isfinite(distances).sum(1) == 4).all()


def test_the_very_same_pixels_have_one_number_and_mirrored_ones_where_asked_for():
    images = noise(4, channels=4)
    images[:, 3] = np.where(smooth(4, 1)[:, 0] > 127, 255, 0)
    again, nearly = images[1:2].copy(), images[2:3].copy()
    again[:, :3, again[0, 3] == 0] = 7                                     # invisible
    nearly[0, 3, 0, 0] ^= 255
    prepared = Pictures(ImageArray(np.concatenate([images, again, images[:1, ..., ::-1], nearly])))
    straight, mirrored = prepared.same(mirror=False), prepared.same(mirror=True)
    assert straight[4] == straight[1] and len(np.unique(straight)) == 6
    assert mirrored[4] == mirrored[1] and mirrored[5] == mirrored[0] and len(np.unique(mirrored)) == 5


def test_what_is_hidden_under_transparency_does_not_count():
    images = noise(8, channels=4)
    images[:, 3] = np.where(smooth(8, 1)[:, 0] > 127, 255, 0)
    other = images.copy()
    other[:, :3] = np.where(images[:, 3:] > 0, images[:, :3], 7)
    distances, indices = Pictures(ImageArray(images)).nearest(other, 1)
    assert (indices[:, 0] == np.arange(8)).all() and distances.max() < 5e-3


def test_sizes_of_blocks_and_companions_do_not_change_the_answer(monkeypatch):
    images, queries = smooth(300), smooth(50, seed=1)
    prepared = Pictures(ImageArray(images))
    distances, indices = prepared.nearest(queries, 10)
    monkeypatch.setattr(pictures, "BLOCK_BYTES", 2**14)
    small, small_indices = prepared.nearest(queries, 10)
    np.testing.assert_allclose(small, distances, atol=2e-3)
    assert (small_indices[:, 0] == indices[:, 0]).all()


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 1, 1), (1, 8, 8), (3, 5, 40), (4, 33, 90), (1, 200, 130)])
def test_any_shape_is_found_again(channels, height, width):
    images = noise(4, channels, height, width)
    _, indices = Pictures(ImageArray(images)).nearest(images, 1)
    if height > 1:
        assert (indices[:, 0] == np.arange(4)).all()


def test_images_of_another_shape_are_refused_with_both_shapes():
    with pytest.raises(DataError, match=r"samples are 20x28 with 3 channels, but training images are 28x28 with 1"):
        Pictures(ImageArray(noise(3, 1))).refuse_other_shape(noise(2, 3, 28, 20))


def test_no_training_images_is_an_error():
    with pytest.raises(DataError, match="no training images"):
        Pictures(ImageArray(noise(0)))
