"""What the machine and the clock decided for a run, kept in execution.json, and whether a resumed run is bit-exact."""

import json
import platform
from typing import Any

import numpy as np
import torch

from ganvas import __version__
from ganvas.config import RunConfig
from ganvas.engine import Engine, processor_kind
from ganvas.files import write_whole
from ganvas.run_folder import RunFolder
from ganvas.values import Amount


def environment(config: RunConfig, engine: Engine) -> dict[str, Any]:
    """What must be the same for a resumed run to be bit-exact."""
    execution = config.execution
    on_cuda = execution.device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name(execution.device) if on_cuda else execution.device, "threads": execution.threads,
        "precision": execution.precision, "channels_last": execution.channels_last, "compile": execution.compile,
        "kernels": engine.digest, "machine": platform.machine(), "system": platform.system(),
        "processor": processor_kind(), "torch": torch.__version__, "numpy": np.__version__,
        "ganvas": __version__,
    }


def note(folder: RunFolder, config: RunConfig, engine: Engine, **about: Any) -> None:
    """Writes execution.json: the environment, and `about`, of which None is left out.

    data_fingerprint, images, holdout: what is trained on, and how many are kept out. time_sec: --time, for which config.length
    was chosen. measuring: how the run is measured. why: {option: how it was chosen}.
    """
    content: dict[str, Any] = {"environment": environment(config, engine), "kernels": engine.noted()}
    content |= {name: value for name, value in about.items() if value is not None}
    if "time_sec" in content:
        content["length"] = str(config.length)
    write_whole(folder.execution, json.dumps(content, indent=2))


def noted_length(folder: RunFolder, budget_sec: float) -> Amount | None:
    """The length that was chosen for this very --time before, if it was."""
    noted = _read(folder)
    return Amount.parse(noted["length"]) if noted.get("time_sec") == budget_sec and "length" in noted else None


def noted(folder: RunFolder, name: str) -> Any:
    """What `note` was told about `name`, or None."""
    return _read(folder).get(name)


def noted_engine(folder: RunFolder, config: RunConfig) -> Engine | None:
    """The kernels that the run has used so far, where it goes on as it was; None where that is not known."""
    content, here = _read(folder), environment(config, Engine())
    made_in = content.get("environment", {})
    if any(made_in.get(name) != value for name, value in here.items() if name not in ("kernels", "compile", "ganvas", "numpy")):
        return None
    try:
        return Engine.from_noted(content["kernels"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def why_inexact(before: dict[str, Any] | None, config: RunConfig, engine: Engine) -> str:
    """Why a run that goes on here and now may differ in its last bits from an unbroken one; empty where it does not.

    before: the environment that its checkpoint was made in; None = not known.
    """
    if config.execution.device != "cpu":
        return f"{config.execution.device} adds up in no fixed order"
    if before is None:
        return "its checkpoint does not say where it was made"
    return ", ".join(f"{name} {before.get(name)} -> {value}" for name, value in environment(config, engine).items()
                     if before.get(name) != value)


def _read(folder: RunFolder) -> dict[str, Any]:
    try:
        content = json.loads(folder.execution.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
