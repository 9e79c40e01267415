"""How unlike each other the images of one set are; a generator that has collapsed makes the same picture again and again."""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ganvas.errors import DataError
from ganvas.metrics.checks import checked
from ganvas.metrics.nearest import inside_balls
from ganvas.metrics.visible import visible

MOST_IMAGES = 2000             # pairs grow with the square; 2 million of them fix a mean well
MOST_PAIRS = 500               # for structural similarity, which is dear
BATCH_VALUES = 2**21           # of images at once; a dozen such arrays of floats live at a time
ALIKE_RMS = 2.0                # of 255: below what an eye can see, above what saving as JPEG 95 changes in flat areas
WINDOW = 11                    # Wang et al. 2004, section III-C
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)        # Wang et al. 2003, section 3.2
SMALLEST_FOR_SCALES = WINDOW * 2 ** (len(SCALES) - 1)    # 176: the coarsest scale must hold one window
GREY = 127.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


class Diversity(NamedTuple):
    """Of n images of one set. To be read beside the same of as many reals."""

    n: int
    distance: float          # mean Euclidean distance between the features of two images
    similarity: float        # mean structural similarity of two images; 1 = all alike
    similarity_name: str     # "MS-SSIM", or "SSIM" for images under 176 pixels
    alike_pairs: int         # pairs that differ by less than 2 of 255 (root mean square over pixels)
    alike_images: int        # images in such pairs


def diversity_beside(real_vectors: NDArray[Any], real_images: NDArray[np.uint8], fake_vectors: NDArray[Any],
                     fake_images: NDArray[np.uint8], seed: int = 0) -> tuple[Diversity, Diversity]:
    """(of the reals, of the fakes), both of the same n: the lesser number, at most 2,000, drawn without replacement.

    vectors: (N, d) features, images: uint8 (N, C, H, W), of the same images in the same order.
    """
    n = min(len(real_images), len(fake_images), MOST_IMAGES)
    return (diversity(real_vectors, real_images, n, seed, "reals"), diversity(fake_vectors, fake_images, n, seed, "fakes"))


def diversity(vectors: NDArray[Any], images: NDArray[np.uint8], n: int = MOST_IMAGES, seed: int = 0,
              what: str = "images") -> Diversity:
    """Of `n` images drawn without replacement, or of all. vectors: (N, d), images: uint8 (N, C, H, W).

    Mean MS-SSIM between random pairs as in Odena et al. 2017, section 4.3. RGBA is looked at as `visible` makes it. Raises
    DataError for fewer than 2 images, and for NaN.
    """
    vectors = checked(vectors, what)
    if len(vectors) != len(images):
        raise DataError(f"{what}: {len(vectors):,} features for {len(images):,} images. Give the features of these images.")
    rng = np.random.Generator(np.random.Philox(seed))
    chosen = np.sort(rng.permutation(len(vectors))[:n])
    vectors, images = vectors[chosen], visible(images[chosen])
    name = "MS-SSIM" if min(images.shape[2:]) >= SMALLEST_FOR_SCALES else "SSIM"
    partners = _alike(images)
    return Diversity(len(chosen), mean_distance(vectors), _mean_similarity(images, name, rng), name,
                     int(partners.sum()) // 2, int((partners > 0).sum()))


def mean_distance(vectors: NDArray[Any]) -> float:
    """The mean Euclidean distance over all pairs of different rows, (n, d), n from 2."""
    rows = torch.from_numpy(vectors.astype(np.float64))
    rows -= rows.mean(dim=0)
    norms, total = rows.square().sum(dim=1), 0.0
    for start in range(0, len(rows), 1024):
        some = slice(start, start + 1024)
        squared = norms[some, None] + norms[None] - 2 * rows[some] @ rows.T
        squared[torch.arange(len(squared)), torch.arange(len(squared)) + start] = 0
        total += float(squared.clamp_(min=0).sqrt_().sum())
    return total / (len(rows) * (len(rows) - 1))


def ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Structural similarity of each pair (Wang et al. 2004, eq. 13), mean over channels and places.

    a, b: uint8 (N, C, H, W). Returns (N,), up to 1. Gaussian window of 11 pixels (σ 1.5), less where the image is smaller.
    """
    similarity, _ = _terms(*(torch.from_numpy(images).float() for images in (a, b)))
    return similarity.numpy()


def ms_ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Multi-scale structural similarity (Wang et al. 2003, eq. 7) of pairs of at least 176x176 pixels; otherwise as `ssim`.

    Each channel is taken through the scales alone, and a term below 0 counts as 0: it has no real power.
    """
    if min(a.shape[2:]) < SMALLEST_FOR_SCALES:
        raise DataError(f"images of {a.shape[3]}x{a.shape[2]} are too small for five scales: "
                        f"{SMALLEST_FOR_SCALES} pixels are needed. Use SSIM.")
    n, channels, height, width = a.shape
    x, y = (torch.from_numpy(images).float().reshape(n * channels, 1, height, width) for images in (a, b))
    product = torch.ones(n * channels)
    for scale, weight in enumerate(SCALES):
        similarity, contrast = _terms(x, y)
        product *= (similarity if scale == len(SCALES) - 1 else contrast).clamp(min=0) ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return product.view(n, channels).mean(dim=1).numpy()


def _terms(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(luminance × contrast × structure, contrast × structure) of each pair, (N,), means over channels and places."""
    x, y = x - GREY, y - GREY          # variances are small differences of means of squares: float32 needs these to be small
    size = min(WINDOW, *(side - 1 + side % 2 for side in x.shape[2:]))           # odd
    places = torch.arange(size) - size // 2
    window = torch.exp(-places.square() / (2 * 1.5**2))
    window /= window.sum()
    channels = x.shape[1]

    def local_mean(images: Tensor) -> Tensor:
        across = F.conv2d(images, window.view(1, 1, 1, -1).expand(channels, 1, 1, size), groups=channels)
        return F.conv2d(across, window.view(1, 1, -1, 1).expand(channels, 1, size, 1), groups=channels)

    mean_x, mean_y = local_mean(x), local_mean(y)
    variance_x, variance_y = local_mean(x * x) - mean_x**2, local_mean(y * y) - mean_y**2
    structure = (2 * (local_mean(x * y) - mean_x * mean_y) + C2) / (variance_x + variance_y + C2)
    mean_x, mean_y = mean_x + GREY, mean_y + GREY
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return (luminance * structure).mean(dim=(1, 2, 3)), structure.mean(dim=(1, 2, 3))


def _mean_similarity(images: NDArray[np.uint8], name: str, rng: np.random.Generator) -> float:
    measure = ms_ssim if name == "MS-SSIM" else ssim
    pairs, batch = _pairs(len(images), rng), max(1, BATCH_VALUES // images[0].size)
    batches = (pairs[start : start + batch] for start in range(0, len(pairs), batch))
    return float(np.mean(np.concatenate([measure(images[some[:, 0]], images[some[:, 1]]) for some in batches]), dtype=np.float64))


def _pairs(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """All pairs of different images where there are at most MOST_PAIRS, else that many at random: (P, 2)."""
    if n * (n - 1) // 2 <= MOST_PAIRS:
        return np.stack(np.triu_indices(n, 1), axis=1)
    first = rng.integers(0, n, MOST_PAIRS)
    return np.stack([first, (first + rng.integers(1, n, MOST_PAIRS)) % n], axis=1)


def _alike(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How many other images each is (nearly) identical to, (n,)."""
    pixels = images.reshape(len(images), -1)
    with_itself, _ = inside_balls(pixels, pixels, np.full(len(pixels), ALIKE_RMS * pixels.shape[1] ** 0.5))
    return with_itself - 1
