"""torch.compile: what it gives is compared before it is used, and a run goes on without it."""

import pytest
import torch

from ganvas.config import make_config
from ganvas.errors import ConfigError
from ganvas.losses import loss_pair
from ganvas.networks.build import build_networks
from ganvas.training import compiling
from ganvas.training.compiling import compile_networks
from ganvas.training.state import TrainState

TINY = {"data.size": "12", "network.g_channels": 4, "network.d_channels": 4, "network.z_dim": 5, "train.batch": 4}


@pytest.fixture
def tiny(monkeypatch):
    """A state and its config; the backend traces as the real one does, and leaves the C++ compiler alone."""
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    config = make_config(TINY, {"execution.compile": True})
    return TrainState.create(config, *build_networks(config.network, config.data, seed=0)), config


def compiled(tiny):
    return compile_networks(*tiny, loss_pair("nonsaturating", 1.0))


def test_whole_batches_go_through_the_compiled_networks_and_others_do_not(tiny):
    state, _ = tiny
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    assert compiled(tiny) == ""
    assert all(torch.equal(before[name], tensor) for name, tensor in state.tensors().items()), "the state stays as it was"
    assert state.in_steps("G", 4) is not state.G and state.in_steps("G", 3) is state.G
    z = torch.randn(4, 5)
    torch.testing.assert_close(state.in_steps("G", 4)(z), state.G(z), check_stride=False)


def test_networks_whose_own_weights_leave_little_but_rounding_are_judged_by_others(tiny):
    state, _ = tiny
    with torch.no_grad():
        for parameter in (*state.G.parameters(), *state.D.parameters()):
            parameter.mul_(1e-4)
    assert compiled(tiny) == ""


def test_a_compiler_that_is_not_there_is_told_and_done_without(tiny, monkeypatch):
    def fails(*args, **options):
        raise RuntimeError("no C++ compiler\nand forty lines of why")
    monkeypatch.setattr(torch, "compile", fails)
    assert compiled(tiny) == "torch.compile failed (no C++ compiler)"
    assert tiny[0].in_steps("D", 4) is tiny[0].D


def test_compiled_networks_that_compute_something_else_are_not_used(tiny, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network, **options: lambda x: 3 * network(x))
    assert "differ by" in compiled(tiny)
    assert tiny[0].compiled == {}


def test_a_penalty_and_compiled_networks_exclude_each_other():
    with pytest.raises(ConfigError, match="no second derivatives"):
        make_config(TINY, {"execution.compile": True, "train.r1_gamma": 1.0})
