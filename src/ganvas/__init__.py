"""Ganvas turns a folder of images into a generator of new ones. What a notebook needs, imported when it is first used."""

import os
from typing import TYPE_CHECKING, Any

# PyTorch's threads wait for each other in a busy loop. Alone that makes a step of coursera-mnist-28 a tenth faster than with
# 1000 turns of it; beside one other busy program, ten times slower. Set here: OpenMP reads it once, when torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"
__all__ = ["__version__", "compare", "evaluate", "inspect", "iterate", "load", "score", "train"]

if TYPE_CHECKING:
    from ganvas.app import inspect, iterate, score, train
    from ganvas.generator import load
    from ganvas.judging import compare, evaluate

_HOMES = {
    "inspect": "ganvas.app", "train": "ganvas.app", "iterate": "ganvas.app", "score": "ganvas.app", "load": "ganvas.generator",
    "compare": "ganvas.judging", "evaluate": "ganvas.judging"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ganvas' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
