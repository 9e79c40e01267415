import copy

import pytest
import torch

from ganvas.config import make_config
from ganvas.losses import LOSSES
from ganvas.networks.build import build_networks
from ganvas.training.ema import update_ema
from ganvas.training.penalties import NONE
from ganvas.training.state import TrainState
from ganvas.training.steps import train_step

TINY = {"data.size": "12", "network.g_channels": 4, "network.d_channels": 4, "network.z_dim": 5, "train.ema_half_life_kimg": 1}


def fresh(seed=0, **options):
    config = make_config(TINY, {name.replace("__", "."): value for name, value in options.items()})
    return config, TrainState.create(config, *build_networks(config.network, config.data, seed))


def advance(config, state, steps=2, turns="DG"):
    for _ in range(steps):
        torch.manual_seed(state.nimg)
        reals, z = torch.rand(4, 3, 12, 12) * 2 - 1, torch.randn(4, 5)
        state.stats.add(train_step(state, config.plan, LOSSES["nonsaturating"], NONE, turns, reals, z, z))
        if state.G_ema is not None:
            update_ema(state.G_ema, state.G, 1.0, 4)
        state.nimg += 4


def snapshot(state):
    return {name: tensor.detach().clone() for name, tensor in state.tensors().items()}, copy.deepcopy(state.progress())


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_new_state_has_the_optimizers_of_the_config_and_networks_in_train_mode():
    _, state = fresh(train__lr=0.01, train__betas=[0.1, 0.2], train__adam_eps=1e-3, train__weight_decay=0.5)
    for optimizer in (state.G_opt, state.D_opt):
        (group,) = optimizer.param_groups
        assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (0.01, (0.1, 0.2), 1e-3, 0.5)
    assert state.G.training
    assert state.D.training
    assert (state.nimg, state.stats.means()) == (0, {})


def test_the_average_starts_as_a_copy_that_learns_nothing_by_itself():
    _, state = fresh()
    assert state.shown_generator is state.G_ema
    assert all(torch.equal(a, b) and a is not b for a, b in zip(state.G.parameters(), state.G_ema.parameters(), strict=True))
    assert not any(parameter.requires_grad for parameter in state.G_ema.parameters())


def test_without_averaging_the_generator_itself_is_shown():
    _, state = fresh(train__ema_half_life_kimg=0)
    assert state.G_ema is None
    assert state.shown_generator is state.G
    assert not any(name.startswith("G_ema") for name in state.tensors())


def test_moments_are_kept_by_the_names_of_their_parameters():
    config, state = fresh()
    advance(config, state)
    names = set(state.tensors())
    for which, network in (("G", state.G), ("D", state.D)):
        for name, _ in network.named_parameters():
            assert {f"{which}/{name}", *(f"{which}_opt/{slot}/{name}" for slot in ("exp_avg", "exp_avg_sq", "step"))} <= names
    assert "stats/Loss_D" in names


@pytest.mark.parametrize("turns", ["DG", "G", "D"])
def test_a_loaded_state_is_the_saved_one_and_goes_on_as_it_would_have(turns):
    config, state = fresh()
    advance(config, state, turns=turns)
    tensors, progress = snapshot(state)
    _, other = fresh(seed=9)
    advance(config, other, steps=5)                               # whatever it held before is gone
    other.load(tensors, progress)
    assert same(snapshot(other)[0], tensors)
    assert other.progress() == progress
    for one in (state, other):
        advance(config, one, steps=3)
    assert same(*(snapshot(one)[0] for one in (state, other)))
    assert state.stats.means() == other.stats.means()


def test_a_state_of_before_the_first_step_can_be_loaded():
    config, state = fresh()
    tensors, progress = snapshot(state)
    advance(config, state)
    state.load(tensors, progress)
    assert same(snapshot(state)[0], tensors)
    assert state.nimg == 0
    assert len(state.G_opt.state) == len(state.D_opt.state) == 0


def test_a_loaded_state_keeps_nothing_of_the_file():
    config, state = fresh()
    advance(config, state)
    tensors, progress = snapshot(state)
    state.load(tensors, progress)
    expected = snapshot(state)[0]
    for tensor in tensors.values():
        tensor.zero_()
    assert same(snapshot(state)[0], expected)
    progress["stats_counts"].clear()
    assert state.stats.means()


def test_moments_and_counts_lie_after_loading_where_adam_had_put_them():
    config, state = fresh()
    advance(config, state)
    tensors, progress = snapshot(state)
    def places():
        return [(slot, value.device, value.dtype) for slots in state.G_opt.state.values() for slot, value in slots.items()]
    before = places()
    state.load(tensors, progress)
    assert places() == before
    assert {float(slots["step"]) for slots in state.G_opt.state.values()} == {2.0}


@pytest.mark.parametrize("other", [{"network__g_channels": 8}, {"network__conv_bias": True}])
def test_other_networks_are_refused(other):
    config, state = fresh()
    advance(config, state)
    with pytest.raises((KeyError, RuntimeError)):
        fresh(**other)[1].load(*snapshot(state))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("which", ["G", "D", "G_ema"])
def test_one_bad_weight_anywhere_is_noticed(which, bad):
    _, state = fresh()
    assert state.all_finite()
    with torch.no_grad():
        next(getattr(state, which).parameters()).view(-1)[-1] = bad
    assert not state.all_finite()
