"""A sheet shows every sample beside its nearest training images, the suspicious first."""

import numpy as np
import pytest

from ganvas.report.neighbours import ALARM, CHECKER, draw_neighbours, telling_rows


def plain(colours, channels: int = 3, height: int = 8, width: int = 8) -> np.ndarray:
    """(R, channels, height, width) uint8, each image of one value."""
    return np.broadcast_to(np.array(colours, np.uint8)[:, None, None, None], (len(colours), channels, height, width)).copy()


def areas(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == colour).all(2).sum())


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_stands_in_the_sheet_enlarged_by_a_whole_number(channels):
    parts = [plain(values, channels) for values in ([11, 12], [21, 22], [31, 32])]
    picture = draw_neighbours(*parts, ["a", "b"], columns=1)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    for value in (11, 12, 21, 22, 31, 32):
        where = np.argwhere((picture == value).all(2))
        side = where.max(0) - where.min(0) + 1
        assert areas(picture, (value,) * 3) == side.prod() == (8 * 14) ** 2


def test_sample_features_and_pixels_stand_from_left_to_right_and_rows_in_order():
    picture = draw_neighbours(plain([11, 12]), plain([21, 22]), plain([31, 32]), ["a", "b"], columns=1)
    place = {value: np.argwhere((picture == value).all(2)).min(0) for value in (11, 12, 21, 22, 31, 32)}
    assert place[11][1] < place[21][1] < place[31][1] and place[11][0] == place[21][0] == place[31][0]
    assert place[12][0] > place[11][0] and place[12][1] == place[11][1]


def test_a_mirrored_neighbour_is_shown_as_it_resembles_the_sample():
    image = plain([50])
    image[..., :2] = 200                                       # bright at the left
    straight = draw_neighbours(image, image, image, ["x"])
    mirrored = draw_neighbours(image, image, image, ["x"], mirrored_pixels=np.array([True]))
    bright = [np.argwhere((picture == 200).all(2))[:, 1].max() for picture in (straight, mirrored)]
    assert bright[1] == bright[0] + 6 * 14
    changed = (straight != mirrored).any(axis=(0, 2))
    assert not changed[:changed.size * 2 // 3 - 20].any()      # the other columns stay


def test_only_copies_are_framed():
    parts = [plain([10, 20, 30])] * 3
    assert areas(draw_neighbours(*parts, ["", "", ""]), ALARM) == 0
    framed = draw_neighbours(*parts, ["", "", ""], alarm=np.array([False, True, False]), columns=1)
    rows = np.flatnonzero((framed == ALARM).all(2).any(1))
    second = np.flatnonzero((framed == 20).all(2).any(1))
    assert rows.min() < second.min() and rows.max() > second.max() and rows.max() - rows.min() < 8 * 14 + 6


def test_transparency_lets_a_light_checker_through():
    clear = np.zeros((1, 4, 16, 16), np.uint8)
    picture = draw_neighbours(clear, clear, clear, [""])
    assert 0 <= areas(picture, (CHECKER[1],) * 3) - 3 * 112 * 112 // 2 < 50            # letters have such greys at their edges
    clear[:, 0], clear[:, 3] = 255, 255
    assert areas(draw_neighbours(clear, clear, clear, [""]), (255, 0, 0)) == 3 * 112 * 112


def test_long_captions_and_foreign_names_stay_within_the_sheet():
    image = plain([128])
    short, long = (draw_neighbours(image, image, image, [text]) for text in ("x", "é漢字 " + "folder/" * 100 + "7.png"))
    assert short.shape == long.shape
    assert (long[:, -15:] == 255).all()


@pytest.mark.parametrize(("rows", "height", "width"), [(1, 1, 1), (5, 28, 28), (24, 28, 28), (7, 64, 96), (2, 300, 500)])
def test_any_size_and_number_of_rows_makes_a_sheet_of_readable_width(rows, height, width):
    images = plain(range(rows), 1, height, width)
    picture = draw_neighbours(images, images, images, [str(i) for i in range(rows)])
    assert picture.shape[1] <= max(1200, 3 * width + 100)
    assert all((picture == i).all(2).any() for i in range(rows))


def test_parts_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="expected three arrays"):
        draw_neighbours(plain([1, 2]), plain([1]), plain([1, 2]), ["", ""])


def test_half_of_the_rows_are_the_most_suspicious_and_the_rest_evenly_chosen():
    suspicion = np.linspace(2, 3, 100)
    suspicion[[70, 20, 40]] = [0.1, 0.2, 0.3]
    rows = telling_rows(suspicion, 6)
    assert rows[:3].tolist() == [70, 20, 40]
    assert len(set(rows.tolist())) == 6 and (np.diff(rows[3:]) > 25).all()
    assert sorted(telling_rows(suspicion[:4], 9).tolist()) == [0, 1, 2, 3]
    assert len(telling_rows(np.ones(5), 1)) == 1
