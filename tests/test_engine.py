"""What computes a run's networks: kernels measured once, written down, checked; plain float32 where the fast way is wrong."""

import copy
import json

import pytest
import torch
from torch import nn

from ganvas import engine
from ganvas.agreement import fault
from ganvas.config import make_config
from ganvas.data.cache import cache_root
from ganvas.networks.build import build_networks
from ganvas.ops import convolution
from ganvas.ops.convolution import Kernels
from ganvas.ops.tuning import Shape, fastest
from ganvas.presets import load_preset

LOWERED = Kernels("lowered", "lowered", "lowered")


def config_of(preset="digits-16", **options):
    dotted = {name.replace("__", "."): value for name, value in options.items()}
    return make_config(load_preset(preset).values, {"train.batch": 4, "execution.threads": 1}, dotted)


def networks(config):
    return build_networks(config.network, config.data, 0)


@pytest.fixture
def measured(monkeypatch):
    """Shapes that were measured; all measurements find the matrix products fastest."""
    asked = []
    monkeypatch.setattr(engine.os, "getloadavg", lambda: (0.1, 0.1, 0.1), raising=False)
    monkeypatch.setattr(engine, "fastest", lambda shape: asked.append(shape) or LOWERED)
    return asked


def test_every_convolution_gets_the_fastest_kernels_of_its_own_shape(measured):
    config = config_of("d2l-pokemon-64")
    G, D = networks(config)
    _, chosen = engine.prepare(config, G, D, print)
    convolutions = [layer for layer in (*G.modules(), *D.modules()) if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(chosen.kernels) == len(convolutions) == 10
    assert all(layer.kernels == LOWERED for layer in convolutions)
    first = next(shape for shape in measured if shape.channels == 3)
    assert (first.n, first.maps, first.size, first.dtype) == (4, 64, (64, 64), torch.float32)
    assert len(measured) == len(set(measured)), "a shape that G and D share is measured once"


def test_with_measured_kernels_the_networks_give_what_they_gave_before(measured):
    config = config_of("keras-pokemon-64")
    G, D = networks(config)
    z = torch.randn(4, config.network.z_dim)
    before = G(z), D(G(z))
    engine.prepare(config, G, D, print)
    torch.testing.assert_close((G(z), D(G(z))), before, rtol=1e-3, atol=1e-4, check_stride=False)


def test_what_was_measured_is_kept_for_the_next_run_on_this_machine(measured, monkeypatch):
    config = config_of()
    engine.prepare(config, *networks(config), print)
    measured.clear()
    _, chosen = engine.prepare(config, *networks(config), print)
    assert not measured and set(chosen.kernels.values()) == {LOWERED}
    engine.prepare(config_of(execution__threads=2), *networks(config), print)
    assert measured, "two threads may have other favourites"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"machine": 3}', "null"])
def test_a_cache_that_is_no_cache_is_measured_anew(measured, content):
    cache_root().mkdir(parents=True, exist_ok=True)
    (cache_root() / "engine.json").write_text(content)
    config = config_of()
    engine.prepare(config, *networks(config), print)
    assert measured
    assert json.loads((cache_root() / "engine.json").read_text())


def test_a_kernel_that_this_version_does_not_know_is_measured_anew(measured):
    config = config_of()
    engine.prepare(config, *networks(config), print)
    file = cache_root() / "engine.json"
    file.write_text(file.read_text().replace("lowered", "winograd"))
    measured.clear()
    _, chosen = engine.prepare(config, *networks(config), print)
    assert measured and set(chosen.kernels.values()) == {LOWERED}


def test_what_a_busy_machine_measured_is_measured_again_once_it_is_at_rest(measured, monkeypatch):
    config, lines = config_of(), []
    counts = []
    for load in (8.0, 8.0, 0.1, 0.1):
        monkeypatch.setattr(engine.os, "getloadavg", lambda load=load: (load, load, load))
        _, chosen = engine.prepare(config, *networks(config), lines.append)
        assert chosen.kernels
        counts.append(len(measured))
    assert "busy" in lines[0] and len(lines) == 2
    assert counts[0] == counts[1] < counts[2] == counts[3]


def test_measuring_ends_after_some_seconds(measured, monkeypatch):
    monkeypatch.setattr(engine, "MOST_SEC", 0.0)
    config = config_of()
    assert engine.prepare(config, *networks(config), print)[1] == engine.Engine() and not measured


def test_two_processes_that_measure_at_once_keep_what_both_found(measured):
    first, second = config_of(), config_of("udacity-pokemon-32")
    here, there = (engine._Memory(config.execution) for config in (first, second))
    here.kernels, there.kernels = {"a": LOWERED}, {"b": LOWERED}
    here.keep(), there.keep()
    assert set(engine._Memory(first.execution).kernels) == {"a", "b"}


def test_own_networks_with_dropout_agree_with_themselves():
    class D(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(256, 32), nn.Dropout(0.5), nn.Linear(32, 1))

        def forward(self, x):
            return self.layers(x)

    config = config_of(network__family="custom", execution__precision="bf16")
    G, _ = networks(config_of())
    own = D()
    assert fault(config, (copy.deepcopy(G), copy.deepcopy(own)), (G, own)) == ""


def test_an_operator_without_bfloat16_is_told_and_not_used():
    class D(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(16, 16))

        def forward(self, x):
            product = x @ self.weight
            if product.dtype == torch.bfloat16:
                raise RuntimeError("some_operator not implemented for 'BFloat16'\nand more")
            return product.sum((1, 2, 3))

    config = config_of(network__family="custom", execution__precision="bf16")
    G, _ = networks(config_of())
    assert fault(config, (copy.deepcopy(G), D()), (G, D())) == (
        "a step cannot be computed in bf16 (some_operator not implemented for 'BFloat16')")


def test_a_cache_that_cannot_be_written_stops_nobody(measured, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GANVAS_CACHE", str(tmp_path / "file" / "cache"))
    config = config_of()
    _, chosen = engine.prepare(config, *networks(config), print)
    assert chosen.kernels


def test_a_run_that_goes_on_computes_as_it_did(measured):
    config = config_of()
    _, first = engine.prepare(config, *networks(config), print)
    measured.clear()
    (cache_root() / "engine.json").unlink()
    G, D = networks(config)
    _, second = engine.prepare(config, G, D, print, engine.Engine.from_noted(json.loads(json.dumps(first.noted()))))
    assert not measured and second == first and second.digest == first.digest != engine.Engine().digest
    assert any(layer.kernels == LOWERED for layer in G.modules() if isinstance(layer, nn.ConvTranspose2d))


@pytest.mark.parametrize("options", [{"network__family": "custom"}, {"execution__device": "cuda"}])
def test_own_networks_and_other_devices_keep_torchs_own_kernels(measured, options, monkeypatch):
    monkeypatch.setattr(engine, "_checked", lambda *_: "")
    _, chosen = engine.prepare(config_of("udacity-pokemon-32", **options), *networks(config_of()), print)
    assert not measured and chosen == engine.Engine()


@pytest.mark.parametrize(("precision", "table", "kernel"), [
    ("fp32", convolution.WEIGH, "lowered"), ("bf16", convolution.UP, "lowered"), ("bf16", convolution.WEIGH, "lowered")])
def test_a_kernel_that_is_wrong_on_this_machine_is_found_and_not_used(measured, monkeypatch, precision, table, kernel):
    right = table[kernel]
    monkeypatch.setitem(table, kernel, lambda *arguments: right(*arguments).roll(1, 0))
    config, lines = config_of(execution__precision=precision, execution__channels_last=True), []
    G, D = networks(config)
    plain, chosen = engine.prepare(config, G, D, lines.append)
    assert chosen == engine.Engine() and plain.execution.precision == "fp32" and not plain.execution.channels_last
    assert "differs by" in lines[-1] and "plain float32" in lines[-1]
    assert all(layer.kernels == Kernels() for layer in G.modules() if isinstance(layer, nn.ConvTranspose2d))


@pytest.mark.parametrize("preset", ["digits-16", "coursera-mnist-28", "udacity-pokemon-32"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_right_kernels_agree_with_plain_float32_second_derivatives_too(preset, precision):
    config = config_of(preset, execution__precision=precision, execution__channels_last=True, train__r1_gamma=1.0)
    fast = networks(config)
    engine.Engine({name: LOWERED for name, _ in engine._convolutions(*fast)}).apply(*fast)
    assert fault(config, networks(config), fast) == ""


@pytest.mark.parametrize(("factor", "expected"), [(0.5, "lowered"), (0.98, "native"), (1.5, "native")])
def test_a_measurement_picks_the_kernel_that_takes_the_least_time_and_the_librarys_when_in_doubt(monkeypatch, factor, expected):
    shape, now = Shape(convolution.Geometry((4, 4), (2, 2), (1, 1), (1, 1)), 2, 3, 4, (8, 8), torch.float32), [0.0]
    for table in (convolution.DOWN, convolution.UP, convolution.WEIGH):
        for name, kernel in list(table.items()):
            def timed(*arguments, seconds=1.0 if name == "native" else factor, kernel=kernel):
                now[0] += seconds
                return kernel(*arguments)
            monkeypatch.setitem(table, name, timed)
    chosen = fastest(shape, lambda: now[0])
    assert (chosen.down, chosen.weigh) == (expected, expected)
    assert (chosen.up == "native") == (expected == "native")


@pytest.mark.parametrize(("flags", "environ", "expected"), [
    ({"avx2"}, {}, ""), ({"avx512_bf16"}, {}, "AVX-512"), ({"avx512_bf16", "amx_bf16"}, {}, "AMX"),
    ({"amx_bf16"}, {"ONEDNN_MAX_CPU_ISA": "AVX2"}, ""), ({"amx_bf16"}, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX"}, "AMX"),
    ({"avx512_bf16"}, {"DNNL_MAX_CPU_ISA": "avx512_core"}, ""),
    ({"avx512_bf16"}, {"DNNL_MAX_CPU_ISA": "AVX512_CORE_FP16"}, "AVX-512"),
    ({"avx512_bf16", "amx_bf16"}, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, "AVX-512")])
def test_bfloat16_is_for_processors_that_multiply_it(monkeypatch, flags, environ, expected):
    monkeypatch.setattr(engine.machine, "processor", lambda: engine.machine.Processor("some", frozenset(flags)))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert expected in engine.bf16_by("cpu", environ) and bool(expected) == bool(engine.bf16_by("cpu", environ))
    assert engine.bf16_by("mps", environ) == ""
