"""Ganvas turns a folder of images into a generator of new ones. What a notebook needs, imported when it is first used."""

from typing import TYPE_CHECKING, Any

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
