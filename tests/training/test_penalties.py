import pytest

from ganvas.config import TrainConfig
from ganvas.training.penalties import NONE, Penalties, penalties_at

WEIGHTS = {"r1_gamma": 2.0, "r2_gamma": 3.0, "gp_weight": 10.0}


def test_without_penalties_none_is_due():
    assert [penalties_at(TrainConfig(), step, 8 * step) for step in range(3)] == [NONE] * 3


def test_eager_penalties_are_due_in_every_step_with_their_own_weights():
    assert {penalties_at(TrainConfig(**WEIGHTS), step, 8 * step) for step in range(5)} == {Penalties(2, 3, 10)}


@pytest.mark.parametrize("every", [2, 3, 8])
def test_lazy_penalties_are_due_every_so_many_steps_and_so_many_times_as_heavy(every):
    train = TrainConfig(**WEIGHTS, penalty_every=every)
    found = [penalties_at(train, step, 8 * step) for step in range(2 * every)]
    heavy = Penalties(2.0 * every, 3.0 * every, 10.0 * every)
    assert found == ([heavy] + [NONE] * (every - 1)) * 2
    assert sum(penalty.r1 for penalty in found) == 2.0 * len(found)


def test_the_kind_of_penalty_is_told_with_its_weight():
    assert penalties_at(TrainConfig(r1_gamma=1, penalty="differences"), 0, 0) == Penalties(1, 0, 0, differences=True)
    assert not penalties_at(TrainConfig(r1_gamma=1), 0, 0).differences


@pytest.mark.parametrize(("weights", "precise"), [
    ({}, False), ({"r1_gamma": 1}, True), ({"r2_gamma": 1}, True), ({"gp_weight": 1}, False)])
def test_only_r1_and_r2_need_the_passes_over_reals_and_fakes_in_float32(weights, precise):
    assert penalties_at(TrainConfig(**weights), 0, 0).precise == precise


def test_the_weights_come_from_gamma_start_along_half_a_cosine_and_stay_at_their_own():
    train = TrainConfig(**WEIGHTS, gamma_start=5, gamma_ramp_kimg=2)
    found = [penalties_at(train, 0, nimg) for nimg in (0, 1000, 2000, 2001, 10**9)]
    assert [penalty.r1 for penalty in found] == pytest.approx([10, 6, 2, 2, 2])
    assert [penalty.r2 for penalty in found] == pytest.approx([15, 9, 3, 3, 3])
    assert found[2] == found[-1] == Penalties(2, 3, 10)
    assert {penalty.gp for penalty in found} == {10}             # no gamma
    first, last = (penalties_at(train, 0, nimg).r1 for nimg in (100, 1900))
    assert 10 - first == pytest.approx(last - 2) and 0 < last - 2 < 0.1      # slow at both ends


def test_a_ramp_may_rise_and_goes_with_lazy_penalties():
    train = TrainConfig(r1_gamma=1, gamma_start=0.1, gamma_ramp_kimg=1, penalty_every=4)
    assert [penalties_at(train, step, nimg).r1 for step, nimg in ((0, 0), (4, 500), (8, 1000), (9, 1100))] == pytest.approx(
        [0.4, 2.2, 4, 0])


def test_without_a_ramp_gamma_start_is_not_looked_at():
    assert penalties_at(TrainConfig(r1_gamma=1, gamma_start=50), 0, 0).r1 == 1
