"""All figures of a set of samples beside reals, each with its interval and its floor, in one protocol for every metric.

In each repetition n reals are the reference, n other reals are measured against it (the floor: what a perfect generator would
get), and n samples, fresh ones in each repetition as far as there are enough. Nothing is drawn with replacement: see `interval`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import DataError
from ganvas.metrics.diversity import MOST_IMAGES as MOST_SIMILAR
from ganvas.metrics.diversity import diversity_beside, mean_distance
from ganvas.metrics.features import Extractor, Features
from ganvas.metrics.fid import Reference, fid_against
from ganvas.metrics.inception_score import inception_score
from ganvas.metrics.interval import halves, interval
from ganvas.metrics.kid import kid, kid_of_all
from ganvas.metrics.modes import mode_coverage
from ganvas.metrics.prdc import prdc
from ganvas.metrics.sliced import sliced_wasserstein

Better = Literal["lower", "higher", "none"]
Indices = NDArray[np.int64]
Reader = Callable[[Indices], NDArray[np.uint8]]            # positions -> images (n, C, H, W)

NEIGHBOURS = 5                 # k of precision, recall, density and coverage
FEWEST_REALS = 8               # in all; halves of fewer have no neighbours to speak of
LARGEST = 1e15                 # value of a feature: distances in float32 square it
SPLITS = 10                    # of the Inception Score
OFTEN = 5                      # samples that make a mode well hit
FLOOR_DRAWS = 200              # of the KL of modes
ALL_PAIRS = 5000               # images up to which KID takes all pairs: the surest estimate, and quicker than many subsets
PIXELS = "composed on white with alpha beside, if transparent"        # the preprocessing of figures that look at pixels
PIXEL_REPEATS, PIXEL_IMAGES = 3, 1000      # of the sliced Wasserstein distance, which is dear

LABELS: dict[str, tuple[str, Better]] = {
    "fid": ("FID", "lower"), "kid": ("KID", "lower"), "precision": ("precision", "higher"), "recall": ("recall", "higher"),
    "density": ("density", "higher"), "coverage": ("coverage", "higher"), "is": ("Inception Score", "higher"),
    "modes": ("modes", "higher"), "mode_kl": ("KL of modes", "lower"),
    "agreement": ("class agreement", "higher"), "diversity": ("diversity", "none"),
    "similarity": ("similarity", "none"), "swd": ("sliced Wasserstein", "lower"),
}


@dataclass(frozen=True)
class Figure:
    """One number with all that it hangs on. floor: the same of other reals in the samples' place; None = there is none."""

    metric: str
    label: str
    value: float
    low: float
    high: float
    floor: float | None
    floor_low: float | None
    floor_high: float | None
    error: float | None            # standard error, where the estimator has one
    better: Better
    n: int                         # samples in each repetition
    reals: int                     # reals that the reference was drawn from
    split: str                     # which reals: train, holdout or all
    extractor: str
    preprocessing: str
    relative_only: bool            # compares models on these very images, and with nothing published
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Reals:
    """The reals of one split: their features, and their images where they are at hand."""

    def __init__(self, features: Features, read: Reader | None, split: str, labels: Indices | None = None,
                 all_labels: Indices | None = None):
        """read: positions (n,) among these reals -> uint8 images. labels: their classes in the extractor's order, (N,).
        all_labels: of all reals, where these are only a part of them.

        An extractor that was trained on images knows them: `features` should be of others, for what it gives to those is nearer
        to itself than what it gives to any new image, and a floor made of it is too low for a perfect generator.
        """
        if len(features.vectors) < FEWEST_REALS:
            raise DataError(f"{len(features.vectors):,} real images ({split}) are too few to measure against: at least "
                            f"{FEWEST_REALS} are needed, and hundreds for figures that mean something. Give more images"
                            + (", or measure against --split train." if split == "holdout" else "."))
        if not np.ptp(features.vectors, axis=0).any():
            raise DataError(f"the features of all {len(features.vectors):,} real images ({split}) are the same: there is nothing "
                            "to measure. Are these different images? If so, take another extractor.")
        self.features, self.read, self.split, self.labels, self.all_labels = features, read, split, labels, all_labels

    def __len__(self) -> int:
        return len(self.features.vectors)


def sets_of(available: int, n: int, repeats: int, seed: int) -> list[Indices]:
    """`repeats` sets of n of `available` samples: disjoint ones while there are enough, else each drawn without replacement.

    Samples may come in an order, such as class by class: every set is drawn from all of them.
    """
    def shuffled(k: int) -> Indices:
        return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, k, 2])).permutation(available)

    if available >= n * repeats:
        order = shuffled(0)
        return [order[k * n:(k + 1) * n] for k in range(repeats)]
    return [shuffled(k)[:n] for k in range(repeats)]


def pixels_of(available: int, n: int, repeats: int, seed: int) -> Indices:
    """The positions of the samples whose pixels `figures` reads, of so many that it gets; n as it will be there."""
    first, *_ = sets = sets_of(available, min(n, available), repeats, seed)
    return np.unique(np.concatenate([first[:MOST_SIMILAR], *(chosen[:PIXEL_IMAGES] for chosen in sets[:PIXEL_REPEATS])]))


def figures(reals: Reals, fakes: Features, read: Reader, extractor: Extractor, *, n: int, repeats: int = 5, seed: int = 0,
            tell: Callable[[str], None] = lambda text: None, asked: Indices | None = None) -> Iterator[Figure]:
    """Every figure that this extractor allows, one after the other as they are ready.

    fakes: features of M samples. read: positions among those -> uint8 images; it is asked for those of `pixels_of` alone, where
    the reals' images are at hand. n: samples and reals in each repetition; fewer where there are fewer (half of the reals, all
    samples). asked: (M,) the class that each sample was made to be of, in the reals' order. Raises DataError where too few are
    left.
    """
    n = min(n, len(reals) // 2, len(fakes.vectors))
    if n <= 2:
        raise DataError(f"{len(fakes.vectors):,} samples are too few to measure. Give at least {FEWEST_REALS}.")
    largest = max(float(np.abs(reals.features.vectors).max()), float(np.abs(fakes.vectors).max()))
    if largest > LARGEST:
        raise DataError(f"features from the extractor {extractor.name} are as large as {largest:.3g}, and their powers overflow. "
                        f"Scale them to be about 1; {LARGEST:g} is the most.")
    k = min(NEIGHBOURS, n - 1)
    sets = sets_of(len(fakes.vectors), n, repeats, seed)
    divided = [tuple(half[:n] for half in halves(len(reals), seed, number)) for number in range(repeats)]

    def figure(metric: str, values: Sequence[float], floors: Sequence[float] = (), *, error: float | None = None, note: str = "",
               n: int = n, pixels: bool = False) -> Figure:
        fake, floor = interval(values), interval(floors) if floors else None
        label, better = LABELS[metric]
        return Figure(
            metric, label, fake.value, fake.low, fake.high, floor and floor.value, floor and floor.low, floor and floor.high,
            error, better, n, len(reals), reals.split, "pixels" if pixels else extractor.name,
            PIXELS if pixels else extractor.preprocessing, pixels or extractor.relative_only, note)

    vectors, samples = reals.features.vectors, fakes.vectors
    distances: dict[str, tuple[list[float], list[float]]] = {}
    errors = []
    for number, (chosen, (a, b)) in enumerate(zip(sets, divided, strict=True)):
        tell(f"comparing, {number + 1} of {repeats}")
        reference = Reference.of(vectors[a])
        for place, candidate in enumerate((samples[chosen], vectors[b])):
            estimate = (kid_of_all if n <= ALL_PAIRS else kid)(vectors[a], candidate)
            measured = {"fid": fid_against(reference, candidate), "kid": estimate.value,
                        **prdc(vectors[a], candidate, k)._asdict(), "diversity": mean_distance(candidate)}
            for metric, value in measured.items():
                distances.setdefault(metric, ([], []))[place].append(value)
            if place == 0:
                errors.append(estimate.error)
    notes = dict.fromkeys(("precision", "recall", "density", "coverage"), f"k = {k}")
    if n <= vectors.shape[1]:
        notes["fid"] = f"n is not above the {vectors.shape[1]:,} features: FID is biased upwards, as its floor shows"
    for metric, (values, floors) in distances.items():
        error = float(np.median(errors)) if metric == "kid" else None
        yield figure(metric, values, floors, error=error, note=notes.get(metric, ""))
    yield from _of_classes(reals, fakes, sets, divided, extractor, seed, figure, asked)
    yield from _of_pixels(reals, fakes, read, sets, divided, seed, tell, figure)


def _of_classes(reals: Reals, fakes: Features, sets: Sequence[Indices], divided: Sequence[tuple[Indices, ...]],
                extractor: Extractor, seed: int, figure: Callable[..., Figure], asked: Indices | None) -> Iterator[Figure]:
    """What needs an extractor with classes; modes and agreement only where the classes are the reals' own."""
    if fakes.probabilities is None or reals.features.probabilities is None:
        return
    probabilities, n = reals.features.probabilities, len(sets[0])
    splits = min(SPLITS, n // 2)
    yield figure("is", [inception_score(fakes.probabilities[chosen], splits).value for chosen in sets],
                 [inception_score(probabilities[b], splits).value for _, b in divided], note=f"{splits} splits")
    if reals.labels is None:
        return
    answers, samples = probabilities.argmax(axis=1), fakes.probabilities.argmax(axis=1)
    counts = np.bincount(reals.labels if reals.all_labels is None else reals.all_labels, minlength=probabilities.shape[1])
    found = mode_coverage(samples, answered_shares(reals.labels, answers, counts), OFTEN, seed)
    errs = "" if extractor.accuracy is None else f", sorted by a classifier that is right for {extractor.accuracy:.1%}"
    yield figure("modes", [found.hit], [found.hit_expected], n=found.n,
                 note=f"of {found.modes:,} classes; {found.hit_often:,} hit at least {OFTEN} times{errs}")
    if np.isfinite(found.kl):                              # infinite: no sample is in any of the reals' classes
        yield figure("mode_kl", [found.kl], mode_kl_floor(reals.labels, answers, counts, found.n, seed), n=found.n,
                     note=f"KL(samples' classes ‖ reals') in nats{errs}")
    if asked is not None:
        yield figure("agreement", [float((samples[chosen] == asked[chosen]).mean()) for chosen in sets],
                     [float((answers[b] == reals.labels[b]).mean()) for _, b in divided],
                     note=f"samples that are of the class they were asked to be{errs}")


def answered_shares(labels: Indices, answers: Indices, counts: Indices) -> NDArray[np.float64]:
    """The shares (K,) of the classes that a classifier that errs gives reals: those by label, and what its errors move.

    labels, answers: (m,) of the same reals. counts: (K,) of all reals, by label. The m alone would tell as well, but less surely:
    by label there are many more. A class that the reals have keeps at least one answer in m, or its own share.
    """
    moved = (np.bincount(answers, minlength=len(counts)) - np.bincount(labels, minlength=len(counts))) / len(labels)
    by_label = counts / counts.sum()
    shares = np.maximum(by_label + moved, np.minimum(by_label, 1 / len(labels))) * (counts > 0)
    return np.asarray(shares / shares.sum())


def mode_kl_floor(labels: Indices, answers: Indices, counts: Indices, n: int, seed: int = 0) -> tuple[float, float, float]:
    """(5 %, mean, 95 %) of the KL of the classes of n fresh reals from `answered_shares` of these.

    The floor of `mode_coverage` takes the reference for exact. That of few reals is not, so here it is drawn anew each time.
    """
    from scipy.special import rel_entr

    shares, by_label = answered_shares(labels, answers, counts), counts / counts.sum()
    rng, kls = np.random.Generator(np.random.Philox(seed)), []
    for _ in range(FLOOR_DRAWS):
        some = rng.integers(len(labels), size=len(labels))
        reference = answered_shares(labels[some], answers[some], rng.multinomial(counts.sum(), by_label))
        fresh = rng.multinomial(n, shares) * (reference > 0)
        kls.append(rel_entr(fresh / max(1, fresh.sum()), reference).sum())
    low, high = np.quantile(kls, [0.05, 0.95])
    return float(low), float(np.mean(kls)), float(high)


def _of_pixels(reals: Reals, fakes: Features, read: Reader, sets: Sequence[Indices],
               divided: Sequence[tuple[Indices, ...]], seed: int, tell: Callable[[str], None],
               figure: Callable[..., Figure]) -> Iterator[Figure]:
    """What needs the reals' images. Of the samples', those of `pixels_of`."""
    if reals.read is None:
        return
    tell("comparing pixels")
    a, chosen = divided[0][0][:MOST_SIMILAR], sets[0][:MOST_SIMILAR]
    of_reals, of_fakes = diversity_beside(reals.features.vectors[a], reals.read(a), fakes.vectors[chosen], read(chosen), seed)
    yield figure("similarity", [of_fakes.similarity], [of_reals.similarity], n=of_fakes.n, pixels=True,
                 note=f"mean {of_fakes.similarity_name} of two samples; {of_fakes.alike_pairs:,} pairs look the same "
                      f"(reals: {of_reals.alike_pairs:,})")
    values, floors, some = [], [], slice(0, PIXEL_IMAGES)
    for chosen, (a, b) in list(zip(sets, divided, strict=True))[:PIXEL_REPEATS]:
        reference = reals.read(a[some])
        values.append(1000 * sliced_wasserstein(reference, read(chosen[some]), seed).mean)
        floors.append(1000 * sliced_wasserstein(reference, reals.read(b[some]), seed).mean)
    yield figure("swd", values, floors, n=len(reference), pixels=True,
                 note="times 1,000, mean over the levels of a Laplacian pyramid")
