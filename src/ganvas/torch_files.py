"""The networks in a file that torch.save wrote, whoever's it is: tensors only, so that a stranger's file cannot run code."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ganvas.errors import RunError

Role = Literal["G", "D", "G_ema", ""]                          # "": the file does not say which network it is
Networks = dict[Role, dict[str, Tensor]]

# What people call them in a checkpoint, in letters and digits only, without `_state_dict` and the like at the end.
ROLES: dict[str, Role] = {
    **dict.fromkeys(("g", "netg", "gnet", "modelg", "gen", "generator"), "G"),
    **dict.fromkeys(("d", "netd", "dnet", "modeld", "disc", "discriminator", "critic"), "D"),
    **dict.fromkeys(("gema", "emag", "netgema", "genema", "generatorema", "emagenerator"), "G_ema"),
    **dict.fromkeys(("", "model", "module", "net", "network"), ""),
}
DEEPEST = 3                    # dicts within dicts that are looked into


def read_networks(path: Path) -> Networks:
    """The state dicts in the file by network, on the CPU, in order of definition; `module.` of DataParallel taken off.

    Understands a state dict; dicts that hold some as netG, generator, state_dict, model, … (ROLES); and one state dict whose
    names begin so. Raises RunError for a file that is torn, holds more than tensors and plain values, or no state dict.
    """
    networks = _networks(_load(path), "")
    if not networks:
        raise RunError(f"{path}: holds no state dict of a network. Write one where it was trained: "
                       "torch.save(netG.state_dict(), 'netG.pth').")
    return networks


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings():                        # of a pickle's version: what cannot be read raises
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}).") from error
    except Exception as error:                                 # a torn pickle raises whatever its bytes happen to ask for
        if refused := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise RunError(
                f"{path}: holds more than tensors ({refused[1]}), and loading that could run code, so it is not loaded. Write "
                "only the weights, where the network was trained: torch.save(netG.state_dict(), 'netG.pth').") from error
        raise RunError(f"{path}: is no file of weights, or is torn. Pass a run folder, a checkpoint of one, or what "
                       "torch.save(netG.state_dict(), 'netG.pth') wrote.") from error


def _networks(found: Any, role: Role, depth: int = 0) -> Networks:
    """The state dicts in `found`, of which a name has said that it is `role`."""
    if not isinstance(found, Mapping) or depth > DEEPEST:
        return {}
    tensors = {str(name): value for name, value in found.items() if _is_plain(value)}
    if tensors:
        return _by_prefix(_without_module(tensors), role)
    networks: Networks = {}
    for name, value in found.items():
        inner = _role(str(name))
        if inner is not None:
            networks = _networks(value, inner or role, depth + 1) | networks           # the first of a kind wins
    return networks


def _by_prefix(tensors: dict[str, Tensor], role: Role) -> Networks:
    """One state dict as one network; as several where its names begin with those of networks (`generator.main.0.weight`)."""
    networks: Networks = {}
    for name, tensor in tensors.items():
        first, _, rest = name.partition(".")
        if rest and (inner := _role(first)):
            networks.setdefault(inner, {})[rest] = tensor
    return networks if networks and not role else {role: tensors}


def _role(name: str) -> Role | None:
    """Whose weights a dict of that name holds; None where the name says nothing of a network."""
    letters = re.sub(r"[^a-z0-9]", "", name.lower())
    return ROLES.get(re.sub(r"(statedict|state|weights|params|parameters)$", "", letters))


def _without_module(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    wrapped = all(name.startswith("module.") for name in tensors)
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()} if wrapped else tensors


def _is_plain(value: Any) -> bool:
    """Whether that is a tensor with its numbers in it; torch.save keeps sparse, quantised and meta tensors too."""
    return (isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
            and not value.is_quantized and not value.is_complex())
