"""A run's pictures fit into one page, the ones that matter among them, in their own pixels."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganvas.report.frames import MOST_FRAMES, WIDEST_PX, frames, picture


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def saved(path: Path, pixels: np.ndarray, scale: int = 1) -> Path:
    Image.fromarray(pixels.repeat(scale, axis=0).repeat(scale, axis=1)).save(path)
    return path


def pixels_of(uri: str) -> tuple[str, np.ndarray]:
    kind, data = uri.split(",")
    return kind, np.asarray(Image.open(io.BytesIO(base64.b64decode(data, validate=True))))


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (20, 30, 4)])
def test_small_pictures_are_stored_in_their_own_pixels_without_loss(tmp_path, shape):
    original = noise(shape)
    shown, = frames([(7, saved(tmp_path / "a.png", original, scale=6))], [], 100_000)
    kind, pixels = pixels_of(shown.uri)
    assert (shown.nimg, shown.width, shown.height, kind) == (7, 30, 20, "data:image/png;base64")
    np.testing.assert_array_equal(pixels, original)


def test_many_frames_are_thinned_evenly_with_the_first_the_last_and_the_best(tmp_path):
    grids = [(100 * i, saved(tmp_path / f"{i}.png", noise((8, 8), i))) for i in range(200)]
    shown = [frame.nimg for frame in frames(grids, [13_310], 1_000_000)]
    assert MOST_FRAMES <= len(shown) <= MOST_FRAMES + 1
    assert (shown[0], shown[-1]) == (0, 19_900)
    assert 13_300 in shown
    assert shown == sorted(shown) and max(np.diff(shown)) <= 400


@pytest.mark.parametrize("most_chars", [900_000, 3_000, 200_000])
def test_large_frames_lose_detail_and_then_number_but_stay_within_the_limit(tmp_path, most_chars):
    grids = [(i, saved(tmp_path / f"{i}.png", noise((160, 160, 3), i))) for i in range(12)]
    shown = frames(grids, [5], most_chars)
    assert sum(len(frame.uri) for frame in shown) <= most_chars
    assert len(shown) == 12 if most_chars == 900_000 else 3 <= len(shown) < 12
    assert {0, 5, 11} <= {frame.nimg for frame in shown}
    assert all(frame.uri.startswith("data:image/jpeg") for frame in shown)


def test_transparency_is_shown_on_white_where_it_cannot_be_kept(tmp_path):
    pixels = noise((300, 300, 4))
    pixels[..., 3] = 0
    shown = picture(saved(tmp_path / "a.png", pixels), 20_000)
    assert pixels_of(shown.uri)[1].min() > 250


def test_torn_frames_are_left_out(tmp_path):
    paths = [saved(tmp_path / f"{i}.png", noise((64, 64), i)) for i in range(5)]
    for i in (0, 2, 4):
        paths[i].write_bytes(paths[i].read_bytes()[: 700 * i])
    grids = [*enumerate(paths), (9, tmp_path / "gone.png")]
    assert [frame.nimg for frame in frames(grids, [2], 1_000_000)] == [1, 3]
    assert frames(grids[4:], [2], 1_000_000) == []
    assert frames([], [2], 1_000_000) == []
    assert picture(tmp_path / "gone.png", 1000) is None


@pytest.mark.parametrize("most_chars", [1_000, 50_000, 5_000_000])
def test_one_picture_fits_whatever_it_shows(tmp_path, most_chars):
    shown = picture(saved(tmp_path / "a.png", noise((900, 1500, 3))), most_chars)
    assert len(shown.uri) <= most_chars
    assert shown.width <= WIDEST_PX
    assert pixels_of(shown.uri)[1].shape[:2] == (shown.height, shown.width)
    assert shown.width / shown.height == pytest.approx(1500 / 900, rel=0.1)
