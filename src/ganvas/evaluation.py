"""How good samples are, how sure that is, and whether they copy: of a run's generator, or of any images."""

import contextlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganvas.config import DataConfig, make_config
from ganvas.data.decode import open_image, to_pixels
from ganvas.data.looks import look
from ganvas.data.pack import Pack, build_pack
from ganvas.data.sources import Source, UnreadableError
from ganvas.data.split import Subset
from ganvas.dataset import Dataset, layout_of
from ganvas.errors import ConfigError, DataError, RunError
from ganvas.files import write_whole
from ganvas.generator import ImageGenerator
from ganvas.metrics.copies import Copies, CopyReference
from ganvas.metrics.data_copying import DataCopying, data_copying
from ganvas.metrics.extractors import make_extractor, noted_name
from ganvas.metrics.feature_cache import Reference, load_features, real_features, save_features
from ganvas.metrics.features import Extractor, Features, Kept, extract
from ganvas.metrics.figures import Figure, Reals, figures, pixels_of
from ganvas.networks.latents import draw_labels
from ganvas.report.grid import save_png
from ganvas.report.neighbours import draw_neighbours, telling_rows
from ganvas.rng import Purpose, permute
from ganvas.run_folder import RunFolder
from ganvas.watcher import Watcher

VERSION = 1
SPLITS = ("train", "holdout", "all")
MOST_COPY_SAMPLES = 2000       # samples whose nearest training image is looked for
FEW = 10                       # samples in a comparison, below which a note says so
CORNERS_OF = 64                # samples that tell the colour behind them
NEIGHBOURS_SHOWN = 24          # rows of the sheet of nearest training images
DRAWN = 256                    # pictures drawn at once
LEAST_UNSEEN = 500             # images that a trained extractor has not seen; fewer are not measured against alone
MOST_SEED = 2**64 - 1          # of rng
CLASSIFIER_ALONE = "features of the classifier serve nobody else, because it was trained on these very images."


def read_evaluation(folder: RunFolder) -> dict[str, Any] | None:
    """What evaluation.json holds; None where there is none, or one that is damaged or of another version."""
    try:
        about = json.loads(folder.evaluation.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) and about.get("version") == VERSION and about.get("figures") else None


class Options(NamedTuple):
    """How to measure."""

    n: int = 2000                  # samples, and reals, in each repetition
    repeats: int = 5
    extractor: str | Callable[..., Any] = "auto"
    split: str = "train"           # reals that are compared with
    seed: int = 0
    device: str = "cpu"
    reals: int | None = None       # at most so many training images are looked at; None = all

    def check(self) -> "Options":
        """Itself. Raises ConfigError for a value that is none."""
        if self.split not in SPLITS:
            raise ConfigError(f"--split {self.split}: one of {', '.join(SPLITS)}.")
        for name, value, least in (("n", self.n, 3), ("repeats", self.repeats, 1), ("seed", self.seed, 0)):
            if value < least:
                raise ConfigError(f"--{name} {value}: at least {least}.")
        if self.seed > MOST_SEED:
            raise ConfigError(f"--seed {self.seed}: at most {MOST_SEED}.")
        return self


@dataclass(frozen=True)
class Evaluation:
    """What is known of some samples. `as_dict` is what --json prints and evaluation.json holds."""

    subject: str                   # run folder, or where the samples came from
    source: str                    # the real images
    checkpoint: int                # images that the generator had seen; 0 for samples of unknown origin
    chosen: str                    # best, last or a number; "" for such samples
    averaged: bool
    options: Options
    extractor: str                 # by name: what saw the images
    data_fingerprint: str
    figures: tuple[Figure, ...]
    copies: Copies | None
    copying_test: DataCopying | None
    notes: tuple[str, ...]
    key: str = ""                  # of the extractor: figures of another one do not compare with these
    made_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def value(self, metric: str) -> float | None:
        """The figure of that name ('kid', 'coverage', …; 'copies' = the rate), or None where it was not measured."""
        if metric == "copies":
            return None if self.copies is None else self.copies.rate
        return next((figure.value for figure in self.figures if figure.metric == metric), None)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        copies = self.copies
        about: dict[str, Any] = {
            "version": VERSION, "subject": self.subject, "source": self.source, "checkpoint": self.checkpoint,
            "chosen": self.chosen, "averaged": self.averaged, "seed": self.options.seed, "n": self.options.n,
            "repeats": self.options.repeats, "split": self.options.split,
            "reals": self.options.reals, "extractor": self.extractor, "extractor_key": self.key,
            "data_fingerprint": self.data_fingerprint, "made_at": self.made_at,
            "figures": [figure.as_dict() for figure in self.figures], "copies": None, "notes": list(self.notes)}
        if copies is not None:
            by = "held-out reals" if copies.calibrated_by == "holdout" else "training images, each among the others"
            about["copies"] = {
                "rate": copies.rate, "low": copies.low, "high": copies.high, "limit": copies.limit,
                "over_limit": copies.over_limit, "calibration": f"{copies.calibration:,} {by}",
                "calibration_rate": copies.false_alarms / max(1, copies.calibration), "n": copies.samples, "train": copies.train,
                "verdict": copies.verdict, "text": copies.text,
                "pairs": [{"sample": pair.sample, "image": pair.name, "ratio": pair.ratio, "mirrored": pair.mirrored,
                           "space": pair.space} for pair in copies.pairs],
                "data_copying": None if self.copying_test is None else
                {"c_t": self.copying_test.c_t, "text": self.copying_test.text}}
        return about


def evaluate_generator(
    generator: ImageGenerator, dataset: Dataset, options: Options, *, subject: str, source: str, chosen: str,
    folder: RunFolder | None, watch: Watcher, save: Path | None = None,
) -> Evaluation:
    """Evaluates a generator against the images it was trained on. folder: gets evaluation.json and neighbours.png.

    save: a file for the reals' features. Raises GanvasError with a message for the user.
    """
    def samples(n: int) -> Kept:
        total = n * options.repeats
        drawn = (generator.sample(min(DRAWN, total - start), options.seed, start, Purpose.EVALUATE)
                 for start in range(0, total, DRAWN))
        looked_at = np.union1d(pixels_of(total, n, options.repeats, options.seed), np.arange(min(total, MOST_COPY_SAMPLES)))
        return Kept((np.ascontiguousarray(images.transpose(0, 3, 1, 2)) for images in drawn), total, looked_at)

    knows_classes = bool(generator.class_names) and generator.class_names == dataset.pack.class_names
    found, picture = _evaluate(
        samples, dataset, options, watch, save, subject=subject, source=source, checkpoint=generator.nimg, chosen=chosen,
        averaged=generator.averaged, asked=partial(draw_labels, generator.config, options.seed) if knows_classes else None)
    if folder is not None:
        try:
            write_whole(folder.evaluation, json.dumps(found.as_dict(), indent=1, allow_nan=False))
            save_png(folder.neighbours, picture, 1)
        except OSError as error:
            raise RunError(f"{folder.evaluation}: cannot be written ({error.strerror or error}). "
                           "Free the disk and evaluate again.") from error
    return found


def evaluate_images(
    samples: Source, dataset: Dataset, data: DataConfig, options: Options, *, source: str, watch: Watcher,
    sheet: Path | None = None, save: Path | None = None,
) -> Evaluation:
    """Evaluates images against `dataset`, in whose layout, that of `data`, they are read.

    sheet: a PNG for the samples beside their nearest training images. save: a file for the reals' features.
    """
    with _opened(samples, data, options, watch) as (images, notes, altered):
        of_reals = _altered(dataset.pack, data)
        if altered or of_reals:
            transparency = "" if data.channels == 4 else f", transparency {data.transparency}"
            notes.insert(0, f"compared as {data.size}, {data.channels} channel{'s' if data.channels > 1 else ''}: {altered:,} of "
                         f"{len(samples):,} samples and {of_reals:,} of {len(dataset.pack):,} real images were brought to it "
                         f"(fit {data.fit}{transparency})")
        found, picture = _evaluate(lambda n: images, dataset, options, watch, save, subject=samples.where, source=source,
                                   checkpoint=0, chosen="", averaged=False, notes=notes)
    if sheet is not None:
        try:
            save_png(sheet, picture, 1)
        except OSError as error:
            raise RunError(f"{sheet}: cannot be written ({error.strerror or error}). Name another place.") from error
    return found


def options_of_samples(source: Source) -> dict[str, Any]:
    """The options of data in which these samples are as they are: {dotted name: value}.

    Where they are opaque, what shows through transparent reals is the colour that most of the samples have in their corners.
    """
    seen = look(source)
    keep = seen.transparent_share > 0.5
    width, height = seen.common_size
    return {"data.size": f"{width}x{height}", "data.channels": 4 if keep else 1 if seen.grey_share == 1 else 3,
            "data.transparency": "keep" if keep else _corner_colour(source)}


def _corner_colour(source: Source) -> str:
    """The colour of most corners of a sample of images as #rrggbb; white where there is none such."""
    found: Counter[tuple[int, ...]] = Counter()
    layout = layout_of(make_config({"data.size": "32", "data.fit": "stretch"}).data)
    for index in np.linspace(0, len(source) - 1, min(CORNERS_OF, len(source))).astype(int).tolist():
        try:
            item = source.load(index)
            opened = open_image(item, source.item_name(index)) if isinstance(item, bytes) else item
            pixels = to_pixels(opened, layout)
        except UnreadableError:
            continue
        found.update(tuple(pixels[:, y, x].tolist()) for y in (0, -1) for x in (0, -1))
    colour, count = found.most_common(1)[0] if found else ((255, 255, 255), 0)
    return "#{:02x}{:02x}{:02x}".format(*colour) if count > 0.5 * found.total() else "white"


def evaluate_against_features(
    samples: Source, reference: Path, options: Options, *, skip_bad: bool, watch: Watcher,
) -> Evaluation:
    """Evaluates images against features that somebody has saved: no reals, so no look for copies and no figures of pixels."""
    kept: Reference = load_features(reference)
    options = options._replace(split="all")                    # of those in the file
    if kept.extractor == "classifier":
        raise DataError(f"{reference}: {CLASSIFIER_ALONE} Make the file anew with --extractor random or inception.")
    named = options.extractor if options.extractor != "auto" else noted_name(kept.extractor, reference)
    data = make_config({"network.family": "custom", "data.skip_bad": skip_bad, **options_of_samples(samples)}).data
    with _opened(samples, data, options, watch) as (images, notes, _):
        extractor = make_extractor(
            named, images=images, device=options.device,
            downloading=lambda file, done, total: watch.working("downloading", done, total or done), tell=watch.tell)
        load_features(reference, extractor)                    # the same weights and preprocessing, or a clear error
        features = extract(extractor, images, lambda done, total: watch.working("looking at samples", done, len(images)))
        reals = Reals(kept.features, None, "all")
        found = tuple(figures(reals, features, images.read, extractor, n=options.n, repeats=options.repeats, seed=options.seed))
        return Evaluation(samples.where, kept.source, 0, "", False, options, extractor.name, kept.key, found, None, None,
                          (*notes, *_too_few(len(images), reals, options),
                           "against saved features: copies are not looked for, because the real images are not at hand"),
                          extractor.key)


@contextlib.contextmanager
def _opened(source: Source, data: DataConfig, options: Options, watch: Watcher) -> Iterator[tuple[Subset, list[str], int]]:
    """The samples in this layout, enough for all repetitions or all; what is to be said of them; how many were altered for it."""
    for note in source.notes:
        watch.tell(note)
    with tempfile.TemporaryDirectory(prefix="ganvas-samples-") as folder:
        pack = build_pack(source, layout_of(data), cache_dir=Path(folder), skip_bad=data.skip_bad, progress=watch.packing)
        try:
            wanted = min(len(pack), options.n * options.repeats)
            chosen = np.sort(permute(np.arange(wanted), len(pack), options.seed, Purpose.SUBSET, 0))
            skipped = f"{len(pack.skipped):,} of the samples cannot be read and were left out"
            yield Subset(pack, chosen), [skipped] if pack.skipped else [], _altered(pack, data)
        finally:
            pack.close()


def _altered(pack: Pack, data: DataConfig) -> int:
    """How many images had another size before they were packed, or colours or transparent parts that the layout has not."""
    facts = pack.facts
    other = (facts["width"] != data.size.width) | (facts["height"] != data.size.height)
    other |= ~facts["grey"] & (data.channels == 1) | facts["transparent"] & (data.channels != 4)
    return int(other.sum())


def _too_few(samples: int, reals: Reals, options: Options) -> list[str]:
    """What is to be said where there are fewer samples, or reals, than were asked for."""
    n, notes = min(options.n, len(reals) // 2), []
    if n < options.n:
        notes.append(f"{len(reals):,} reals ({reals.split}) make halves of {n:,}, fewer than the {options.n:,} asked for: "
                     "figures of other n do not compare with these")
    if min(n, samples) < FEW:
        notes.append(f"figures of {min(n, samples):,} samples show no more than coarse faults: give some hundreds")
    if samples < n:
        notes.append(f"{samples:,} samples are fewer than the {n:,} wanted in each comparison: figures of other n do not "
                     "compare with these")
    if options.repeats > 1 and samples < n * options.repeats:
        notes.append(f"{samples:,} samples are too few for {options.repeats} sets of their own: the sets share samples, and "
                     "intervals are too narrow")
    return notes


def _evaluate(
    sampler: Callable[[int], Kept | Subset], dataset: Dataset, options: Options, watch: Watcher, save: Path | None, *,
    subject: str, source: str, checkpoint: int, chosen: str, averaged: bool, notes: list[str] | None = None,
    asked: Callable[[NDArray[np.int64]], NDArray[np.int64]] | None = None,
) -> tuple[Evaluation, NDArray[np.uint8]]:
    """The evaluation, and the picture of samples beside their nearest training images.

    sampler: samples for repetitions of n each, of which those that are looked at again can be read. asked: the classes that
    samples of these numbers were made to be of.
    """
    options, notes, trained_on = options.check(), list(notes or []), len(dataset.train)
    if options.reals is not None and options.reals < len(dataset.split.train):
        chosen_reals = permute(np.arange(options.reals), len(dataset.train), options.seed, Purpose.SUBSET, 0)
        notes.append(f"{options.reals:,} of {len(dataset.train):,} training images were looked at, for want of time")
        dataset = dataset._replace(split=dataset.split._replace(train=dataset.split.train[chosen_reals]))
    pack, split = dataset.pack, dataset.split
    if options.split == "holdout" and not len(split.holdout):
        raise DataError("--split holdout: no images are held out. Train with --holdout 10%, or with --samples pass it here; or "
                        "use --split train.")
    extractor = make_extractor(
        options.extractor, images=dataset.train, labels=None if pack.labels is None else pack.labels[split.train],
        class_names=pack.class_names, groups=dataset.twins.together[split.train], home=pack.home, device=options.device,
        progress=lambda done, total: watch.working("training the classifier", done, total),
        downloading=lambda file, done, total: watch.working("downloading", done, total or done), tell=watch.tell)
    if save is not None and extractor.name == "classifier":
        raise ConfigError(f"--save-features {save}: {CLASSIFIER_ALONE} Pass --extractor random or inception.")

    def features_of(positions: NDArray[np.int64], what: str) -> Features:
        return real_features(extractor, pack, pack.home, positions, tell=watch.tell,
                             progress=lambda done, total: watch.working(f"looking at {what}", done, total or done))

    train = features_of(split.train, "training images")
    holdout = features_of(split.holdout, "held-out images") if len(split.holdout) else None
    reals, said = _reals_of(dataset, options.split, train, holdout, extractor)
    notes += said
    if save is not None:
        save_features(save, reals.features, extractor, source)
    n = min(options.n, len(reals) // 2)
    images = sampler(max(n, 1))
    samples = extract(extractor, images, lambda done, total: watch.working("looking at samples", done, total or done))
    step = 0

    def tell(text: str) -> None:
        nonlocal step
        watch.working(text.partition(",")[0], step := step + 1, options.repeats + 1)

    classes = None if asked is None else asked(np.arange(len(samples.vectors)))
    found = tuple(figures(reals, samples, images.read, extractor, n=n, repeats=options.repeats, seed=options.seed, tell=tell,
                          asked=classes))
    notes += _too_few(len(samples.vectors), reals, options)
    looked_at = np.arange(min(len(samples.vectors), MOST_COPY_SAMPLES))
    copies, test = _copies(dataset, images.read(looked_at), samples.vectors[looked_at], train, holdout, extractor, options.seed,
                           trained_on)
    return Evaluation(subject, source, checkpoint, chosen, averaged, options, extractor.name, pack.fingerprint, found, copies,
                      test, tuple(notes), extractor.key), _neighbours(copies, images, dataset)


def _reals_of(
    dataset: Dataset, split: str, train: Features, holdout: Features | None, extractor: Extractor,
) -> tuple[Reals, list[str]]:
    """The reals of a split, without those that the extractor was trained on if there are enough others; what is to be said of it.

    Labels only where the extractor's classes are theirs.
    """
    pack, parts, notes = dataset.pack, dataset.split, list[str]()
    of_split = {"train": parts.train, "holdout": parts.holdout, "all": np.concatenate([parts.train, parts.holdout])}[split]
    positions, features = parts.train, train
    if extractor.unseen is not None and split != "holdout":
        others = len(extractor.unseen) + (0 if holdout is None or split == "train" else len(holdout.vectors))
        about = (f"the extractor {extractor.name} was trained on {len(parts.train) - len(extractor.unseen):,} of these reals, "
                 f"and is right for {extractor.accuracy:.1%} of those kept from it")
        if others >= LEAST_UNSEEN:
            positions, features = positions[extractor.unseen], _rows(train, extractor.unseen)
            notes.append(f"{about}: figures are against the {others:,} reals that it has not seen")
        else:
            notes.append(f"{about}: {others:,}, too few to measure against alone. It knows the others, so that even a perfect "
                         "generator gets worse figures than what reals get here. --extractor random has seen no images")
    if split == "all" and holdout is not None:
        positions = np.concatenate([positions, parts.holdout])
        features = Features(np.concatenate([features.vectors, holdout.vectors]), None if features.probabilities is None
                            or holdout.probabilities is None else np.concatenate([features.probabilities, holdout.probabilities]))
    elif split == "holdout" and holdout is not None:
        positions, features = parts.holdout, holdout
    read = Subset(pack, positions).read
    if pack.labels is None or extractor.classes != pack.class_names:
        return Reals(features, read, split), notes
    return Reals(features, read, split, pack.labels[positions], pack.labels[of_split]), notes


def _rows(features: Features, rows: NDArray[np.int64]) -> Features:
    return Features(features.vectors[rows], None if features.probabilities is None else features.probabilities[rows])


def _copies(
    dataset: Dataset, images: NDArray[np.uint8], vectors: NDArray[np.float32], train: Features, holdout: Features | None,
    extractor: Extractor, seed: int, of: int | None = None,
) -> tuple[Copies, DataCopying | None]:
    """of: training images in all, where those of `dataset` are some of them."""
    pack, split = dataset.pack, dataset.split
    reference = CopyReference(
        dataset.train, train.vectors, Subset(pack, split.holdout) if holdout is not None else None,
        None if holdout is None else holdout.vectors, groups=dataset.twins.together[split.train],
        names=[pack.names[i] for i in split.train.tolist()], features_of=lambda some: extract(extractor, some).vectors, of=of,
        seed=seed)
    same = reference.pictures.same(mirror=False)
    try:
        # Training images stand for held-out ones, which were parted from their twins: new reals lie nearer than those.
        test = data_copying(train.vectors, None, vectors, train_groups=same, seed=seed)
    except DataError:                                          # too few of something: the other check says so in words
        test = None
    return reference.check(images, vectors), test


def _neighbours(copies: Copies, images: Kept | Subset, dataset: Dataset) -> NDArray[np.uint8]:
    """The sheet of samples beside their nearest training images: the most suspicious ones, then others."""
    rows = telling_rows(copies.suspicion, NEIGHBOURS_SHOWN)
    near = copies.features.train[rows], copies.pixels.train[rows]
    split, names = dataset.split.train, dataset.pack.names
    return draw_neighbours(
        images.read(rows), dataset.train.read(near[0]), dataset.train.read(near[1]),
        [f"{row}: {names[int(split[index])]}" for row, index in zip(rows.tolist(), near[0].tolist(), strict=True)],
        mirrored_features=copies.features.mirrored[rows], mirrored_pixels=copies.pixels.mirrored[rows],
        alarm=copies.suspicion[rows] < 1)
