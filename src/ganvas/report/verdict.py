"""A run judged in words: the one sentence at the top of its report, and what stands behind it."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from ganvas.report.plots import figure
from ganvas.report.records import Best, Copies, Diagnosis, Evaluation, Figure
from ganvas.watcher import seen

_SUMMING_UP = ("kid", "fid")           # figures that judge quality and diversity at once; KID first: unbiased for small sets
_SHARES = ("precision", "recall", "coverage")          # from 0 to 1, so that a part of the real images' share means something
HALF_WAY = 0.5                         # of the real images' share: below, no one takes the samples for the real thing
NAMED = 0.8                            # of the real images' share: below, a lack is worth a word beside a KID that is off, too
ENOUGH = 200                           # samples: with fewer, half of the kinds may be missing and KID not show it

Tone = Literal["good", "mixed", "bad", "open"]


class Verdict(NamedTuple):
    """`tone` is said by the words too, never by colour alone."""

    tone: Tone
    headline: str
    sentences: list[str]


class Standing(NamedTuple):
    """Of which checkpoint the evaluation is, and what has become of that one since."""

    of: str                            # "the best checkpoint at 12.0 kimg"
    kind: Literal["kept", "last", "other"]     # kept: the one that the run gives away; last: that, but another is the best
    since: str                         # "the best is now at 20.0 kimg"; "" for the kept one


def judge(evaluation: Evaluation | None, diagnoses: Sequence[Diagnosis], best: Best | None, trained: int,
          standing: Standing | None = None) -> Verdict:
    """The verdict on a run of `trained` real images; standing: of the evaluation's checkpoint, None = of the kept one.

    A problem comes before everything else, then copying, then warnings, then the distance from real images. "good" needs a
    figure at its floor, by enough samples to trust that, no lack of precision or variety, and the checkpoint that is kept.
    """
    if not trained and evaluation is None:
        return Verdict("open", "Nothing has been trained yet.", [])
    problems = [diagnosis.name for diagnosis in diagnoses if diagnosis.severity == "problem"]
    warnings = [diagnosis.name for diagnosis in diagnoses if diagnosis.severity != "problem"]
    copies = evaluation.copies if evaluation else None
    figures = evaluation.figures if evaluation else []
    main, kind = main_figure(figures), standing.kind if standing else "kept"
    sentences = _sentences(main, copies, best, trained)
    if problems:
        copying = is_copying(copies) and "copying" not in problems
        return Verdict("bad", f"Something is wrong: {_listed(problems + ['copying'] * copying)}.", sentences)
    if is_copying(copies):
        return Verdict("bad", "It copies its training images." if kind != "other" else
                       "It copied its training images when it was evaluated.", sentences)
    if warnings:
        with_what = "a warning" if len(warnings) == 1 else "warnings"
        return Verdict("mixed", f"No problem found, but {with_what}: {_listed(warnings)}.", sentences)
    if main is None:
        return Verdict("open", "How good the images are has not been measured.", sentences)
    if kind == "other":
        newer = "best" if best else "newest"
        return Verdict("open", f"No sign of trouble, but its {newer} checkpoint has not been evaluated.", sentences)
    return _of_distance(main, figures, kind == "kept", sentences)


def _of_distance(main: Figure, figures: Sequence[Figure], kept: bool, sentences: list[str]) -> Verdict:
    """The verdict on a run without any fault: `main` beside its floor, then what its samples lack."""
    name, lacking = main.label or main.metric, _lacking(figures)
    if main.floor is None and not lacking:
        return Verdict("open", "How far from real images it is, is not known.", sentences)
    if is_apart(main) or lacking:
        how = "far" if lacking and lacking[0][0] < HALF_WAY else "still apart"
        why = [_ratio(main)] if is_apart(main) else []
        if lacking:
            shares = [f"{found.label or found.metric}{'' if index else ' reaches'} {percent(part)}"
                      for index, (part, found) in enumerate(lacking)]
            why.append(f"{_listed(shares)} of theirs")
        return Verdict("mixed", f"{how[0].upper()}{how[1:]} from real images: {'; '.join(why)}.", sentences)
    if main.n is None or main.n < ENOUGH:
        of = "n is not known" if main.n is None else f"n = {main.n:,}"
        return Verdict("open", f"No fault found, but too few samples to tell it from real images: {of}.", sentences)
    if not at_floor(main):
        return Verdict("open", f"No fault found; {name} is near to that of real images, but not clearly the same.", sentences)
    if not kept:
        return Verdict("open", f"{name} cannot tell the last checkpoint from real images; the best has not been evaluated.",
                       sentences)
    return Verdict("good", f"{name} cannot tell the samples from real images.", sentences)


def standing_of(evaluation: Evaluation, best: Best | None, last: int | None) -> Standing | None:
    """None for an evaluation of no checkpoint. last: where the newest one is, None = not known."""
    at, chosen = evaluation.checkpoint, evaluation.chosen
    if at is None or not chosen:
        return None
    kept = best.nimg if best else last
    if kept is None or at == kept:
        name = "the best checkpoint" if best else "the last checkpoint" if at == last else "the checkpoint"
        return Standing(f"{name} at {seen(at)}", "kept", "")
    if at == last and chosen != "best":
        return Standing(f"the last checkpoint at {seen(at)}", "last", f"the best is at {seen(kept)}")
    was = f", which was the {chosen} then" if chosen in ("best", "last") else ""
    return Standing(f"the checkpoint at {seen(at)}{was}", "other", f"the {'best' if best else 'last'} is now at {seen(kept)}")


def _sentences(main: Figure | None, copies: Copies | None, best: Best | None, trained: int) -> list[str]:
    """What stands behind the headline."""
    sentences = []
    if main:
        sentences.append(_distance(main))
        if main.n is not None and main.n < ENOUGH:
            sentences.append(f"With n = {main.n:,} samples only coarse faults show.")
    if copies and copies.text:
        sentences.append(_sentence(copies.text))
    if best is not None and best.nimg < trained:
        sentences.append(f"Its best checkpoint is not the last one: it was made at {seen(best.nimg)} of {seen(trained)}.")
    return sentences


def main_figure(figures: Sequence[Figure]) -> Figure | None:
    """The figure to judge a run by: KID, else FID, else the first that has a floor."""
    measured = [figure for figure in figures if figure.value is not None]
    for metric in _SUMMING_UP:
        for found in measured:
            if found.metric == metric:
                return found
    return next((found for found in measured if found.floor is not None and found.better == "lower"), None)


def at_floor(found: Figure) -> bool:
    """Whether real images score no better: the value's median within their interval, and their median within its own."""
    if found.better != "lower" or found.value is None or found.floor is None:
        return False
    return found.value <= _floor_ends(found)[1] and found.floor >= _ends(found)[0]


def is_apart(found: Figure) -> bool:
    """Whether the samples' interval lies wholly on the worse side of the real images'."""
    if found.value is None or found.floor is None or found.better not in ("lower", "higher"):
        return False
    (low, high), (floor_low, floor_high) = _ends(found), _floor_ends(found)
    return low > floor_high if found.better == "lower" else high < floor_low


def _ends(found: Figure) -> tuple[float, float]:
    """The value's interval; where there is none, two standard errors around it."""
    if found.low is not None and found.high is not None:
        return found.low, found.high
    value, error = found.value or 0.0, found.error or 0.0
    return value - 2 * error, value + 2 * error


def _floor_ends(found: Figure) -> tuple[float, float]:
    floor = found.floor or 0.0
    return (floor if found.floor_low is None else found.floor_low, floor if found.floor_high is None else found.floor_high)


def _lacking(figures: Sequence[Figure]) -> list[tuple[float, Figure]]:
    """(part of what real images reach, share) of the shares that are clearly below theirs and below NAMED of it, least first."""
    reached = [(found.value / found.floor, found) for found in figures
               if found.metric in _SHARES and found.value is not None and found.floor is not None and found.floor > 0]
    return sorted([pair for pair in reached if pair[0] < NAMED and is_apart(pair[1])], key=lambda pair: pair[0])


def _ratio(main: Figure) -> str:
    """How far above its floor a figure is that is apart from it; a floor about 0 has no multiples but those of its upper end."""
    name, most = main.label or main.metric, _floor_ends(main)[1]
    if main.value is None or most <= 0:
        return f"{name} is {figure(main.value)}, where real images get {figure(main.floor)}"
    return f"{name} is {figure(main.value / most)} times the most that real images get"


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
    reals = f" ({figure(main.floor_low)} to {figure(main.floor_high)})" if None not in (main.floor_low, main.floor_high) else ""
    floor = f"; real images score {figure(main.floor)}{reals} against each other" if main.floor is not None else ""
    relative = ". Only to be compared with figures of the same kind" if main.relative_only else ""
    return f"{name} is {figure(main.value)}{between}{floor}{relative}."


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
