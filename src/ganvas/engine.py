"""What computes a run's networks on this machine: precision and kernels, chosen once, checked against plain float32.

The choice is part of what makes a run bit-exact: it is written down (execution.json), and taken from there when the run goes on.
"""

import copy
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ganvas import __version__, machine
from ganvas.agreement import fault
from ganvas.config import ExecutionConfig, RunConfig
from ganvas.data.cache import cache_root
from ganvas.files import write_whole
from ganvas.networks.latents import latent_size
from ganvas.networks.layers import Conv2d, ConvTranspose2d
from ganvas.ops.convolution import DOWN, UP, WEIGH, Kernels
from ganvas.ops.tuning import Shape, fastest

NATIVE = Kernels()
MOST_SEC = 4.0                 # for measuring kernels
MOST_LOAD = 0.75               # processes that want to run, for each thread; above, others compute too
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS")
DECISIVE = frozenset({"amx_bf16", "amx_tile", "avx512_bf16", "avx512f", "avx512_vnni", "avx2", "fma", "asimd", "bf16"})


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
        """What `noted` gave. Raises ValueError or TypeError for anything else."""
        found = {name: Kernels(*kernels) for name, kernels in noted.items()}
        for kernels in found.values():
            if kernels.down not in DOWN or kernels.up not in UP or kernels.weigh not in WEIGH:
                raise ValueError(f"{kernels}: not all of them are known here")
        return cls(found)

    @property
    def digest(self) -> str:
        """A short name for the whole choice; "native" where torch computes everything."""
        if not self.kernels:
            return "native"
        return hashlib.sha256(json.dumps(self.noted(), sort_keys=True).encode()).hexdigest()[:8]


def prepare(
    config: RunConfig, G: nn.Module, D: nn.Module, tell: Callable[[str], None], noted: Engine | None = None,
) -> tuple[RunConfig, Engine]:
    """The engine of a run, applied to its networks (on the CPU, before training), and the config as it then holds.

    noted: what an earlier session of the run used on a machine like this; it is taken as it is.
    Where the fast way disagrees with plain float32 by more than rounding, it is said, and everything is computed plainly.
    """
    if noted is not None:
        engine = noted
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
    by = bf16_by(device)
    has_bf16 = bool(by) and family != "custom"
    why = f"precision bf16: {by} multiplies it faster; weights stay in float32. --precision fp32 computes as the tutorials do"
    return {"execution.precision": ("bf16" if has_bf16 else "fp32", why if has_bf16 else ""),
            "execution.channels_last": (likes_channels_last(device) and family != "custom", "")}


def likes_channels_last(device: str) -> bool:
    """Not MPS, where batch norm's backward on it has been wrong. (Nor a user's own networks, which may `view`.)"""
    return not device.startswith("mps")


def bf16_by(device: str, environ: Mapping[str, str] = os.environ) -> str:
    """What of this device multiplies bfloat16 faster than float32: a phrase, or "" where nothing does."""
    if device.startswith("cuda"):
        with suppress(RuntimeError, AssertionError), torch.cuda.device(device):      # a card that is not there
            return "the card" if torch.cuda.is_bf16_supported(including_emulation=False) else ""
        return ""
    # By one of these users keep oneDNN from using what is there; older than bfloat16 are:
    limit = (environ.get("ONEDNN_MAX_CPU_ISA") or environ.get("DNNL_MAX_CPU_ISA") or "DEFAULT").upper()
    older = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
    if device != "cpu" or limit in older or not torch.backends.mkldnn.is_available():      # type: ignore[no-untyped-call]
        return ""
    found = machine.processor()
    flags = found.flags if found is not None else frozenset()
    if "amx_bf16" in flags and (limit == "DEFAULT" or "AMX" in limit):
        return "the processor's AMX"
    return "the processor's AVX-512" if "avx512_bf16" in flags else ""


def processor_kind() -> str:
    """What of the processor decides bits and speed: its name, what PyTorch uses of it, and by which variables that is limited."""
    found = machine.processor()
    name, flags = (found.name, found.flags) if found is not None else (platform.processor(), frozenset())
    limits = [f"{name}={os.environ[name]}" for name in LIMITS if os.environ.get(name)]
    return ", ".join([name, torch.backends.cpu.get_cpu_capability(), *sorted(flags & DECISIVE), *limits])


# ---------------------------------------------------------------- the kernels, and what is remembered of them


def _measured(config: RunConfig, G: nn.Module, D: nn.Module, tell: Callable[[str], None]) -> Engine:
    """The fastest kernels: known from before on this very machine, or measured now.

    What takes too long, on a busy machine, computes natively this time; what was measured on one is measured again, once, when
    a run finds it at rest.
    """
    shapes, memory, started_at = _shapes(config, G, D), _Memory(config.execution), time.monotonic()
    busy = hasattr(os, "getloadavg") and os.getloadavg()[0] > MOST_LOAD * config.execution.threads
    known = memory.kernels.keys() - (set() if busy else memory.doubtful)
    measured: dict[str, Kernels] = {}
    for name, shape in {str(shape): shape for shape in shapes.values() if str(shape) not in known}.items():
        if time.monotonic() - started_at < MOST_SEC:
            measured[name] = fastest(shape)
    if measured:
        memory.kernels |= measured
        memory.doubtful = memory.doubtful | measured.keys() if busy else memory.doubtful - measured.keys()
        memory.keep()
        tell(f"convolutions: the fastest of their kernels measured in {time.monotonic() - started_at:.1f} s, kept for next time"
             + (" (the machine is busy: measured once more when it is not)" if busy else ""))
    chosen = {name: memory.kernels.get(str(shape), NATIVE) for name, shape in shapes.items()}
    return Engine({name: kernels for name, kernels in chosen.items() if kernels != NATIVE})


def _checked(config: RunConfig, engine: Engine, G: nn.Module, D: nn.Module) -> str:
    """What agreement.fault finds, asked once for each kind of networks and way of computing on this machine."""
    execution, network = config.execution, config.network
    if execution.precision == "fp32" and not execution.channels_last and not engine.kernels:
        return ""
    memory = _Memory(execution)
    about = [execution.device, execution.precision, execution.channels_last, engine.noted(), network.model_dump(),
             str(config.data.size), config.data.channels, config.train.second_derivatives, config.num_classes]
    way = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    if way in memory.agreed and network.family != "custom":
        return ""
    plain: Any = copy.deepcopy((G, D))
    Engine().apply(*plain)
    if not (found := fault(config, plain, copy.deepcopy((G, D)))):
        memory.agreed.add(way)
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
    bare[0](torch.empty(n, latent_size(config), device="meta"))
    bare[1](torch.empty(n, data.channels, data.size.height, data.size.width, device="meta"))
    return found


class _Memory:
    """What was measured and checked on machines like this one, in the cache; a cache that cannot be kept costs some seconds."""

    def __init__(self, execution: ExecutionConfig):
        self.path, self.key = cache_root() / "engine.json", _machine_key(execution)
        self.kernels: dict[str, Kernels] = {}                  # by shape
        self.doubtful: set[str] = set()                        # shapes measured beside other programs
        self.agreed: set[str] = set()                          # what was checked and found in order
        self._take_over(self._read())

    def keep(self) -> None:
        """Writes it all, with what others have written meanwhile."""
        everything = self._read()
        self._take_over(everything)
        mine = {"kernels": {shape: list(kernels) for shape, kernels in self.kernels.items()}, "doubtful": sorted(self.doubtful),
                "agreed": sorted(self.agreed)}
        with suppress(OSError):
            write_whole(self.path, json.dumps(everything | {self.key: mine}, indent=1))

    def _read(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):               # not there, or no such file
            return {}

    def _take_over(self, everything: dict[str, Any]) -> None:
        """What `everything` holds for this machine, as far as it is what this Ganvas writes; what is here already stays."""
        with suppress(KeyError, TypeError, AttributeError, ValueError):
            known = {str(shape): Engine.from_noted({"": kernels}).kernels[""]
                     for shape, kernels in everything[self.key]["kernels"].items()}
            self.agreed |= set(map(str, everything[self.key]["agreed"]))
            self.doubtful |= set(map(str, everything[self.key]["doubtful"])) - self.kernels.keys()
            self.kernels = known | self.kernels


def _machine_key(execution: ExecutionConfig) -> str:
    """What measured speeds and checks are valid for."""
    card = torch.cuda.get_device_name(execution.device) if execution.device.startswith("cuda") else execution.device
    versions = f"torch {torch.__version__}", f"ganvas {__version__}"
    return " | ".join([processor_kind(), card, *versions, f"{execution.threads} threads"])
