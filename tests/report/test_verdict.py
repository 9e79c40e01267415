"""The verdict's first sentence names what matters most, and never says more than was measured."""

import pytest

from ganvas.report.records import Best, Copies, Diagnosis, Evaluation, Figure
from ganvas.report.verdict import ENOUGH, at_floor, is_apart, is_copying, judge, main_figure, standing_of

FAR = Figure(metric="kid", label="KID", value=0.03, low=0.02, high=0.04, floor=0.001, floor_low=0.0, floor_high=0.002,
             better="lower", n=1000)
NEAR = FAR.model_copy(update={"value": 0.0015, "low": 0.0005, "high": 0.003})
BESIDE = FAR.model_copy(update={"value": 0.0025, "low": 0.0015, "high": 0.003})
COVERED = Figure(metric="coverage", label="coverage", value=0.9, low=0.89, high=0.91, floor=0.96, floor_low=0.95, floor_high=0.97,
                 better="higher", n=1000)
COPIER = Copies(rate=0.2, low=0.15, high=0.26, limit=0.05, text="a copier: 20% repeat a training image")
CLEAN = Copies(rate=0.01, low=0.0, high=0.02, limit=0.05, text="no sign of copying")
COLLAPSE = Diagnosis(name="mode collapse")
PAST = Diagnosis(name="past its best", severity="warning")


def changed(figure: Figure, **values) -> Figure:
    return figure.model_copy(update=values)


@pytest.mark.parametrize(("figures", "copies", "diagnoses", "tone", "headline"), [
    ([FAR], CLEAN, [], "mixed",
     "Still apart from real images: KID is 15 times the most that real images get."),
    ([FAR, changed(COVERED, value=0.1, low=0.0, high=0.2)], CLEAN, [], "mixed", "Far from real images: "
     "KID is 15 times the most that real images get; coverage reaches 10.4% of theirs."),
    ([NEAR, changed(COVERED, value=0.7, low=0.6, high=0.75)], CLEAN, [], "mixed",
     "Still apart from real images: coverage reaches 72.9% of theirs."),
    ([NEAR, changed(COVERED, value=0.7, low=0.6, high=0.96)], CLEAN, [], "good", "KID cannot tell the samples from real images."),
    ([NEAR, COVERED], CLEAN, [], "good", "KID cannot tell the samples from real images."),
    ([BESIDE], CLEAN, [], "open", "No fault found; KID is near to that of real images, but not clearly the same."),
    ([NEAR], COPIER, [], "bad", "It copies its training images."),
    ([NEAR], COPIER, [COLLAPSE, PAST], "bad", "Something is wrong: mode collapse and copying."),
    ([NEAR], CLEAN, [COLLAPSE], "bad", "Something is wrong: mode collapse."),
    ([FAR], CLEAN, [PAST], "mixed", "No problem found, but a warning: past its best."),
    ([], None, [], "open", "How good the images are has not been measured."),
    ([changed(FAR, floor=None)], None, [], "open", "How far from real images it is, is not known."),
])
def test_problems_come_first_then_copying_then_the_distance(figures, copies, diagnoses, tone, headline):
    verdict = judge(Evaluation(figures=figures, copies=copies), diagnoses, None, 1000)
    assert (verdict.tone, verdict.headline) == (tone, headline)


@pytest.mark.parametrize("n", [5, 68, ENOUGH - 1])
def test_few_samples_are_never_good_and_the_headline_says_how_few(n):
    verdict = judge(Evaluation(figures=[changed(NEAR, n=n)], copies=CLEAN), [], None, 1000)
    assert verdict.tone == "open" and f"too few samples to tell it from real images: n = {n}." in verdict.headline
    assert judge(Evaluation(figures=[changed(NEAR, n=ENOUGH)], copies=CLEAN), [], None, 1000).tone == "good"
    assert judge(Evaluation(figures=[changed(NEAR, n=None)], copies=CLEAN), [], None, 1000).tone == "open"


def test_few_samples_that_are_plainly_apart_are_told_so_with_the_number():
    digits = changed(FAR, value=0.021, low=0.02, high=0.035, floor=-0.002, floor_low=-0.0035, floor_high=0.0015, n=68)
    classes = changed(COVERED, value=0.5, low=0.45, high=0.55, floor=0.99, floor_low=0.97, floor_high=1.0, n=68)
    verdict = judge(Evaluation(figures=[digits], copies=CLEAN), [], None, 1000)
    assert (verdict.tone, verdict.headline) == (
        "mixed", "Still apart from real images: KID is 14 times the most that real images get.")
    assert "With n = 68 samples only coarse faults show." in verdict.sentences
    lacking = judge(Evaluation(figures=[changed(digits, value=0.001, low=-0.003, high=0.002), classes]), [], None, 1000)
    assert lacking.tone == "mixed" and "coverage reaches 50.5% of theirs" in lacking.headline


def test_a_floor_that_is_wholly_below_0_has_no_multiples():
    below = changed(FAR, floor=-0.002, floor_low=-0.003, floor_high=-0.001)
    assert "KID is 0.0300, where real images get −0.00200" in judge(Evaluation(figures=[below]), [], None, 1000).headline


@pytest.mark.parametrize(("best", "last", "chosen", "kind", "of", "since"), [
    (8_000, 9_000, "best", "kept", "the best checkpoint at 8.0 kimg", ""),
    (None, 8_000, "last", "kept", "the last checkpoint at 8.0 kimg", ""),
    (None, None, "best", "kept", "the checkpoint at 8.0 kimg", ""),
    (9_000, 8_000, "last", "last", "the last checkpoint at 8.0 kimg", "the best is at 9.0 kimg"),
    (9_000, 8_000, "best", "other", "the checkpoint at 8.0 kimg, which was the best then",
     "the best is now at 9.0 kimg"),
    (9_000, 9_500, "best", "other", "the checkpoint at 8.0 kimg, which was the best then",
     "the best is now at 9.0 kimg"),
    (None, 9_000, "last", "other", "the checkpoint at 8.0 kimg, which was the last then",
     "the last is now at 9.0 kimg"),
    (9_000, 9_500, "8000", "other", "the checkpoint at 8.0 kimg", "the best is now at 9.0 kimg"),
])
def test_an_evaluation_of_another_checkpoint_than_the_kept_one_is_told_and_never_good(best, last, chosen, kind, of, since):
    evaluation = Evaluation(figures=[NEAR], copies=CLEAN, checkpoint=8_000, chosen=chosen)
    noted = Best(nimg=best) if best else None
    standing = standing_of(evaluation, noted, last)
    assert standing == (of, kind, since)
    verdict = judge(evaluation, [], noted, 10_000, standing)
    assert verdict.tone == ("good" if kind == "kept" else "open")


def test_an_evaluation_of_other_images_is_of_no_checkpoint():
    assert standing_of(Evaluation(figures=[NEAR]), Best(nimg=1), 2) is None


def test_an_old_evaluation_that_found_copies_stays_a_warning_of_its_time():
    evaluation = Evaluation(figures=[NEAR], copies=COPIER, checkpoint=8_000, chosen="best")
    best = Best(nimg=9_000)
    verdict = judge(evaluation, [], best, 10_000, standing_of(evaluation, best, 10_000))
    assert (verdict.tone, verdict.headline) == ("bad", "It copied its training images when it was evaluated.")


def test_without_an_evaluation_nothing_is_said_about_quality():
    assert judge(None, [], None, 1000).tone == "open"
    assert judge(None, [], None, 0).headline == "Nothing has been trained yet."
    assert judge(None, [COLLAPSE], None, 1000).tone == "bad"


def test_a_best_checkpoint_before_the_last_is_told_with_its_place():
    evaluation = Evaluation(figures=[FAR])
    assert any("12.0 kimg of 40.0 kimg" in sentence for sentence in judge(evaluation, [], Best(nimg=12_000), 40_000).sentences)
    assert not any("best checkpoint" in sentence for sentence in judge(evaluation, [], Best(nimg=40_000), 40_000).sentences)


def test_copying_is_told_in_the_words_of_the_evaluation():
    copies = CLEAN.model_copy(update={"text": "cannot tell: few samples prove nothing; 1 of 20: is near, among 10 of 60 images"})
    assert ("Cannot tell: few samples prove nothing; 1 of 20: is near, among 10 of 60 images."
            in judge(Evaluation(figures=[FAR], copies=copies), [], None, 1).sentences)


def test_a_rate_above_the_limit_by_chance_is_no_copying():
    assert not is_copying(Copies(rate=0.06, low=0.03, high=0.1, limit=0.05))
    assert is_copying(Copies(rate=0.06, limit=0.05))
    assert not is_copying(Copies(rate=0.06))
    assert not is_copying(None)


def test_what_the_evaluation_judged_counts_more_than_the_interval():
    assert is_copying(Copies(rate=0.06, low=0.03, limit=0.05, over_limit=True))
    assert not is_copying(Copies(rate=0.06, low=0.055, limit=0.05, over_limit=False))


def test_a_figure_is_at_its_floor_where_each_median_lies_within_the_others_interval():
    assert at_floor(NEAR) and not at_floor(FAR) and is_apart(FAR)
    for moved in (changed(NEAR, value=0.0021), changed(NEAR, low=0.0011)):          # one median outside; the intervals still meet
        assert not at_floor(moved) and not is_apart(moved)
    assert at_floor(changed(NEAR, value=-0.005, low=-0.006, high=-0.004))           # better than real images: not apart from them
    assert not at_floor(changed(NEAR, better="higher"))
    assert not at_floor(Figure(metric="kid", value=0.0, better="lower"))


def test_a_figure_without_an_interval_has_two_standard_errors_for_one():
    single = Figure(metric="kid", value=0.03, floor=0.01, better="lower", n=1000)
    assert is_apart(single) and is_apart(changed(single, error=0.009)) and not is_apart(changed(single, error=0.011))


def test_shares_are_apart_only_below_the_real_ones():
    assert is_apart(COVERED)
    assert not is_apart(changed(COVERED, high=0.955)) and not is_apart(changed(COVERED, low=0.98, high=0.99))


def test_kid_is_preferred_to_fid_and_what_has_no_value_is_passed_over():
    fid, kid = Figure(metric="fid", value=3.0), Figure(metric="kid", value=0.1)
    assert main_figure([fid, kid]) == kid
    assert main_figure([fid, Figure(metric="kid", value=None)]) == fid
    assert main_figure([Figure(metric="recall", value=0.5, better="higher", floor=0.8)]) is None


def test_what_samples_lack_is_listed_from_the_least_and_the_floor_comes_with_its_interval():
    recall = changed(COVERED, metric="recall", label="recall", value=0.48, low=0.4, high=0.5)
    verdict = judge(Evaluation(figures=[FAR, changed(COVERED, value=0.72, low=0.7, high=0.74), recall]), [], None, 1000)
    assert verdict.headline.endswith("recall reaches 50% and coverage 75% of theirs.")
    assert "real images score 0.00100 (0 to 0.00200) against each other" in verdict.sentences[0]
