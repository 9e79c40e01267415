"""Makes progress.gif and progress.mp4 from the progress grids of a run."""

import io
import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from PIL import Image

from ganvas.errors import RunError
from ganvas.files import whole_file

MIN_WIDTH_PX = 512
FRAME_SEC = 0.08             # 12.5 frames a second; a GIF counts hundredths
MIN_SEC, MAX_SEC = 3.0, 12.0   # without the hold; a short run is shown more slowly, a long one in fewer frames
SLOWEST_FRAME_SEC = 0.4
HOLD_SEC = 2.5

MP4_FRAME_RATES = (12.5, 25)
MP4_MAX_SIDE_PX = 2160       # hardware decoders refuse much larger pictures

SMOOTH_FRAMES = 48           # with fewer frames than this, colours are given up before more frames are


def write_gif(path: Path, frames: Sequence[Path], max_bytes: int = 8_000_000) -> int:
    """Writes an endless GIF of pictures (PNG files, oldest first) that stays below `max_bytes`; returns its frames.

    At least 512 pixels wide by whole-number scaling; transparency is shown on white; each frame has its own palette.
    What is too large for `max_bytes` gets, in this order, smaller (not below 512 wide), fewer colours, fewer frames
    (evenly, keeping the first and the last), and only when a single frame does not fit, less than 512 wide.
    Files that cannot be read are left out; pictures of another size than the last are fitted into its size.
    One frame is in memory at a time. Raises RunError when no file can be read.
    """
    frames = _readable_ends(path, frames)
    size = _size_of(frames[-1])
    frames = _spread(frames, round(MAX_SEC / FRAME_SEC))
    frame_sec = min(max(FRAME_SEC, MIN_SEC / len(frames)), SLOWEST_FRAME_SEC)
    for look in _looks(size[0]):
        mean_bytes = np.mean([len(_gif_frame(image, look, 0)) for image in _pictures(_spread(frames, 5), size)])
        fitting = int(max_bytes * 0.95 / mean_bytes)
        if fitting >= min(len(frames), SMOOTH_FRAMES) or (look.is_last_resort and fitting >= 1):
            break
    for n in itertools.chain(range(min(max(fitting, 1), len(frames)), 1, -2), (1,)):
        with whole_file(path) as partial:
            written = _write_gif(partial, _spread(frames, n), size, look, frame_sec)
            if partial.stat().st_size <= max_bytes or n == 1:
                return written
    raise AssertionError("the loop ends with one frame")
