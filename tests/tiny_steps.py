"""A tiny training state and what a step of it is given, for the tests of steps."""

import numpy as np
import torch

from ganvas.config import make_config
from ganvas.networks.build import build_networks
from ganvas.training.draws import Draws
from ganvas.training.state import TrainState

N = 6
TINY = {"data.size": "12", "network.g_channels": 4, "network.d_channels": 4, "network.z_dim": 5}


def make_state(**options):
    config = make_config(TINY, {name.replace("__", "."): value for name, value in options.items()})
    return TrainState.create(config, *build_networks(config.network, config.data, seed=0))


def inputs(seed=0, n=N):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(n, 3, 12, 12, generator=generator) * 2 - 1, torch.randn(n, 5, generator=generator),
            torch.randn(n, 5, generator=generator))


def draws_at(first, policy=None, n=N):
    return Draws(1, np.arange(first, first + n), policy)


def watched(network):
    """The inputs that the network is given from now on."""
    seen = []
    network.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    return seen


def values(network):
    return {name: tensor.clone() for name, tensor in network.named_parameters()}
