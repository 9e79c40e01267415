"""Puts many images into one picture, and pictures into PNG files."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ganvas.files import whole_file

if TYPE_CHECKING:
    import torch

Picture = npt.NDArray[np.uint8]       # (H, W, C): 1 = grey, 3 = RGB, 4 = RGBA

BLANK_WEIGHT = 12.0    # an eighth of the cells empty is as bad as a picture 2.8 times as wide as high


def tile(images_u8: "Picture | torch.Tensor", columns: int | None = None, gap: int = 2,
         background: tuple[int, ...] | None = None) -> Picture:
    """The images side by side in rows, `gap` pixels apart, in reading order.

    images_u8: (N, C, H, W) uint8 with N >= 1 and C of 1, 3 or 4, on any device. columns: None = as `best_columns` says.
    background: C values for gaps and empty cells; None = white, transparent if C is 4.
    Returns (rows * (H + gap) - gap, columns * (W + gap) - gap, C) uint8.
    """
    images = images_u8 if isinstance(images_u8, np.ndarray) else images_u8.detach().cpu().numpy()
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3, 4) or not len(images):
        raise ValueError(f"expected uint8 images (N, 1|3|4, H, W), got {images.dtype} {tuple(images.shape)}")
    n, channels, height, width = images.shape
    columns = columns or best_columns(n, width / height)
    rows = math.ceil(n / columns)
    cells = np.empty((rows * columns, height + gap, width + gap, channels), np.uint8)
    cells[:] = background or _white(channels)
    cells[:n, :height, :width] = images.transpose(0, 2, 3, 1)
    picture = cells.reshape(rows, columns, height + gap, width + gap, channels).swapaxes(1, 2)
    picture = picture.reshape(rows * (height + gap), columns * (width + gap), channels)
    return np.ascontiguousarray(picture[:rows * (height + gap) - gap, :columns * (width + gap) - gap])


def best_columns(n: int, aspect: float = 1.0) -> int:
    """The number of columns that makes a picture of `n` images nearly square with few empty cells, wide before high.

    aspect: width / height of one image.
    """
    def fault(columns: int) -> tuple[float, int]:
        rows = math.ceil(n / columns)
        blank = 1 - n / (rows * columns)
        return round(abs(math.log2(aspect * columns / rows)) + BLANK_WEIGHT * blank, 9), -columns

    return min(range(1, n + 1), key=fault)


def side_by_side(left: Picture, right: Picture, gap: int = 16) -> Picture:
    """Two pictures (H, W, C) of as many channels, `gap` pixels apart, the lower one filled up below with white."""
    channels = left.shape[2]
    if right.shape[2] != channels:
        raise ValueError(f"the left picture has {channels} channels, the right one {right.shape[2]}")
    picture = np.empty((max(len(left), len(right)), left.shape[1] + gap + right.shape[1], channels), np.uint8)
    picture[:] = _white(channels)
    picture[:len(left), :left.shape[1]] = left
    picture[:len(right), left.shape[1] + gap:] = right
    return picture


def _white(channels: int) -> tuple[int, ...]:
    return (255, 255, 255, 0) if channels == 4 else (255,) * channels


def readable_scale(picture: Picture) -> int:
    """The whole number by which a small picture is enlarged for people: 142 pixels wide become 426."""
    return max(1, 512 // int(picture.shape[1]))


def save_png(path: Path, picture: Picture, scale: int = 1, text: dict[str, str] | None = None) -> None:
    """Writes a picture (H, W, C) as a whole PNG file, each pixel `scale` pixels wide and high.

    text: kept in the file as PNG text chunks (any Unicode), read by `PIL.Image.open(path).text`.
    """
    pixels = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value)
    with whole_file(path) as partial:
        image.save(partial, format="PNG", pnginfo=info)
