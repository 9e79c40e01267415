"""From the options to the two networks, built and initialised from the seed."""

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from ganvas.config import DataConfig, NetworkConfig
from ganvas.errors import ConfigError
from ganvas.networks import dcgan, mnist28, residual

Norm = nn.BatchNorm1d, nn.BatchNorm2d
Convolution = nn.Conv2d, nn.ConvTranspose2d


def build_networks(network: NetworkConfig, data: DataConfig, seed: int) -> tuple[nn.Module, nn.Module]:
    """(G, D) on the CPU in float32; the same seed gives the same weights, and torch's own generator is left as it was.

    Raises ConfigError for a size that the family cannot make, and for family 'custom', whose modules only the caller has.
    """
    size, channels = (data.size.height, data.size.width), data.channels
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)      # not torch.manual_seed, which would seed a user's GPU too
        if network.family == "mnist28":
            G: nn.Module = mnist28.Generator(channels, network.z_dim, network.g_channels)
            D: nn.Module = mnist28.Discriminator(channels, network.d_channels, network.d_slope)
        elif network.family == "residual":
            classes = len(data.class_names) if network.conditional else 0
            G = residual.Generator(size, channels, network.z_dim, classes, network.g_channels, network.g_depth, network.g_norm)
            D = residual.Discriminator(size, channels, classes, network.d_channels, network.d_depth)
        elif network.family == "dcgan":
            G = dcgan.Generator(
                size, channels, network.z_dim, network.g_channels, kernel=network.kernel, padding=network.padding,
                conv_bias=network.conv_bias, linear_bias=network.linear_bias, stem=network.g_stem,
                stem_norm=network.g_stem_norm, stem_slope=network.g_stem_slope, slope=network.g_slope,
                bn_eps=network.bn_eps, bn_momentum=network.bn_momentum, bn_running=network.bn_running)
            D = dcgan.Discriminator(
                size, channels, network.d_channels, kernel=network.kernel, padding=network.padding,
                conv_bias=network.conv_bias, linear_bias=network.linear_bias, head=network.d_head, slope=network.d_slope,
                norm_first=network.d_norm_first, norm_last=network.d_norm_last,
                bn_eps=network.bn_eps, bn_momentum=network.bn_momentum, bn_running=network.bn_running)
        else:
            raise ConfigError("this run was trained with its own networks: pass them from Python, "
                              "generator=MyGenerator() and discriminator=MyDiscriminator().")
        if network.family == "residual":
            residual.initialise(G)
            residual.initialise(D)
        else:
            for module in [*G.modules(), *D.modules()]:
                initialise(module, network.init)
        if network.d_spectral_norm:
            for module in D.modules():
                if isinstance(module, residual.ResidualBlock):
                    module.last.weight.data.normal_(0.0, 0.02)         # no direction is the longest of zeros
            for module in [*D.modules()]:
                if isinstance(module, (*Convolution, nn.Linear, nn.Embedding)):
                    spectral_norm(module)
    return G, D


@torch.no_grad()
def initialise(module: nn.Module, scheme: str) -> None:
    """Draws one layer's parameters from torch's generator; schemes as NetworkConfig.init describes them."""
    if scheme == "torch" or not isinstance(module, (*Convolution, nn.Linear, *Norm)):
        return
    is_norm = isinstance(module, Norm)
    if scheme == "all_normal":                         # d2l draws batch norm's gain and bias about 0 too
        for parameter in module.parameters(recurse=False):
            parameter.normal_(0.0, 0.02)
    elif scheme == "glorot":
        if not is_norm:
            nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            module.bias.zero_()
    elif is_norm:
        module.weight.normal_(1.0 if scheme == "dcgan" else 0.0, 0.02)
        assert module.bias is not None, "our batch norms are affine"
        module.bias.zero_()
    elif scheme == "dcgan" or isinstance(module, Convolution):
        module.weight.normal_(0.0, 0.02)               # gain_zero_mean leaves linear layers at PyTorch's default
