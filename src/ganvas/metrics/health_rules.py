"""The rules of `health.py`: each looks at a run's record and names one pathology, or says nothing.

Thresholds are for medians over windows, never for single rows: every number of a GAN swings, and a swing that comes back is
healthy.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

from ganvas.metrics.health_record import PROBABILITIES, Record, Row, at, number, numbers

Severity = Literal["problem", "warning"]


@dataclass(frozen=True)
class Diagnosis:
    """One pathology of a run: its name, since how many images it holds, the figures it rests on, and what to do."""

    name: str
    severity: Severity
    since: int                              # real images seen when it began, as far as the rows tell
    evidence: str
    advice: str

    def as_dict(self) -> dict[str, Any]:
        """The same as a dict that JSON takes."""
        return asdict(self)


MORE = 3                                # times the run's own weight of R1, where it has one: less would hardly be seen

NEW_RUN = " Such options make another run: add --out with a new folder."
EARLIER = " `ganvas sample --checkpoint best` (or a number of images) takes a checkpoint from before it."


def more_r1(run: Record) -> str:
    """The option that holds D back more than the run does."""
    return f"--set train.r1_gamma={MORE * run.r1_gamma or 1:g}"


def opinions(run: Record, rows: Sequence[Row]) -> str:
    """What D says of reals and fakes, for a sentence: probabilities where the loss makes D's logits such."""
    real, fake = ("D(x)", "D(G(z))_before") if run.loss in PROBABILITIES else ("logit_real", "logit_fake")
    shown = ("D(x)", "D(G(z))") if run.loss in PROBABILITIES else ("mean logit of reals", "of fakes")
    return f"{shown[0]} {run.shown(rows, real)}, {shown[1]} {run.shown(rows, fake)}"


# ---------------------------------------------------------------- training runs away

EXPLODED_LOSS = 10.0          # times an undecided D's: D is not ignorant then, but sure and wrong, for reals and fakes on average
EXPLODED_LOGIT = 1000.0       # float32's sigmoid is flat beyond 17; healthy logits stay below some tens
EXPLODED_GRADIENT = 1e4       # times its start. Weights that begin near 0 (coursera-mnist-28) grow 400-fold in good health ...
LARGE_GRADIENT = 1e5          # ... but not to such a length; with --lr 1 they reached 1e9
FINITE = ("Loss_D", "Loss_G", "logit_real", "logit_fake", "grad_D", "grad_G")
LATEST = 5                    # rows: an explosion is told at once, not after a window
LOST = 5.0                    # times the best figure, and no better than at the start: what was learnt is gone


def diverged(run: Record) -> Diagnosis | None:
    """NaN, or losses, logits or gradients that are far beyond what any game between G and D gives."""
    rows = run.stats[-LATEST:]
    advice = ("Lower the learning rate: a tenth of what it is, or --lr 0.0001. A larger --batch makes gradients steadier; with "
              "plan.reduction sum, --set plan.reduction=mean makes them smaller." + NEW_RUN)
    for row in rows:
        bad = [name for name in FINITE if name in row and row[name] is None]
        if bad:
            evidence = f"{', '.join(bad)}: NaN or infinite at {at(row['nimg'])}."
            return Diagnosis("diverged", "problem", int(row["nimg"]), evidence, advice)
    for name in FINITE:
        seen, limit = numbers(rows, name), _limit(run, name)
        if len(seen) < 3 or limit is None or median(map(abs, seen)) <= limit:
            continue
        first = numbers(run.stats, name)[0]
        return Diagnosis(
            "diverged", "problem", run.since(run.stats, _beyond(name, limit)),
            f"{name} is {median(seen):,.4g} (median of {len(seen)} rows); the run began with {first:,.4g}.", advice)
    return None


def _limit(run: Record, name: str) -> float | None:
    """What this statistic's size stays below in any run that has not exploded; None where that cannot be said."""
    if name == "Loss_D":
        return EXPLODED_LOSS * run.undecided if run.undecided else None
    if name.startswith("logit"):
        return EXPLODED_LOGIT if run.loss != "custom" else None
    start = numbers(run.stats, name)[:LATEST]
    return max(EXPLODED_GRADIENT * min(start), LARGE_GRADIENT) if start and name.startswith("grad") else None


def _beyond(name: str, limit: float) -> Callable[[Row], bool]:
    return lambda row: abs(number(row, name) or 0.0) > limit


def lost(run: Record) -> Diagnosis | None:
    """The figure was good once and is now no better than at the start."""
    course = run.course()
    if course is None or not course.is_worse or not course.now >= course.first >= LOST * course.best or mode_collapse(run):
        return None
    return Diagnosis(
        "diverged", "problem", run.since(run.measured, lambda row: (number(row, course.name) or 0) >= LOST * course.best),
        f"{course.text}: what was learnt is lost, for at the first measurement it was {course.first:.3g}.",
        f"Lower the learning rate, --lr 0.0001 or less; steadier: {more_r1(run)}, a larger --batch." + NEW_RUN + EARLIER)


# ---------------------------------------------------------------- who is ahead

SURE_FAKE, SURE_GAP = 0.05, 0.85     # D(G(z)), and D(x) above it; .85 because with plan.real_label .9 D(x) ends near .9
SURE_LOSS = 0.05                     # of an undecided D's loss: hinge, least squares and pairs have no probabilities
SURE_SPREADS = 5.0                   # distance of the mean logits in spreads of the reals': a loss of one's own has no scale
UNMEASURED_STEPS = 1000              # D may be sure for hundreds of steps while pictures improve; unmeasured, it gets the doubt
HOLDS = 0.8                          # share of the window's rows
EVEN_GAP = 0.05                      # logits (or spreads of the reals'): D tells nothing apart; healthy D: .3 and more
FOOLED = 0.6                         # D(G(z)): fakes pass as real outright
HALF_LEARNT = 0.5                    # of the first figure: pictures above that are not good ...
UNLIKE_DB = 9.0                      # ... nor with such a spectrum; smooth reals (enlarged digits) reach it unseen: BELIEVABLE


def _is_sure(run: Record) -> Callable[[Row], bool] | None:
    """Whether D is sure of all in a row; None where this loss gives no way to tell."""
    if run.loss in PROBABILITIES:
        def by_probability(row: Row) -> bool:
            real, fake = number(row, "D(x)"), number(row, "D(G(z))_before")
            return real is not None and fake is not None and fake < SURE_FAKE and real - fake > SURE_GAP
        return by_probability
    if run.undecided:
        limit = SURE_LOSS * run.undecided
        return lambda row: bool(losses := numbers([row], "Loss_D")) and losses[0] < limit
    spread = run.logit_spread
    if spread:
        return lambda row: (_gap(row) or 0) > SURE_SPREADS * spread
    return None


def _gap(row: Row) -> float | None:
    real, fake = number(row, "logit_real"), number(row, "logit_fake")
    return None if real is None or fake is None else real - fake


def d_wins(run: Record) -> Diagnosis | None:
    """D tells all reals from all fakes, and the samples do not get better by it."""
    window, is_sure = run.window(), _is_sure(run)
    rows = [row for row in window if "Loss_D" in row]
    if not rows or is_sure is None or sum(map(is_sure, rows)) < HOLDS * len(rows):
        return None
    since = run.since([row for row in run.stats if "Loss_D" in row], is_sure)
    improves = run.improves()
    if improves or (improves is None and rows[-1]["nimg"] - since < UNMEASURED_STEPS * run.batch):
        return None
    evidence = f"D tells reals from fakes without fail: {opinions(run, rows)}, Loss_D {run.shown(rows, 'Loss_D')}"
    now, before = numbers(window, "grad_G"), max(numbers(run.stats, "grad_G")[:LATEST], default=0.0)
    if now and median(now) < before / 10:
        evidence += f"; the gradient that reaches G fell from {before:.2g} to {median(now):.2g}"
    evidence += "; " + (run.no_better() if improves is False else f"so for {at(rows[-1]['nimg'] - since)}") + "."
    steps = ["--set train.loss=nonsaturating, whose gradient does not vanish where D is sure"] if run.loss == "minimax" else []
    steps += [more_r1(run), "a smaller network.d_channels, or a larger network.g_channels", "a lower --lr 0.0001"]
    if run.loss in PROBABILITIES:
        steps.append("--set plan.real_label=0.9")
    if run.images < FEW_IMAGES:
        steps.append("more images, or --mirror on where left and right do not matter")
    return Diagnosis("D wins", "warning" if improves is None else "problem", since, evidence,
                     "Hold D back: " + "; ".join(steps) + "." + NEW_RUN)


def g_wins(run: Record) -> Diagnosis | None:
    """D cannot tell fakes from reals although the pictures are bad, so it teaches nothing."""
    scale = run.logit_spread or 1.0
    if run.loss in PROBABILITIES:                     # a hundredth of probability is nothing, however alike D finds all reals
        scale = max(scale, 1.0)

    def is_fooled(row: Row) -> bool:
        gap = _gap(row)
        return gap is not None and gap < EVEN_GAP * scale

    rows = [row for row in run.window() if _gap(row) is not None]
    if not rows or sum(map(is_fooled, rows)) < HOLDS * len(rows) or run.improves():
        return None
    taken = numbers(rows, "D(G(z))_before")
    is_bad = run.looks_bad(HALF_LEARNT, UNLIKE_DB, BELIEVABLE)
    passes = run.loss in PROBABILITIES and bool(taken) and median(taken) > FOOLED
    if not (passes or is_bad):
        return None
    gap = median(gap for gap in map(_gap, rows) if gap is not None)
    evidence = f"D cannot tell: its mean logits of reals and fakes differ by {gap:.2g}, {opinions(run, rows)}"
    if run.improves() is False:
        evidence += f"; yet {run.no_better()}"
    since = run.since([row for row in run.stats if _gap(row) is not None], is_fooled)
    less_r1 = f"--set train.r1_gamma={run.r1_gamma / MORE:.3g}" if run.r1_gamma else "a smaller train.r1_gamma, if there is one"
    return Diagnosis(
        "G wins", "problem" if is_bad else "warning", since, evidence + ".",
        f"Give D more strength: a larger network.d_channels, such as 64; {less_r1}; "
        "--set plan.d_scale=1; a larger --batch." + NEW_RUN)


# ---------------------------------------------------------------- what the samples are like

COLLAPSED = 0.5               # of the reals' diversity; healthy runs have .8 and more, untrained ones are told by `improves`
NOISE_DB = 8.0                # high-frequency excess: six times the reals' power; good runs on sprites end at 3 and less ...
BELIEVABLE = 0.1              # precision; ... but on smooth reals (enlarged digits) at 9 to 18, and none of it is seen
UNLIKE = 3.0                  # times the reals' own floor: half of them against the other half
STILL = 0.5                   # grey levels of 255 that the fixed-z pictures move between two measurements
LEVEL = 0.03                  # of the undecided loss, between the window's halves; with batches of 16 it is .01 at rest


def mode_collapse(run: Record) -> Diagnosis | None:
    """The samples are far more alike than the reals."""
    def is_collapsed(row: Row) -> bool:
        own, real = number(row, "diversity"), number(row, "diversity_real")
        return own is not None and real is not None and own < COLLAPSED * real

    rows = run.lately("diversity", "diversity_real")
    if not rows or not all(map(is_collapsed, rows)) or run.improves():
        return None
    since = run.since(run.measured, is_collapsed)
    if since == run.measured[0]["nimg"] and (not run.window() or stuck(run) or d_wins(run)):
        return None                                    # it never was diverse: it has not begun to learn
    own, real = median(numbers(rows, "diversity")), median(numbers(rows, "diversity_real"))
    pairing = "" if run.loss == "relativistic" else "; --set train.loss=relativistic"
    return Diagnosis(
        "mode collapse", "problem", since,
        f"Samples are on average {own:.3g} apart in feature space, reals {real:.3g}: {own / real:.0%} of their diversity "
        f"in the last {len(rows)} measurements.",
        f"{more_r1(run)}; a lower --lr; a larger --batch{pairing}." + NEW_RUN + EARLIER)


def noise(run: Record) -> Diagnosis | None:
    """The samples have far more fine grain than the reals, as noise and chequered patterns have, and do not pass for them."""
    def is_noisy(row: Row) -> bool:
        excess, distance, floor = (number(row, "spectrum_" + name) for name in ("excess_db", "db", "floor_db"))
        is_unlike = excess is not None and excess > NOISE_DB and distance is not None and distance > UNLIKE * (floor or 0)
        return is_unlike and (number(row, "precision") or 0) < BELIEVABLE

    rows = run.lately("spectrum_excess_db", "spectrum_db")
    if not rows or not all(map(is_noisy, rows)) or run.improves():
        return None
    return Diagnosis(
        "noise", "problem", run.since(run.measured, is_noisy),
        f"The samples' fine detail is {run.shown(rows, 'spectrum_excess_db')} dB above the reals'; their spectra differ by "
        f"{run.shown(rows, 'spectrum_db')} dB, those of the reals' halves by {run.shown(rows, 'spectrum_floor_db')} dB; "
        f"precision {run.shown(rows, 'precision')}.",
        "If pictures still change, train on. Otherwise a larger network.d_channels, if it is below 16; a lower --lr 0.0002; "
        "--set train.betas=[0.5,0.999]; --set network.init=dcgan; against chequers --set network.kernel=4." + NEW_RUN)


def stuck(run: Record) -> Diagnosis | None:
    """Neither the loss nor the pictures have moved over the window."""
    window = run.window()
    losses = numbers(window, "Loss_D")
    rows = run.lately("change")
    scale = run.undecided or (median(map(abs, losses)) if losses else 0)
    if not rows or len(losses) < 4 or not all((number(row, "change") or 0) < STILL for row in rows):
        return None
    half = len(losses) // 2
    if abs(median(losses[:half]) - median(losses[half:])) > LEVEL * scale:
        return None
    return Diagnosis(
        "stuck", "problem", run.since(run.measured, lambda row: (number(row, "change") or 0) < STILL),
        f"Between measurements the same z's pictures move by {median(numbers(rows, 'change')):.2g} of 255 grey levels, "
        f"and Loss_D stays at {median(losses):.4g}.",
        "A larger --lr (0.0002 is usual); the gradients say whether it reaches G: "
        f"grad_G {run.shown(window, 'grad_G')}, grad_D {run.shown(window, 'grad_D')}. --set train.loss=nonsaturating; "
        "--set network.init=dcgan." + NEW_RUN)


# ---------------------------------------------------------------- the training images by heart

FEW_IMAGES = 2000             # below, D learns the images by heart within hours
BY_HEART = 0.5                # r_v of Karras et al. 2020: held-out reals look to D as much like samples as like training images
SURE_OF_MEANS = 3.0           # standard errors that the mean logits must lie apart
APART = 0.5                   # spreads of the reals' logits between training reals and samples: below, r_v is a ratio of noise


def copying(run: Record) -> Diagnosis | None:
    """More samples are near-copies of training images than held-out reals would be, and too many for chance."""
    def copies(row: Row) -> bool:
        rate, limit = number(row, "copies"), number(row, "copies_limit")
        return rate is not None and limit is not None and rate > limit and row.get("copies_over_limit") is not False

    rows = [row for row in run.measured if number(row, "copies") is not None and number(row, "copies_limit") is not None][-3:]
    if not rows or not copies(rows[-1]) or 2 * sum(map(copies, rows)) <= len(rows):
        return None
    rate, limit = number(rows[-1], "copies"), number(rows[-1], "copies_limit")
    steps = [f"more images than {run.images:,}", "--mirror on where left and right do not matter", more_r1(run),
             "a smaller network.g_channels", "a shorter run (--kimg)"]
    if not run.holdout:
        steps.append("--holdout 10% to measure it against images that were never trained on")
    return Diagnosis(
        "copying", "problem", run.since([row for row in run.measured if number(row, "copies") is not None], copies),
        f"{rate:.1%} of the samples repeat a training image, more than chance explains; {limit:.1%} are allowed.",
        "; ".join(steps).capitalize() + "." + NEW_RUN + EARLIER)


def memorising(run: Record) -> Diagnosis | None:
    """D knows its training images by heart: held-out reals look to it like samples (r_v, Karras et al. 2020, eq. 1)."""
    def heart(row: Row) -> float | None:
        train, held, fake = (number(row, "logit_" + name) for name in ("train", "holdout", "samples"))
        if train is None or held is None or fake is None:
            return None
        spread = number(row, "logit_std") or 0.0
        error = SURE_OF_MEANS * spread / math.sqrt(max(run.holdout, 1))
        is_apart = train - fake > max(APART * spread, error) and train - held > error
        return (train - held) / (train - fake) if is_apart else 0.0

    def by_heart(row: Row) -> bool:
        return (heart(row) or 0) > BY_HEART

    rows = run.lately("logit_train", "logit_holdout", "logit_samples")
    if not rows or not all(map(by_heart, rows)):
        return None
    train, held, fake = (median(numbers(rows, "logit_" + name)) for name in ("train", "holdout", "samples"))
    return Diagnosis(
        "memorising discriminator", "warning", run.since(run.measured, by_heart),
        f"D's mean logit is {train:.2f} for training images, {held:.2f} for held-out ones and {fake:.2f} for samples: "
        f"reals that it has not seen are {(train - held) / (train - fake):.0%} of the way to fakes.",
        f"More images than {run.images:,}; --mirror on where left and right do not matter; {more_r1(run)}; "
        "a smaller network.d_channels; a shorter run (--kimg)." + NEW_RUN)


WORSE_SHARE = 0.3             # of the best figure: less is not worth going back for, even where it is certain


def past_its_best(run: Record) -> Diagnosis | None:
    """An earlier checkpoint was clearly better than the run is now."""
    course = run.course()
    if course is None or not course.is_worse or course.now - course.best < WORSE_SHARE * abs(course.best):
        return None
    few = " More images (or --mirror on) move that point further out." if run.images < FEW_IMAGES else ""
    return Diagnosis(
        "past its best", "warning", course.best_nimg, f"{course.text}.",
        f"Use that checkpoint: `ganvas sample --checkpoint best`. A lower --lr or --set train.ema_half_life_kimg=10 swings less; "
        f"--kimg {math.ceil(course.best_nimg / 1000)} ends there." + few)


Rule = Callable[[Record], Diagnosis | None]
RULES: Sequence[Rule] = (
    diverged, d_wins, g_wins, mode_collapse, lost, stuck, noise, copying, memorising, past_its_best)
