"""What a source looks like: a quick look at some of its images, for choosing options and for hints."""

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from ganvas.data.facts import MEASURED_PIXELS
from ganvas.data.modes import image_of_array
from ganvas.data.opening import Opened, open_picture
from ganvas.data.pixel_art import upscale_factor
from ganvas.data.source_base import MOST_LISTED, Source, UnreadableError, listed
from ganvas.errors import DataError

THUMBNAIL_PX = 16                        # of mirror_preference
FEWEST_TO_COMPARE = 20                   # images without which nothing is said about mirroring

_ASPECT_STEP = math.log(1.1)             # sides within about 5 % of each other's proportion are of one class
_FOLDS = 5
_RIDGE = 0.3                             # times the mean square of d: the best of 0.03 to 10 for digits, no worse for the others


@dataclass(frozen=True)
class Look:
    """What a sample of a source looks like. Sizes are (width, height) before resizing; shares run from 0 to 1."""

    looked: int                          # images read
    common_size: tuple[int, int]         # the most frequent
    min_size: tuple[int, int]            # the smallest width and the smallest height, perhaps of two images
    max_size: tuple[int, int]
    grey_share: float                    # all channels equal wherever anything shows
    transparent_share: float             # something less than opaque
    aspect: tuple[int, int] = (1, 1)     # width : height of the commonest shape, in lowest terms; near squares are 1 : 1
    aspect_share: float = 1.0            # images of that shape, or within 5 % of it
    transparent_area: float = 0.0        # pixels less than half opaque: the mean over all images
    native_size: tuple[int, int] = (0, 0)         # the most frequent once enlarged pixel art is reduced; (0, 0) = not looked at
    upscaled_share: float = 0.0          # pixel art enlarged by a whole factor
    faces_both_ways: float = 1.0         # mirror_preference of the images: 0.5 both ways, 1 one way only (or too few to tell)


def look(source: Source, count: int = 256) -> Look:
    """Opens up to `count` images spread evenly over `source` and says what they are like; unreadable ones are skipped.

    Where none of these can be read, it tries as many again between them, and so on. For hints such as "all images are grey:
    pass --channels 1". Raises DataError, with the first reasons, if no image of the source is readable.
    """
    seen: list[_Seen] = []
    failures: list[tuple[str, str]] = []
    tried = np.zeros(len(source), dtype=bool)
    while not seen and not tried.all():
        for index in np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int).tolist():
            if not tried[index]:
                tried[index] = True
                try:
                    seen.append(_seen(_opened(source, index)))
                except UnreadableError as error:
                    if len(failures) < MOST_LISTED:
                        failures.append((error.item, error.reason))
        count *= 2
    if not seen:
        raise DataError(f"{source.where}: none of {len(source):,} images can be read.{listed(failures, len(source))}\n"
                        "Mend them, or pass other images.")
    sizes = [image.size for image in seen]
    widths, heights = zip(*sizes, strict=True)
    aspect, aspect_share = _common_aspect(sizes)

    def share(name: str) -> float:
        return float(np.mean([getattr(image, name) for image in seen]))

    return Look(
        looked=len(seen), common_size=_commonest(sizes),
        min_size=(min(widths), min(heights)), max_size=(max(widths), max(heights)),
        grey_share=share("grey"), transparent_share=share("transparent"), aspect=aspect, aspect_share=aspect_share,
        transparent_area=share("clear_area"),
        native_size=_commonest([image.native_size for image in seen]), upscaled_share=share("upscaled"),
        faces_both_ways=mirror_preference(np.stack([image.thumbnail for image in seen])))


def class_counts(source: Source) -> dict[str, int]:
    """{class: images found under it} in the classes' order, 0 where there is none; empty without labels.

    Nothing is opened: some of them may turn out unreadable. Images that lack a label, as a few may in a table, do not count.
    """
    if source.labels is None:
        return {}
    labels = np.delete(source.labels, sorted(source.unlabelled))
    return dict(zip(source.class_names, np.bincount(labels, minlength=len(source.class_names)).tolist(), strict=True))


@dataclass(frozen=True)
class _Seen:
    """What is kept of one image."""

    size: tuple[int, int]
    native_size: tuple[int, int]
    grey: bool
    transparent: bool
    clear_area: float
    thumbnail: npt.NDArray[np.float32]

    @property
    def upscaled(self) -> bool:
        return self.native_size != self.size


def _opened(source: Source, index: int) -> Opened:
    item = source.load(index)
    if isinstance(item, bytes):
        return open_picture(item, source.item_name(index))
    image = image_of_array(item)
    return Opened(image, "", image.mode, 1, False)


def _seen(opened: Opened) -> _Seen:
    image = opened.image
    size, factor = image.size, 1
    if image.width * image.height > MEASURED_PIXELS:
        step = math.isqrt(image.width * image.height // MEASURED_PIXELS) + 1
        image = image.resize((max(1, image.width // step), max(1, image.height // step)), Image.Resampling.NEAREST)
    else:
        factor = upscale_factor(image)
    histogram = np.array(image.getchannel("A").histogram() if image.mode == "RGBA" else [0] * 255 + [1])
    return _Seen(
        size=size, native_size=(size[0] // factor, size[1] // factor), grey=_is_grey(image),
        transparent=bool(histogram[:255].any()), clear_area=float(histogram[:128].sum() / histogram.sum()),
        thumbnail=thumbnail_of(image))


def _is_grey(image: Image.Image) -> bool:
    if image.mode == "L":
        return True
    red, green, blue, *alpha = image.split()
    for other in (green, blue):
        difference = ImageChops.difference(red, other)
        if alpha:
            difference = ImageChops.darker(difference, alpha[0])           # 0 where nothing shows
        if difference.getextrema()[1] != 0:
            return False
    return True


def _commonest(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    return Counter(sizes).most_common(1)[0][0]


def _common_aspect(sizes: list[tuple[int, int]]) -> tuple[tuple[int, int], float]:
    """(width, height) in lowest terms of the commonest size among those of the commonest shape, and that shape's share."""
    shapes = [round(math.log(width / height) / _ASPECT_STEP) for width, height in sizes]
    shape, count = Counter(shapes).most_common(1)[0]
    width, height = _commonest([size for size, its_shape in zip(sizes, shapes, strict=True) if its_shape == shape])
    divisor = math.gcd(width, height)
    return ((width // divisor, height // divisor) if shape else (1, 1)), count / len(sizes)


def thumbnail_of(image: Image.Image) -> npt.NDArray[np.float32]:
    """(16, 16) grey from 0 to 255 of a plain image, stretched, by the mean of each cell; middle grey behind transparent parts."""
    cells = (THUMBNAIL_PX, THUMBNAIL_PX)
    if image.mode == "RGBA":
        small = image.resize(cells, Image.Resampling.BOX)
        image = Image.alpha_composite(Image.new("RGBA", cells, (128, 128, 128, 255)), small)
    elif image.mode == "RGB":
        image = image.resize(cells, Image.Resampling.BOX)
    return np.asarray(image.convert("L").resize(cells, Image.Resampling.BOX), dtype=np.float32)


def mirror_preference(thumbnails: npt.ArrayLike) -> float:
    """How well a linear function tells images from their mirror images: 0.5 not at all, 1 always.

    thumbnails: (N, 16, 16). At 0.5 no side is preferred, and mirrored images are as plausible as the others; letters and
    digits are near 1. It is the share of images put on the right side by a ridge regression of 1 on d = t - mirrored t (t
    zero-mean and of unit norm) that was fitted to the other four fifths; where it cannot tell, half an image counts.
    Fewer than 20 images give 1: nothing is known in favour of mirroring.
    """
    pixels = np.asarray(thumbnails, dtype=np.float64)
    if len(pixels) < FEWEST_TO_COMPARE:
        return 1.0
    flat = pixels.reshape(len(pixels), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    upright = flat.reshape(pixels.shape)
    half = pixels.shape[2] // 2
    d = (upright - upright[..., ::-1])[..., :half].reshape(len(pixels), -1)       # the right half only repeats the left's
    fold = np.arange(len(d)) % _FOLDS
    score = 0.0
    for held_out in range(_FOLDS):
        known, unknown = d[fold != held_out], d[fold == held_out]
        ridge = _RIDGE * np.square(known).sum() / d.shape[1] + 1e-12
        weights = np.linalg.solve(known.T @ known + ridge * np.eye(d.shape[1]), known.sum(axis=0))
        side = np.sign(np.where(np.abs(unknown @ weights) < 1e-12, 0, unknown @ weights))
        score += float((side + 1).sum() / 2)
    return score / len(d)
