"""The verdict's first sentence names what matters most, and never says more than was measured."""

import pytest

from ganvas.report.records import Best, Copies, Diagnosis, Evaluation, Figure
from ganvas.report.verdict import at_floor, is_copying, judge, main_figure

FAR = Figure(metric="kid", label="KID", value=0.03, low=0.02, high=0.04, floor=0.001, floor_low=0.0, floor_high=0.002,
             better="lower")
NEAR = FAR.model_copy(update={"value": 0.002, "low": 0.0015, "high": 0.003})
COVERED = Figure(metric="coverage", label="coverage", value=0.9, floor=0.96, better="higher")
COPIER = Copies(rate=0.2, low=0.15, high=0.26, limit=0.05, text="a copier: 20% repeat a training image")
CLEAN = Copies(rate=0.01, low=0.0, high=0.02, limit=0.05, text="no sign of copying")
COLLAPSE = Diagnosis(name="mode collapse")
PAST = Diagnosis(name="past its best", severity="warning")


@pytest.mark.parametrize(("figures", "copies", "diagnoses", "tone", "headline"), [
    ([FAR], CLEAN, [], "good", "No fault found, and on the way to real images."),
    ([FAR, COVERED.model_copy(update={"value": 0.1})], CLEAN, [], "mixed",
     "No fault found, but far from real images: coverage 0.100, where real images get 0.960."),
    ([FAR, COVERED], CLEAN, [], "good", "No fault found, and on the way to real images."),
    ([NEAR], CLEAN, [], "good", "KID cannot tell the samples from real images."),
    ([NEAR], COPIER, [], "bad", "It copies its training images."),
    ([NEAR], COPIER, [COLLAPSE, PAST], "bad", "Something is wrong: mode collapse and copying."),
    ([NEAR], CLEAN, [COLLAPSE], "bad", "Something is wrong: mode collapse."),
    ([FAR], CLEAN, [PAST], "mixed", "Usable, with a warning: past its best."),
    ([], None, [], "open", "No sign of trouble; how good the images are has not been measured."),
    ([FAR.model_copy(update={"floor": None})], None, [], "open", "No fault found; how far from real images it is, is not known."),
])
def test_problems_come_first_then_copying_then_the_distance(figures, copies, diagnoses, tone, headline):
    verdict = judge(Evaluation(figures=figures, copies=copies), diagnoses, None, 1000)
    assert (verdict.tone, verdict.headline) == (tone, headline)


def test_without_an_evaluation_nothing_is_said_about_quality():
    assert judge(None, [], None, 1000).tone == "open"
    assert judge(None, [], None, 0).headline == "Nothing has been trained yet."
    assert judge(None, [COLLAPSE], None, 1000).tone == "bad"


def test_a_best_checkpoint_before_the_last_is_told_with_its_place():
    evaluation = Evaluation(figures=[FAR])
    assert any("12.0 kimg of 40.0 kimg" in sentence for sentence in judge(evaluation, [], Best(nimg=12_000), 40_000).sentences)
    assert not any("best checkpoint" in sentence for sentence in judge(evaluation, [], Best(nimg=40_000), 40_000).sentences)


def test_copying_is_told_in_the_words_of_the_evaluation_with_its_rate():
    copies = CLEAN.model_copy(update={"n": 2000, "text": "no sign of copying: 20 of 2,000 samples are near"})
    assert "No sign of copying: 1% of 2,000 samples." in judge(Evaluation(figures=[FAR], copies=copies), [], None, 1).sentences


def test_a_rate_above_the_limit_by_chance_is_no_copying():
    assert not is_copying(Copies(rate=0.06, low=0.03, high=0.1, limit=0.05))
    assert is_copying(Copies(rate=0.06, limit=0.05))
    assert not is_copying(Copies(rate=0.06))
    assert not is_copying(None)


def test_what_the_evaluation_judged_counts_more_than_the_interval():
    assert is_copying(Copies(rate=0.06, low=0.03, limit=0.05, over_limit=True))
    assert not is_copying(Copies(rate=0.06, low=0.055, limit=0.05, over_limit=False))


def test_a_figure_is_at_its_floor_only_where_lower_is_better_and_the_intervals_meet():
    assert at_floor(NEAR) and not at_floor(FAR)
    assert not at_floor(NEAR.model_copy(update={"better": "higher"}))
    assert not at_floor(Figure(metric="kid", value=0.0, better="lower"))


def test_kid_is_preferred_to_fid_and_what_has_no_value_is_passed_over():
    fid, kid = Figure(metric="fid", value=3.0), Figure(metric="kid", value=0.1)
    assert main_figure([fid, kid]) == kid
    assert main_figure([fid, Figure(metric="kid", value=None)]) == fid
    assert main_figure([Figure(metric="recall", value=0.5, better="higher", floor=0.8)]) is None
