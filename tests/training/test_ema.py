import pytest
import torch
from torch import nn
from torch.testing import assert_close

from ganvas.config import TrainConfig
from ganvas.training.ema import half_life_at, update_ema


def network(value):
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(value)
    return net.double()


def test_half_of_the_old_weights_is_left_after_the_half_life():
    average, current = network(1.0), network(0.0)
    update_ema(average, current, half_life_kimg=0.064, batch=64)
    for parameter in average.parameters():
        assert_close(parameter.detach(), torch.full_like(parameter, 0.5))


@pytest.mark.parametrize("batches", [[64], [32, 32], [1] * 64, [10, 50, 4]])
def test_the_average_does_not_depend_on_how_images_are_batched(batches):
    average, current = network(1.0), network(0.0)
    for batch in batches:
        update_ema(average, current, half_life_kimg=0.1, batch=batch)
    for parameter in average.parameters():
        assert_close(parameter.detach(), torch.full_like(parameter, 0.5**0.64))


def test_the_average_of_what_stands_still_is_itself_and_weights_of_g_are_untouched():
    average, current = network(3.0), network(3.0)
    update_ema(average, current, half_life_kimg=1, batch=64)
    assert all(torch.equal(a, b) for a, b in zip(average.parameters(), current.parameters(), strict=True))
    assert all((parameter == 3).all() for parameter in current.parameters())
    assert all(parameter.grad is None for parameter in current.parameters())


def test_buffers_are_copied():
    average, current = network(1.0), network(0.0)
    current(torch.randn(8, 2, dtype=torch.float64))
    update_ema(average, current, half_life_kimg=1, batch=8)
    assert all(torch.equal(a, b) for a, b in zip(average.buffers(), current.buffers(), strict=True))
    assert average[1].running_mean is not current[1].running_mean


def test_the_half_life_is_short_while_few_images_have_been_seen():
    train = TrainConfig(ema_half_life_kimg=10)
    assert [half_life_at(train, nimg) for nimg in (0, 20_000, 10_000_000)] == [0, 1, 10]


def test_the_half_life_is_whole_from_the_start_where_weights_and_average_come_from_another_run():
    assert half_life_at(TrainConfig(ema_half_life_kimg=10, init_from="runs/other"), 0) == 10


def test_without_a_half_life_the_average_is_g_itself():
    G, G_ema = nn.Linear(2, 2), nn.Linear(2, 2)
    update_ema(G_ema, G, 0.0, 4)
    assert torch.equal(G_ema.weight, G.weight)
