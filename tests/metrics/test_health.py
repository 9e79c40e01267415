"""Diagnoses from scripted runs: each rule speaks where it should, and only there."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganvas.config import SHORT, fields
from ganvas.losses import LOSSES
from ganvas.metrics.health import diagnose

BATCH, EVERY = 32, 10                    # a row each 10 steps
OPTIONS = {"images": 10_000, "batch": BATCH, "loss": "nonsaturating", "holdout": 500}
UNDECIDED = {"nonsaturating": 1.386, "minimax": 1.386, "hinge": 2.0, "least_squares": 0.25, "relativistic": 0.693}


def course(start, end, n, seed=0, noise=0.03, until=0.3):
    """n values that go from `start` to `end` over the first part of the run, and swing about it from then on."""
    along = np.clip(np.linspace(0, 1, n) / until, 0, 1)
    values = start + (end - start) * along
    wobble = np.random.default_rng(seed).normal(0, noise, n) * (abs(values) + min(abs(start - end), 1) / 3)
    return (values + wobble).tolist()


def stats(steps=2000, loss="nonsaturating", scale=1.0, **ends):
    """Rows of a run that swings about the balance; `ends` says where statistics go to instead: name=(start, end)."""
    n, undecided = steps // EVERY, UNDECIDED.get(loss, 1.0) * scale
    healthy = {"Loss_D": (undecided, 0.8 * undecided), "Loss_G": (0.8, 1.0), "D(x)": (0.5, 0.6), "D(G(z))_before": (0.5, 0.4),
               "D(G(z))_after": (0.45, 0.38), "logit_real": (0.0, 0.4), "logit_fake": (0.0, -0.4), "grad_D": (3.0, 10.0),
               "grad_G": (4.0, 2.0)}
    columns = {name: course(*ends.get(name, pair), n, seed) for seed, (name, pair) in enumerate(healthy.items())}
    return [{"nimg": (i + 1) * EVERY * BATCH, "epoch": i / 10, "step": (i + 1) * EVERY,
             **{name: values[i] for name, values in columns.items()}} for i in range(n)]


def measured(steps=2000, n=20, **ends):
    """Measurements of a run that learns and then levels out, n of them."""
    healthy = {"kid": (0.5, 0.03), "diversity": (5.0, 9.5), "diversity_real": (10.0, 10.0), "copies": (0.0, 0.001),
               "spectrum_db": (15.0, 2.5), "spectrum_excess_db": (10.0, 1.0), "spectrum_floor_db": (0.3, 0.3),
               "logit_train": (0.1, 0.5), "logit_holdout": (0.1, 0.4), "logit_samples": (0.0, -0.4), "logit_std": (1.0, 1.0),
               "change": (40.0, 8.0)}
    columns = {name: course(*ends.get(name, pair), n, seed, noise=0.01) for seed, (name, pair) in enumerate(healthy.items(), 50)}
    return [{"nimg": (i + 1) * steps * BATCH // n, "extractor": "random", "n": 256, "kid_error": 0.002, "copies_limit": 0.02,
             **{name: c[i] for name, c in columns.items()}} for i in range(n)]


def names(rows=None, measurements=None, **options):
    """The diagnoses of these rows; of a healthy run's where left out."""
    rows = stats() if rows is None else rows
    measurements = measured() if measurements is None else measurements
    return [found.name for found in diagnose(rows, measurements, **OPTIONS | options)]


SURE = {"Loss_D": (1.4, 0.01), "Loss_G": (0.8, 8.0), "D(x)": (0.5, 0.995), "D(G(z))_before": (0.5, 0.004),
        "D(G(z))_after": (0.5, 0.003), "logit_real": (0.0, 6.0), "logit_fake": (0.0, -6.0), "grad_G": (4.0, 0.01)}
FOOLED = {"Loss_D": (1.386, 1.39), "D(x)": (0.5, 0.66), "D(G(z))_before": (0.5, 0.66), "logit_real": (0.0, 0.66),
          "logit_fake": (0.0, 0.66)}
NEVER_LEARNS = {"kid": (0.5, 0.49), "diversity": (9.0, 9.0), "spectrum_excess_db": (2.0, 2.0)}
SAME = {name: (value, value) for name, value in {"kid": 0.5, "diversity": 3.0, "spectrum_db": 17.0, "change": 0.03}.items()}
LEVEL = {"Loss_D": (1.386, 1.386), "D(x)": (0.5, 0.5), "D(G(z))_before": (0.5, 0.5), "logit_real": (0.0, 0.0),
         "logit_fake": (0.0, 0.0)}


# ---------------------------------------------------------------- in good health


@pytest.mark.parametrize("loss", LOSSES)
def test_a_healthy_run_has_no_diagnosis(loss):
    assert names(stats(loss=loss), loss=loss) == []
    assert names(stats(loss=loss), [], loss=loss) == []
    assert names(stats(loss=loss, scale=0.5), loss=loss) == []


def test_a_healthy_run_of_a_loss_of_ones_own_has_no_diagnosis():
    assert names(stats(loss="custom", Loss_D=(0.0, -40.0), logit_real=(0.0, 2e3), logit_fake=(0.0, 1.8e3)),
                 measured(logit_std=(1.0, 400.0)), loss="custom") == []


def test_in_the_first_steps_nothing_is_said_although_d_wins_and_all_pictures_are_alike_and_noise():
    begin = stats(150, **SURE)
    bad = measured(150, 6, kid=(0.5, 0.5), diversity=(0.1, 0.1), spectrum_excess_db=(20.0, 20.0), change=(0.1, 0.1))
    assert names(begin, bad) == []
    assert names(stats(150, **FOOLED), bad) == []


@pytest.mark.parametrize("ill", [SURE, FOOLED])
def test_a_fault_that_came_back_is_healthy(ill):
    rows = stats(2000, **ill)
    assert names(rows[:150] + [row | {"nimg": row["nimg"] + 150 * EVERY * BATCH} for row in stats(2000)],
                 measured(3500, 30)) == []


def test_a_sure_discriminator_is_no_fault_while_the_samples_improve():
    improving = measured(kid=(0.5, 0.02), diversity=(6.0, 9.0))
    for i, row in enumerate(improving):
        row["kid"] = 0.5 * 0.85**i
    assert names(stats(**SURE), improving) == []


def test_a_figure_that_swings_does_not_pass_for_an_improvement():
    swinging = measured(spectrum_excess_db=(15.0, 15.0), spectrum_db=(12.0, 12.0))
    for i, row in enumerate(swinging):
        row["kid"] = (2.0, 0.8, 2.0, 0.9)[i % 4] if i < 18 else (1.0, 0.9)[i % 2]
    assert names(measurements=swinging) == ["noise"]


def test_weights_that_begin_near_zero_may_have_gradients_that_grow_a_hundred_thousandfold():
    rows = stats(grad_D=(0.02, 20.0), grad_G=(0.0002, 20.0))
    rows[0] |= {"grad_D": 0.02, "grad_G": 0.0002}
    assert names(rows) == []


def test_without_rows_there_is_nothing_to_say():
    assert diagnose([], [], **OPTIONS) == []
    assert diagnose([{"nimg": 64}], [{"nimg": 64}], **OPTIONS) == []


def test_fine_detail_beyond_that_of_smooth_reals_is_no_noise_where_samples_lie_near_to_reals():
    grainy = measured(kid=(0.5, 0.3), spectrum_excess_db=(14.0, 12.0), spectrum_db=(14.0, 12.0))
    assert names(measurements=[row | {"precision": 0.3} for row in grainy]) == []
    assert names(measurements=[row | {"precision": 0.04} for row in grainy]) == ["noise"]


def test_an_even_discriminator_of_smooth_reals_is_no_fault_where_samples_lie_near_to_reals():
    smooth = measured(spectrum_db=(14.0, 12.0), spectrum_excess_db=(5.0, 5.0))
    assert names(stats(**LEVEL), [row | {"precision": 0.3} for row in smooth]) == []
    assert names(stats(**LEVEL), [row | {"precision": 0.04} for row in smooth]) == ["G wins"]


def test_samples_that_were_never_diverse_are_not_called_collapsed_before_they_could_be_called_stuck():
    assert names(stats(350, **LEVEL), measured(350, 7, **SAME)) == []


# ---------------------------------------------------------------- who is ahead


@pytest.mark.parametrize("loss", UNDECIDED)
def test_d_wins_where_it_is_sure_and_the_samples_do_not_improve(loss):
    rows = stats(loss=loss, **SURE | {"Loss_D": (UNDECIDED[loss], 0.005 * UNDECIDED[loss])})
    found, = diagnose(rows, measured(**NEVER_LEARNS), **OPTIONS | {"loss": loss})
    assert (found.name, found.severity) == ("D wins", "problem")
    assert 300 * BATCH <= found.since <= 800 * BATCH              # scripted to be sure from step 600 on
    assert "KID does not improve" in found.evidence
    assert "grad" in found.evidence
    assert ("train.loss=nonsaturating" in found.advice) == (loss == "minimax")


def test_d_wins_under_a_loss_of_ones_own_where_the_logits_lie_many_spreads_apart():
    rows = stats(loss="custom", **SURE)
    assert names(rows, measured(**NEVER_LEARNS), loss="custom") == ["D wins"]
    assert names(rows, measured(**NEVER_LEARNS, logit_std=(8.0, 8.0)), loss="custom") == []


def test_d_wins_with_halved_loss_and_with_smoothed_labels():
    halved = stats(scale=0.5, **SURE | {"Loss_D": (0.693, 0.005)})
    assert names(halved, measured(**NEVER_LEARNS)) == ["D wins"]
    smoothed = stats(**SURE | {"Loss_D": (1.376, 0.33), "D(x)": (0.5, 0.905)})
    assert names(smoothed, measured(**NEVER_LEARNS)) == ["D wins"]


def test_d_wins_where_every_hinge_is_satisfied_and_no_gradient_is_left():
    rows = [row | {"Loss_D": 0.0, "grad_D": 0.0} if i > 60 else row for i, row in enumerate(stats(loss="hinge", **SURE))]
    assert names(rows, measured(**NEVER_LEARNS), loss="hinge") == ["D wins"]


def test_unmeasured_d_gets_the_benefit_of_the_doubt_for_a_thousand_steps():
    assert [(d.name, d.severity) for d in diagnose(stats(3000, **SURE), [], **OPTIONS)] == [("D wins", "warning")]
    assert names(stats(1000, **SURE), []) == []


def test_g_wins_where_d_takes_bad_fakes_for_real():
    found, = diagnose(stats(**FOOLED), measured(**NEVER_LEARNS, spectrum_db=(13.0, 13.0)), **OPTIONS)
    assert (found.name, found.severity) == ("G wins", "problem")
    assert "network.d_channels" in found.advice
    assert [(d.name, d.severity) for d in diagnose(stats(**FOOLED), [], **OPTIONS)] == [("G wins", "warning")]


def test_a_discriminator_that_cannot_tell_good_fakes_has_done_its_work():
    assert names(stats(**LEVEL)) == []


@pytest.mark.parametrize("loss", ["hinge", "least_squares", "relativistic"])
def test_g_wins_by_logits_where_a_loss_has_no_probabilities(loss):
    rows = stats(loss=loss, **FOOLED | {"Loss_D": (UNDECIDED[loss], UNDECIDED[loss])})
    assert names(rows, measured(**NEVER_LEARNS), loss=loss) == ["G wins"]
    assert names(rows, [], loss=loss) == []                       # .66 is no probability there


def test_a_discriminator_whose_logits_hardly_differ_at_all_cannot_tell_however_small_their_spread():
    tiny = measured(**NEVER_LEARNS, spectrum_db=(13.0, 13.0), logit_std=(0.01, 0.01))
    assert names(stats(**LEVEL | {"logit_real": (0.0, 0.004), "logit_fake": (0.0, -0.004)}), tiny) == ["G wins"]


def test_coming_back_to_what_an_untrained_generator_gives_is_no_improvement():
    returning = measured(diversity=(9.0, 9.0))
    for i, row in enumerate(returning):
        row["kid"] = 0.5 if i == 0 else 0.95 - 0.02 * i
    assert names(stats(**SURE), returning) == ["D wins"]


# ---------------------------------------------------------------- running away


@pytest.mark.parametrize("name", ["Loss_D", "Loss_G", "grad_D", "logit_fake"])
def test_nan_is_divergence_even_in_the_first_row(name):
    rows = stats(50)
    rows[-1][name] = None
    found, = diagnose(rows, [], **OPTIONS)
    assert (found.name, found.since) == ("diverged", rows[-1]["nimg"])
    assert name in found.evidence
    assert "--lr" in found.advice


def test_alternating_turns_lack_statistics_without_being_diverged():
    rows = [{name: value for name, value in row.items() if ("G" in name and "before" not in name) == bool(i % 2)
             or name in ("nimg", "epoch", "step")} for i, row in enumerate(stats())]
    assert names(rows) == []
    sure = [{name: value for name, value in row.items() if ("_G" in name or "after" in name) == bool(i % 2)
             or name in ("nimg", "epoch", "step")} for i, row in enumerate(stats(**SURE))]
    assert names(sure, measured(**NEVER_LEARNS)) == ["D wins"]


@pytest.mark.parametrize(("loss", "ends"), [
    ("nonsaturating", {"Loss_D": (1.4, 60.0)}), ("hinge", {"Loss_D": (2.0, 100.0)}), ("least_squares", {"Loss_D": (0.25, 1e3)}),
    ("nonsaturating", {"grad_D": (1.0, 5e8)}), ("relativistic", {"grad_G": (1.0, 1e7)}), ("hinge", {"logit_real": (0.0, 5e3)}),
    ("custom", {"grad_D": (1.0, 1e9)})])
def test_an_explosion_of_loss_gradients_or_logits_is_divergence_and_hides_what_follows_from_it(loss, ends):
    bad = measured(**SAME | {"spectrum_excess_db": (20.0, 20.0)})
    rows = stats(loss=loss, **ends)
    rows[0] |= {name: start for name, (start, _) in ends.items()}
    found, = diagnose(rows, bad, **OPTIONS | {"loss": loss})
    assert found.name == "diverged"
    assert next(iter(ends)) in found.evidence


def test_a_single_wild_row_is_not_divergence():
    rows = stats()
    rows[-2]["Loss_D"] = 500.0
    rows[-3]["grad_D"] = 1e9
    assert names(rows) == []


def test_a_run_that_lost_all_that_it_had_learnt_has_diverged():
    lost = measured()
    for row in lost[14:]:
        row["kid"] = 0.6
    assert names(measurements=lost) == ["diverged"]


# ---------------------------------------------------------------- the samples


def test_samples_far_more_alike_than_the_reals_are_a_mode_collapse():
    rows = measured()
    for row in rows[12:]:
        row |= {"diversity": 1.5, "kid": 0.3}
    found, = diagnose(stats(), rows, **OPTIONS)
    assert (found.name, found.severity, found.since) == ("mode collapse", "problem", rows[12]["nimg"])
    assert "15%" in found.evidence


def test_samples_that_never_moved_are_stuck_and_not_collapsed():
    found, = diagnose(stats(**LEVEL), measured(**SAME), **OPTIONS)
    assert (found.name, found.severity) == ("stuck", "problem")
    assert "--lr" in found.advice


def test_pictures_that_stand_still_while_the_loss_moves_are_not_stuck():
    assert names(stats(Loss_D=(1.4, 0.7)), measured(change=(0.1, 0.1))) == ["stuck"]
    falling = stats()
    for i, row in enumerate(falling):
        row["Loss_D"] = 1.4 - 0.004 * i
    assert names(falling, measured(change=(0.1, 0.1))) == []


def test_grain_that_the_reals_do_not_have_is_noise():
    found, = diagnose(stats(), measured(kid=(0.5, 0.3), spectrum_excess_db=(20.0, 14.0), spectrum_db=(20.0, 12.0)), **OPTIONS)
    assert (found.name, found.severity) == ("noise", "problem")
    assert "14 dB" in found.evidence
    swinging_reals = measured(spectrum_excess_db=(20.0, 14.0), spectrum_db=(20.0, 12.0), spectrum_floor_db=(5.0, 5.0))
    assert names(measurements=swinging_reals) == []


def test_more_copies_than_chance_would_make_are_copying():
    rows = measured(copies=(0.0, 0.25))
    found, = diagnose(stats(), rows, **OPTIONS)
    assert found.name == "copying"
    assert "25." in found.evidence or "24." in found.evidence
    assert "--holdout" not in found.advice
    unheld, = diagnose(stats(), rows, **OPTIONS | {"holdout": 0})
    assert "--holdout" in unheld.advice


def test_copies_that_too_few_calibrating_images_cannot_tell_from_chance_are_not_held_against_a_run():
    rows = measured(copies=(0.0, 0.25))
    assert names(measurements=[row | {"copies_over_limit": False} for row in rows]) == []
    assert names(measurements=[row | {"copies_over_limit": row["copies"] > 0.1} for row in rows]) == ["copying"]


def test_one_measurement_over_the_limit_among_three_is_chance():
    rows = measured()
    rows[-1]["copies"] = 0.03
    assert names(measurements=rows) == []
    assert names(measurements=rows[-1:]) == ["copying"]


HEART = {"logit_train": (0.1, 3.0), "logit_holdout": (0.1, -1.5), "logit_samples": (0.0, -2.0)}


def test_held_out_reals_that_look_like_fakes_show_a_discriminator_that_knows_its_images_by_heart():
    found, = diagnose(stats(), measured(**HEART), **OPTIONS)
    assert (found.name, found.severity) == ("memorising discriminator", "warning")
    assert "90%" in found.evidence or "91%" in found.evidence or "89%" in found.evidence
    assert names(measurements=measured(**HEART | {"logit_holdout": (0.1, 2.0)})) == []


def test_few_held_out_reals_prove_nothing_against_the_discriminator():
    close = {"logit_train": (0.1, 0.8), "logit_holdout": (0.1, 0.1), "logit_samples": (0.0, -0.1)}
    assert names(measurements=measured(**close)) == ["memorising discriminator"]
    assert names(measurements=measured(**close), holdout=12) == []
    nearer = {"logit_train": (0.1, 0.2), "logit_holdout": (0.1, -0.1), "logit_samples": (0.0, -0.15)}
    assert names(measurements=measured(**nearer), holdout=5000) == []        # sure of the means, but D hardly tells fakes either
    assert names(measurements=[row | {"logit_holdout": None} for row in measured(**close)], holdout=0) == []


def test_a_figure_that_was_clearly_better_before_is_past_its_best():
    rows = measured()
    for i, row in enumerate(rows[12:]):
        row["kid"] = 0.06 + 0.005 * i
    rows[11]["kid"], rows[11]["best"] = 0.02, True
    found, = diagnose(stats(), rows, **OPTIONS)
    assert (found.name, found.severity, found.since) == ("past its best", "warning", rows[11]["nimg"])
    assert "--checkpoint best" in found.advice
    assert "0.02" in found.evidence
    for row in rows:
        row["kid_error"] = 0.03
    assert names(measurements=rows) == []


def test_figures_of_another_extractor_are_not_compared():
    rows = measured()
    for row in rows[:12]:
        row |= {"extractor": "classifier", "kid": 0.0001}
    assert names(measurements=rows) == []


def test_fid_is_judged_by_where_there_is_no_kid():
    rows = [{name: value for name, value in row.items() if not name.startswith("kid")} for row in measured()]
    for i, row in enumerate(rows):
        row["fid"] = 49.0 if i == 10 else 137.0 if i > 15 else 60.0
    assert names(measurements=rows) == ["past its best"]


# ---------------------------------------------------------------- whatever the rows hold


ILL = {
    "D wins": (stats(**SURE), measured(**NEVER_LEARNS)), "G wins": (stats(**FOOLED), measured(**NEVER_LEARNS)),
    "diverged": (stats(Loss_D=(1.4, 60.0)), []), "stuck": (stats(**LEVEL), measured(**SAME)),
    "copying": (stats(), measured(copies=(0.0, 0.3))), "memorising discriminator": (stats(), measured(**HEART)),
    "mode collapse": (stats(), measured(kid=(0.5, 0.4), diversity=(1.0, 1.0))),
    "noise": (stats(), measured(kid=(0.5, 0.3), spectrum_excess_db=(20.0, 14.0), spectrum_db=(20.0, 12.0))),
}


@pytest.mark.parametrize("name", ILL)
def test_advice_names_only_options_that_exist_and_figures_survive_json(name):
    rows, measurements = ILL[name]
    for few in (100, 10_000):
        found, = diagnose(rows, measurements, **OPTIONS | {"images": few, "holdout": 0 if name == "copying" else 500})
        assert found.name == name
        flags = re.findall(r"--([a-z][a-z-]*)", found.advice)
        dotted = re.findall(r"\b((?:data|network|plan|train|output)\.[a-z0-9_]+)", found.advice)
        assert flags or dotted
        known = {short.replace("_", "-") for short in SHORT} | {"set", "out", "kimg", "checkpoint"}
        assert set(flags) <= known
        assert set(dotted) <= {option for option, _ in fields()}
        assert set(re.findall(r"--set ([a-z_.0-9]+)", found.advice)) <= set(dotted)
        assert json.loads(json.dumps(found.as_dict(), allow_nan=False)) == found.as_dict()


@pytest.mark.parametrize("name", ["D wins", "copying", "memorising discriminator", "mode collapse"])
@pytest.mark.parametrize(("gamma", "advised"), [(0.0, "1"), (0.5, "1.5"), (16.0, "48")])
def test_a_larger_penalty_than_the_run_s_own_is_advised(name, gamma, advised):
    found, = diagnose(*ILL[name], **OPTIONS | {"r1_gamma": gamma})
    assert re.findall(r"train\.r1_gamma=([0-9.]*[0-9])", found.advice) == [advised]


def test_where_g_wins_a_smaller_penalty_than_the_run_s_own_is_advised():
    found, = diagnose(*ILL["G wins"], **OPTIONS | {"r1_gamma": 1.5})
    assert "--set train.r1_gamma=0.5;" in found.advice


def test_pairing_is_not_advised_to_a_run_that_pairs():
    _, measurements = ILL["mode collapse"]
    for loss in UNDECIDED:
        found, = diagnose(stats(loss=loss), measurements, **OPTIONS | {"loss": loss})
        assert ("train.loss=relativistic" in found.advice) == (loss != "relativistic")


@pytest.mark.parametrize("loss", UNDECIDED)
def test_probabilities_are_evidence_only_where_the_loss_makes_logits_such(loss):
    ends = SURE | {"Loss_D": (UNDECIDED[loss], 0.005 * UNDECIDED[loss])}
    for rows in (stats(loss=loss, **ends), stats(loss=loss, **FOOLED | {"Loss_D": (UNDECIDED[loss], UNDECIDED[loss])})):
        found, = diagnose(rows, measured(**NEVER_LEARNS), **OPTIONS | {"loss": loss})
        assert ("D(x)" in found.evidence) == (loss in ("nonsaturating", "minimax"))
        assert ("mean logit of reals" in found.evidence) != ("D(x)" in found.evidence)


def test_the_order_of_the_rows_does_not_matter():
    rows, measurements = ILL["D wins"]
    assert diagnose(rows[::-1], measurements[::-1], **OPTIONS) == diagnose(rows, measurements, **OPTIONS)


KEYS = [*stats(10)[0], *measured(10, 1)[0], "best", "fid", "R1"]
VALUES = st.one_of(st.none(), st.floats(), st.integers(-5, 10**9), st.booleans(), st.sampled_from(["random", ""]))
ROWS = st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES), max_size=30)


@settings(max_examples=150, deadline=None)
@given(ROWS, ROWS, st.sampled_from([*LOSSES, "custom"]), st.integers(0, 1000))
def test_rows_of_anything_never_crash(rows, measurements, loss, holdout):
    for found in diagnose(rows, measurements, images=100, batch=1, loss=loss, holdout=holdout):
        json.dumps(found.as_dict())


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(ILL)), st.sets(st.sampled_from(KEYS)), st.data())
def test_rows_that_lack_fields_never_crash(name, missing, data):
    rows, measurements = ILL[name]
    empty = data.draw(st.sampled_from([None, math.nan, "absent"]))
    def without(row):
        kept = {key: value for key, value in row.items() if key not in missing or key == "nimg"}
        return kept if empty == "absent" else kept | dict.fromkeys(missing - {"nimg"}, empty)
    for found in diagnose(map(without, rows[-60:]), map(without, measurements), **OPTIONS):
        assert found.evidence
        assert found.advice
