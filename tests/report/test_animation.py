"""progress.gif and progress.mp4."""

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from ganvas.errors import RunError
from ganvas.report.animation import HOLD_MS, write_gif, write_mp4


def frames(folder, n, size=(30, 20), noise=False):
    rng = np.random.default_rng(0)
    paths = []
    for i in range(n):
        shape = (size[1], size[0], 3)
        pixels = rng.integers(0, 256, shape) if noise else np.full(shape, 255 * i // max(n - 1, 1))
        paths.append(folder / f"{i:03d}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(paths[-1])
    return paths


def test_a_gif_is_at_least_512_wide_holds_its_last_frame_and_keeps_first_and_last(tmp_path):
    assert write_gif(tmp_path / "a.gif", frames(tmp_path, 5)) == 5
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 5
        assert gif.width >= 512
        assert gif.width % 30 == 0                                    # a whole number of pixels for each
        assert gif.info["loop"] == 0
        assert gif.convert("RGB").getpixel((0, 0)) == (0, 0, 0)
        gif.seek(4)
        assert gif.info["duration"] == HOLD_MS
        assert gif.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_frames_are_left_out_until_a_gif_fits(tmp_path):
    paths = frames(tmp_path, 12, size=(64, 64), noise=True)
    shown = write_gif(tmp_path / "a.gif", paths, max_bytes=300_000)
    assert shown < 12
    assert (tmp_path / "a.gif").stat().st_size <= 300_000


def test_unreadable_and_transparent_frames(tmp_path):
    paths = frames(tmp_path, 3)
    paths[1].write_bytes(b"no picture")
    Image.new("RGBA", (30, 20), (255, 0, 0, 0)).save(paths[2])
    assert write_gif(tmp_path / "a.gif", paths) == 2
    with Image.open(tmp_path / "a.gif") as gif:
        gif.seek(1)
        assert gif.convert("RGB").getpixel((5, 5)) == (255, 255, 255)   # on white, not the hidden red


def test_a_video_has_even_sides_and_holds_its_last_frame(tmp_path):
    write_mp4(tmp_path / "a.mp4", frames(tmp_path, 4, size=(601, 31)))
    video = iio.imread(tmp_path / "a.mp4", plugin="pyav")
    assert len(video) == 4 + 30                                        # 2.5 s at 12 frames a second
    assert video.shape[1] % 2 == video.shape[2] % 2 == 0
    assert video[0].mean() < 10
    assert video[-1].mean() > 245


def test_no_readable_frame_is_an_error_that_names_the_file(tmp_path):
    for write in (write_gif, write_mp4):
        with pytest.raises(RunError, match="progress"):
            write(tmp_path / "progress", [])
