"""A generator made ready for sampling: in eval mode batch norm is an affine map of each map, which the layer before it can do."""

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ganvas.networks import dcgan, mnist28, residual
from ganvas.networks.layers import NATIVE, Conv2d, ConvTranspose2d

OURS = dcgan.Generator, mnist28.Generator, residual.Generator
Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
Norm = nn.BatchNorm1d | nn.BatchNorm2d


def folded(network: nn.Module, memory_format: torch.memory_format = torch.channels_last) -> nn.Module:
    """A copy of one of our generators that makes the same images in eval mode, up to rounding, with its batch norms folded away.

    Its weights lie in `memory_format` and are constants; its convolutions use the library's kernels, whatever was fastest
    for the batches of training. Batch norms without running averages (radford-faces-64) stay. Any other module is given back
    itself, as is one with hooks or parametrizations: it may use a layer's output before the norm, make its weights anew at
    each call, or view() what channels_last would scatter.
    """
    if type(network) not in OURS or any(map(_is_altered, network.modules())):
        return network
    sampler = copy.deepcopy(network).eval().requires_grad_(False)
    if isinstance(sampler, dcgan.Generator):
        sampler.stem_norm = _fold(sampler.stem, sampler.stem_norm)
    elif isinstance(sampler, residual.Generator):
        sampler.stem_norm[0] = _fold(sampler.stem, sampler.stem_norm[0])
    for module in [*sampler.modules()]:
        if isinstance(module, nn.Sequential):
            for place, (layer, norm) in enumerate(pairwise(module), start=1):
                module[place] = _fold(layer, norm)
        elif isinstance(module, Conv2d | ConvTranspose2d):
            module.kernels = NATIVE
    return sampler.to(memory_format=memory_format)


def _is_altered(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or is_parametrized(module))


def _fold(layer: nn.Module, norm: nn.Module) -> nn.Module:
    """Gives `layer` the work of `norm` too and returns what then stands in its place; `norm` itself where it cannot be folded.

    Exact types of norm: what derives from one may do more. A Linear's outputs may be maps, of which each has many.
    """
    if not isinstance(layer, Layer) or type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d):
        return norm
    assert isinstance(norm, Norm), "one of the two"
    if norm.running_mean is None or norm.running_var is None:
        return norm
    scale = _exact(norm.weight) / (_exact(norm.running_var) + norm.eps).sqrt()
    shift = _exact(norm.bias) - _exact(norm.running_mean) * scale
    across = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    each = layer.weight.shape[across] // len(scale)
    scale, shift = scale.repeat_interleave(each), shift.repeat_interleave(each)
    weight = _exact(layer.weight).transpose(0, across) * scale.view(-1, *[1] * (layer.weight.dim() - 1))
    bias = shift if layer.bias is None else _exact(layer.bias) * scale + shift
    layer.weight, layer.bias = (
        nn.Parameter(tensor.to(layer.weight), requires_grad=False) for tensor in (weight.transpose(0, across), bias))
    return nn.Identity()


def _exact(tensor: Tensor) -> Tensor:
    """In float64, on the CPU because MPS has none."""
    return tensor.detach().to("cpu", torch.float64)
