"""Nearest training images by their pixels, whatever the brightness and contrast, and also where moved by a pixel or two."""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from ganvas.errors import DataError
from ganvas.metrics.features import Images

Pixels = NDArray[np.uint8]             # (n, C, H, W)
Indices = NDArray[np.int64]

LARGEST_PX = 32        # longest side at which pictures are compared, made by means of whole blocks
COARSE_PX = 16         # longest side at which candidates are looked for
AXES = 64              # of the projection in which they are
FITTED = 4096          # training images that say which axes
MOVABLE_PX = 12        # shorter sides are compared as they lie: a pixel is too much of them
BLOCK_BYTES = 2**26    # of one block of distances, and of the candidates' pixels compared at once
READ_BLOCK = 1024


class Pictures:
    """N training images, reduced to at most 32x32, of which the nearest to others are found.

    The distance is sqrt(2 - 2 c), c being the correlation of the pixels of both (their mean taken off, over colours and all),
    at the best of nine ways to move the query by one pixel, or by half a reduced one. Transparent images are seen on white.
    """

    def __init__(self, images: Images):
        """Reads and reduces the images: about 1 KB of memory a channel and image. Raises DataError where there are none."""
        if not len(images):
            raise DataError("no training images to compare samples with.")
        self.shape = images.read(np.arange(1)).shape[1:]
        self.block = -(-max(self.shape[1:]) // LARGEST_PX)
        parts, self.contents = [], np.empty((len(images), 2), np.uint64)                     # hashes, straight and mirrored
        for i in range(0, len(images), READ_BLOCK):
            some = images.read(np.arange(i, min(i + READ_BLOCK, len(images))))
            parts.append(self._reduced(some))
            self.contents[i:i + len(some)] = _contents(some)
        reduced = torch.cat(parts)                                                           # (N, C, h, w) uint8
        height, width = reduced.shape[2:]
        self.margin = int(min(height, width) >= MOVABLE_PX)
        self.inner = reduced[..., self.margin:height - self.margin, self.margin:width - self.margin].flatten(1)
        self.spread = torch.cat([_centred(part.float()).norm(dim=1) for part in torch.split(self.inner, READ_BLOCK)])
        fitted = _unit(_coarse(reduced[::-(-len(reduced) // FITTED)].float()))
        self.mean = fitted.mean(0)
        _, vectors = torch.linalg.eigh((fitted - self.mean).T @ (fitted - self.mean))
        self.axes = vectors[:, -AXES:]
        self.points = torch.cat([self._projected(part.float()) for part in torch.split(reduced, READ_BLOCK)])

    def same(self, mirror: bool) -> Indices:
        """(N,): equal numbers for training images with the very same pixels, with `mirror` also for mirrored ones."""
        keys = self.contents.min(axis=1) if mirror else self.contents[:, 0]
        numbers: Indices = np.unique(keys, return_inverse=True)[1].astype(np.int64)
        return numbers

    def refuse_other_shape(self, images: Pixels) -> None:
        """Raises DataError for images of another size or number of channels."""
        if images.shape[1:] != self.shape:
            (c, h, w), (channels, height, width) = images.shape[1:], self.shape
            raise DataError(f"samples are {w}x{h} with {c} channels, but training images are {width}x{height} with {channels}. "
                            "Make samples of that size, or prepare the images alike.")

    def nearest(self, images: Pixels, k: int, exclude: tuple[Indices, Indices] | None = None
                ) -> tuple[NDArray[np.float64], Indices]:
        """(distances, ascending; indices), both (M, K), K = min(k, N), of the training images nearest to each of `images`.

        exclude: (groups of the images (M,), of the training images (N,)): pairs of one group are passed over, at infinity.
        The candidates are those nearest in a projection of coarse pictures, which misses hardly any that are near.
        """
        groups = None if exclude is None else (torch.as_tensor(exclude[0]), torch.as_tensor(exclude[1]))
        k = min(k, len(self.points))
        rows = max(1, min(BLOCK_BYTES // (4 * len(self.points)), BLOCK_BYTES // (4 * (k + 9) * self.inner.shape[1])))
        found = [self._found(images[i:i + rows], k, groups and (groups[0][i:i + rows], groups[1]))
                 for i in range(0, len(images), rows)]
        if not found:
            return np.empty((0, k)), np.empty((0, k), np.int64)
        return (torch.cat([distances for distances, _ in found]).double().numpy(),
                torch.cat([indices for _, indices in found]).numpy())

    def _found(self, images: Pixels, k: int, groups: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        full = self._whole_blocks(images)
        squared = self._coarse_distances(full)
        if groups is not None:
            squared.masked_fill_(groups[0][:, None] == groups[1][None], torch.inf)
        values, candidates = squared.topk(k, largest=False)
        product = torch.bmm(self.inner[candidates].float(), self._moved(full).transpose(1, 2))               # (B, k, ways)
        correlation = product.amax(2) / self.spread[candidates].clamp_min(_least(self.inner.shape[1]))
        distances = (2 - 2 * correlation).clamp_min(0).sqrt().masked_fill(values.isinf(), torch.inf)
        distances, order = distances.sort(dim=1, stable=True)
        return distances, candidates.gather(1, order)

    def _coarse_distances(self, full: Tensor) -> Tensor:
        """(B, N): squared distances in the projection, at the best way to move pictures that are compared at full size."""
        reduced = avg_pool2d(full, self.block)
        ways = [(y, x) for y in range(3) for x in range(3)] if self.block == 1 and self.margin else [(1, 1)]
        around = pad(reduced, (1, 1, 1, 1), mode="replicate")
        height, width = reduced.shape[2:]
        best: Tensor | None = None
        norms = self.points.square().sum(1)
        for y, x in ways:
            queries = self._projected(around[..., y:y + height, x:x + width])
            squared = torch.addmm(norms[None], queries, self.points.T, alpha=-2).add_(queries.square().sum(1)[:, None])
            best = squared if best is None else torch.minimum(best, squared, out=best)
        assert best is not None, "there is at least one way"
        return best

    def _moved(self, full: Tensor) -> Tensor:
        """(B, ways, pixels): unit vectors of the pictures, less the margin, moved by a pixel or half a reduced one, or not."""
        block, margin = self.block, self.margin
        height, width = full.shape[2] // block - 2 * margin, full.shape[3] // block - 2 * margin
        means = _sliding_means(full, block)
        step = max(1, block // 2)
        steps = (block - step, block, block + step) if margin else (0,)
        ways = [means[..., y:y + (height - 1) * block + 1:block, x:x + (width - 1) * block + 1:block].flatten(1)
                for y in steps for x in steps]
        moved: Tensor = torch.stack(ways, dim=1)
        moved.sub_(moved.mean(2, keepdim=True))
        return moved.div_(moved.norm(dim=2, keepdim=True).clamp_min(_least(moved.shape[2])))

    def _projected(self, reduced: Tensor) -> Tensor:
        points: Tensor = (_unit(_coarse(reduced)) - self.mean) @ self.axes
        return points

    def _whole_blocks(self, images: Pixels) -> Tensor:
        """Composed on white, as float32, and filled up at the right and below to whole blocks."""
        full = torch.from_numpy(np.ascontiguousarray(images)).float()
        if full.shape[1] == 4:
            alpha = full[:, 3:] / 255
            full = full[:, :3] * alpha + 255 * (1 - alpha)
        return pad(full, (0, -full.shape[3] % self.block, 0, -full.shape[2] % self.block), mode="replicate")

    def _reduced(self, images: Pixels) -> Tensor:
        means: Tensor = avg_pool2d(self._whole_blocks(images), self.block)
        return means.round_().to(torch.uint8)


def _contents(images: Pixels) -> NDArray[np.uint64]:
    """(B, 2): hashes of the visible pixels of (B, C, H, W), and of the mirrored ones'."""
    if images.shape[1] == 4:
        images = np.where(images[:, 3:] > 0, images, np.uint8(0))
    straight, mirrored = np.ascontiguousarray(images), np.ascontiguousarray(images[..., ::-1])
    return np.array([[int.from_bytes(hashlib.blake2b(image.data, digest_size=8).digest(), "little") for image in pair]
                     for pair in zip(straight, mirrored, strict=True)], np.uint64)


def _coarse(reduced: Tensor) -> Tensor:
    """(B, d): pictures of at most 32x32, reduced to at most 16x16."""
    block = -(-max(reduced.shape[2:]) // COARSE_PX)
    filled = pad(reduced, (0, -reduced.shape[3] % block, 0, -reduced.shape[2] % block), mode="replicate")
    means: Tensor = avg_pool2d(filled, block)
    return means.flatten(1)


def _sliding_means(pictures: Tensor, block: int) -> Tensor:
    """Means of all block x block squares, also overlapping ones; sums of slices take a quarter of avg_pool2d's time."""
    for dim in (2, 3):
        length = pictures.shape[dim] - block + 1
        pictures = sum((pictures.narrow(dim, at, length) for at in range(1, block)), start=pictures.narrow(dim, 0, length))
    return pictures / block**2 if block > 1 else pictures


def _centred(vectors: Tensor) -> Tensor:
    return vectors - vectors.mean(1, keepdim=True)


def _unit(vectors: Tensor) -> Tensor:
    """Centred, at length 1; what varies by less than a grey level stays shorter, so that a blank picture resembles none."""
    vectors = _centred(vectors)
    lengths: Tensor = vectors.norm(dim=1, keepdim=True)
    return vectors / lengths.clamp_min(_least(vectors.shape[1]))


def _least(pixels: int) -> float:
    return float(pixels**0.5)


