"""Makes progress.gif and progress.mp4 from the progress grids of a run."""

import io
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import numpy.typing as npt
from PIL import Image

from ganvas.errors import RunError
from ganvas.files import whole_file

MIN_WIDTH_PX = 512
FRAME_SEC, SLOWEST_SEC = 0.08, 0.4    # a frame is shown for so long; in a short run for longer
MIN_SEC, MAX_SEC = 3.0, 12.0          # the whole, without the hold
HOLD_SEC = 2.5                        # the last frame stands still
GIF_SMOOTH_FRAMES = 32                # with fewer frames than this, colours are given up before more frames are
MP4_FRAMES_PER_SEC = 30
MP4_MAX_SIDE_PX = 2160                # hardware decoders refuse much larger pictures


def write_gif(path: Path, frames: Sequence[Path], max_bytes: int = 8_000_000) -> int:
    """Writes an endless GIF of pictures (PNG files, oldest first) of at most `max_bytes`; returns its number of frames.

    At least 512 pixels wide by whole-number scaling; transparency is shown on white; each frame has its own palette.
    What is larger than `max_bytes` gets, in this order, smaller (not below 512 wide), fewer colours, fewer frames
    (evenly, keeping the first and the last), and, only when a single frame does not fit, less than 512 wide.
    Files that cannot be read are left out; pictures of another size than the last are fitted into its size.
    One frame is in memory at a time. Raises RunError when no file can be read.
    """
    frames = _without_unreadable_ends(path, frames)
    size = _size_of(frames[-1])
    frames = _spread(frames, round(MAX_SEC / FRAME_SEC))
    look, fitting = _gif_look(frames, size, max_bytes)
    while True:
        with whole_file(path) as partial:
            written = _write_gif_frames(partial, _spread(frames, fitting), size, look)
            taken_bytes = partial.stat().st_size
            if taken_bytes <= max_bytes or fitting == 1:
                return written
        fitting = max(1, min(fitting - 1, int(0.97 * fitting * max_bytes / taken_bytes)))


def write_mp4(path: Path, frames: Sequence[Path]) -> int:
    """Writes an H.264 video (yuv420p, plays everywhere) of pictures, oldest first; returns its number of pictures.

    Widths, transparency, unreadable files and memory as in `write_gif`; padded with white to even sides.
    Raises RunError when no file can be read.
    """
    frames = _without_unreadable_ends(path, frames)
    size = _size_of(frames[-1])
    frames = _spread(frames, round(MAX_SEC * MP4_FRAMES_PER_SEC))
    frame_sec = _frame_sec(len(frames))
    enlarge, reduce = -(-MIN_WIDTH_PX // size[0]), -(-max(size) // MP4_MAX_SIDE_PX)
    written = 0
    with whole_file(path) as partial, iio.imopen(partial, "w", plugin="pyav") as video:
        video.init_video_stream("libx264", fps=1 / frame_sec, pixel_format="yuv420p")
        for image in _pictures(frames, size):
            picture = _even(_enlarged(image.convert("RGB").reduce(reduce), enlarge))
            video.write_frame(picture)
            written += 1
        for _ in range(round(HOLD_SEC / frame_sec)):
            video.write_frame(picture)
    return written


# Pictures.

def _without_unreadable_ends(target: Path, frames: Sequence[Path]) -> list[Path]:
    """`frames` from the first to the last that can be read: these two are kept, whatever is left out between them."""
    first = next((index for index, path in enumerate(frames) if _readable(path)), None)
    if first is None:
        raise RunError(f"{target}: cannot be made, because none of {len(frames)} progress grids can be read. "
                       "Train on until the next grid is due.")
    last = next(index for index in reversed(range(len(frames))) if _readable(frames[index]))
    return list(frames[first:last + 1])


def _readable(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError):      # Pillow's words for torn PNG files
        return False
    return True


def _size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def _spread(frames: Sequence[Path], most: int) -> list[Path]:
    """At most `most` of the frames, evenly spaced, with the first and the last; of one, the last."""
    if len(frames) <= most:
        return list(frames)
    if most == 1:
        return [frames[-1]]
    return [frames[round(index * (len(frames) - 1) / (most - 1))] for index in range(most)]


def _frame_sec(n: int) -> float:
    """How long each of `n` frames is shown."""
    return min(max(FRAME_SEC, MIN_SEC / n), SLOWEST_SEC, MAX_SEC / n)


def _pictures(frames: Sequence[Path], size: tuple[int, int]) -> Iterator[Image.Image]:
    """Each readable frame as grey or RGB of `size` (width, height), on white where it is transparent or smaller."""
    for path in filter(_readable, frames):
        with Image.open(path) as image:
            if image.mode == "L" and image.size == size:
                yield image.copy()
                continue
            picture = image.convert("RGBA")
        if picture.width > size[0] or picture.height > size[1]:
            picture.thumbnail(size, Image.Resampling.BOX)
        canvas = Image.new("RGBA", size, "white")
        canvas.alpha_composite(picture, ((size[0] - picture.width) // 2, (size[1] - picture.height) // 2))
        yield canvas.convert("RGB")


def _enlarged(image: Image.Image, times: int) -> npt.NDArray[np.uint8]:
    """Every pixel as `times` x `times` pixels, as an array."""
    return np.asarray(image).repeat(times, axis=0).repeat(times, axis=1)


def _even(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(H, W, 3) with a white line added where H or W is odd: yuv420p halves both."""
    height, width, _ = picture.shape
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), constant_values=255)


# GIF, as in https://www.w3.org/Graphics/GIF/spec-gif89a.txt. Pillow's writer of animations keeps every frame in memory;
# here it only packs single frames.

@dataclass(frozen=True)
class _Look:
    """How much of a picture a GIF keeps."""

    enlarge: int
    reduce: int
    colors: int


def _gif_look(frames: list[Path], size: tuple[int, int], max_bytes: int) -> tuple[_Look, int]:
    """The best look with which enough frames should fit into `max_bytes`, and how many these are (1 or more)."""
    enlarge, smallest = -(-MIN_WIDTH_PX // size[0]), max(1, size[0] // MIN_WIDTH_PX)
    wide = list(dict.fromkeys([_Look(enlarge, 1, 256), *(_Look(enlarge, smallest, n) for n in (256, 128))]))
    narrow = [_Look(1, reduce, 128) for reduce in range(smallest + (enlarge == 1), max(size) + 1)]
    for look in wide + narrow:
        frame_bytes = [len(_gif_frame(image, look, 0)) for image in _pictures(_spread(frames, 5), size)]
        fitting = int(0.97 * max_bytes * len(frame_bytes) / sum(frame_bytes))
        enough = min(len(frames), GIF_SMOOTH_FRAMES) if look in wide[:-1] else 1
        if fitting >= enough:
            break
    return look, max(1, min(fitting, len(frames)))


def _write_gif_frames(path: Path, frames: list[Path], size: tuple[int, int], look: _Look) -> int:
    frame_sec = _frame_sec(len(frames))
    written, frame = 0, b""
    with path.open("wb") as file:
        file.write(b"GIF89a\0\0\0\0\x70\0\0")                      # the size is filled in below; no global palette
        file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0")       # for ever
        for image in _pictures(frames, size):
            frame = _gif_frame(image, look, frame_sec)
            file.write(frame)
            written += 1
        file.seek(-len(frame), io.SEEK_END)                        # the last one again, standing still
        file.write(_gif_frame(image, look, HOLD_SEC))
        file.write(b"\x3b")
        file.seek(6)
        file.write(frame[_SIZE_IN_FRAME])
    return written


_SIZE_IN_FRAME = slice(8 + 5, 8 + 9)    # after the graphic control extension, "," and the position


def _gif_frame(image: Image.Image, look: _Look, shown_sec: float) -> bytes:
    """One frame as it stands in a GIF file: control extension, descriptor, its own palette, packed pixels."""
    indexed = _indexed(image.reduce(look.reduce), look.colors)
    pixels = Image.fromarray(_enlarged(indexed, look.enlarge))
    pixels.putpalette(indexed.getpalette() or [])
    single = io.BytesIO()
    pixels.save(single, format="GIF", optimize=False, interlace=0)
    packed = single.getvalue()
    palette_size = packed[10] & 7       # 2^(n + 1) colours
    at = 13 + 3 * 2 ** (palette_size + 1)
    palette = packed[13:at]
    while packed[at] == 0x21:           # extensions: two bytes, then blocks, each after its length, up to an empty one
        at += 2
        while packed[at]:
            at += 1 + packed[at]
        at += 1
    assert packed[at] == 0x2C, "an image descriptor follows the extensions"
    control = struct.pack("<BBBBHBB", 0x21, 0xF9, 4, 1 << 2, round(shown_sec * 100), 0, 0)
    descriptor = packed[at:at + 9] + bytes([0x80 | palette_size])
    return control + descriptor + palette + packed[at + 10:-1]


def _indexed(image: Image.Image, colors: int) -> Image.Image:
    """`image` with a palette of at most `colors`, exactly as it is if it has no more than these."""
    if image.getcolors(colors) is not None:
        return image.quantize(colors, Image.Quantize.MEDIANCUT)      # exact then
    # Maximum coverage keeps the rare colours, which median cut loses among many shades of white: on a grid of drawings
    # 256 colours are 5 dE off where it is colourful, by median cut 11, and the file is a third smaller. It is slow on
    # noise, hence the sample.
    step = math.ceil(math.sqrt(image.width * image.height / 10_000))
    sample = image.convert("RGB").resize((-(-image.width // step), -(-image.height // step)), Image.Resampling.NEAREST)
    palette = sample.quantize(colors, Image.Quantize.MAXCOVERAGE, kmeans=1)
    return image.convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)     # dithering would flicker
