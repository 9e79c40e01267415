import torch

from ganvas.training.stats import OpenStats


def test_means_are_over_the_steps_that_had_the_statistic():
    stats = OpenStats()
    stats.add({"Loss_D": torch.tensor(1.0)})
    stats.add({"Loss_D": torch.tensor(3.0), "Loss_G": torch.tensor(5.0)})
    assert stats.means() == {"Loss_D": 2.0, "Loss_G": 5.0}


def test_names_stand_in_the_order_of_their_first_appearance():
    stats = OpenStats()
    for name in ("b", "a", "b", "c"):
        stats.add({name: torch.tensor(0.0)})
    assert list(stats.means()) == ["b", "a", "c"]


def test_many_small_numbers_are_summed_in_float64():
    stats = OpenStats()
    for _ in range(10_000):
        stats.add({"x": torch.tensor(0.1)})
    assert abs(stats.means()["x"] - float(torch.tensor(0.1))) < 1e-15


def test_a_row_starts_anew_after_clear():
    stats = OpenStats()
    stats.add({"x": torch.tensor(1.0)})
    stats.clear()
    assert stats.means() == {}
    stats.add({"x": torch.tensor(3.0)})
    assert stats.means() == {"x": 3.0}


def test_what_was_added_may_change_later():
    stats, value = OpenStats(), torch.tensor(1.0, dtype=torch.float64)
    stats.add({"x": value})
    value.fill_(100.0)
    assert stats.means() == {"x": 1.0}


def test_no_gradient_is_held():
    stats = OpenStats()
    stats.add({"x": torch.tensor(1.0, requires_grad=True) * 2})
    assert not stats.sums["x"].requires_grad
