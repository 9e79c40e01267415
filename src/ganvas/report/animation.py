"""Makes progress.gif and progress.mp4 from the progress grids of a run."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ganvas.errors import RunError
from ganvas.files import whole_file

MIN_WIDTH_PX = 512
MOST_FRAMES = 150
FRAME_MS, HOLD_MS = 80, 2500
COLOURS = (256, 128, 64, 32)           # tried in this order before frames are left out
FEWEST_FRAMES = 24
MP4_FRAMES_PER_SEC = 12


def write_gif(path: Path, frames: Sequence[Path], max_bytes: int = 8_000_000) -> int:
    """Writes an endless GIF of PNG files (oldest first), smaller than `max_bytes`; returns the number of its frames.

    At least 512 pixels wide by whole-number scaling, the last frame held. What is too large gets fewer colours, then fewer
    frames, evenly, with the first and the last kept. Unreadable files are left out; transparency is shown on white.
    Raises RunError when no file can be read.
    """
    chosen = _readable(frames)
    if not chosen:
        raise RunError(f"{path}: there is no readable progress grid to make it from.")
    n = min(len(chosen), MOST_FRAMES)
    while True:
        for colours in COLOURS:
            pictures = [_for_gif(picture, colours) for picture in _pictures(_spread(chosen, n))]
            with whole_file(path) as partial:
                pictures[0].save(
                    partial, format="GIF", save_all=True, append_images=pictures[1:], loop=0, disposal=1, optimize=False,
                    duration=[FRAME_MS] * (len(pictures) - 1) + [HOLD_MS])
                size = partial.stat().st_size
            if size <= max_bytes or (n == 1 and colours == COLOURS[-1]):
                return n
            if size > 2 * max_bytes and n > FEWEST_FRAMES:     # colours alone will not do
                break
        n = max(1, min(n - 1, math.floor(n * max_bytes / size * 0.95) if n > FEWEST_FRAMES else n // 2))


def write_mp4(path: Path, frames: Sequence[Path]) -> int:
    """Writes an H.264 video of PNG files (oldest first), even-sized, the last frame held; returns the frames shown.

    Raises RunError when no file can be read.
    """
    import imageio.v3 as iio

    chosen = _readable(frames)
    if not chosen:
        raise RunError(f"{path}: there is no readable progress grid to make it from.")
    hold = round(HOLD_MS / 1000 * MP4_FRAMES_PER_SEC)
    with whole_file(path) as partial, iio.imopen(partial, "w", plugin="pyav") as video:
        video.init_video_stream("libx264", fps=MP4_FRAMES_PER_SEC, pixel_format="yuv420p")
        for picture in _pictures(chosen):
            video.write_frame(_even(picture))
        for _ in range(hold):
            video.write_frame(_even(picture))
    return len(chosen)


def _readable(frames: Sequence[Path]) -> list[Path]:
    """Those that can be opened."""
    found = []
    for path in frames:
        try:
            with Image.open(path) as image:
                image.verify()
            found.append(path)
        except (OSError, UnidentifiedImageError, SyntaxError):
            continue
    return found


def _pictures(frames: Sequence[Path]) -> Iterator[Image.Image]:
    """Each frame in RGB on white, scaled by a whole number to at least MIN_WIDTH_PX, all of the last one's size."""
    with Image.open(frames[-1]) as last:
        width, height = last.size
    scale = max(1, -(-MIN_WIDTH_PX // width))
    for path in frames:
        with Image.open(path) as image:
            picture = Image.new("RGBA", image.size, "white")
            picture.alpha_composite(image.convert("RGBA"))
        if picture.size != (width, height):                    # the grid's options changed on the way
            picture = picture.resize((width, height), Image.Resampling.NEAREST)
        yield picture.convert("RGB").resize((width * scale, height * scale), Image.Resampling.NEAREST)


def _spread(frames: Sequence[Path], n: int) -> list[Path]:
    """`n` of the frames, evenly spread, the last one among them, and the first where there are two."""
    if n == 1:
        return [frames[-1]]
    return [frames[i] for i in np.linspace(0, len(frames) - 1, n).round().astype(int)]


def _for_gif(picture: Image.Image, colours: int) -> Image.Image:
    return picture.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def _even(picture: Image.Image) -> NDArray[np.uint8]:
    """As an array whose sides are even, as yuv420p wants; an odd side is padded with its last row or column."""
    pixels = np.asarray(picture)
    return np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge")
