"""Loads the plain scripts of examples/plain, whose names hold hyphens."""

import importlib.util
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[1] / "examples" / "plain"
CLASSICS = sorted(path.stem for path in FOLDER.glob("*.py"))


def load_plain(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
