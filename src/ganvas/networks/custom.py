"""A user's own generator and discriminator: looked at before hours of training depend on them."""

from collections.abc import Callable

import torch
from torch import nn

from ganvas.config import RunConfig
from ganvas.errors import ConfigError

Network = nn.Module | Callable[[], nn.Module]


def own_networks(generator: Network, discriminator: Network, config: RunConfig) -> tuple[nn.Module, nn.Module]:
    """(G, D) as given; functions that make them are called with torch's generator at the run's seed.

    Raises ConfigError where G does not make the run's images from z, or D does not give one number for each image.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        G, D = (network if isinstance(network, nn.Module) else network() for network in (generator, discriminator))
    data, z_dim = config.data, config.network.z_dim
    wanted = (2, data.channels, data.size.height, data.size.width)
    try:
        with torch.no_grad():
            images = G.eval()(torch.zeros(2, z_dim))
    except RuntimeError as error:
        raise ConfigError(f"generator {type(G).__name__}: cannot take z of shape (N, {z_dim}) ({error}). "
                          "Set its z_dim with settings={'network.z_dim': …}.") from error
    if tuple(images.shape) != wanted:
        raise ConfigError(f"generator {type(G).__name__}: makes {tuple(images.shape)} from 2 z, not {wanted}. "
                          "Set size= and channels= to what it makes.")
    try:
        with torch.no_grad():
            logits = D.eval()(images)
    except RuntimeError as error:
        raise ConfigError(f"discriminator {type(D).__name__}: cannot take images of shape (N, {', '.join(map(str, wanted[1:]))}) "
                          f"({error}). Set size= and channels= to what both networks are made for.") from error
    if logits.numel() != 2:
        raise ConfigError(f"discriminator {type(D).__name__}: gives {tuple(logits.shape)} for 2 images, not a logit for each.")
    return G, D
