"""A user's own features: a function, or `FILE.py:FUNCTION`."""

import contextlib
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganvas.data.source_base import Pixels
from ganvas.errors import ConfigError, DataError
from ganvas.metrics.features import Extractor, Features

_TRIED = 2                             # images of the first call, before hours depend on it
_ASKED = 8                             # images of noise whose answers tell one function from another


class CustomExtractor(Extractor):
    """What a function of the user's makes of uint8 (N, C, H, W) tensors: features (N, d), or a pair with probabilities (N, K)."""

    relative_only = True

    def __init__(self, function: Callable[[Tensor], Any], example: Pixels, *, name: str = "", about: str = "",
                 device: str = "cpu"):
        """example: an image or more, (N, C, H, W) uint8, on which the function is tried now, to learn d.

        name: what messages call it. about: text that changes when the function does, such as a hash of its file. The key follows
        that, and what the function makes of some noise as large as the example, to the last bit: so it follows weights that are
        loaded from elsewhere too. Raises DataError where the function fails or gives something else than features.
        """
        self._function, self._device = function, device
        self.name = name or str(getattr(function, "__qualname__", type(function).__name__))
        channels, height, width = example.shape[1:]
        self.preprocessing = f"as {self.name} does it, from uint8 of {width}x{height} with {channels} channels"
        self.dim = 0                   # not known before the first answer
        found = self(example[:_TRIED])
        self.dim = found.vectors.shape[1]
        noise = np.random.Generator(np.random.Philox(0)).integers(0, 256, (_ASKED, channels, height, width), np.uint8)
        with contextlib.suppress(DataError):               # a function may want real images: their features tell, then
            found = self(noise)
        digest = hashlib.sha256(f"{self.name}\0{about}\0{channels} {height} {width}\0".encode())
        for answer in found:
            digest.update(b"" if answer is None else answer.tobytes())
        self.key = digest.hexdigest()[:32]

    def __call__(self, images: Pixels) -> Features:
        try:
            with torch.no_grad():
                answer = self._function(torch.from_numpy(np.ascontiguousarray(images)).to(self._device))
        except Exception as error:
            raise DataError(f"{self.name}: failed on images of shape {tuple(images.shape)}, uint8 "
                            f"({type(error).__name__}: {error}).") from error
        vectors, probabilities = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, None)
        n = len(images)
        return Features(self._rows(vectors, n, "features", self.dim),
                        None if probabilities is None else self._rows(probabilities, n, "probabilities", 0))

    def _rows(self, given: Any, n: int, what: str, width: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """`given` as float32 (n, width); width 0 = any. Raises DataError that says what came."""
        wanted = f"{what} must be ({n}, {width or 'd'}), a row of numbers for each of {n} images"
        if not isinstance(given, Tensor | np.ndarray):
            raise DataError(f"{self.name}: gave {_seen(given)}, but {wanted}, as a tensor or an array.")
        rows = given.detach().cpu().numpy() if isinstance(given, Tensor) and given.dtype != torch.bfloat16 else given
        rows = rows.detach().float().cpu().numpy() if isinstance(rows, Tensor) else rows
        if rows.ndim != 2 or len(rows) != n or not rows.shape[1] or (width and rows.shape[1] != width):
            raise DataError(f"{self.name}: gave {what} of shape {tuple(rows.shape)}, but {wanted}.")
        if rows.dtype.kind not in "fiub":
            raise DataError(f"{self.name}: gave {what} of type {rows.dtype}, but {wanted}.")
        rows = rows.astype(np.float32)
        bad = n - int(np.isfinite(rows).all(axis=1).sum())
        if bad:
            raise DataError(f"{self.name}: {what} of {bad:,} of {n:,} images hold NaN or infinity. Mend the function, or leave "
                            "these images out.")
        return rows


def from_file(where: str, example: Pixels, device: str = "cpu") -> CustomExtractor:
    """The extractor named by `FILE.py:FUNCTION`. Runs that file, as `python FILE.py` would.

    Raises ConfigError: no such file, or no such function in it; DataError as `CustomExtractor` does.
    """
    file, _, name = where.rpartition(":")
    path = Path(file).expanduser()
    if not path.is_file():
        raise ConfigError(f"{where}: there is no file {path}. Write FILE.py:FUNCTION.")
    try:
        content = path.read_bytes()
        spec = importlib.util.spec_from_file_location(f"_ganvas_{path.stem}", path)
        assert spec is not None and spec.loader is not None, f"{path} ends in .py"
        module = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(path.parent.resolve()))     # its neighbours, as when it is run by itself
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.pop(0)
    except Exception as error:
        raise ConfigError(f"{path}: cannot be run ({type(error).__name__}: {error}).") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == module.__name__]
        raise ConfigError(f"{path}: there is no function {name!r} in it. It has: {', '.join(known) or 'none'}.")
    about = hashlib.sha256(content).hexdigest()
    return CustomExtractor(function, example, name=f"{path.name}:{name}", about=about, device=device)


def _seen(given: Any) -> str:
    if isinstance(given, tuple | list):
        return f"a {type(given).__name__} of {len(given)}"
    return "nothing (None)" if given is None else f"a {type(given).__name__}"
