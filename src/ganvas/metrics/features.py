"""Images to features: what every extractor gives, the one way in which images are prepared for it, and doing it in chunks."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ganvas.data.source_base import Pixels
from ganvas.errors import DataError

Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int | None], None]
"""progress(images so far, images in all or None)."""

_LUMA = (0.299, 0.587, 0.114)          # ITU-R BT.601, as Pillow's "L"


class Features(NamedTuple):
    """What an extractor gives for N images."""

    vectors: Floats                    # (N, d) float32
    probabilities: Floats | None       # (N, K) float32, rows sum to 1; None where the extractor has no classes


@runtime_checkable
class Images(Protocol):
    """Images read by position, as a Pack and its Subset are."""

    def __len__(self) -> int: ...
    def read(self, indices: npt.ArrayLike, /) -> Pixels: ...


class ImageArray:
    """An array of images, read by position."""

    def __init__(self, array: Pixels):
        self.array = array             # (N, C, H, W) uint8

    def __len__(self) -> int:
        return len(self.array)

    def read(self, indices: npt.ArrayLike, /) -> Pixels:
        return np.asarray(self.array[np.asarray(indices, np.int64)])


class Kept:
    """Batches of images that go by once: iterating passes them on, and keeps those that will be looked at again."""

    def __init__(self, batches: Iterable[Pixels], total: int, positions: npt.NDArray[np.int64]):
        """total: images in all batches. positions: of those to keep, counted through all batches."""
        self.total = total
        self._batches, self._positions = batches, np.unique(positions)
        self._images: Pixels | None = None                 # (kept, C, H, W)

    def __iter__(self) -> Iterator[Pixels]:
        start = 0
        for batch in self._batches:
            if self._images is None:
                self._images = np.empty((len(self._positions), *batch.shape[1:]), np.uint8)
            first, last = np.searchsorted(self._positions, [start, start + len(batch)])
            self._images[first:last] = batch[self._positions[first:last] - start]
            start += len(batch)
            yield batch

    def read(self, indices: npt.ArrayLike, /) -> Pixels:
        """The images at these positions, (n, C, H, W); all of them must be among those to keep, and have gone by."""
        wanted = np.asarray(indices, np.int64)
        places = np.searchsorted(self._positions, wanted)
        assert self._images is not None and (self._positions[places] == wanted).all(), "only what was to be kept is there"
        return np.asarray(self._images[places])


class Extractor(ABC):
    """Images to features. Calling one with uint8 (N, C, H, W), C = 1, 3 or 4, gives `Features` of N rows.

    The features of an image do not depend on its companions, up to the last bits of float32.
    """

    name: str                          # as the user calls it
    dim: int                           # d
    key: str                           # hash of weights and preprocessing: under which features are kept
    preprocessing: str                 # what happens to the images first, on one line; printed with every figure
    relative_only: bool = False        # figures serve to compare models on these images, and compare with nothing published
    classes: tuple[str, ...] | None = None     # what the columns of `probabilities` stand for, where they have names
    unseen: npt.NDArray[np.int64] | None = None    # of the reals that it was trained on, those kept from it; None = no such reals
    accuracy: float | None = None      # share of right answers on those
    chunk: int = 256                   # images at once

    @abstractmethod
    def __call__(self, images: Pixels) -> Features: ...


def extract(extractor: Extractor, images: Pixels | Iterable[Pixels] | Images, progress: Progress | None = None) -> Features:
    """The features of all `images`: an array (N, C, H, W), batches of it, or what can be read by position.

    They go through the extractor at most `extractor.chunk` at a time: how they are divided changes no feature by more than
    1e-5 of its size. progress(done, total): total is None for batches. Raises DataError: no images, not uint8 (N, C, H, W),
    features that are not finite (the number of such images), or not of the extractor's `dim`.
    """
    total = len(images) if isinstance(images, np.ndarray | Images) else images.total if isinstance(images, Kept) else None
    vectors, probabilities = _Rows(total), _Rows(total)
    done = 0
    for chunk in _chunks(images, extractor.chunk):
        if chunk.ndim != 4 or chunk.dtype != np.uint8:
            raise DataError(f"images for the extractor {extractor.name} must be uint8 (N, C, H, W), "
                            f"not {chunk.dtype} {tuple(chunk.shape)}")
        features = extractor(chunk)
        if features.vectors.shape != (len(chunk), extractor.dim):
            raise DataError(f"the extractor {extractor.name} gave {tuple(features.vectors.shape)} for {len(chunk)} images, "
                            f"not {(len(chunk), extractor.dim)}")
        vectors.add(features.vectors)
        if features.probabilities is not None:
            probabilities.add(features.probabilities)
        done += len(chunk)
        if progress is not None:
            progress(done, total)
    if not done:
        raise DataError(f"there are no images for the extractor {extractor.name}")
    found = Features(vectors.all(), probabilities.all() if probabilities.n else None)
    check_finite(found, extractor.name)
    return found


class _Rows:
    """Rows that come in parts, in one array from the start where their number is known: half of the memory."""

    def __init__(self, total: int | None):
        self._total, self._parts, self.n = total, list[Floats](), 0

    def add(self, part: Floats) -> None:
        if self._total is None:
            self._parts.append(part)
        else:
            if not self._parts:
                self._parts.append(np.empty((self._total, part.shape[1]), np.float32))
            self._parts[0][self.n:self.n + len(part)] = part
        self.n += len(part)

    def all(self) -> Floats:
        return np.concatenate(self._parts) if self._total is None else self._parts[0][:self.n]


def check_finite(features: Features, name: str) -> None:
    """Raises DataError with the number of images whose features or probabilities hold NaN or infinity; name: the extractor's."""
    bad = np.asarray(~np.isfinite(features.vectors).all(axis=1))
    if features.probabilities is not None:
        bad |= ~np.isfinite(features.probabilities).all(axis=1)
    if bad.any():
        first = ", ".join(map(str, np.flatnonzero(bad)[:5]))
        raise DataError(f"the features of {int(bad.sum()):,} of {len(bad):,} images from the extractor {name} are not finite "
                        f"(NaN or infinity; images {first}{', ...' if bad.sum() > 5 else ''}). No figure is made from them: "
                        "look at these images, or choose another extractor.")


def _chunks(images: Pixels | Iterable[Pixels] | Images, size: int) -> Iterator[Pixels]:
    if isinstance(images, np.ndarray):
        yield from (images[i:i + size] for i in range(0, len(images), size))
    elif isinstance(images, Images):
        yield from (images.read(np.arange(i, min(i + size, len(images)))) for i in range(0, len(images), size))
    else:
        for batch in images:
            yield from (batch[i:i + size] for i in range(0, len(batch), size))


def prepare(images: Pixels, channels: int, size: tuple[int, int] | None = None) -> Tensor:
    """`images` (N, C, H, W) uint8 as a uint8 tensor (N, channels, height, width): what every extractor sees.

    C = 1, 3 or 4: transparent ones are composed on white, grey ones repeated to RGB, coloured ones reduced to grey by
    0.299 R + 0.587 G + 0.114 B. channels: 1 or 3. size: (height, width), reached by antialiased bilinear interpolation;
    None = as they are. Everything is rounded to uint8 again, so that a PNG of the prepared image is that image.
    """
    x = torch.from_numpy(np.ascontiguousarray(images))
    if x.shape[1] not in (1, 3, 4):
        raise DataError(f"images have 1, 3 or 4 channels, but these are {tuple(images.shape)} (N, C, H, W)")
    if x.shape[1] == 4:
        alpha, colour = x[:, 3:].int(), x[:, :3].int()
        x = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).to(torch.uint8)
    if x.shape[1] == 3 and channels == 1:
        x = (x * torch.tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True).round().to(torch.uint8)
    if x.shape[1] == 1 and channels == 3:
        x = x.repeat(1, 3, 1, 1)
    if size is not None and size != tuple(x.shape[2:]):
        x = F.interpolate(x.float(), size, mode="bilinear", antialias=True).round().clamp(0, 255).to(torch.uint8)
    return x


def described(channels: int, size: tuple[int, int] | None = None) -> str:
    """What `prepare` does, on one line."""
    colours = "repeated to RGB if grey" if channels == 3 else "reduced to grey"
    scaled = "" if size is None else f", brought to {size[1]}x{size[0]} (antialiased bilinear)"
    return f"composed on white if transparent, {colours}{scaled}, uint8"


def within(height: int, width: int, most: int) -> tuple[int, int]:
    """(height, width) reduced in proportion so that neither is above `most`; as it is where it fits."""
    scale = min(1.0, most / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def key_of(tensors: Mapping[str, Tensor], *about: str) -> str:
    """32 hex digits of the SHA-256 of some weights, by name, and of texts that say what else decides the features."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.numpy().tobytes())
    for text in about:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:32]
