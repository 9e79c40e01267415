"""Measures a run while it trains: how often is decided once, by the share of the time that it may take."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ganvas.config import RunConfig
from ganvas.data.batches import Schedule
from ganvas.data.split import Subset
from ganvas.dataset import Dataset
from ganvas.generator import BATCH_NORM_BATCHES, CHUNK, ImageGenerator, Sampler, for_sampling, unchanged
from ganvas.metrics.copies import CopyReference
from ganvas.metrics.diversity import mean_distance
from ganvas.metrics.extractors import make_extractor
from ganvas.metrics.feature_cache import real_features
from ganvas.metrics.features import Extractor, Features, extract
from ganvas.metrics.kid import kid
from ganvas.metrics.prdc import prdc
from ganvas.metrics.spectrum import Spectrum, spectrum, spectrum_distance
from ganvas.metrics.visible import visible
from ganvas.ops.pixels import to_float
from ganvas.rng import Purpose, permute
from ganvas.training.loop import passed
from ganvas.training.state import TrainState
from ganvas.values import Amount

DECIDED_AFTER_SEC = 10.0       # of training: what a step takes is known by then
DECIDED_AFTER_STEPS = 5
LEAST_BUDGET_SEC = 1.0         # for all measurements of a run; with less there are none
SETUP_SHARE = 0.3              # of that, for the features of the real images
MOST_MEASUREMENTS = 50         # in a run: more say nothing more
FEW_MEASUREMENTS = 10          # with fewer, each looks at fewer samples
LEAST_N = 128                  # samples in one measurement, unless fewer are asked for
COMPARED = 1024                # training images that the samples' distribution is compared with
LEAST_REFERENCES = 256
FEWEST_REALS = 20              # training images; fewer have no distribution to speak of, and are not measured against
MOST_REFERENCES = 10_000       # training images among which copies are looked for
MOST_CALIBRATING = 1000        # held-out images that say how near strangers come
D_BATCH = 256                  # images whose logits are compared
FEWEST_HELD = 16               # fewer held-out images say nothing about D
NEIGHBOURS = 5                 # k of precision, recall, density and coverage


@dataclass(frozen=True)
class Plan:
    """How a run is measured; kept in execution.json, so that a run that goes on is measured in the same way."""

    every: str                     # an amount of training
    n: int                         # samples in one measurement
    references: int                # training images that are looked at
    by: str                        # the options that it was decided by; others decide anew


@dataclass(frozen=True)
class Reals:
    """What the samples are compared with, made once."""

    features: Features             # of `references` training images, in a random order
    copies: CopyReference
    spectrum: Spectrum
    kid_floor: float               # one half of those compared against the other
    spectrum_floor_db: float
    diversity: float
    coverage: float                # of one half by the other, at most as many as the samples


def time_for(share: float, total_sec: float) -> float:
    """Seconds of `total_sec` that measuring with this share may take: none where it would be too little to measure anything."""
    return share * total_sec if share * total_sec >= LEAST_BUDGET_SEC else 0.0


class Meter:
    """Measures the training state of one run. `plan` is None until it is decided, and stays so where there is no time for it.

    sampler: what makes the state's samples; a session sets it to the one of its pictures. None = an own one.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, schedule: Schedule, noted: dict[str, Any] | None,
                 tell: Callable[[str], None]):
        self.config, self.dataset, self.schedule, self.tell = config, dataset, schedule, tell
        self.sampler: Sampler | None = None
        self.decided = False
        self.plan: Plan | None = None
        self.reals: Reals | None = None
        self.extractor: Extractor | None = None
        self.per_sample_sec: float | None = None               # of the last measurement
        self.before: NDArray[np.uint8] | None = None           # the samples of the last measurement
        if config.measure.every is not None and len(dataset.train) >= FEWEST_REALS:
            self._decide(Plan(str(config.measure.every), config.measure.n, min(len(dataset.train), MOST_REFERENCES), self._by()))
        elif not config.measure.share or len(dataset.train) < FEWEST_REALS:
            self._decide(None)
        elif noted is not None and noted.get("by") == self._by():
            self._decide(Plan(**noted))

    def _by(self) -> str:
        measure = self.config.measure
        return f"every {measure.every}" if measure.every is not None else f"share {measure.share:g}"

    def check(self) -> None:
        """Makes the extractor ready, unless it takes no time: better before training than in the middle. Raises GanvasError."""
        if self.config.measure.extractor != "random" and (self.plan is not None or not self.decided):
            self._extractor()

    def stop(self) -> None:
        """Measures no more."""
        self.decided, self.plan = True, None

    def noted(self) -> dict[str, Any] | None:
        """The plan, for execution.json."""
        return None if self.plan is None else asdict(self.plan)

    def is_due(self, before: int, nimg: int) -> bool:
        """Whether a measurement lies in (before, nimg]."""
        return self.plan is not None and passed(self.schedule, before, nimg, Amount.parse(self.plan.every))

    def decide(self, state: TrainState, total_sec: float, left_images: int, part: float) -> dict[str, Any] | None:
        """Decides how many samples to measure, and then, by what the first measurement took, how often. Returns its row.

        total_sec: expected of the whole training; left_images: until its end. part: of measure.share, what is not kept for
        the evaluation at the end. None, and no measurements at all, where not even a few fit into the share.
        """
        budget_sec = part * time_for(self.config.measure.share, total_sec)
        if not budget_sec:
            self._decide(None)
            return None
        began_at = time.monotonic()
        per_feature_sec, per_sample_sec = self._timed_extractor(), self._timed_generator(state)
        wanted = min(len(self.dataset.train), MOST_REFERENCES)
        references = int(min(wanted, max(LEAST_REFERENCES, SETUP_SHARE * budget_sec / per_feature_sec)))
        statistics = 0 if state.G_ema is None else BATCH_NORM_BATCHES * CHUNK

        def least_sec(n: int) -> float:
            """Of one measurement; finding neighbours comes on top of that."""
            return (n + statistics) * per_sample_sec + 2 * n * per_feature_sec        # twice: mirrored, too

        n, left_sec = self.config.measure.n, budget_sec - references * per_feature_sec
        while n > LEAST_N and left_sec / least_sec(n) < FEW_MEASUREMENTS:
            n = max(LEAST_N, n // 2)
        if left_sec < 2 * least_sec(n):
            self._decide(None)
            return None
        self.plan = Plan("", n, references, self._by())
        row = self.measure(state)
        left_sec = budget_sec - (time.monotonic() - began_at)
        times = min(MOST_MEASUREMENTS, int(left_sec / row["sec"]))
        every = max(left_images / times, self.config.train.batch) if times > 0 else 2 * left_images     # then: at the end
        self._decide(Plan(f"{every / 1000:.6g} kimg", n, references, self._by()))
        return row

    def measure(self, state: TrainState) -> dict[str, Any]:
        """One row for metrics.jsonl. The state stays as it is, to the bit."""
        assert self.plan is not None
        extractor, reals = self._extractor(), self._reals()
        started_at = time.monotonic()
        images = self._generator(state).sample(self.plan.n, self.config.train.seed, purpose=Purpose.MEASURE).transpose(0, 3, 1, 2)
        samples = extract(extractor, images)
        mirrored = extract(extractor, images[..., ::-1].copy())
        compared = reals.features.vectors[:COMPARED]
        estimate = kid(compared, samples.vectors)
        spread = prdc(compared[:self.plan.n], samples.vectors, min(NEIGHBOURS, len(compared) - 1, self.plan.n - 1))
        copies = reals.copies.check(images, samples.vectors, mirrored.vectors)
        noise = spectrum_distance(reals.spectrum, spectrum(images))
        row = {
            "nimg": state.nimg, "extractor": extractor.name, "n": self.plan.n, "reals": len(compared),
            "kid": estimate.value, "kid_error": estimate.error, "kid_floor": reals.kid_floor,
            **spread._asdict(), "coverage_floor": reals.coverage,
            "diversity": mean_distance(samples.vectors), "diversity_real": reals.diversity,
            "copies": copies.rate, "copies_limit": copies.limit, "copies_over_limit": copies.over_limit,
            "copies_among": len(reals.features.vectors),
            "spectrum_db": noise.rms_db, "spectrum_excess_db": noise.high_excess_db, "spectrum_floor_db": reals.spectrum_floor_db,
            **self._logits(state, images),
            "change": self._change(images),
        }
        took_sec = time.monotonic() - started_at
        self.per_sample_sec = took_sec / self.plan.n
        return row | {"sec": round(took_sec, 3)}

    def _decide(self, plan: Plan | None) -> None:
        self.decided, self.plan = True, plan
        if plan is None and self.config.measure.share:
            self.tell("not measured on the way: too little time for that, or too few images. "
                      "--set \"measure.every=5 kimg\" measures all the same; `ganvas evaluate` looks at the end")
        elif plan is not None:
            self.tell(f"measured every {plan.every}, {plan.n} samples against {plan.references:,} training images: the best "
                      "checkpoint is kept")

    def _extractor(self) -> Extractor:
        if self.extractor is None:
            pack, train = self.dataset.pack, self.dataset.split.train
            labels = None if pack.labels is None else pack.labels[train]
            self.extractor = make_extractor(
                self.config.measure.extractor, images=self.dataset.train, labels=labels, class_names=pack.class_names,
                groups=self.dataset.twins.together[train], home=pack.home, device=self.config.execution.device, tell=self.tell)
        return self.extractor

    def _generator(self, state: TrainState) -> ImageGenerator:
        if self.sampler is None:
            self.sampler = Sampler(state.shown_generator, self.config, state.G_ema is not None)
        made, averaged = self.sampler.at(state.nimg), self.sampler.averaged
        return ImageGenerator(made, self.config, state.nimg, averaged, self.config.execution.device)

    def _timed_extractor(self) -> float:
        """Seconds an image."""
        extractor, some = self._extractor(), self.dataset.train.read(np.arange(min(CHUNK, len(self.dataset.train))))
        return max(1e-6, _seconds(lambda: extractor(some)) / len(some))

    def _timed_generator(self, state: TrainState) -> float:
        """Seconds an image."""
        sampler = for_sampling(state.shown_generator, self.config, averaged=False)
        generator = ImageGenerator(sampler, self.config, state.nimg, False, self.config.execution.device)
        return max(1e-6, _seconds(lambda: generator.sample(CHUNK, purpose=Purpose.MEASURE)) / CHUNK)

    def _reals(self) -> Reals:
        """What the samples are compared with: made at the first measurement."""
        if self.reals is not None:
            return self.reals
        assert self.plan is not None
        extractor, pack, split, seed = self._extractor(), self.dataset.pack, self.dataset.split, self.config.train.seed
        chosen = permute(np.arange(self.plan.references), len(split.train), seed, Purpose.SUBSET, 0)
        features = real_features(extractor, pack, pack.home, split.train[chosen], tell=self.tell)
        train = Subset(pack, split.train[chosen])
        held = permute(np.arange(min(MOST_CALIBRATING, len(split.holdout))), len(split.holdout), seed, Purpose.SUBSET, 2) \
            if len(split.holdout) else np.empty(0, np.int64)
        held = split.holdout[held]
        holdout = Subset(pack, held) if len(held) else None
        copies = CopyReference(
            train, features.vectors, holdout,
            None if holdout is None else real_features(extractor, pack, pack.home, held, tell=self.tell).vectors,
            groups=self.dataset.twins.together[split.train[chosen]],
            features_of=lambda images: extract(extractor, images).vectors, of=len(split.train), seed=seed)
        compared, images = features.vectors[:COMPARED], train.read(np.arange(min(COMPARED, len(train))))
        half = len(compared) // 2
        some = min(half, self.plan.n)
        self.reals = Reals(
            features, copies, spectrum(images), kid(compared[:half], compared[half:]).value,
            spectrum_distance(spectrum(images[:half]), spectrum(images[half:])).rms_db, mean_distance(compared),
            prdc(compared[:some], compared[half:half + some], min(NEIGHBOURS, some - 1)).coverage)
        return self.reals

    def _logits(self, state: TrainState, images: NDArray[np.uint8]) -> dict[str, float | None]:
        """D's mean logits on training reals, held-out reals and samples, each a batch of its own as in training.

        A conditional D is told the classes: the reals' own, and those that the samples were asked to be.
        """
        train, pack, split = self.dataset.train, self.dataset.pack, self.dataset.split
        size = min(D_BATCH, len(train), len(images), *([len(split.holdout)] if len(split.holdout) >= FEWEST_HELD else []))
        chosen = permute(np.arange(size), len(train), self.config.train.seed, Purpose.SUBSET, 1)
        of_train = logits_of(state.D, train.read(chosen), self._classes_of(split.train[chosen]))
        few = split.holdout[:size]
        held = logits_of(state.D, pack.read(few), self._classes_of(few)) if len(split.holdout) >= FEWEST_HELD else None
        asked = None
        if self.config.num_classes:                            # z ends in the class, one-hot
            z = self._generator(state).z(size, self.config.train.seed, purpose=Purpose.MEASURE)
            asked = z[:, self.config.network.z_dim:].argmax(axis=1)
        return {"logit_train": float(of_train.mean()), "logit_holdout": None if held is None else float(held.mean()),
                "logit_samples": float(logits_of(state.D, images[:size], asked).mean()), "logit_std": float(of_train.std())}

    def _classes_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Those of these images of the pack, for D; None where it knows of none."""
        labels = self.dataset.pack.labels
        return None if labels is None or not self.config.num_classes else labels[indices]

    def _change(self, images: NDArray[np.uint8]) -> float | None:
        """Mean absolute difference, 0 to 255, of the samples from those of the same z at the last measurement of this session."""
        before, self.before = self.before, visible(images[:CHUNK]).copy()
        return None if before is None else float(np.abs(before.astype(np.float32) - self.before).mean())


def _seconds(work: Callable[[], object]) -> float:
    """Of the second time: the first one warms up."""
    work()
    began_at = time.monotonic()
    work()
    return time.monotonic() - began_at


@torch.no_grad()
def logits_of(D: nn.Module, images: NDArray[np.uint8], labels: NDArray[np.int64] | None = None) -> torch.Tensor:
    """D's logits (N,) on uint8 images (N, C, H, W), normalised by this very batch as in training; D stays as it was.

    labels: the images' classes, (N,), for a conditional D; -1 = none.
    """
    device = next(D.parameters()).device
    with unchanged(D), torch.random.fork_rng([device] if device.type == "cuda" else []):      # a user's own D may draw (dropout)
        told = () if labels is None else (torch.from_numpy(labels).to(device),)
        logits: torch.Tensor = D.train()(to_float(torch.from_numpy(images).to(device)), *told)
        return logits.flatten().float().cpu()
