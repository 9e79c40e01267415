"""Each preset against its plain script: same weights, noise and batches give the same losses and weights."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from ganvas.config import make_config
from ganvas.losses import loss_pair
from ganvas.networks.build import build_networks
from ganvas.presets import load_preset
from ganvas.training.penalties import NONE
from ganvas.training.state import TrainState
from ganvas.training.steps import train_step, turns_at
from plain import CLASSICS, load_plain

pytest.importorskip("torchvision", reason="the plain scripts import torchvision: pip install ganvas[examples]")
STEPS, BATCH = 3, 4


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """By order: both sides build their layers in the order in which forward runs."""
    for ours, theirs in ((target.parameters(), source.parameters()), (target.buffers(), source.buffers())):
        for to, value in zip(ours, theirs, strict=True):
            assert to.shape == value.shape
            to.data.copy_(value.data)


@pytest.mark.parametrize("name", CLASSICS)
def test_three_steps_in_float64_equal_the_plain_script(name):
    plain = load_plain(name)
    torch.manual_seed(0)
    plain_G, plain_D = (network.double() for network in plain.make_networks())
    plain_optimizers = plain.make_optimizers(plain_G, plain_D)

    config = make_config(load_preset(name).values)
    G, D = (network.double() for network in build_networks(config.network, config.data, seed=1))
    copy_weights(plain_G, G)
    copy_weights(plain_D, D)
    state = TrainState.create(config, G, D)
    losses = loss_pair(config.train.loss, config.plan.real_label)

    for step in range(STEPS):
        reals = torch.rand(BATCH, config.data.channels, config.data.size.height, config.data.size.width).double() * 2 - 1
        drawn = [torch.randn(BATCH, config.network.z_dim).double() for _ in range(2)]
        left = list(drawn)
        theirs = plain.train_step(
            plain_G, plain_D, *plain_optimizers, reals.clone(), lambda n, left=left: left.pop(0), step=step)
        ours = train_step(state, config.plan, losses, NONE, turns_at(config.plan, step), reals, *drawn)

        compared = [loss for loss in ("Loss_D", "Loss_G") if loss in theirs]
        assert compared == [loss for loss in ("Loss_D", "Loss_G") if loss in ours]
        for loss in compared:
            assert_close(ours[loss], torch.as_tensor(theirs[loss], dtype=torch.float64), rtol=1e-9, atol=1e-9)
    for mine, its in ((state.G, plain_G), (state.D, plain_D)):
        pairs: list[tuple[Tensor, Tensor]] = [
            *zip(mine.parameters(), its.parameters(), strict=True), *zip(mine.buffers(), its.buffers(), strict=True)]
        for ours_after, theirs_after in pairs:
            assert_close(ours_after, theirs_after, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CLASSICS)
def test_parameter_counts_equal_the_plain_script(name):
    config = make_config(load_preset(name).values)
    ours, theirs = build_networks(config.network, config.data, seed=0), load_plain(name).make_networks()
    for mine, its in zip(ours, theirs, strict=True):
        assert sum(p.numel() for p in mine.parameters()) == sum(p.numel() for p in its.parameters())


@pytest.mark.parametrize("name", CLASSICS)
def test_initial_weights_have_the_plain_scripts_distribution(name):
    torch.manual_seed(0)
    config = make_config(load_preset(name).values)
    ours, theirs = build_networks(config.network, config.data, seed=0), load_plain(name).make_networks()
    for mine, its in zip(ours, theirs, strict=True):
        for parameter in (*mine.parameters(), *its.parameters()):
            parameter.requires_grad_(False)
        for (label, a), b in zip(mine.named_parameters(), its.parameters(), strict=True):
            if a.numel() < 2:
                continue
            tolerance = 6 * max(float(b.std()), 1e-9) / a.numel() ** 0.5
            assert abs(float(a.mean() - b.mean())) <= tolerance, label
            assert abs(float(a.std() - b.std())) <= tolerance, label
            assert float(a.abs().max()) <= 1.5 * float(b.abs().max()) + 1e-9, label
