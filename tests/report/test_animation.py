"""The animations show the progress from first to last, in true colours, in files that can be shared."""

import weakref
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from ganvas.errors import RunError
from ganvas.report import animation
from ganvas.report.animation import write_gif, write_mp4


def flat_frames(folder: Path, n: int, size: tuple[int, int] = (64, 40), mode: str = "RGB") -> list[Path]:
    """Frame i of n is one colour whose red is i * 255 // n, so that a frame can be told from its colour."""
    paths = [folder / f"{index:012d}.png" for index in range(n)]
    for index, path in enumerate(paths):
        Image.new("RGB", size, (index * 255 // n, 90, 30)).convert(mode).save(path)
    return paths


def noise_frames(folder: Path, n: int, size: tuple[int, int]) -> list[Path]:
    random, paths = np.random.default_rng(0), [folder / f"{index:012d}.png" for index in range(n)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    return paths


def read_gif(path: Path) -> list[tuple[np.ndarray, float]]:
    """(picture, milliseconds) of every frame."""
    with Image.open(path) as gif:
        frames = []
        for index in range(gif.n_frames):
            gif.seek(index)
            frames.append((np.asarray(gif.convert("RGB")), gif.info["duration"]))
        return frames


def test_a_gif_shows_every_frame_in_order_for_ever_and_stays_at_the_last(tmp_path):
    frames = flat_frames(tmp_path, 50)
    assert write_gif(tmp_path / "progress.gif", frames) == 50
    shown = read_gif(tmp_path / "progress.gif")
    assert [int(picture[0, 0, 0]) for picture, _ in shown] == [index * 255 // 50 for index in range(50)]
    assert [duration for _, duration in shown] == [80] * 49 + [2500]
    with Image.open(tmp_path / "progress.gif") as gif:
        assert gif.info["loop"] == 0


def test_a_gif_is_at_least_512_wide_by_whole_pixels_and_exact_up_to_256_colours(tmp_path):
    colors = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
    picture = colors[np.random.default_rng(2).permutation(60 * 100) % 256].reshape(60, 100, 3)
    Image.fromarray(picture).save(tmp_path / "x.png")
    write_gif(tmp_path / "progress.gif", [tmp_path / "x.png"])
    (shown, duration), = read_gif(tmp_path / "progress.gif")
    assert shown.shape == (360, 600, 3)
    assert duration == 2500
    np.testing.assert_array_equal(shown, picture.repeat(6, axis=0).repeat(6, axis=1))


def test_a_gif_of_grey_pictures_has_every_grey(tmp_path):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "x.png")
    write_gif(tmp_path / "progress.gif", [tmp_path / "x.png"])
    (shown, _), = read_gif(tmp_path / "progress.gif")
    np.testing.assert_array_equal(shown[::32, ::32], np.stack([ramp] * 3, axis=2))


def test_rare_colours_survive_among_many_shades_of_white(tmp_path):
    picture = np.random.default_rng(0).integers(200, 256, (520, 520, 3), dtype=np.uint8)
    rare = [(20, 60, 230), (230, 20, 20), (150, 30, 200), (20, 160, 40)]
    for index, color in enumerate(rare):
        picture[10:50, index * 60:index * 60 + 40] = color
    Image.fromarray(picture).save(tmp_path / "x.png")
    write_gif(tmp_path / "progress.gif", [tmp_path / "x.png"])
    (shown, _), = read_gif(tmp_path / "progress.gif")
    for index, color in enumerate(rare):
        off = np.abs(shown[30, index * 60 + 20].astype(int) - color).max()
        assert off <= 12, (color, shown[30, index * 60 + 20])


def test_transparency_is_shown_on_white(tmp_path):
    Image.new("RGBA", (512, 20), (200, 0, 0, 0)).save(tmp_path / "0.png")
    Image.new("RGBA", (512, 20), (0, 0, 0, 128)).save(tmp_path / "1.png")
    write_gif(tmp_path / "progress.gif", [tmp_path / "0.png", tmp_path / "1.png"])
    first, second = (picture[0, 0] for picture, _ in read_gif(tmp_path / "progress.gif"))
    assert first.tolist() == [255, 255, 255]
    assert second.tolist() == [127, 127, 127]


def test_a_large_gif_is_thinned_evenly_below_the_limit_and_keeps_its_ends_and_its_width(tmp_path):
    frames = noise_frames(tmp_path, 40, (520, 20))
    for path, red in ((frames[0], (255, 0, 0)), (frames[-1], (0, 0, 255))):
        Image.new("RGB", (520, 20), red).save(path)
    written = write_gif(tmp_path / "progress.gif", frames, max_bytes=100_000)
    assert (tmp_path / "progress.gif").stat().st_size <= 100_000
    shown = read_gif(tmp_path / "progress.gif")
    assert 5 <= written == len(shown) < 40
    assert shown[0][0].shape == (20, 520, 3)
    assert shown[0][0][0, 0].tolist() == [255, 0, 0]
    assert shown[-1][0][0, 0].tolist() == [0, 0, 255]
    assert shown[-1][1] == 2500


def test_a_wide_grid_is_reduced_to_not_less_than_512_before_frames_are_dropped(tmp_path):
    frames = noise_frames(tmp_path, 6, (1100, 20))
    assert write_gif(tmp_path / "progress.gif", frames, max_bytes=90_000) == 6
    shown = read_gif(tmp_path / "progress.gif")
    assert shown[0][0].shape == (10, 550, 3)


def test_only_a_single_frame_that_does_not_fit_becomes_narrower(tmp_path):
    frames = noise_frames(tmp_path, 2, (520, 60))
    write_gif(tmp_path / "progress.gif", frames, max_bytes=8_000)
    assert (tmp_path / "progress.gif").stat().st_size <= 8_000
    assert read_gif(tmp_path / "progress.gif")[0][0].shape[1] < 512


@pytest.mark.parametrize(("n", "at_least_sec", "at_most_sec"), [(2, 0.8, 3), (10, 3, 3.1), (100, 8, 8.1), (300, 12, 12)])
def test_short_runs_are_shown_slowly_and_long_ones_in_twelve_seconds(tmp_path, n, at_least_sec, at_most_sec):
    frames = flat_frames(tmp_path, n, (512, 2))
    write_gif(tmp_path / "progress.gif", frames)
    durations = [duration for _, duration in read_gif(tmp_path / "progress.gif")]
    seconds = sum(durations[:-1]) / 1000 + durations[0] / 1000
    assert at_least_sec - 1e-6 <= seconds <= at_most_sec + 1e-6


@pytest.mark.parametrize("write", [write_gif, write_mp4])
def test_torn_and_missing_pictures_are_left_out(tmp_path, write):
    frames = flat_frames(tmp_path, 6)
    for torn in (0, 2, 5):
        frames[torn].write_bytes(frames[torn].read_bytes()[:60])
    frames[3].unlink()
    assert write(tmp_path / f"progress.{write.__name__[-3:]}", frames) == 2


@pytest.mark.parametrize("write", [write_gif, write_mp4])
@pytest.mark.parametrize("n", [0, 2])
def test_without_a_readable_picture_the_file_is_named_and_nothing_is_written(tmp_path, write, n):
    frames = [tmp_path / f"{index}.png" for index in range(n)]
    for frame in frames:
        frame.write_bytes(b"torn")
    with pytest.raises(RunError, match="Train on") as error:
        write(tmp_path / "progress.out", frames)
    assert str(tmp_path / "progress.out") in str(error.value)
    assert not (tmp_path / "progress.out").exists()


def test_pictures_of_another_size_are_fitted_into_that_of_the_last(tmp_path):
    sizes, colors = [(2000, 100), (100, 20), (600, 40)], ["red", "lime", "blue"]
    frames = [tmp_path / f"{index}.png" for index in range(3)]
    for path, size, color in zip(frames, sizes, colors, strict=True):
        Image.new("RGB", size, color).save(path)
    assert write_gif(tmp_path / "progress.gif", frames) == 3
    large, small, last = (picture for picture, _ in read_gif(tmp_path / "progress.gif"))
    assert large.shape == small.shape == last.shape == (40, 600, 3)
    assert large[20, [1, 598]].tolist() == [[255, 0, 0]] * 2      # shrunk to the full width
    assert large[1, 300].tolist() == [255, 255, 255]
    assert small[20, [249, 250, 349, 350], 0].tolist() == [255, 0, 0, 255]     # as it is, in the middle
    assert (last == (0, 0, 255)).all()


def test_an_mp4_plays_everywhere_shows_every_frame_and_stays_at_the_last(tmp_path):
    frames = flat_frames(tmp_path, 40, (33, 11), mode="RGBA")
    assert write_mp4(tmp_path / "progress.mp4", frames) == 40
    facts = iio.immeta(tmp_path / "progress.mp4", plugin="pyav")
    assert (facts["codec"], facts["video_format"], facts["fps"]) == ("h264", "yuv420p", 12.5)
    video = iio.imread(tmp_path / "progress.mp4", plugin="pyav")
    assert video.shape == (40 + 31, 11 * 16, 33 * 16, 3)
    reds = video[:, 100, 100, 0].astype(int)
    assert np.abs(reds[:40] - [index * 255 // 40 for index in range(40)]).max() <= 6
    assert np.abs(reds[40:] - reds[39]).max() <= 3


def test_odd_sides_become_even_in_an_mp4_by_a_white_line(tmp_path):
    Image.new("L", (513, 31), 0).save(tmp_path / "x.png")
    write_mp4(tmp_path / "progress.mp4", [tmp_path / "x.png"])
    video = iio.imread(tmp_path / "progress.mp4", plugin="pyav")
    assert video.shape[1:] == (32, 514, 3)
    assert video[0, 10, 100].max() < 10


def test_a_long_run_becomes_an_mp4_of_twelve_seconds_and_the_hold(tmp_path):
    frames = flat_frames(tmp_path, 400, (512, 2))
    assert write_mp4(tmp_path / "progress.mp4", frames) == 360
    facts = iio.immeta(tmp_path / "progress.mp4", plugin="pyav")
    assert facts["fps"] == 30
    assert facts["duration"] == pytest.approx(14.5, abs=0.05)


def test_an_mp4_is_not_larger_than_decoders_take(tmp_path):
    Image.new("RGB", (4400, 100)).save(tmp_path / "x.png")
    write_mp4(tmp_path / "progress.mp4", [tmp_path / "x.png"])
    assert iio.improps(tmp_path / "progress.mp4", plugin="pyav").shape[1:] == (34, 1468, 3)


@pytest.mark.parametrize("write", [write_gif, write_mp4])
def test_no_more_than_two_pictures_are_in_memory_at_a_time(tmp_path, write, monkeypatch):
    yielded: list[weakref.ref[Image.Image]] = []

    def watched(*args):
        for image in pictures(*args):
            yielded.append(weakref.ref(image))
            assert sum(other() is not None for other in yielded) <= 2
            yield image

    pictures = animation._pictures
    monkeypatch.setattr(animation, "_pictures", watched)
    write(tmp_path / f"progress.{write.__name__[-3:]}", flat_frames(tmp_path, 20))
    assert len(yielded) >= 20


@pytest.mark.parametrize("write", [write_gif, write_mp4])
def test_an_animation_replaces_the_old_one_and_leaves_nothing_else(tmp_path, write):
    (tmp_path / "frames").mkdir()
    frames = flat_frames(tmp_path / "frames", 2)
    target = tmp_path / f"progress.{write.__name__[-3:]}"
    target.write_bytes(b"old")
    write(target, frames)
    assert target.read_bytes()[:3] != b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", target.name]
