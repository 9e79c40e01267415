"""What becomes of --time on machines whose speed changes: a clock that only the training moves."""

import pytest

from ganvas import budget
from ganvas.budget import TIME_SHARE, Budget

BATCH = 10


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(budget, "clock", clock)
    return clock


def train(clock, total_sec, speed, guess, spent_sec=0.0, nimg=0, goal=None, share=0.0, stop_at=float("inf")):
    """A run of `total_sec` at speed(share of the time gone) images a second, measured as `guess` at first.

    Returns the share of the time that was used, the images seen, and the goals one after the other.
    """
    def measure(sec):
        clock.now += sec
        return guess

    began_at, time = clock.now, Budget(total_sec)
    time.open(spent_sec, share)
    goals = [time.first_goal(nimg, measure, lambda speed, goal: None) if goal is None else goal]
    time.start(nimg)
    while nimg < goals[-1] and not time.is_over and clock.now < began_at + stop_at:
        clock.now += BATCH / speed((spent_sec + clock.now - began_at) / total_sec)
        nimg += BATCH
        if (goal := time.look(nimg, goals[-1], BATCH)) != goals[-1]:
            goals.append(goal)
    return (spent_sec + clock.now - began_at) / total_sec, nimg, goals


def test_at_a_steady_speed_the_first_guess_stands(clock):
    used, nimg, goals = train(clock, 600, lambda gone: 100, guess=100)
    assert used == pytest.approx(TIME_SHARE, abs=0.005)
    assert goals == [pytest.approx(nimg, abs=BATCH)]


@pytest.mark.parametrize("guess", [15, 50, 99, 130, 1000])
@pytest.mark.parametrize("total_sec", [10, 60, 3600])
def test_a_wrong_guess_is_mended_so_that_nine_tenths_of_the_time_are_used(clock, guess, total_sec):
    used, _, _ = train(clock, total_sec, lambda gone: 100, guess)
    assert 0.9 < used <= TIME_SHARE * 1.03


@pytest.mark.parametrize(("before", "after"), [(100, 300), (100, 40), (100, 1000), (300, 100)])
@pytest.mark.parametrize("changes_at", [0.05, 0.2, 0.45, 0.7])
def test_a_machine_that_gets_faster_or_slower_on_the_way_uses_nine_tenths_of_its_time(clock, before, after, changes_at):
    used, _, goals = train(clock, 600, lambda gone: before if gone < changes_at else after, before)
    assert 0.9 < used <= 1
    assert (goals[-1] > goals[0]) == (after > before)


def test_a_load_that_comes_and_goes_does_not_end_a_run_early(clock):
    used, _, _ = train(clock, 600, lambda gone: 30 if 0.2 < gone < 0.6 else 100, guess=25)
    assert 0.9 < used <= 1


def test_the_guess_leaves_the_time_for_measuring_and_the_looks_what_is_still_ahead_of_it(clock):
    plain, measured = (train(clock, 600, lambda gone: 100, guess=100, share=share) for share in (0.0, 0.05))
    assert measured[2][0] == pytest.approx(plain[2][0] - 0.05 * 600 * 100, abs=BATCH)
    # Nothing measured here, so the looks give back the part that measuring on the way did not take.
    assert measured[0] == pytest.approx(TIME_SHARE - 0.02, abs=0.01)


def test_a_run_that_goes_on_starts_from_its_length_and_still_uses_its_time(clock):
    used, nimg, goals = train(clock, 600, lambda gone: 100, guess=100, stop_at=200)
    assert used < 0.4
    for speed in (100, 300, 50):
        again, _, then = train(clock, 600, lambda gone: speed, guess=0, spent_sec=200, nimg=nimg, goal=goals[-1])    # noqa: B023
        assert then[0] == goals[-1]
        assert 0.9 < again <= 1


def test_without_time_left_nothing_is_measured(clock):
    def never(sec):
        raise AssertionError

    time = Budget(60)
    time.open(58, 0.0)
    assert time.first_goal(700, never, never) == 700


def test_the_clock_ends_what_no_look_foresaw(clock):
    used, nimg, goals = train(clock, 600, lambda gone: 100 if gone < 0.9 else 1, guess=100)
    assert 1 < used < 1.02
    assert nimg < goals[-1]


def test_a_look_at_a_machine_that_stands_still_ends_the_run_at_once(clock):
    time = Budget(100)
    time.open(0.0, 0.0)
    time.start(0)
    clock.now += 99
    assert time.look(50, 5000, BATCH) == 50
