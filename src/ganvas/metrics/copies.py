"""Does a generator repeat its training images? Its samples' nearest ones, judged by how near held-out reals come.

A distance alone proves nothing: a blurred sample is near to everything. What counts is how much nearer the nearest training
image is than the next ones, the ratio that Carlini et al. 2023 ("Extracting training data from diffusion models") judge by;
here, next ones are no twins of the nearest. How small a ratio must be is read off reals that the generator cannot have copied:
those held out, or the training images themselves, each compared with the others that are no twins of it.

How many samples may come so near without any copying is another question. Fresh reals have twins in training as often as the
training images have among each other, but those held out were parted from all of theirs. So the samples' rate is compared with
that of training images of which each is compared with all the others but the very same pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

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
Own = tuple[Indices, Indices]          # numbers of images (M,) and of the training images (N,)
Verdict = Literal["none", "some", "copier", "unknown"]
Space = Literal["pixels", "features"]

SPACES: tuple[Space, ...] = ("pixels", "features")
CANDIDATES = 16        # nearest training images of which the next ones are taken
MOST_TWINS = 1000      # of a calibrating image that are looked beyond; one with more does not calibrate
NEXT = 8               # next ones whose mean distance the nearest one's is compared with
FALSE_ALARMS = 0.01    # share of calibration reals that may lie below a threshold
LEAST_ALARMS = 3       # and how many may at least: a pair of twins that was not known to be one must not blunt the test
SURE = 0.1             # ratio at which an image is a copy whatever the calibration says; what it says is counted all the same
CALIBRATED = 1000      # reals that thresholds and the rate of honest alarms are read off: more sharpen 1 % little
LEAST_REALS = 25       # fewer say nothing about strangers
FEW_TRAIN = 500        # below, held-out reals are too few, and the training images calibrate
FEW_HOLDOUT = 100      # as well below that many held out
SURPRISE = 0.001       # chance of that many alarms without any copying, below which there is copying
COPIER = 0.25          # the interval's lower end above which most of what is wrong is copying
LIMIT = 0.05           # share of copies above which, once there is copying, a checkpoint is no candidate for the best
LEVELS = (1.0, 0.5, 0.25)      # of the thresholds, at which alarms are counted: few close copies show at the lower ones only
PAIRED = 0.5           # independent reals that a training image is worth
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


class Honest(NamedTuple):
    """Reals that nobody copied, and how many of them come as near to a training image as a copy does."""

    by: Literal["holdout", "train"]
    reals: int
    alarms: tuple[int, ...]            # of them, at each of LEVELS

    @property
    def rate(self) -> float:
        """Expected of new ones (Laplace's rule)."""
        return (self.alarms[0] + 1) / (self.reals + 1)


@dataclass(frozen=True)
class Copies:
    """How many samples repeat a training image, and how many reals that nobody copied seem to."""

    samples: int
    copies: int                        # samples below a threshold, in pixels or features
    rate: float
    low: float                         # 95 % interval of the rate (Clopper and Pearson 1934)
    high: float
    train: int                         # images that were compared with
    of: int                            # training images in all
    calibrated_by: Literal["holdout", "train"]     # whichever have more alarms; train: each compared with the others
    calibration: int                   # reals
    false_alarms: int                  # of them, below a threshold
    false_alarm_rate: float            # expected of new reals, (false_alarms + 1) / (calibration + 1)
    share: float                       # of the samples that are copies of any of `of`: what is beyond false alarms, scaled up
    thresholds: dict[Space, float]       # by space: greatest ratio of a copy
    p_value: float                     # chance of so many alarms or more, were the samples reals that nobody copied
    limit: float                       # rate above which copying is too much for the best checkpoint: false alarms come on top
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
        mirror: bool = True, features_of: Callable[[Pixels], Floats] | None = None, of: int | None = None, seed: int = 0,
    ):
        """Takes the images apart, reads the thresholds off reals without twins, and counts the alarms of honest reals.

        train: N images; train_features: (N, d). holdout and its features: reals never trained on, none of which has a twin in
        training. Thresholds are theirs where there are at least 100 of them and 500 training images; else those of training
        images, one of each group, compared with those of other groups. Honest alarms are counted of training images compared
        with all but themselves and the same pixels (mirrored, too), and of the held-out ones. At most 1,000, drawn by `seed`.
        groups: (N,) integers, equal for twins; None = the same pixels alone. names: of the training images; None = their numbers.
        mirror: look for mirrored copies too; in feature space this takes `features_of`, which gives the features of images.
        of: size of the training set that these N images were drawn from; None = they are all.
        Raises DataError for features that do not fit the images or are not finite, and for no training images.
        """
        train, holdout = _images(train), _images(holdout) if holdout is not None else None
        self.vectors = _fitting(train_features, len(train), "training images")
        self.pictures = Pictures(train)
        self.same = self.pictures.same(mirror)             # (N,): equal for the same pixels
        self.groups = self.same if groups is None else np.asarray(groups, dtype=np.int64)
        if self.groups.shape != (len(train),):
            raise ValueError(f"{len(train)} training images, but groups of the shape {self.groups.shape}")
        self.of = len(train) if of is None else of
        if self.of < len(train):
            raise ValueError(f"{len(train)} training images of {of}")
        self.names, self.mirror, self.features_of = names, mirror, features_of
        parted: dict[Space, Nearest] | None = None
        if holdout is not None and len(train) >= FEW_TRAIN and len(holdout) >= FEW_HOLDOUT:
            if holdout_features is None:
                raise ValueError("held-out images without their features")
            vectors, held = _fitting(holdout_features, len(holdout), "held-out images"), _drawn(np.arange(len(holdout)), seed)
            images = holdout.read(held)
            parted = self._nearest(images, vectors[held], self._mirrored_features(images), None)
        self.thresholds = _thresholds(parted or self._left_out(train, self.groups, seed))
        found = [_honest(self._left_out(train, self.same, seed), self.thresholds, "train")]
        if parted is not None:
            found.append(_honest(parted, self.thresholds, "holdout"))
        self.honest = tuple(some for some in found if some.reals >= LEAST_REALS)

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

    def _left_out(self, train: Images, groups: Indices, seed: int) -> dict[Space, Nearest]:
        """What lies nearest to training images, drawn of each group one, in other groups than theirs."""
        chosen = _drawn(groups, seed)
        images = train.read(chosen)
        mirrored = self._mirrored_features(images)
        return self._nearest(images, self.vectors[chosen], mirrored, (groups[chosen], groups))

    def _nearest(self, images: Pixels, features: Floats, mirrored: Floats | None, own: Own | None) -> dict[Space, Nearest]:
        """By space. own: pairs of one number are not compared."""
        def in_pixels(flip: bool) -> Nearest:
            queries = np.ascontiguousarray(images[..., ::-1]) if flip else images
            return self._ratios(lambda rows, k, exclude: self.pictures.nearest(queries[rows], k, exclude), own, len(images), flip)

        def in_features(vectors: Floats, flip: bool) -> Nearest:
            return self._ratios(lambda rows, k, exclude: k_nearest(vectors[rows], self.vectors, k, exclude),
                                own, len(images), flip)

        pixels, near = in_pixels(flip=False), in_features(features, flip=False)
        return {"pixels": _nearer(pixels, in_pixels(flip=True)) if self.mirror else pixels,
                "features": _nearer(near, in_features(mirrored, flip=True)) if mirrored is not None else near}

    def _ratios(self, find: Callable[[Indices, int, Own | None], tuple[NDArray[np.float64], Indices]], own: Own | None,
                count: int, flip: bool) -> Nearest:
        """find(rows, k, what to pass over): (distances, ascending; indices), both (rows, k), of the nearest training images."""
        n = len(self.vectors)
        distances, indices = find(np.arange(count), min(CANDIDATES, n), own)
        nearest, first = np.maximum(indices[:, 0], 0), distances[:, 0]
        others = np.where(self.groups[indices] == self.groups[nearest][:, None], np.inf, distances)
        crowded = np.flatnonzero(np.isfinite(others).sum(1) < NEXT)        # by twins of the nearest: look beyond them
        if len(crowded):
            twins = 0 if own is None else int(np.unique(own[1][np.isin(own[1], own[0][crowded])], return_counts=True)[1].max())
            k = min(CANDIDATES + min(twins, MOST_TWINS), n)
            beyond, indices = find(crowded, k, (self.groups[nearest[crowded]], self.groups))
            if own is not None:
                beyond = np.where(own[1][indices] == own[0][crowded][:, None], np.inf, beyond)
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

        samples, train = suspicion.shape[1], len(self.vectors)
        alarms = [int((suspicion.min(axis=0) < level).sum()) for level in LEVELS]
        copies = alarms[0]
        rate = copies / samples
        low = float(beta.ppf(0.025, copies, samples - copies + 1)) if copies else 0.0
        high = float(beta.ppf(0.975, copies + 1, samples - copies)) if copies < samples else 1.0
        p_value = self._chance(alarms, samples)
        honest = max(self.honest, key=lambda some: some.rate, default=Honest("train", 0, (0,) * len(LEVELS)))
        told = f"{copies:,} of {samples:,} samples ({rate:.1%}, 95 % interval {low:.1%} to {high:.1%})"
        among = f" among {train:,} of {self.of:,} training images" if self.of > train else ""
        what, others = ("held-out reals", "one") if honest.by == "holdout" else ("training images", "another one")
        compared = f"of {honest.reals:,} {what} {honest.alarms[0] / max(1, honest.reals):.1%} come as near to {others} by chance"
        share = self._share(rate, honest)
        least, most = self._share(low, honest), self._share(high, honest)
        in_all = f", which makes {least:.0%} to {most:.0%} of the samples copies of any of the {self.of:,}" if among else ""
        verdict: Verdict
        if not honest.reals:
            verdict, text = "unknown", (f"cannot tell: {len(np.unique(self.same)):,} different training images are too few to "
                                        f"say how near strangers come (at least {LEAST_REALS:,}); {told} are almost the same as "
                                        f"a training image{among}")
        elif self._chance([samples] * len(LEVELS), samples) >= SURPRISE:
            because = "so few samples prove nothing" if samples < LEAST_REALS else "too many training images resemble each other"
            verdict, text = "unknown", f"cannot tell: {because}; {told} are near to a training image{among}, {compared}"
        elif p_value >= SURPRISE:
            verdict, text = "none", f"no sign of copying: {told} are near to a training image{among}, {compared}"
        elif least > COPIER:
            verdict, text = "copier", f"a copier: {told} repeat a training image{among}{in_all}; {compared}"
        else:
            verdict, text = "some", f"some copies: {told} repeat a training image{among}{in_all}; {compared}"
        limit = honest.rate + LIMIT * (1 - honest.rate) * train / self.of
        over = verdict in ("some", "copier") and rate > limit
        return Copies(samples, copies, rate, low, high, train, self.of, honest.by, honest.reals, honest.alarms[0], honest.rate,
                      share, dict(self.thresholds), p_value, limit, over, verdict, text, self._pairs(suspicion, found),
                      found["pixels"], found["features"])

    def _share(self, rate: float, honest: Honest) -> float:
        """Of the samples that are copies of any training image, where `rate` of them seem to be, honest alarms among them."""
        if honest.rate >= 1:
            return 0.0
        return min(1.0, max(0.0, rate - honest.rate) / (1 - honest.rate) * self.of / len(self.vectors))

    def _chance(self, alarms: list[int], samples: int) -> float:
        """p-value of that many alarms at each level, were the samples drawn as the honest reals were; 1 without any such.

        Where k of n independent reals give alarm, the share of new ones that would is distributed as Beta(k + 1, n - k): what
        few reals leave open is in the p-value. Training images are not independent, two of them being each other's nearest, and
        at the thresholds, which are read off them, they count half. Of them and held-out ones, those count at a level that make
        the alarms less of a surprise. The best level counts, times their number (Bonferroni).
        """
        from scipy.stats import betabinom

        def by(some: Honest, level: int) -> float:
            k, n, weight = some.alarms[level], some.reals, PAIRED if some.by == "train" and level == 0 else 1.0
            return float(betabinom.sf(alarms[level] - 1, samples, weight * k + 1, max(1.0, weight * (n - k))))

        if not self.honest:
            return 1.0
        return min(1.0, len(LEVELS) * min(max(by(some, level) for some in self.honest) for level in range(len(LEVELS))))


def check_copies(
    samples: Pixels, train: Images | Pixels, holdout: Images | Pixels | None = None, *, sample_features: Floats,
    train_features: Floats, holdout_features: Floats | None = None, train_groups: Indices | None = None, mirror: bool = True,
    names: Sequence[str] | None = None, features_of: Callable[[Pixels], Floats] | None = None, of: int | None = None,
    seed: int = 0,
) -> Copies:
    """Which of the samples (M, C, H, W) uint8 repeat a training image. Arguments and errors: those of `CopyReference`."""
    reference = CopyReference(train, train_features, holdout, holdout_features, groups=train_groups, names=names,
                              mirror=mirror, features_of=features_of, of=of, seed=seed)
    return reference.check(samples, sample_features)


def _images(images: Images | Pixels) -> Images:
    return ImageArray(images) if isinstance(images, np.ndarray) else images


def _drawn(groups: Indices, seed: int) -> Indices:
    """At most CALIBRATED positions, ascending, of one image of each group."""
    firsts = np.unique(groups, return_index=True)[1]
    drawn = rng.permute(np.arange(min(CALIBRATED, len(firsts))), len(firsts), seed, rng.Purpose.SUBSET, 0)
    return np.sort(firsts[drawn])


def _known(found: dict[Space, Nearest]) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = ~np.isnan(found["pixels"].ratio + found["features"].ratio)
    return known


def _thresholds(found: dict[Space, Nearest]) -> dict[Space, float]:
    """The ratios that 1 % of these reals, at least 3 of them, reach; SURE where these are too few."""
    known = _known(found)
    if known.sum() < LEAST_REALS:
        return dict.fromkeys(SPACES, SURE)
    alarms = max(LEAST_ALARMS, int(FALSE_ALARMS * (int(known.sum()) + 1)))
    return {space: max(SURE, float(np.sort(near.ratio[known])[alarms - 1])) for space, near in found.items()}


def _honest(found: dict[Space, Nearest], thresholds: dict[Space, float], by: Literal["holdout", "train"]) -> Honest:
    known = _known(found)
    suspicion = _suspicion(found, thresholds).min(axis=0)[known]
    return Honest(by, int(known.sum()), tuple(int((suspicion < level).sum()) for level in LEVELS))


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
