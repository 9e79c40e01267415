"""The averaged generator: an exponential moving average of G's weights, with a half-life counted in real images."""

import torch
from torch import nn


@torch.no_grad()
def update_ema(G_ema: nn.Module, G: nn.Module, half_life_kimg: float, batch: int) -> None:
    """Moves G_ema's parameters towards G's so that a weight's share halves every `half_life_kimg` thousand images.

    Buffers are copied: they are statistics of G, and are re-estimated for the averaged weights before use
    (generator.reestimate_batch_norm).
    """
    keep = 0.5 ** (batch / (half_life_kimg * 1000))
    torch._foreach_lerp_(list(G_ema.parameters()), list(G.parameters()), 1 - keep)
    for averaged, current in zip(G_ema.buffers(), G.buffers(), strict=True):
        averaged.copy_(current)
