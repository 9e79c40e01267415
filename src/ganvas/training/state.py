"""Everything a run needs to go on after a restart; no random state, because draws are functions of (seed, nimg)."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ganvas.config import RunConfig
from ganvas.ops.precision import autocast
from ganvas.training.stats import OpenStats


@dataclass
class TrainState:
    """The networks, their optimizers and the progress. Saved and loaded whole."""

    G: nn.Module
    D: nn.Module
    G_ema: nn.Module | None                # None where averaging is off
    G_opt: torch.optim.Adam
    D_opt: torch.optim.Adam
    precision: str = "fp32"                # in which the networks compute; weights and moments are float32 always
    compiled: dict[str, Callable[..., Tensor]] = field(default_factory=dict)      # "G", "D": see training/compiling.py
    compiled_batch: int = 0                # images in a batch that they are compiled for
    nimg: int = 0                          # real images seen so far
    stats: OpenStats = field(default_factory=OpenStats)

    @classmethod
    def create(cls, config: RunConfig, G: nn.Module, D: nn.Module) -> "TrainState":
        """The state at nimg 0, with `G` and `D` (not copies) moved to the run's device and memory format, in train mode."""
        device, train, layout = torch.device(config.execution.device), config.train, memory_format(config)
        G, D = (network.to(device, memory_format=layout).train() for network in (G, D))      # type: ignore[call-overload]
        def adam(network: nn.Module) -> torch.optim.Adam:
            return torch.optim.Adam(
                network.parameters(), train.lr, train.betas, train.adam_eps, train.weight_decay, fused=True)
        averaged = copy.deepcopy(G).requires_grad_(False) if train.ema_half_life_kimg else None
        return cls(G, D, averaged, adam(G), adam(D), config.execution.precision)

    @property
    def shown_generator(self) -> nn.Module:
        """The generator that pictures and samples come from: the averaged one where there is one."""
        return self.G_ema if self.G_ema is not None else self.G

    def in_steps(self, which: Literal["G", "D"], batch: int) -> Callable[..., Tensor]:
        """The network as a step of `batch` images calls it: compiled, where it is and for this batch."""
        own: nn.Module = self.G if which == "G" else self.D
        return self.compiled.get(which, own) if batch == self.compiled_batch else own

    def computing(self, exactly: bool = False) -> AbstractContextManager[object]:
        """The context in which the networks run forward. exactly: in float32, for a penalty on the gradient of what comes out."""
        return autocast(next(self.G.parameters()).device.type, "fp32" if exactly else self.precision)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name: `G/…`, `D/…`, `G_ema/…`, `G_opt/exp_avg/<parameter>`, …, `stats/<name>`."""
        found: dict[str, Tensor] = {}
        for which, network in self._networks():
            found |= {f"{which}/{name}": tensor for name, tensor in network.state_dict().items()}
        for which, network, optimizer in self._optimizers():
            for name, parameter in network.named_parameters():
                for slot, value in optimizer.state.get(parameter, {}).items():
                    found[f"{which}/{slot}/{name}"] = value
        return found | {f"stats/{name}": total for name, total in self.stats.sums.items()}

    def progress(self) -> dict[str, Any]:
        """What is not a tensor."""
        return {"nimg": self.nimg, "stats_counts": self.stats.counts}

    def load(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Takes over what `tensors` and `progress` gave. Raises KeyError or RuntimeError where the networks differ."""
        for which, network in self._networks():
            network.load_state_dict(_under(tensors, which))
        for which, network, optimizer in self._optimizers():
            slots = _under(tensors, which)
            optimizer.state.clear()
            for name, parameter in network.named_parameters():
                if f"step/{name}" not in slots:        # none before the network's first turn
                    continue
                optimizer.state[parameter] = {                  # fused Adam counts its steps where the parameter lies
                    "step": slots[f"step/{name}"].to(parameter.device, copy=True)} | {
                    slot: torch.empty_like(parameter).copy_(slots[f"{slot}/{name}"]) for slot in ("exp_avg", "exp_avg_sq")}
        self.nimg = progress["nimg"]
        device = next(self.G.parameters()).device
        self.stats.counts = dict(progress["stats_counts"])
        self.stats.sums = {name: tensors[f"stats/{name}"].to(device, copy=True) for name in self.stats.counts}

    def all_finite(self) -> bool:
        """Whether no weight is NaN or infinite; waits for the device."""
        weights = [parameter for _, network in self._networks() for parameter in network.parameters()]
        return bool(torch.stack([weight.isfinite().all() for weight in weights]).all())

    def _networks(self) -> list[tuple[str, nn.Module]]:
        return [("G", self.G), ("D", self.D)] + ([("G_ema", self.G_ema)] if self.G_ema is not None else [])

    def _optimizers(self) -> list[tuple[str, nn.Module, torch.optim.Adam]]:
        return [("G_opt", self.G, self.G_opt), ("D_opt", self.D, self.D_opt)]


def memory_format(config: RunConfig) -> torch.memory_format:
    """How images and weights lie in memory."""
    return torch.channels_last if config.execution.channels_last else torch.contiguous_format


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix + "/"): tensor for name, tensor in tensors.items() if name.startswith(prefix + "/")}
