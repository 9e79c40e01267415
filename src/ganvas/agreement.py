"""Whether a fast way of computing gives what plain float32 gives: one step's gradients, compared before the way is used."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganvas.config import RunConfig
from ganvas.losses import r1_penalty
from ganvas.networks.latents import latent_size
from ganvas.ops.precision import autocast, widen

CHECKED_IMAGES = 8                   # enough for batch norm over 1x1 maps
MOST_UNLIKE = {"fp32": 0.01, "bf16": 0.5}      # share of a gradient that rounding may change: .02 to .2; a wrong kernel changes 1

Networks = tuple[nn.Module, nn.Module]


def fault(config: RunConfig, plain: Networks, fast: Networks) -> str:
    """What is wrong with the fast way on this machine; "" where it agrees with plain float32. Takes both pairs over.

    plain, fast: (G, D) as they compute plainly, and as they would train; the memory format and precision are config.execution's.
    Looked at are the gradients of a step of D, of a step of G, and, where the run has it, of the gradient penalty (a second
    derivative).
    """
    execution = config.execution
    layout = torch.channels_last if execution.channels_last else torch.contiguous_format
    rearranged: Any = tuple(network.to(memory_format=layout) for network in fast)
    try:
        expected = _gradients(config, plain, "fp32")
        found = _gradients(config, rearranged, execution.precision)
    except (RuntimeError, NotImplementedError) as error:       # an operator of a user's own network that has no bfloat16, say
        return f"a step cannot be computed in {execution.precision} ({str(error).splitlines()[0]})"
    for what, gradient in found.items():
        unlike = float((gradient - expected[what]).norm() / expected[what].norm().clamp_min(1e-30))
        if not unlike <= MOST_UNLIKE[execution.precision]:     # NaN too
            return f"{what} differs by {unlike:.0%} from float32's on this machine ({execution.device}, {execution.precision})"
    return ""


def _gradients(config: RunConfig, networks: Networks, precision: str) -> dict[str, Tensor]:
    """{what: its gradient in all parameters, one float64 vector on the CPU}, at fixed images and z."""
    data, device, own = config.data, torch.device(config.execution.device), config.network.family == "custom"
    G, D = ((network if own else lively(network)).to(device).train() for network in networks)      # theirs may need their weights
    n, generator = config.train.batch if own else CHECKED_IMAGES, torch.Generator().manual_seed(0)
    z = torch.randn(n, latent_size(config), generator=generator).to(device)
    reals = torch.rand(n, data.channels, data.size.height, data.size.width, generator=generator).to(device) * 2 - 1
    def logits(images: Tensor, precision: str) -> Tensor:
        with autocast(device.type, precision):
            return widen(D(images)).flatten()
    def vector(loss: Tensor, network: nn.Module) -> Tensor:
        weights = list(network.parameters())
        gradients = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        return torch.cat([gradient.flatten() for gradient in gradients]).double().cpu()

    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)                                   # a user's own layers may draw (dropout)
        with autocast(device.type, precision):
            fakes = widen(G(z))
        d_loss = F.softplus(-logits(reals, precision)).sum() + F.softplus(logits(fakes.detach(), precision)).sum()
        found = {
            "the gradient of D": vector(d_loss, D),
            "the gradient of G": vector(F.softplus(-logits(fakes, precision)).sum(), G),
        }
        if config.train.second_derivatives:
            reals.requires_grad_()
            found["the gradient of a penalty"] = vector(r1_penalty(logits(reals, "fp32"), reals), D)
    return found


@torch.no_grad()
def lively(network: nn.Module) -> nn.Module:
    """The network with weights that neither shrink nor swell what passes: the classics' small ones leave little but rounding."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        fan = parameter[0].numel() if parameter.ndim > 1 else 0
        spread = 1.4 / fan**0.5 if fan else 0.1
        drawn = torch.randn(parameter.shape, generator=generator) * spread + (0 if fan else 0.5)
        parameter.copy_(drawn.to(parameter.device))
    return network
