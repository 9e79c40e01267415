"""What ails a run: named diagnoses with evidence and advice, from the rows that it wrote while it trained."""

from collections.abc import Iterable

from ganvas.metrics.health_record import Record, Row
from ganvas.metrics.health_rules import RULES, Diagnosis

# A pathology -> what follows from it and is no news beside it. The first of each pair is the one to cure.
HIDES = {
    "diverged": ("D wins", "G wins", "mode collapse", "stuck", "noise", "past its best", "memorising discriminator"),
    "D wins": ("stuck", "noise"),
    "mode collapse": ("stuck", "noise", "past its best"),
    "stuck": ("G wins", "noise", "past its best"),
    "G wins": ("noise",),
}


def diagnose(
    stats: Iterable[Row], measurements: Iterable[Row], *, images: int, batch: int, loss: str, holdout: int,
    r1_gamma: float = 0.0,
) -> list[Diagnosis]:
    """The pathologies of a run, problems before warnings, the oldest first; none for a healthy run, or one that has just begun.

    stats: rows of stats.jsonl, measurements: rows of metrics.jsonl; whatever they lack is not judged by, and a null in `stats`
    stands for NaN. images, holdout: how many the run trains on and kept out; batch, loss, r1_gamma: those of train.
    """
    run = Record(stats, measurements, images, batch, loss, holdout, r1_gamma)
    found = [diagnosis for diagnosis in (rule(run) for rule in RULES) if diagnosis]
    hidden = {name for diagnosis in found for name in HIDES.get(diagnosis.name, ())}
    return sorted((diagnosis for diagnosis in found if diagnosis.name not in hidden),
                  key=lambda diagnosis: (diagnosis.severity != "problem", diagnosis.since))
