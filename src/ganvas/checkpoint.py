"""A dict of tensors and JSON <-> one safetensors file with a checksum. The only code that knows the file format.

Never pickle: a checkpoint from a stranger cannot run code.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ganvas.errors import RunError
from ganvas.files import whole_file

FORMAT = 1


def snapshot(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, contiguous and without gradients, that stay as they are while training goes on in the originals."""
    return {name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format) for name, tensor in tensors.items()}


def write_checkpoint(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Writes the file whole, or leaves what was there. Raises OSError (disk full, …).

    tensors: on any device; nothing may write into them meanwhile (see `snapshot`).
    """
    on_cpu = _apart(tensors)
    text = json.dumps(meta)
    with whole_file(path) as partial:
        # Not safetensors' save_file: it makes a temporary file of its own, which a kill would leave for nobody to remove.
        partial.write_bytes(save(on_cpu, {"ganvas_format": str(FORMAT), "meta": text, "sha256": _checksum(on_cpu, text)}))


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the JSON. Raises RunError for a file that is torn, changed, or of another format."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            version = header.get("ganvas_format")
            if version != str(FORMAT):
                raise RunError(f"{path}: " + (
                    f"has checkpoint format {version}, and this Ganvas reads format {FORMAT}: update Ganvas."
                    if version else "is a safetensors file, but not a Ganvas checkpoint."))
            tensors = {name: file.get_tensor(name) for name in file.keys()}     # noqa: SIM118 (not a dict)
    except FileNotFoundError:
        raise RunError(f"{path}: there is no such checkpoint.") from None
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: is torn or not a checkpoint ({error}).") from error
    if _checksum(tensors, header.get("meta", "")) != header.get("sha256"):
        raise RunError(f"{path}: its content does not fit its checksum; the file was damaged.")
    return tensors, json.loads(header["meta"])


def read_newest(paths: list[Path]) -> tuple[dict[str, Tensor], dict[str, Any], list[str]] | None:
    """The last readable of `paths` (oldest first) as (tensors, meta, what was passed over and why); None if there is none.

    Raises RunError if there are checkpoints and none can be read.
    """
    passed_over: list[str] = []
    for path in reversed(paths):
        try:
            return *read_checkpoint(path), passed_over
        except RunError as error:
            passed_over.append(str(error))
    if passed_over:
        raise RunError("no checkpoint can be read:\n" + "\n".join(passed_over) + "\nStart again in a new folder (--out).")
    return None


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as the format wants them: on the CPU, contiguous, no two of one memory; only what is not so is copied."""
    found: dict[str, Tensor] = {}
    memories: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        if own.untyped_storage().data_ptr() in memories:
            own = own.clone()
        memories.add(own.untyped_storage().data_ptr())
        found[name] = own
    return found


def _checksum(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8"))
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
