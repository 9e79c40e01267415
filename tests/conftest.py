"""What all tests share."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))          # `plain`, the loader of examples/plain
os.environ.setdefault("OMP_NUM_THREADS", "1")           # tiny tensors; threads of two test runs would wait for each other
os.environ.setdefault("GANVAS_TEST_DATA", str(Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Packs of a test never meet the user's."""
    monkeypatch.setenv("GANVAS_CACHE", str(tmp_path / "ganvas-cache"))
