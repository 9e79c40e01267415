"""How good a side's generators are: each against the same reals, by the same extractor, with floors; outside of the clock."""

import json
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from quality_races import Race
from quality_runs import Clock, SideRun

from ganvas.config import make_config
from ganvas.data.sources import open_source
from ganvas.data.split import Subset
from ganvas.dataset import Dataset, prepare
from ganvas.errors import ConfigError
from ganvas.files import write_whole
from ganvas.generator import ImageGenerator, load
from ganvas.metrics.copies import CopyReference
from ganvas.metrics.extractors import make_extractor
from ganvas.metrics.features import Extractor, ImageArray, extract
from ganvas.metrics.figures import Figure, Reals, figures
from ganvas.ops.augment import augment
from ganvas.ops.pixels import to_float, to_uint8
from ganvas.rng import Purpose, permute

Pixels = NDArray[np.uint8]                                 # (n, C, H, W)
Rows = list[dict[str, Any]]

MOST_REALS = 20_000                    # of one set that are looked at
LEAST_UNSEEN = 500                     # images that the classifier has not learnt; fewer are not measured against alone
MOST_COPY_SAMPLES = 2000
SEED = 0                               # of reals, samples and their division
CHECKER_PX, CHECKER = 8, (204, 255)
PER_LABEL = 200                        # samples of each label whose class is looked at


class View(NamedTuple):
    """One way to judge: what becomes of images first. Without transparency there is one, called ""."""

    name: str
    reals: Callable[[Pixels], Pixels]
    fakes: Callable[[Pixels], Pixels]


def as_they_are(images: Pixels) -> Pixels:
    return images


def turned(images: Pixels, degrees: float) -> Pixels:
    """Each image turned as a training with data.rotation_degrees turns it, by an angle of its own."""
    floats = augment(to_float(torch.from_numpy(images)), SEED, np.arange(len(images)), degrees, mirror=False)
    found: Pixels = to_uint8(floats).numpy()
    return found


def on(background: str, images: Pixels) -> Pixels:
    """Transparent images (n, 4, H, W) on white, black or a checkerboard: (n, 3, H, W). Others stay as they are."""
    if images.shape[1] != 4:
        return images
    height, width = images.shape[2:]
    y, x = np.mgrid[:height, :width] // CHECKER_PX
    behind = {"white": np.full((height, width), 255), "black": np.zeros((height, width), int),
              "checker": np.array(CHECKER)[(x + y) % 2]}[background]
    alpha = images[:, 3:].astype(np.int64)
    found: Pixels = ((images[:, :3] * alpha + behind * (255 - alpha) + 127) // 255).astype(np.uint8)
    return found


def views_of(race: Race) -> list[View]:
    """How a race is judged: turned reals where training turns them, transparent ones on each of its backgrounds."""
    if race.backgrounds:
        return [View(name, *(lambda images, name=name: on(name, images),) * 2) for name in race.backgrounds]
    degrees = float(race.data.get("data.rotation_degrees", 0))
    return [View("", (lambda images: turned(images, degrees)) if degrees else as_they_are, as_they_are)]


class Judge:
    """The reals of a race, what sees them, and their figures."""

    def __init__(self, race: Race, source: str, tell: Callable[[str], None] = print):
        self.race, self.views = race, views_of(race)
        config = make_config({"network.family": "custom"}, race.data)
        self.dataset: Dataset = prepare(open_source(source, config.data.labels), config.data, tell)
        pack, split = self.dataset.pack, self.dataset.split
        self.extractor: Extractor = make_extractor(
            race.extractor, images=self.dataset.train, labels=None if pack.labels is None else pack.labels[split.train],
            class_names=pack.class_names, groups=self.dataset.twins.together[split.train], home=pack.home, tell=tell)
        known = self.extractor.unseen
        positions = split.train if known is None or len(known) < LEAST_UNSEEN else split.train[known]
        chosen = permute(np.arange(min(MOST_REALS, len(positions))), len(positions), SEED, Purpose.SUBSET, 0)
        self.positions = positions[chosen]
        self.of_reals = {view.name: self._reals(view) for view in self.views}

    def close(self) -> None:
        self.dataset.pack.close()

    def _reals(self, view: View) -> Reals:
        pack, split = self.dataset.pack, self.dataset.split
        seen = extract(self.extractor, view.reals(pack.read(self.positions)))
        if pack.labels is None or self.extractor.classes != pack.class_names:
            return Reals(seen, None, "train")
        return Reals(seen, None, "train", pack.labels[self.positions], pack.labels[split.train])

    def figures(self, images: Pixels, view: View, n: int, repeats: int) -> list[Figure]:
        """Those of these samples (M, C, H, W) that need no pixels of the reals."""
        fakes = view.fakes(images)
        found = figures(self.of_reals[view.name], extract(self.extractor, fakes), ImageArray(fakes).read, self.extractor, n=n,
                        repeats=repeats, seed=SEED)
        return list(takewhile(lambda figure: figure.extractor != "pixels", found))

    @cached_property
    def copy_reference(self) -> CopyReference:
        dataset = self.dataset
        train = extract(self.extractor, dataset.train)
        held = Subset(dataset.pack, dataset.split.holdout) if len(dataset.split.holdout) else None
        return CopyReference(
            dataset.train, train.vectors, held, None if held is None else extract(self.extractor, held).vectors,
            groups=dataset.twins.together[dataset.split.train],
            names=[dataset.pack.names[i] for i in dataset.split.train.tolist()],
            features_of=lambda some: extract(self.extractor, some).vectors, seed=SEED)

    def copies(self, images: Pixels) -> dict[str, Any]:
        """Whether samples repeat training images: the verdict in words, the rate, and its limits."""
        images = images[:MOST_COPY_SAMPLES]
        said = self.copy_reference.check(images, extract(self.extractor, images).vectors)
        return {"rate": said.rate, "low": said.low, "high": said.high, "limit": said.limit, "verdict": said.verdict,
                "text": said.text}

    def agreement(self, generator: ImageGenerator) -> dict[str, Any]:
        """Of samples that were asked for by label, how many the classifier takes for that; and the same of reals.

        Raises ConfigError where generator or extractor know other classes than the images have.
        """
        names, seen = tuple(self.dataset.pack.class_names), tuple(self.extractor.classes or ())
        if tuple(generator.class_names) != names or seen != names:
            raise ConfigError(f"samples by label: the images have the classes {', '.join(names)}, the generator "
                              f"{', '.join(generator.class_names) or 'none'}, the extractor {self.extractor.name} "
                              f"{', '.join(seen) or 'none'}. Train with labels, and judge by the classifier.")
        right = {}
        for label, name in enumerate(names):
            images = generator.sample(PER_LABEL, SEED, purpose=Purpose.EVALUATE, label=label)
            probabilities = extract(self.extractor, np.ascontiguousarray(images.transpose(0, 3, 1, 2))).probabilities
            assert probabilities is not None, "an extractor with classes gives probabilities"
            right[name] = float((probabilities.argmax(axis=1) == label).mean())
        return {"all": float(np.mean(list(right.values()))), "by_label": right, "n": PER_LABEL * len(names),
                "reals": self.extractor.accuracy}


def samples(path: Path, n: int) -> Pixels:
    """The first n pictures of a generator's file, (n, C, H, W)."""
    return np.ascontiguousarray(load(path).sample(n, SEED, purpose=Purpose.EVALUATE).transpose(0, 3, 1, 2))


def in_time(clock: Clock, race: Race) -> list[dict[str, float]]:
    """The checkpoints that were there within the race's time; where none was, the first."""
    return [row for row in clock.checkpoints if row["sec"] <= 60 * race.minutes] or clock.checkpoints[:1]


def judge_run(judge: Judge, run: SideRun, clock: Clock, tell: Callable[[str], None] = print) -> dict[str, Any]:
    """All that is known of a side: {"curve": rows over time, "end": {view: figures}, "copies", "agreement"}.

    What has been judged is kept in judged.json and not judged again, unless the race is judged in another way.
    """
    race = judge.race
    way = {"n": race.n, "end_n": race.end_n, "repeats": race.repeats, "extractor": judge.extractor.key,
           "data": judge.dataset.pack.fingerprint, "reals": len(judge.positions), "views": [view.name for view in judge.views]}
    kept = json.loads(run.judged.read_text(encoding="utf-8")) if run.judged.exists() else {}
    if kept.get("way") != way:
        kept = {"way": way, "curve": {}, "end": {}}
    counted = in_time(clock, race)
    last = int(counted[-1]["nimg"])
    for row in counted:
        nimg = int(row["nimg"])
        if str(nimg) not in kept["curve"]:
            found = judge.figures(samples(run.generator(nimg), race.n), judge.views[0], race.n, 1)
            kept["curve"][str(nimg)] = {figure.metric: figure.value for figure in found}
            write_whole(run.judged, json.dumps(kept))
            tell(f"{run.side}, seed {run.seed}, {row['sec']:,.0f} s: " + "  ".join(
                f"{name} {kept['curve'][str(nimg)][name]:.4g}" for name in ("fid", "kid", "coverage")))
    if kept["end"].get("nimg") != last:
        images = samples(run.generator(last), race.end_n * race.repeats)
        end: dict[str, Any] = {"nimg": last, "figures": {
            view.name: [figure.as_dict() for figure in judge.figures(images, view, race.end_n, race.repeats)]
            for view in judge.views}}
        end["copies"] = judge.copies(images) if race.copies else None
        end["agreement"] = judge.agreement(load(run.generator(last))) if race.by_label else None
        kept["end"] = end
        write_whole(run.judged, json.dumps(kept))
    curve = [row | kept["curve"][str(int(row["nimg"]))] for row in counted]
    return {"side": run.side, "seed": run.seed, "exit": clock.exit, "curve": curve, **kept["end"]}


# ---------------------------------------------------------------- reading what was judged


def figure_of(judged: dict[str, Any], metric: str, view: str | None = None) -> dict[str, Any]:
    """A figure of the end; view: None = the first."""
    found = judged["figures"][next(iter(judged["figures"])) if view is None else view]
    return next(figure for figure in found if figure["metric"] == metric)


def reached_sec(curve: Rows, metric: str, value: float) -> float | None:
    """After how many seconds the first checkpoint was as good as `value`; None where none was."""
    def is_there(row: dict[str, Any]) -> bool:
        return bool(row[metric] >= value if metric == "coverage" else row[metric] <= value)

    return next((float(row["sec"]) for row in curve if is_there(row)), None)


def are_apart(better: dict[str, Any], worse: dict[str, Any]) -> bool:
    """Whether the whole interval of one figure is better than the whole of the other."""
    if better["better"] == "higher":
        return bool(better["low"] > worse["high"])
    return bool(better["high"] < worse["low"])


def sides_of(judged: Rows) -> Iterator[tuple[str, Rows]]:
    """(side, what is known of its runs), in the order of the race."""
    for side in dict.fromkeys(row["side"] for row in judged):
        yield side, [row for row in judged if row["side"] == side]
