"""The averaged generator: an exponential moving average of G's weights, with a half-life counted in real images."""

import torch
from torch import nn

from ganvas.config import TrainConfig

RAMP_UP = 0.05             # of the images so far: the most that the half-life may be, as in StyleGAN2-ADA (arXiv 2006.06676)


def half_life_at(train: TrainConfig, nimg: int) -> float:
    """The half-life after `nimg` images, in thousands: short at first, or a short run would show the weights it started from.

    Not where these are another run's (init_from): they are worth showing, and their average is taken over too.
    """
    return train.ema_half_life_kimg if train.init_from else min(train.ema_half_life_kimg, RAMP_UP * nimg / 1000)


@torch.no_grad()
def update_ema(G_ema: nn.Module, G: nn.Module, half_life_kimg: float, batch: int) -> None:
    """Moves G_ema's parameters towards G's so that a weight's share halves every `half_life_kimg` thousand images (0: copies).

    Buffers are copied: they are statistics of G, and are re-estimated for the averaged weights before use
    (generator.reestimate_batch_norm).
    """
    keep = 0.5 ** (batch / (half_life_kimg * 1000)) if half_life_kimg else 0.0
    torch._foreach_lerp_(list(G_ema.parameters()), list(G.parameters()), 1 - keep)
    for averaged, current in zip(G_ema.buffers(), G.buffers(), strict=True):
        averaged.copy_(current)
