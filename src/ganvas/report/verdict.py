"""A run judged in words: the one sentence at the top of its report, and what stands behind it."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from ganvas.report.plots import figure
from ganvas.report.records import Best, Copies, Diagnosis, Evaluation, Figure
from ganvas.watcher import seen

_SUMMING_UP = ("kid", "fid")           # figures that judge quality and diversity at once; KID first: unbiased for small sets
_SHARES = ("precision", "recall", "coverage")          # from 0 to 1, so that a part of the real images' share means something
HALF_WAY = 0.5                         # of the real images' share: below, no one takes the samples for the real thing

Tone = Literal["good", "mixed", "bad", "open"]


class Verdict(NamedTuple):
    """`tone` is said by the words too, never by colour alone."""

    tone: Tone
    headline: str
    sentences: list[str]


def judge(evaluation: Evaluation | None, diagnoses: Sequence[Diagnosis], best: Best | None, trained: int) -> Verdict:
    """The verdict on a run of `trained` real images.

    A problem comes before everything else, then copying, then the distance from real images.
    """
    if not trained and evaluation is None:
        return Verdict("open", "Nothing has been trained yet.", [])
    problems = [diagnosis.name for diagnosis in diagnoses if diagnosis.severity == "problem"]
    warnings = [diagnosis.name for diagnosis in diagnoses if diagnosis.severity != "problem"]
    copies = evaluation.copies if evaluation else None
    main = main_figure(evaluation.figures) if evaluation else None
    sentences = [_distance(main)] if main else []
    if copies and copies.text:
        of = f": {percent(copies.rate)} of {copies.n:,} samples" if copies.rate is not None and copies.n else ""
        sentences.append(_sentence(copies.text.partition(":")[0] + of))
    if best is not None and best.nimg < trained:
        sentences.append(f"Its best checkpoint is not the last one: it was made at {seen(best.nimg)} of {seen(trained)}.")
    if problems:
        copying = is_copying(copies) and "copying" not in problems
        return Verdict("bad", f"Something is wrong: {_listed(problems + ['copying'] * copying)}.", sentences)
    if is_copying(copies):
        return Verdict("bad", "It copies its training images.", sentences)
    if warnings:
        with_what = "a warning" if len(warnings) == 1 else "warnings"
        return Verdict("mixed", f"Usable, with {with_what}: {_listed(warnings)}.", sentences)
    if main is None:
        return Verdict("open", "No sign of trouble; how good the images are has not been measured.", sentences)
    if at_floor(main):
        return Verdict("good", f"{main.label or main.metric} cannot tell the samples from real images.", sentences)
    if main.floor is None:
        return Verdict("open", "No fault found; how far from real images it is, is not known.", sentences)
    far = _farthest(evaluation.figures if evaluation else [])
    if far is not None:
        return Verdict("mixed", f"No fault found, but far from real images: {far.label or far.metric} {figure(far.value)}, where "
                                f"real images get {figure(far.floor)}.", sentences)
    return Verdict("good", "No fault found, and on the way to real images.", sentences)


def main_figure(figures: Sequence[Figure]) -> Figure | None:
    """The figure to judge a run by: KID, else FID, else the first that has a floor."""
    measured = [figure for figure in figures if figure.value is not None]
    for metric in _SUMMING_UP:
        for found in measured:
            if found.metric == metric:
                return found
    return next((found for found in measured if found.floor is not None and found.better == "lower"), None)


def at_floor(found: Figure) -> bool:
    """Whether real images score no better against each other, as far as the intervals can tell."""
    floor = found.floor_high if found.floor_high is not None else found.floor
    value = found.low if found.low is not None else found.value
    return found.better == "lower" and floor is not None and value is not None and value <= floor


def _farthest(figures: Sequence[Figure]) -> Figure | None:
    """The share of which the samples reach the smallest part of what real images do, where that is below HALF_WAY."""
    reached = [(found.value / found.floor, found) for found in figures
               if found.metric in _SHARES and found.value is not None and found.floor is not None and found.floor > 0]
    part, farthest = min(reached, key=lambda pair: pair[0], default=(1.0, None))
    return farthest if part < HALF_WAY else None


def percent(share: float | None) -> str:
    """A share as percent; "–" where it is not known."""
    return "–" if share is None else f"{100 * share:.1f}".removesuffix(".0") + "%"


def is_copying(copies: Copies | None) -> bool:
    """Whether more samples than the limit are copies: as the evaluation judged, else by the lower end of the interval."""
    if copies is not None and copies.over_limit is not None:
        return copies.over_limit
    if copies is None or copies.limit is None:
        return False
    rate = copies.low if copies.low is not None else copies.rate
    return rate is not None and rate > copies.limit


def _distance(main: Figure) -> str:
    name = main.label or main.metric
    between = f" ({figure(main.low)} to {figure(main.high)})" if main.low is not None and main.high is not None else ""
    floor = f"; real images score {figure(main.floor)} against each other" if main.floor is not None else ""
    relative = ". Only to be compared with figures of the same kind" if main.relative_only else ""
    return f"{name} is {figure(main.value)}{between}{floor}{relative}."


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
