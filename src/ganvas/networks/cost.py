"""What networks cost before they have run: multiplications, weights, and the memory of a training step.

Counted in passes over shapes alone (torch's "meta" device), of whatever the modules compute, by layers or plain functions.
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

FLOAT_BYTES = 4
FEW, MORE = 4, 8                       # images in two passes, whose difference is what each image adds

# Measured on a CPU with torch 2.15: five classics, batches 16 to 128, both precisions, with and without R1, EMA and pairing.
# What training adds to a process is right within a quarter, a whole run within a tenth; the residual family, measured afterwards,
# within a sixth. Kernels that unfold images in every layer, which the engine has not chosen here, add up to twice as much.
BASE_BYTES = 960 * 2**20               # a run without its networks: Python, torch, the report; a third are pages of their files
WORKING_COPIES = 1.5                   # of all weights: a second gradient to add up, layouts that kernels make for themselves
WORKING_SHARE = 1.6                    # of what is kept for backward: the gradients that run back through it, unfolded images


class Cost(NamedTuple):
    """Of two networks, for each image: multiplications (each with an addition) of a pass forward, and bytes that a pass in
    float32 keeps for its backward; weights are not among them."""

    parameters_g: int
    parameters_d: int
    macs_g: int
    macs_d: int
    activation_bytes_g: int
    activation_bytes_d: int
    penalty_bytes_d: int               # the same of D where its input gradient is differentiated once more


def cost(G: nn.Module, D: nn.Module, latents: int, image_shape: tuple[int, int, int]) -> Cost:
    """Of G ((N, latents) to images) and D (images (N, *image_shape), and labels where its `num_classes` is above 0).

    They stay as they are, wherever they lie. A user's own networks may refuse tensors without numbers: what they raise is raised.
    """
    passes_g = _passes(G, (latents,), judges=False)
    passes_d = _passes(D, image_shape, judges=True)
    return Cost(_parameters(G), _parameters(D), passes_g.macs, passes_d.macs, passes_g.kept, passes_d.kept, passes_d.kept_twice)


def state_bytes(cost: Cost, averaged: bool) -> int:
    """What outlives a step, and what a checkpoint copies: weights, Adam's two moments and, if `averaged`, G_ema."""
    return FLOAT_BYTES * (3 * (cost.parameters_g + cost.parameters_d) + averaged * cost.parameters_g)


def step_memory(cost: Cost, batch: int, precision: str, averaged: bool, penalty: bool, pairing: bool) -> int:
    """Bytes of the whole process, or on the card, at the height of a training step: at plan.g_fakes 'reuse', the dearest.

    precision: fp32 or bf16. averaged: there is a G_ema. penalty: on the gradient of D, which is then computed in float32.
    pairing: the loss compares reals with fakes, so that D's passes over both are kept at once. On the CPU a checkpoint in
    writing (state_bytes) and the pack's pages, which the system may take back, come on top. On a card
    nothing was measured.
    """
    halved = 0.5 if precision == "bf16" else 1.0
    passes_of_d = 2 if pairing else 1
    of_g, of_d = halved * cost.activation_bytes_g, halved * cost.activation_bytes_d
    kept = batch * (of_g + passes_of_d * (cost.penalty_bytes_d if penalty else of_d))
    weights = FLOAT_BYTES * (cost.parameters_g + cost.parameters_d)
    working = weights * (1 + WORKING_COPIES) + kept * WORKING_SHARE           # 1: the gradients
    return round(BASE_BYTES + state_bytes(cost, averaged) + working)


class _Passes(NamedTuple):
    """Multiplications of a pass, bytes it keeps, and bytes that it and its input gradient keep."""

    macs: int
    kept: int
    kept_twice: int


def _passes(network: nn.Module, shape: tuple[int, ...], judges: bool) -> _Passes:
    """For each image."""
    bare = _bare(network).train().requires_grad_(True)
    few, more = (_pass(bare, n, shape, judges) for n in (FEW, MORE))
    return _Passes(*((b - a) // (MORE - FEW) for a, b in zip(few, more, strict=True)))


def _pass(network: nn.Module, n: int, shape: tuple[int, ...], judges: bool) -> _Passes:
    """For n images together. judges: it is D, whose input gradient is made too, with a graph of its own."""
    given: tuple[Tensor, ...] = (torch.empty(n, *shape, device="meta", requires_grad=judges),)
    if judges and int(getattr(network, "num_classes", 0)) > 0:
        given = (*given, torch.zeros(n, dtype=torch.int64, device="meta"))
    weights = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}             # by address; held here, so that none is given out twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    def kept_bytes() -> int:
        return sum(storage.nbytes() for storage in kept.values())

    with torch.no_grad(), FlopCounterMode(display=False) as counter:       # apart: with gradients it hooks what cannot be hooked
        network(*given)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out: Tensor = network(*given)
        once = kept_bytes()
        if judges:
            torch.autograd.grad(out.sum(), given[0], create_graph=True)
    return _Passes(counter.get_total_flops() // 2, once, kept_bytes())


def _bare(network: nn.Module) -> nn.Module:
    """A copy whose tensors have shapes and no numbers; none of them is copied on the way."""
    empty: dict[int, object] = {id(weight): nn.Parameter(torch.empty_like(weight, device="meta"), weight.requires_grad)
                                for weight in network.parameters()}
    empty |= {id(buffer): torch.empty_like(buffer, device="meta") for buffer in network.buffers()}
    return copy.deepcopy(network, empty)


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
