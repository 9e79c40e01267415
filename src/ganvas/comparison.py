"""Runs beside each other, by their evaluations: what differs between them, and which differences are more than luck."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

import numpy as np

from ganvas.config import RunConfig, flatten
from ganvas.errors import ConfigError

VERSION = 1
_UNIMPORTANT = ("preset", "data.source", "data.skip_bad", "output", "measure", "execution", "train.seed")
SURE = 0.05                        # chance of calling any group best where luck alone parts them
_MUST_AGREE = {"extractor": "extractor", "n": "samples in each comparison", "split": "images compared with"}


@dataclass(frozen=True)
class Cell:
    """One figure of one group of runs: the mean over its seeds, with the widest interval that they span."""

    value: float
    low: float
    high: float
    floor: float | None
    by_seed: tuple[float, ...]         # the value of each seed, the mean where a seed has several runs


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed only."""

    name: str                          # what sets them apart from the other groups
    runs: tuple[str, ...]
    seeds: tuple[int, ...]             # their different train.seed: a run and its copy are one
    checkpoints: tuple[int, ...]
    cells: Mapping[str, Cell]          # {metric: …}
    copies: float | None               # the highest rate of copies among them


@dataclass(frozen=True)
class Comparison:
    """Groups of runs, the metrics they have in common, and what can be said of them."""

    groups: tuple[Group, ...]
    labels: Mapping[str, str]          # {metric: what it is called}
    sayings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"version": VERSION, **asdict(self)}


def compare_evaluations(evaluated: Sequence[tuple[str, RunConfig, Mapping[str, Any]]]) -> Comparison:
    """(name, config, evaluation as JSON) of two or more runs → their comparison. time_sec beside an evaluation: the run's --time.

    Raises ConfigError where they cannot be compared: another extractor, number of samples, part of the images, or other images.
    """
    if len(evaluated) < 2:
        raise ConfigError("compare: name at least two runs.")
    _refuse_different_measures(evaluated)
    grouped: dict[str, list[int]] = {}
    options = [_options(config, about) for _, config, about in evaluated]
    for number, own in enumerate(options):
        grouped.setdefault(repr(own), []).append(number)
    differing = [name for name in options[0] if len({repr(own.get(name)) for own in options}) > 1]
    metrics = [figure["metric"] for figure in evaluated[0][2]["figures"]
               if all(figure["metric"] in {other["metric"] for other in about["figures"]} for _, _, about in evaluated)]
    groups = []
    for members in grouped.values():
        what = ", ".join(f"{name} {options[members[0]][name]}" for name in differing[:3]) or evaluated[members[0]][0]
        if len(differing) > 3:
            what += f" and {len(differing) - 3} more"
        groups.append(_group(what, [evaluated[number] for number in members], metrics))
    labels = {figure["metric"]: figure["label"] for figure in evaluated[0][2]["figures"] if figure["metric"] in metrics}
    better = {figure["metric"]: figure["better"] for figure in evaluated[0][2]["figures"]}
    return Comparison(tuple(groups), labels, (*_sayings(groups, metrics, labels, better), *_lengths(evaluated)))


def _lengths(evaluated: Sequence[tuple[str, RunConfig, Mapping[str, Any]]]) -> list[str]:
    """A warning where equal --time made runs of different lengths."""
    kimg = [config.length.value for _, config, _ in evaluated if config.length.unit == "kimg"]
    if len(kimg) < len(evaluated) or max(kimg) <= 1.1 * min(kimg):
        return []
    return [f"these runs are {min(kimg):,.1f} to {max(kimg):,.1f} kimg long: part of what separates them is that. --kimg makes "
            "runs of equal length, --time hangs on how busy the machine was"]


def _options(config: RunConfig, about: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a run what it is, without its seed and what only shows or runs it; --time stands for the length it made."""
    flat = flatten(config.model_dump(mode="json"))
    if about.get("time_sec") is not None:
        flat["length"] = f"{about['time_sec']:g} s"
    return {name: value for name, value in flat.items()
            if not any(name == part or name.startswith(part + ".") for part in _UNIMPORTANT)}


def refuse_other_images(fingerprints: Mapping[str, str | None]) -> None:
    """Raises ConfigError where one run's fingerprint of its images is not the first one's."""
    first, *others = fingerprints
    for name in others:
        if fingerprints[name] != fingerprints[first]:
            raise ConfigError(f"compare: {first} and {name} were measured against different images, so their figures do not "
                              "compare. Compare runs on the same images, prepared in the same way.")


def _refuse_different_measures(evaluated: Sequence[tuple[str, RunConfig, Mapping[str, Any]]]) -> None:
    refuse_other_images({name: about.get("data_fingerprint") for name, _, about in evaluated})
    (first, _, about), *others = evaluated
    for name, _, other in others:
        if about.get("extractor_key") != other.get("extractor_key") and about["extractor"] == other["extractor"]:
            raise ConfigError(f"compare: {first} and {name} were seen by different versions of {about['extractor']}: the file or "
                              "its weights have changed, or it learnt from other images. Evaluate both anew: `ganvas compare "
                              "--again`.")
        for figure, theirs in zip(about["figures"][:1], other["figures"][:1], strict=False):
            for key, what in _MUST_AGREE.items():
                if figure[key] != theirs[key]:
                    raise ConfigError(f"compare: {first} and {name} differ in {what}: {figure[key]} and {theirs[key]}. "
                                      "Evaluate both anew with the same options: `ganvas compare --again`.")


def _group(name: str, members: Sequence[tuple[str, RunConfig, Mapping[str, Any]]], metrics: Sequence[str]) -> Group:
    seeds = tuple(sorted({config.train.seed for _, config, _ in members}))
    cells = {}
    for metric in metrics:
        figures = [next(figure for figure in about["figures"] if figure["metric"] == metric) for _, _, about in members]
        floors = [figure["floor"] for figure in figures if figure["floor"] is not None]
        by_seed = tuple(mean(figure["value"] for figure, (_, config, _) in zip(figures, members, strict=True)
                             if config.train.seed == seed) for seed in seeds)
        cells[metric] = Cell(mean(by_seed), min(figure["low"] for figure in figures), max(figure["high"] for figure in figures),
                             mean(floors) if floors else None, by_seed)
    rates = [about["copies"]["rate"] for _, _, about in members if about.get("copies")]
    return Group(name, tuple(run for run, _, _ in members), seeds, tuple(int(about["checkpoint"]) for _, _, about in members),
                 cells, max(rates) if rates else None)


def _sayings(groups: Sequence[Group], metrics: Sequence[str], labels: Mapping[str, str], better: Mapping[str, str]) -> list[str]:
    """For each metric which group is best, and whether that is more than measuring error or luck."""
    directed = [metric for metric in metrics if better[metric] in ("lower", "higher")]
    seeds = min(len(group.seeds) for group in groups)
    said = []
    for metric in directed if len(groups) > 1 else []:
        sign = 1 if better[metric] == "lower" else -1
        best, second, *_ = sorted(groups, key=lambda group: sign * group.cells[metric].value)
        ours, theirs = best.cells[metric], second.cells[metric]
        apart = ours.high < theirs.low if sign > 0 else ours.low > theirs.high
        if seeds >= 3:
            chance = min(1.0, _by_luck(ours.by_seed, theirs.by_seed) * len(directed) * (len(groups) - 1))
            said.append(f"{labels[metric]}: {best.name} is best (p = {chance:.2g})" if chance < SURE else
                        f"{labels[metric]}: no clear difference between {best.name} and {second.name} (p = {chance:.2g})")
        else:
            said.append(f"{labels[metric]}: {best.name} is ahead by more than the measuring error" if apart else
                        f"{labels[metric]}: no clear difference between {best.name} and {second.name}: their intervals overlap")
    if len(groups) == 1:
        said.append(f"these runs differ in their seed only: what separates the {seeds} is training luck" if seeds > 1 else
                    "these runs have the same options and the same seed")
    elif seeds < 2:
        said.append("training luck not included: at least one setting has runs of a single seed. Train each with three seeds "
                    "or more (--seed 1, --seed 2, …) before a difference is trusted.")
    elif seeds < 3:
        said.append("two seeds of a setting show luck, but cannot be told from it: with three or more of each it is tested")
    else:
        said.append(f"training luck included: p is Welch's test over at least {seeds} seeds of each setting, times the "
                    f"{len(directed) * (len(groups) - 1)} questions asked")
    return said


def _by_luck(a: Sequence[float], b: Sequence[float]) -> float:
    """The chance of means so far apart if the seeds of both were drawn alike (Welch 1947); 1 where all values are equal."""
    from scipy.stats import ttest_ind

    if len({*a, *b}) == 1:
        return 1.0
    with np.errstate(all="ignore"):                            # seeds that agree to the last bit
        chance = float(ttest_ind(a, b, equal_var=False).pvalue)
    return 0.0 if math.isnan(chance) else chance
