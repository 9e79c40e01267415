"""The figures of a run for its report: the evaluation's, those measured in training, and what is drawn as curves."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ganvas.report.plots import Level, Line, Plot, figure, number, plot
from ganvas.report.records import Best, Evaluation, Figure
from ganvas.report.verdict import ENOUGH, at_floor
from ganvas.watcher import seen

_PAIRS = 40
_NOTES = 20

_MEANINGS = {
    "kid": "How far samples and real images are apart as a whole; 0 = not at all. The one to trust for small sets.",
    "fid": "How far samples and real images are apart as a whole, as two bell curves. Falls with the number of images: "
           "compare at equal numbers only.",
    "precision": "Share of the samples that look like some real image: are they believable?",
    "recall": "Share of the real images that look like some sample: is every kind made?",
    "density": "How thickly real images lie around the samples; 1 = as around real images.",
    "coverage": "Share of the real images that have a sample in their neighbourhood: is every kind made?",
    "is": "How sure a classifier is of each sample, and how varied its answers are. Does not look at real images.",
    "modes": "How many classes occur among the samples.",
    "agreement": "Share of the samples in which the classifier sees the class that they were asked to be.",
    "mode_kl": "How far the samples' shares of the classes are from the real ones; 0 = the same.",
    "diversity": "How much samples differ from each other; far below the real images' is a collapse.",
    "similarity": "How alike two samples are to the eye, from 0 to 1; far above the real images' is a collapse.",
    "swd": "How far the pixels of samples and real images are apart along random directions; 0 = not at all.",
}


class Scale(NamedTuple):
    """A figure with its interval and its floor on one line, all in percent from the left."""

    value: float
    left: float
    width: float
    floor_left: float
    floor_width: float


class Measured(NamedTuple):
    """A figure of the evaluation as the page shows it."""

    figure: Figure
    meaning: str
    value: str
    between: str
    floor: str
    floor_between: str
    reading: str
    scale: Scale | None


def measured(evaluation: Evaluation | None, measurements: Sequence[Mapping[str, Any]], best: Best | None) -> dict[str, Any]:
    """The evaluation's figures, how they were made, and the best and the last measurement in training."""
    figures = [_shown(found) for found in evaluation.figures] if evaluation else []
    made = list(dict.fromkeys((found.extractor, found.preprocessing) for found in (evaluation.figures if evaluation else [])
                              if found.extractor))
    at_best = next((row for row in measurements if best and number(row, "nimg") == best.nimg), None)
    last = measurements[-1] if measurements else None
    columns = [(f"{name}, {seen(int(number(row, 'nimg') or 0))}", row)
               for name, row in (("best", at_best), ("last", last if last is not at_best else None)) if row is not None]
    lines = [("kid", "KID"), ("kid_error", "its standard error"), ("kid_floor", "its floor"), ("diversity", "diversity"),
             ("diversity_real", "diversity of real images"), ("copies", "copies, share of samples"),
             ("copies_among", "training images they were looked for among"), ("copies_limit", "limit of copies")]
    in_training = [(name, [figure(number(row, key)) for _, row in columns]) for key, name in lines
                   if any(number(row, key) is not None for _, row in columns)]
    return {
        "figures": figures, "made_with": made,
        "training_columns": [name for name, _ in columns], "training_rows": in_training,
        "training_extractor": str(last.get("extractor") or "") if last else "",
        "notes": evaluation.notes[:_NOTES] if evaluation else [],
        "pairs": evaluation.copies.pairs[:_PAIRS] if evaluation and evaluation.copies else [],
    }


def _shown(found: Figure) -> Measured:
    def between(low: float | None, high: float | None) -> str:
        return f"{figure(low)} to {figure(high)}" if low is not None and high is not None and low != high else ""

    return Measured(
        found, _MEANINGS.get(found.metric, ""), figure(found.value),
        between(found.low, found.high) or (f"± {figure(found.error)}" if found.error is not None else ""),
        figure(found.floor) if found.floor is not None else "", between(found.floor_low, found.floor_high),
        "as real images" if at_floor(found) and found.n is not None and found.n >= ENOUGH else "", _scale(found))


def _scale(found: Figure) -> Scale | None:
    """None for figures without a floor, or without a direction."""
    if found.value is None or found.floor is None or found.better not in ("lower", "higher"):
        return None
    low, high = (found.low, found.high) if found.low is not None and found.high is not None else (found.value, found.value)
    floor_low, floor_high = ((found.floor_low, found.floor_high) if found.floor_low is not None and found.floor_high is not None
                             else (found.floor, found.floor))
    start, end = min(0.0, low, floor_low), max(high, floor_high, 1e-12) * 1.04
    if not 0 < end - start < float("inf"):
        return None

    def percent(value: float) -> float:
        return round(100 * (value - start) / (end - start), 2)

    return Scale(percent(found.value), percent(low), percent(high) - percent(low),
                 percent(floor_low), percent(floor_high) - percent(floor_low))


def training_plots(
    stats: Sequence[Mapping[str, Any]], best: Best | None, trained: int, probabilities: bool = True,
) -> list[Plot]:
    """How the training went. probabilities: whether the loss makes D's logits such; else they are shown as what they are."""
    at = best.nimg if best else None
    of_logits = ("The same opinion before it becomes a probability; positive = looks real." if probabilities else
                 "How real D finds them. Under this loss these are no probabilities and 0 is no border: what counts is the "
                 "distance between the two. Large and growing, D has won; near 0, it cannot tell.")
    believed = plot(
        "What D believes", "Probability of being real. Near 1 for reals and near 0 for samples, D has won; near a half for both, "
        "it cannot tell.", stats,
        [Line("D(x)", "real images", 3), Line("D(G(z))_before", "samples, before D learnt from them", 4),
         Line("D(G(z))_after", "samples, after", 5)], trained, best=at, limits=(-0.04, 1.04), levels=[Level(0.5, "")])
    made = [
        plot("Losses", "They need not fall: the two networks pull against each other. What counts is that neither runs away.",
             stats, [Line("Loss_D", "D", 1), Line("Loss_G", "G", 2)], trained, best=at),
        believed if probabilities else None,
        plot("D's logits", of_logits, stats,
             [Line("logit_real", "real images", 3), Line("logit_fake", "samples", 4)], trained, best=at),
        plot("Gradient norms", "How strongly each network is pushed. Growing without end = about to diverge; near 0 = it learns "
             "nothing.", stats, [Line("grad_D", "D", 1), Line("grad_G", "G", 2)], trained, best=at, may_be_log=True),
    ]
    return [each for each in made if each is not None]


def measured_plots(measurements: Sequence[Mapping[str, Any]], best: Best | None, trained: int) -> list[Plot]:
    """What was measured on the way, by the extractor that measured last: figures of another cannot be compared with them."""
    last = measurements[-1].get("extractor") if measurements else None
    rows = [row for row in measurements if row.get("extractor") == last]
    at = best.nimg if best else None

    among = number(rows[-1], "copies_among") if rows else None
    looked = f", looked for among {among:,.0f} training images" if among is not None else ""

    def level(key: str, name: str, filled: bool = False) -> list[Level]:
        values = sorted(value for row in rows if (value := number(row, key)) is not None)
        return [Level(values[len(values) // 2], name, filled)] if values else []

    made = [
        plot("KID", "How far the samples are from real images; lower is better. The shaded floor is what real images score "
             "against each other.", rows, [Line("kid", "KID", 1, "kid_error")], trained, best=at,
             levels=level("kid_floor", "floor", True), may_be_log=True),
        plot("Copies", f"Share of the samples that lie suspiciously near to a training image{looked}.", rows,
             [Line("copies", "copies", 2)], trained, best=at, levels=level("copies_limit", "limit")),
        plot("Diversity", "How much the samples differ from each other; far below real images, the generator has collapsed.",
             rows, [Line("diversity", "samples", 4), Line("diversity_real", "real images", 3)], trained, best=at),
        plot("D on what it knows", "D's mean logits. Training images far above held-out ones: D has learnt them by heart.", rows,
             [Line("logit_train", "training images", 3), Line("logit_holdout", "held out", 1),
              Line("logit_samples", "samples", 4)], trained, best=at),
        plot("Spectrum", "How unlike the real images' the samples' fine and coarse structure is, in decibels.", rows,
             [Line("spectrum_db", "samples", 5)], trained, best=at, levels=level("spectrum_floor_db", "floor", True)),
        plot("Change", "How much the fixed pictures changed since the last measurement, of 255 levels; near 0 = stuck, or "
             "finished.", rows, [Line("change", "change", 5)], trained, best=at),
    ]
    return [each for each in made if each is not None]
