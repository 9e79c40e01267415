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


@pytest.fixture(autouse=True, scope="session")
def settled_kernels():
    """The clock decides nothing: two runs in a test get the same kernels, some of each kind. Processes of their own measure."""
    from ganvas.ops.convolution import Kernels

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ganvas.engine.fastest", lambda shape: Kernels("native", "lowered", "lowered"))
        yield
