import json
from pathlib import Path

import numpy as np
import pytest

from ganvas import __version__
from ganvas.errors import ConfigError
from ganvas.sprites import check_json, frames_json, hard_alpha, sheet


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_hard_alpha_is_opaque_from_one_half_on_and_else_clear_and_black():
    pictures = np.zeros((1, 1, 4, 4), np.uint8)
    pictures[0, 0] = [[1, 2, 3, 255], [4, 5, 6, 128], [7, 8, 9, 127], [10, 11, 12, 0]]
    before = pictures.copy()
    assert hard_alpha(pictures)[0, 0].tolist() == [[1, 2, 3, 255], [4, 5, 6, 255], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert np.array_equal(pictures, before)
    assert np.array_equal(hard_alpha(hard_alpha(noise(3, 5, 4, 4))), hard_alpha(noise(3, 5, 4, 4)))


@pytest.mark.parametrize(("channels", "word"), [(1, "grey"), (3, "opaque")])
def test_pictures_without_alpha_have_none_to_make_hard(channels, word):
    with pytest.raises(ConfigError, match=f"--hard-alpha: this run's pictures are {word}.*--transparency keep"):
        hard_alpha(noise(1, 2, 2, channels))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("n", "columns"), [(1, 1), (4, 2), (5, 3), (12, 4)])
def test_a_sheet_holds_each_picture_once_and_is_clear_where_none_lies(n, columns, channels):
    pictures = noise(n, 6, 6, channels)
    picture, found = sheet(pictures)
    assert found == columns and picture.shape == (6 * -(-n // columns), 6 * columns, 4)
    for number in range(columns * (len(picture) // 6)):
        row, column = divmod(number, columns)
        cell = picture[row * 6:row * 6 + 6, column * 6:column * 6 + 6]
        if number >= n:
            assert not cell.any()
        elif channels == 4:
            assert np.array_equal(cell, pictures[number])
        else:
            assert (cell[..., :3] == pictures[number]).all() and (cell[..., 3] == 255).all()


@pytest.mark.parametrize(("gap", "scale"), [(0, 1), (2, 3), (2, 1), (0, 8)])
def test_every_frame_of_the_json_cuts_its_picture_out_of_the_file(gap, scale):
    from ganvas.report.grid import tile

    pictures = noise(5, 4, 7, 4)
    picture = tile(pictures.transpose(0, 3, 1, 2), 2, gap)
    text = frames_json(Path("some/where/all.png"), picture, (4, 7), 2, gap, scale, [{"filename": f"{i}.png"} for i in range(5)])
    enlarged, content = picture.repeat(scale, 0).repeat(scale, 1), json.loads(text)
    assert content["meta"] == {"app": "ganvas", "version": __version__, "image": "all.png", "format": "RGBA8888",
                               "size": {"w": enlarged.shape[1], "h": enlarged.shape[0]}, "scale": "1"}
    assert [frame["filename"] for frame in content["frames"]] == [f"{i}.png" for i in range(5)]
    for frame, wanted in zip(content["frames"], pictures, strict=True):
        at = frame["frame"]
        cut = enlarged[at["y"]:at["y"] + at["h"], at["x"]:at["x"] + at["w"]]
        assert np.array_equal(cut, wanted.repeat(scale, 0).repeat(scale, 1))
        assert frame["sourceSize"] == {"w": at["w"], "h": at["h"]} and not frame["trimmed"] and not frame["rotated"]


def test_json_without_a_picture_of_all_is_refused():
    with pytest.raises(ConfigError, match=r"--json.*--sheet FILE\.png"):
        check_json(None, None)
    check_json("a.png", None)
    check_json(None, "a.png")


@pytest.mark.parametrize(("n", "height", "width", "shape"), [(64, 8, 8, (64, 64)), (10, 16, 4, (32, 28)), (3, 4, 32, (12, 32))])
def test_a_sheet_is_as_square_as_may_be(n, height, width, shape):
    assert sheet(noise(n, height, width, 3))[0].shape[:2] == shape
