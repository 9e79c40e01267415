"""Does a generator repeat its training images? Its samples' nearest ones, judged by how near held-out reals come.

A distance alone proves nothing: a blurred sample is near to everything. What counts is how much nearer the nearest training
image is than the next ones, the ratio that Carlini et al. 2023 ("Extracting training data from diffusion models") judge by;
here, next ones are no twins of the nearest. How small a ratio must be is read off reals that the generator cannot have copied:
those held out, or the training images themselves, each compared with the others that are no twins of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ganvas import rng
from ganvas.errors import DataError
from ganvas.metrics.checks import checked
from ganvas.metrics.features import ImageArray, Images
from ganvas.metrics.nearest import k_nearest
from ganvas.metrics.pictures import Pictures

Pixels = NDArray[np.uint8]             # (n, C, H, W)
Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
Verdict = Literal["none", "some", "copier", "unknown"]
Space = Literal["pixels", "features"]

SPACES: tuple[Space, ...] = ("pixels", "features")
CANDIDATES = 16        # nearest training images of which the next ones are taken
MOST_TWINS = 1000      # of a calibrating image that are looked beyond; one with more does not calibrate
NEXT = 8               # next ones whose mean distance the nearest one's is compared with
FALSE_ALARMS = 0.01    # share of calibration reals that may lie below a threshold
LEAST_ALARMS = 3       # and how many may at least: a pair of twins that was not known to be one must not blunt the test
SURE = 0.1             # ratio at which an image is a copy whatever the calibration says; what it says is counted all the same
CALIBRATED = 1000      # reals that thresholds are read off: more sharpen 1 % little
LEAST_REALS = 25       # fewer say nothing about strangers
FEW_TRAIN = 500        # below, held-out reals are too few, and the training images calibrate
FEW_HOLDOUT = 100      # as well below that many held out
SURPRISE = 0.001       # chance of that many alarms without any copying, below which there is copying
COPIER = 0.25          # the interval's lower end above which most of what is wrong is copying
LIMIT = 0.05           # rate above which, once there is copying, a checkpoint is no candidate for the best
LEVELS = (1.0, 0.5)    # of the thresholds, at which alarms are counted: few close copies show at the second only
PAIRS = 32             # pairs that are named


@dataclass(frozen=True)
class CopyPair:
    """A sample that counts as a copy, and the training image that it repeats."""

    sample: int                        # its number, from 0
    train: int
    name: str                          # of the training image
    ratio: float                       # of its distance to that of the next ones: 0 = the same image, 1 = no nearer than others
    mirrored: bool
    space: Space


@dataclass(frozen=True)
class Nearest:
    """Of each of M samples the nearest training image, straight or mirrored."""

    train: Indices                     # (M,)
    ratio: NDArray[np.float64]         # (M,): distance to it / mean distance to the next that are no twins of it; NaN: none
    mirrored: NDArray[np.bool_]        # (M,): it is the mirrored sample that is near


@dataclass(frozen=True)
class Copies:
    """How many samples repeat a training image, and how many of the calibrating reals seem to."""

    samples: int
    copies: int                        # samples below a threshold, in pixels or features
    rate: float
    low: float                         # 95 % interval of the rate (Clopper and Pearson 1934)
    high: float
    train: int                         # images
    calibrated_by: Literal["holdout", "train"]     # train: each training image as if its twins and it had been held out
    calibration: int                   # reals
    false_alarms: int                  # of them, below a threshold
    false_alarm_rate: float            # expected of new reals, (false_alarms + 1) / (calibration + 1)
    thresholds: dict[Space, float]       # by space: greatest ratio of a copy
    p_value: float                     # chance of so many alarms or more, were the samples reals that nobody copied
    limit: float                       # rate above which copying is too much for the best checkpoint
    over_limit: bool                   # the rate is above it, and not by chance
    verdict: Verdict
    text: str                          # the verdict in words
    pairs: tuple[CopyPair, ...]        # the most suspicious ones, the surest first
    pixels: Nearest
    features: Nearest

    @property
    def suspicion(self) -> NDArray[np.float64]:
        """(M,): the smaller of each sample's ratios, each divided by its threshold; below 1 it counts as a copy."""
        least: NDArray[np.float64] = _suspicion({"pixels": self.pixels, "features": self.features}, self.thresholds).min(axis=0)
        return least

    def as_dict(self) -> dict[str, Any]:
        """Everything but the samples' nearest ones, as JSON holds it."""
        kept = {name: value for name, value in vars(self).items() if name not in ("pixels", "features", "pairs")}
        return kept | {"thresholds": dict(self.thresholds), "pairs": [asdict(pair) for pair in self.pairs]}


class CopyReference:
    """Training images prepared once, and the thresholds, so that samples can be checked again and again."""

    def __init__(
        self, train: Images | Pixels, train_features: Floats, holdout: Images | Pixels | None = None,
        holdout_features: Floats | None = None, *, groups: Indices | None = None, names: Sequence[str] | None = None,
        mirror: bool = True, features_of: Callable[[Pixels], Floats] | None = None, seed: int = 0,
    ):
        """Takes the images apart and reads the thresholds off the calibrating reals.

        train: N images; train_features: (N, d). holdout and its features: reals never trained on, none of which has a twin in
        training. They calibrate where there are at least 100 of them and 500 training images; else training images do, one of
        each group, compared with those of other groups. At most 1,000, drawn by `seed`.
        groups: (N,) integers, equal for twins; None = no image has one. names: of the training images; None = their numbers.
        mirror: look for mirrored copies too; in feature space this takes `features_of`, which gives the features of images.
        Raises DataError for features that do not fit the images or are not finite, and for no training images.
        """
        train, holdout = _images(train), _images(holdout) if holdout is not None else None
        self.vectors = _fitting(train_features, len(train), "training images")
        self.groups = np.arange(len(train)) if groups is None else np.asarray(groups, dtype=np.int64)
        if self.groups.shape != (len(train),):
            raise ValueError(f"{len(train)} training images, but groups of the shape {self.groups.shape}")
        self.names, self.mirror, self.features_of = names, mirror, features_of
        self.pictures = Pictures(train)
        whole = holdout is not None and len(train) >= FEW_TRAIN and len(holdout) >= FEW_HOLDOUT
        self.calibrated_by: Literal["holdout", "train"] = "holdout" if whole else "train"
        reals = holdout if whole and holdout is not None else train
        chosen = np.arange(len(reals)) if whole else np.unique(self.groups, return_index=True)[1]
        chosen = chosen[np.sort(rng.permute(np.arange(min(CALIBRATED, len(chosen))), len(chosen), seed, rng.Purpose.SUBSET, 0))]
        vectors = self.vectors
        if whole:
            if holdout_features is None:
                raise ValueError("held-out images without their features")
            vectors = _fitting(holdout_features, len(reals), "held-out images")
        images = reals.read(chosen)
        found = self._nearest(images, vectors[chosen], self._mirrored_features(images), None if whole else self.groups[chosen])
        known = ~np.isnan(found["pixels"].ratio + found["features"].ratio)
        self.calibration = int(known.sum()) if known.sum() >= LEAST_REALS else 0
        self.thresholds, self.false_alarms = dict.fromkeys(SPACES, SURE), (0,) * len(LEVELS)
        if self.calibration:
            alarms = max(LEAST_ALARMS, int(FALSE_ALARMS * (self.calibration + 1)))
            self.thresholds = {space: max(SURE, float(np.sort(near.ratio[known])[alarms - 1])) for space, near in found.items()}
            suspicion = _suspicion(found, self.thresholds).min(axis=0)
            self.false_alarms = tuple(int((suspicion < level).sum()) for level in LEVELS)

    def check(self, samples: Pixels, features: Floats, mirrored_features: Floats | None = None) -> Copies:
        """Which of the samples (M, C, H, W) uint8 are copies.

        features: (M, d), of the samples. mirrored_features: of the mirrored ones, where known; else `features_of` makes them.
        Raises DataError where size or channels are not those of the training images, or features do not fit.
        """
        if not len(samples):
            raise DataError("no samples to compare with the training images. Make at least one.")
        self.pictures.refuse_other_shape(samples)
        features = _fitting(features, len(samples), "samples")
        if self.mirror and mirrored_features is None:
            mirrored_features = self._mirrored_features(samples)
        found = self._nearest(samples, features, mirrored_features if self.mirror else None, None)
        return self._judged(_suspicion(found, self.thresholds), found)

    def _mirrored_features(self, images: Pixels) -> Floats | None:
        if not self.mirror or self.features_of is None:
            return None
        return np.asarray(self.features_of(np.ascontiguousarray(images[..., ::-1])))

    def _nearest(self, images: Pixels, features: Floats, mirrored: Floats | None, own: Indices | None) -> dict[Space, Nearest]:
        """By space. own: (M,): groups that the images belong to and are not compared with."""
        def in_pixels(flip: bool) -> Nearest:
            queries = np.ascontiguousarray(images[..., ::-1]) if flip else images
            return self._ratios(lambda rows, k, exclude: self.pictures.nearest(
                queries[rows], k, None if exclude is None else (exclude, self.groups)), own, len(images), flip)

        def in_features(vectors: Floats, flip: bool) -> Nearest:
            return self._ratios(lambda rows, k, exclude: k_nearest(
                vectors[rows], self.vectors, k, None if exclude is None else (exclude, self.groups)), own, len(images), flip)

        pixels, near = in_pixels(flip=False), in_features(features, flip=False)
        return {"pixels": _nearer(pixels, in_pixels(flip=True)) if self.mirror else pixels,
                "features": _nearer(near, in_features(mirrored, flip=True)) if mirrored is not None else near}

    def _ratios(self, find: Callable[[Indices, int, Indices | None], tuple[NDArray[np.float64], Indices]], own: Indices | None,
                count: int, flip: bool) -> Nearest:
        """find(rows, k, groups to pass over): (distances, ascending; indices), both (rows, k), of the nearest training images."""
        n = len(self.vectors)
        distances, indices = find(np.arange(count), min(CANDIDATES, n), own)
        nearest, first = np.maximum(indices[:, 0], 0), distances[:, 0]
        others = np.where(self.groups[indices] == self.groups[nearest][:, None], np.inf, distances)
        crowded = np.flatnonzero(np.isfinite(others).sum(1) < NEXT)        # by twins of the nearest: look beyond them
        if len(crowded):
            twins = 0 if own is None else max(int((self.groups == group).sum()) for group in np.unique(own[crowded]))
            k = min(CANDIDATES + min(twins, MOST_TWINS), n)
            beyond, indices = find(crowded, k, self.groups[nearest[crowded]])
            if own is not None:
                beyond = np.where(self.groups[indices] == own[crowded][:, None], np.inf, beyond)
            others[crowded] = np.sort(beyond, axis=1)[:, :others.shape[1]]
        others = np.sort(others, axis=1)[:, :NEXT]
        there = np.isfinite(others)
        mean = np.where(there, others, 0).sum(1) / np.maximum(there.sum(1), 1)
        known = there[:, 0] & np.isfinite(first) & (mean > 0)
        ratio = np.full(count, np.nan)
        ratio[known] = first[known] / mean[known]
        return Nearest(nearest, ratio, np.full(count, flip))

    def _pairs(self, suspicion: NDArray[np.float64], found: dict[Space, Nearest]) -> tuple[CopyPair, ...]:
        alarm = suspicion.min(axis=0)
        surest = np.argsort(alarm, kind="stable")[:min(PAIRS, int((alarm < 1).sum()))]
        pairs = []
        for sample in surest.tolist():
            space = SPACES[int(suspicion[:, sample].argmin())]
            near = found[space]
            train = int(near.train[sample])
            pairs.append(CopyPair(sample, train, str(train) if self.names is None else self.names[train],
                                  float(near.ratio[sample]), bool(near.mirrored[sample]), space))
        return tuple(pairs)

    def _judged(self, suspicion: NDArray[np.float64], found: dict[Space, Nearest]) -> Copies:
        """suspicion: (spaces, M)."""
        from scipy.stats import beta

        samples, n = suspicion.shape[1], self.calibration
        alarms = [int((suspicion.min(axis=0) < level).sum()) for level in LEVELS]
        copies = alarms[0]
        rate = copies / samples
        low = float(beta.ppf(0.025, copies, samples - copies + 1)) if copies else 0.0
        high = float(beta.ppf(0.975, copies + 1, samples - copies)) if copies < samples else 1.0
        p_value = self._chance(alarms, samples)
        told = f"{copies:,} of {samples:,} samples ({rate:.1%}, 95 % interval {low:.1%} to {high:.1%})"
        reals = "held-out reals" if self.calibrated_by == "holdout" else "training images, without their twins,"
        compared = (f"of {n:,} {reals} {self.false_alarms[0] / max(1, n):.1%} come as near by chance")
        verdict: Verdict
        if not n:
            verdict, text = "unknown", (f"cannot tell: {len(np.unique(self.groups)):,} training images, twins counted once, are "
                                        f"too few to say how near strangers come (at least {LEAST_REALS:,}); {told} are almost "
                                        "the same as a training image")
        elif self._chance([samples] * len(LEVELS), samples) >= SURPRISE:
            verdict, text = "unknown", f"cannot tell: so few samples prove nothing; {told} are near to a training image"
        elif p_value >= SURPRISE:
            verdict, text = "none", f"no sign of copying: {told} are near to a training image, {compared}"
        elif low > COPIER:
            verdict, text = "copier", f"a copier: {told} repeat a training image; {compared}"
        else:
            verdict, text = "some", f"some copies: {told} repeat a training image; {compared}"
        over = verdict in ("some", "copier") and rate > LIMIT
        return Copies(samples, copies, rate, low, high, len(self.vectors), self.calibrated_by, n, self.false_alarms[0],
                      (self.false_alarms[0] + 1) / (n + 1), dict(self.thresholds), p_value, LIMIT, over, verdict, text,
                      self._pairs(suspicion, found), found["pixels"], found["features"])

    def _chance(self, alarms: list[int], samples: int) -> float:
        """p-value of that many alarms at each level, were the samples drawn as the calibrating reals were; 1 without any such.

        A threshold that k of these n pass would let a share of samples pass that is distributed as Beta(k + 1, n - k): what
        calibrating with few reals leaves open is in the p-value. The best level counts, times their number (Bonferroni).
        """
        from scipy.stats import betabinom

        n = self.calibration
        by_level = [float(betabinom.sf(count - 1, samples, k + 1, max(1, n - k)))
                    for count, k in zip(alarms, self.false_alarms, strict=True)]
        return min(1.0, len(LEVELS) * min(by_level)) if n else 1.0


def check_copies(
    samples: Pixels, train: Images | Pixels, holdout: Images | Pixels | None = None, *, sample_features: Floats,
    train_features: Floats, holdout_features: Floats | None = None, train_groups: Indices | None = None, mirror: bool = True,
    names: Sequence[str] | None = None, features_of: Callable[[Pixels], Floats] | None = None, seed: int = 0,
) -> Copies:
    """Which of the samples (M, C, H, W) uint8 repeat a training image. Arguments and errors: those of `CopyReference`."""
    reference = CopyReference(train, train_features, holdout, holdout_features, groups=train_groups, names=names,
                              mirror=mirror, features_of=features_of, seed=seed)
    return reference.check(samples, sample_features)


def _images(images: Images | Pixels) -> Images:
    return ImageArray(images) if isinstance(images, np.ndarray) else images


def _fitting(features: Floats, images: int, what: str) -> Floats:
    features = checked(features, what, 1)
    if len(features) != images:
        raise DataError(f"{what}: {images:,} images, but features of {len(features):,}. Compute the features of these images.")
    return features


def _suspicion(found: dict[Space, Nearest], thresholds: dict[Space, float]) -> NDArray[np.float64]:
    """(spaces, M): each ratio divided by its threshold; below 1 is an alarm, infinite where nothing is known."""
    return np.array([np.nan_to_num(found[space].ratio / thresholds[space], nan=np.inf) for space in SPACES])


def _nearer(straight: Nearest, mirrored: Nearest) -> Nearest:
    """Of each image the orientation that stands nearer to a training image, compared with the next ones."""
    better = (mirrored.ratio < straight.ratio) | np.isnan(straight.ratio)
    return Nearest(*(np.where(better, getattr(mirrored, name), getattr(straight, name))
                     for name in ("train", "ratio", "mirrored")))
