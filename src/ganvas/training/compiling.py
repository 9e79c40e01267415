"""The networks through torch.compile: fused layers, after a warm-up, where they give what they gave before."""

import copy
import logging
import warnings

import torch
from torch import Tensor

from ganvas.agreement import lively
from ganvas.config import RunConfig
from ganvas.losses import LossPair
from ganvas.rng import Purpose
from ganvas.training.loop import draw_z
from ganvas.training.penalties import NONE
from ganvas.training.state import TrainState
from ganvas.training.steps import train_step

BACKEND = "inductor"
MOST_UNLIKE = {"fp32": 0.01, "bf16": 0.25}     # share of the gradients by which two orders of rounding may differ; .08 is usual


def compile_networks(state: TrainState, config: RunConfig, losses: LossPair) -> str:
    """Makes the state's steps use compiled networks for whole batches; "" where that went well, else what is wrong.

    A step of copies is taken first, compiled and not, with noise for images. It brings the warm-up, a minute; what it compiles
    serves the networks themselves. The state stays as it was. An epoch's last, smaller batch, pictures and samples go without.
    """
    plain, fused = _copy(state), _copy(state)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
            for each in (fused, state):
                each.compiled = {"G": torch.compile(each.G, dynamic=False, backend=BACKEND),
                                 "D": torch.compile(each.D, dynamic=False, backend=BACKEND)}
                each.compiled_batch = config.train.batch
            found, expected = (_gradient_after_a_step(each, config, losses) for each in (fused, plain))
    except Exception as error:      # of many libraries and a compiler's own: whatever it is, the run goes on without
        state.compiled = {}
        return f"torch.compile failed ({str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__})"
    unlike = float((found - expected).norm() / expected.norm().clamp_min(1e-30))
    if not unlike <= MOST_UNLIKE[state.precision]:
        state.compiled = {}
        return f"compiled networks' gradients differ by {unlike:.0%}"
    return ""


def _copy(state: TrainState) -> TrainState:
    """G and D in a state of their own, with weights by which more than rounding comes through."""
    made = copy.deepcopy(state)
    made.G_ema = None
    lively(made.G), lively(made.D)
    return made


def _gradient_after_a_step(state: TrainState, config: RunConfig, losses: LossPair) -> Tensor:
    """The gradients of a step of both networks as the optimizers' first moments keep them, one vector."""
    indices = torch.arange(config.train.batch).numpy()
    z = draw_z(config, Purpose.Z, indices)
    data = config.data
    generator = torch.Generator().manual_seed(0)
    reals = torch.rand(len(z), data.channels, data.size.height, data.size.width, generator=generator) * 2 - 1
    layout = torch.channels_last if config.execution.channels_last else torch.contiguous_format
    train_step(state, config.plan, losses, NONE, "DG", reals.to(z.device, memory_format=layout), z, z)
    moments = [optimizer.state[parameter]["exp_avg"] for optimizer in (state.D_opt, state.G_opt)
               for group in optimizer.param_groups for parameter in group["params"] if parameter in optimizer.state]
    return torch.cat([moment.flatten() for moment in moments]).double().cpu()
