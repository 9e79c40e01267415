"""What runs in bfloat16 under autocast, and what must not: losses, D's head, penalties, averages and tanh stay in float32."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def lower(tensor: Tensor) -> Tensor:
    """The tensor in autocast's precision where autocast is on, as torch's own layers cast their arguments."""
    if tensor.dtype != torch.float32 or not lowers(tensor):
        return tensor
    return tensor.to(torch.get_autocast_dtype(tensor.device.type))


def widen(tensor: Tensor) -> Tensor:
    """The tensor in float32 at least."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def full(x: Tensor) -> tuple[Tensor, AbstractContextManager[object]]:
    """x in float32 at least, and a context in which autocast is off."""
    return widen(x), torch.autocast(x.device.type, enabled=False) if lowers(x) else nullcontext()


def autocast(device: str, precision: str) -> AbstractContextManager[object]:
    """A context in which networks compute in `precision`, 'fp32' or 'bf16'; their weights stay as they are.

    Without autocast's cache of cast weights: it would outlive an update of them.
    """
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, torch.bfloat16, cache_enabled=False)


def lowers(tensor: Tensor) -> bool:
    """Whether autocast is on where this tensor lies."""
    device = tensor.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)      # there is none on "meta"
