"""What D sees is changed; samples must not be. A tiny training on images that are all alike tells, and a wrong one beside it."""

import numpy as np
import pytest
import torch

from ganvas.config import make_config
from ganvas.generator import for_sampling
from ganvas.losses import loss_pair
from ganvas.networks.build import build_networks
from ganvas.networks.latents import draw_latents
from ganvas.ops.pixels import to_float
from ganvas.rng import Purpose
from ganvas.training.draws import Draws
from ganvas.training.loop import train
from ganvas.training.state import TrainState

SIZE, FIRST, LAST = 16, 6, 10
OPTIONS = {
    "data.size": str(SIZE), "network.family": "residual", "network.g_channels": 8, "network.d_channels": 8, "network.z_dim": 8,
    "train.batch": 16, "train.loss": "relativistic", "train.lr": 0.002, "train.betas": [0.0, 0.99], "train.r1_gamma": 0.1,
    "train.r2_gamma": 0.1, "train.ema_half_life_kimg": 0.5, "augment.color": 1.0, "augment.translation": 0.25,
    **{f"output.{name}": "1000 kimg" for name in ("log_every", "grid_every", "checkpoint_every")}}
INSIDE = (..., slice(FIRST, LAST), slice(FIRST, LAST))


class Squares:
    """One image over and over: an orange square in the middle of a dark one."""

    labels = None

    def __init__(self):
        self.array = np.full((32, 3, SIZE, SIZE), 48, np.uint8)
        self.array[INSIDE] = np.array([230, 150, 60], np.uint8)[:, None, None]

    def __len__(self):
        return len(self.array)

    def read(self, indices):
        return self.array[indices]


def samples_after(steps):
    config = make_config(OPTIONS, {"length": f"{steps} steps"})
    state = TrainState.create(config, *build_networks(config.network, config.data, seed=0))
    for _ in train(state, config, Squares(), loss_pair("relativistic", 1.0)):
        pass
    sampler = for_sampling(state.G_ema, config, averaged=True)
    with torch.no_grad():
        return sampler(torch.from_numpy(draw_latents(config, 0, Purpose.SAMPLE, np.arange(64))))


def away_from_reals(samples):
    """By how much samples are displaced, in pixels, and off in colour, of the square and around it: the 90th percentiles."""
    real = to_float(torch.from_numpy(Squares().array[:1]))
    ground = real[0, :, 0, 0].mean()
    shape = (samples.mean(1) - ground - 0.15).clamp_min(1e-6)            # (N, H, W), 0 where there is no square
    places = torch.arange(SIZE) - (SIZE - 1) / 2
    centres = [(shape * weights).sum((1, 2)).abs() / shape.sum((1, 2)) for weights in (places, places[:, None])]
    square = (samples - real)[INSIDE].mean((2, 3)).abs().amax(1)
    around = (samples - real)[:, :, :3].mean((1, 2, 3)).abs()
    return [float(amount.quantile(0.9)) for amount in (torch.maximum(*centres), square, around)]


LIMITS = (1.0, 0.6, 0.2)           # of shifts to 4 pixels, and changes of colour to 1.5: pixels, units of [-1, 1]


def test_samples_lie_where_the_reals_do_and_have_their_colours():
    amounts = away_from_reals(samples_after(steps=400))
    assert all(amount < limit for amount, limit in zip(amounts, LIMITS, strict=True)), amounts


def test_augmenting_reals_alone_would_leak_and_be_seen(monkeypatch):
    augmented = Draws.augmented
    monkeypatch.setattr(Draws, "augmented", lambda self, images, purpose: (
        augmented(self, images, purpose) if "REAL" in purpose.name else images))
    amounts = away_from_reals(samples_after(steps=250))
    assert all(amount > limit for amount, limit in zip(amounts, LIMITS, strict=True)), amounts


def test_the_reals_themselves_are_at_home():
    assert away_from_reals(to_float(torch.from_numpy(Squares().array))) == pytest.approx([0, 0, 0], abs=1e-5)
