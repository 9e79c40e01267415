"""What computes a run's networks on this machine: precision and kernels, chosen once, checked against plain float32.

The choice is part of what makes a run bit-exact: it is written down (execution.json), and taken from there when the run goes on.
"""

import copy
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ganvas import machine
from ganvas.agreement import fault
from ganvas.config import ExecutionConfig, RunConfig
from ganvas.data.cache import cache_root
from ganvas.files import write_whole
from ganvas.networks.layers import Conv2d, ConvTranspose2d
from ganvas.ops.convolution import Kernels
from ganvas.ops.tuning import Shape, fastest

NATIVE = Kernels()


@dataclass(frozen=True)
class Engine:
    """The kernels of a run's convolutions, by layer ("G.blocks.0.0"); a layer that is not named computes as torch would."""

    kernels: Mapping[str, Kernels] = field(default_factory=dict)

    def apply(self, G: nn.Module, D: nn.Module) -> None:
        """Makes the networks' convolutions use their kernels."""
        for name, layer in _convolutions(G, D):
            layer.kernels = self.kernels.get(name, NATIVE)

    def noted(self) -> dict[str, list[str]]:
        """As JSON, for `from_noted`."""
        return {name: list(kernels) for name, kernels in self.kernels.items()}

    @classmethod
    def from_noted(cls, noted: Mapping[str, Any]) -> "Engine":
        """What `noted` gave."""
        return cls({name: Kernels(*kernels) for name, kernels in noted.items()})

    @property
    def digest(self) -> str:
        """A short name for the whole choice; "native" where torch computes everything."""
        if not self.kernels:
            return "native"
        return hashlib.sha256(json.dumps(self.noted(), sort_keys=True).encode()).hexdigest()[:8]


def prepare(
    config: RunConfig, G: nn.Module, D: nn.Module, tell: Callable[[str], None], noted: Mapping[str, Any] | None = None,
) -> tuple[RunConfig, Engine]:
    """The engine of a run, applied to its networks (on the CPU, before training), and the config as it then holds.

    noted: what an earlier session of the run wrote down; it is taken as it is.
    Where the fast way disagrees with plain float32 by more than rounding, it is said, and everything is computed plainly.
    """
    if noted is not None:
        engine = Engine.from_noted(noted)
    elif config.execution.device != "cpu" or config.network.family == "custom":
        engine = Engine()
    else:
        engine = _measured(config, G, D, tell)
    engine.apply(G, D)
    if noted is None and (fault := _checked(config, engine, G, D)):
        tell(f"{fault}: everything is computed in plain float32, which is slower")
        engine = Engine()
        engine.apply(G, D)
        plain = {"precision": "fp32", "channels_last": False}
        config = config.model_copy(update={"execution": config.execution.model_copy(update=plain)})
    return config, engine


def suited(device: str, family: str) -> dict[str, tuple[Any, str]]:
    """{option of `execution`: (value, why)} for a device and a family of networks, where nobody asked for anything else."""
    has_bf16 = bool(bf16_by(device)) and family != "custom"
    why = f"precision bf16: {bf16_by(device)} multiplies it faster; weights stay in float32. --precision fp32 computes as the " \
          "tutorials do" if has_bf16 else ""
    # MPS: batch norm's backward on channels_last has been wrong there. A user's own networks may `view`.
    channels_last = not device.startswith("mps") and family != "custom"
    return {"execution.precision": ("bf16" if has_bf16 else "fp32", why), "execution.channels_last": (channels_last, "")}


def bf16_by(device: str, environ: Mapping[str, str] = os.environ) -> str:
    """What of this device multiplies bfloat16 faster than float32: a phrase, or "" where nothing does."""
    if device.startswith("cuda"):
        return "the card" if torch.cuda.is_bf16_supported(including_emulation=False) else ""
    limit = environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()     # by it users keep oneDNN from using what is there
    allowed = limit == "DEFAULT" or "BF16" in limit or "AMX" in limit
    if device != "cpu" or not allowed or not torch.backends.mkldnn.is_available():      # type: ignore[no-untyped-call]
        return ""
    found = machine.processor()
    named = {"amx_bf16": "the processor's AMX", "avx512_bf16": "the processor's AVX-512"}
    return next((text for flag, text in named.items() if found is not None and flag in found.flags), "")


# ---------------------------------------------------------------- the kernels, and what is remembered of them


def _measured(config: RunConfig, G: nn.Module, D: nn.Module, tell: Callable[[str], None]) -> Engine:
    """The fastest kernels: known from before on this very machine, or measured now."""
    shapes, memory, started_at = _shapes(config, G, D), _Memory(config.execution), time.monotonic()
    new = {str(shape): shape for shape in shapes.values() if str(shape) not in memory.kernels}
    memory.kernels |= {name: fastest(shape) for name, shape in new.items()}
    if new:
        memory.keep()
        if (took_sec := time.monotonic() - started_at) > 1:
            tell(f"convolutions: the fastest of their kernels measured in {took_sec:.1f} s, kept for next time")
    chosen = {name: memory.kernels[str(shape)] for name, shape in shapes.items()}
    return Engine({name: kernels for name, kernels in chosen.items() if kernels != NATIVE})


def _checked(config: RunConfig, engine: Engine, G: nn.Module, D: nn.Module) -> str:
    """What agreement.fault finds, asked once for each kind of networks and way of computing on this machine."""
    execution, network = config.execution, config.network
    if execution.precision == "fp32" and not execution.channels_last and not engine.kernels:
        return ""
    memory = _Memory(execution)
    about = [execution.device, execution.precision, execution.channels_last, engine.noted(), network.model_dump(),
             str(config.data.size), config.data.channels, config.train.r1_gamma > 0]
    way = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    if way in memory.agreed and network.family != "custom":
        return ""
    plain: Any = copy.deepcopy((G, D))
    Engine().apply(*plain)
    if not (found := fault(config, plain, copy.deepcopy((G, D)))):
        memory.agreed.append(way)
        memory.keep()
    return found


def _convolutions(G: nn.Module, D: nn.Module) -> Iterator[tuple[str, Conv2d | ConvTranspose2d]]:
    for which, network in (("G", G), ("D", D)):
        for name, layer in network.named_modules():
            if isinstance(layer, (Conv2d, ConvTranspose2d)):
                yield f"{which}.{name}", layer


@torch.no_grad()
def _shapes(config: RunConfig, G: nn.Module, D: nn.Module) -> dict[str, Shape]:
    """What each convolution's speed depends on, by layer: read from a pass of the networks without numbers."""
    dtype = torch.bfloat16 if config.execution.precision == "bf16" else torch.float32
    found: dict[str, Shape] = {}
    bare = copy.deepcopy(G).to("meta"), copy.deepcopy(D).to("meta")
    for name, layer in _convolutions(*bare):
        def note(layer: Any, inputs: tuple[Tensor, ...], _: object, name: str = name) -> None:
            big, small = (layer.out_channels, layer.in_channels) if isinstance(layer, ConvTranspose2d) else (
                layer.in_channels, layer.out_channels)
            found[name] = Shape(layer.geometry, config.train.batch, big, small, layer.sides(inputs[0])[0], dtype)
        layer.register_forward_hook(note)
    data, n = config.data, max(2, config.train.batch)
    bare[0](torch.empty(n, config.network.z_dim, device="meta"))
    bare[1](torch.empty(n, data.channels, data.size.height, data.size.width, device="meta"))
    return found


class _Memory:
    """What was measured and checked on machines like this one, in the cache; a cache that cannot be kept costs some seconds."""

    def __init__(self, execution: ExecutionConfig):
        self.path, self.key = cache_root() / "engine.json", _machine_key(execution)
        self.kernels: dict[str, Kernels] = {}                  # by shape
        self.agreed: list[str] = []                            # what was checked and found in order
        try:
            mine = json.loads(self.path.read_text(encoding="utf-8"))[self.key]
            self.kernels = {str(shape): Kernels(*kernels) for shape, kernels in mine["kernels"].items()}
            self.agreed = [str(checked) for checked in mine["agreed"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):      # not there, or no such file
            pass

    def keep(self) -> None:
        mine = {"kernels": {shape: list(kernels) for shape, kernels in self.kernels.items()}, "agreed": self.agreed}
        with suppress(OSError):
            try:
                others = dict(json.loads(self.path.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError):
                others = {}
            write_whole(self.path, json.dumps(others | {self.key: mine}, indent=1))


def _machine_key(execution: ExecutionConfig) -> str:
    """What measured speeds are valid for."""
    processor = machine.processor()
    limits = [os.environ.get(name, "") for name in ("ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")]
    return " | ".join([processor.name if processor else "", torch.backends.cpu.get_cpu_capability(), torch.__version__,
                       f"{execution.threads} threads", *limits])
