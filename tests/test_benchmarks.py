"""The benchmarks of training: that they run, count and say what is true; never how fast anything is."""

import importlib
import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ganvas import engine
from ganvas.config import make_config
from ganvas.data.batches import Batches
from ganvas.losses import loss_pair
from ganvas.networks.build import build_networks
from ganvas.ops.augment import augment
from ganvas.ops.convolution import Geometry, Kernels, down
from ganvas.presets import load_preset
from ganvas.training import loop
from ganvas.training.penalties import penalties_at
from ganvas.training.state import TrainState
from ganvas.training.steps import train_step, turns_at

pytest.importorskip("torchvision", reason="the plain scripts import torchvision: pip install ganvas[examples]")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
CLASSICS = sorted(path.stem for path in (BENCHMARKS.parent / "examples" / "plain").glob("*.py"))
MODULES = ("train_speed", "train_sides", "train_ceiling", "growth", "common")
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="anonymous memory is read from /proc")


@pytest.fixture(scope="module")
def modules() -> Iterator[SimpleNamespace]:
    """The benchmarks, imported as when they run: their folder is the first of the path."""
    before = sys.path.copy()
    sys.path.insert(0, str(BENCHMARKS))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    sys.path[:] = before
    for name in (*MODULES, "data"):
        sys.modules.pop(name, None)


@pytest.fixture
def bench(modules: SimpleNamespace) -> Any:
    return modules.train_speed


@pytest.fixture
def small(modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few images, and no kernels measured."""
    monkeypatch.setattr(modules.train_sides, "NUM_IMAGES", 16)
    monkeypatch.setattr(modules.train_sides, "NUM_FILES", 16)
    monkeypatch.setattr(modules.train_sides, "prepare", partial(engine.prepare, noted=engine.Engine()))


@pytest.fixture
def same_threads() -> Iterator[None]:
    """The script sets torch's threads for its process; other tests must not notice."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def check_spread(spread: dict[str, Any], rounds: int) -> None:
    assert set(spread) == {"median", "min", "max", "rounds"}
    assert len(spread["rounds"]) == rounds
    assert spread["min"] == min(spread["rounds"]) <= spread["median"] <= spread["max"] == max(spread["rounds"])
    assert spread["min"] > 0


@pytest.mark.usefixtures("same_threads", "small")
def test_a_short_run_writes_every_number_the_machine_and_the_date(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "new" / "speed.json"
    bench.main(["--preset", "coursera-mnist-28", "--batch", "4", "--channels", "1", "--threads", "1", "--workers", "0",
                "--precision", "fp32", "bf16", "--rounds", "2", "--seconds", "0.01", "--json", str(file)])

    report = json.loads(file.read_text(encoding="utf-8"))
    assert (report["benchmark"], report["version"], report["rounds"], report["seconds"]) == ("train_speed", 2, 2, 0.01)
    assert datetime.fromisoformat(report["date_utc"]).utcoffset() == timedelta(0)
    assert report["machine"]["threads"] == 1
    assert report["machine"]["torch"] == torch.__version__
    assert report["machine"]["instructions"]["aten"] == torch.backends.cpu.get_cpu_capability()
    assert report["machine"]["processor"] and report["machine"]["cores"] >= report["machine"]["usable_cores"] >= 1
    assert [(result["batch"], result["precision"]) for result in report["results"]] == [(4, "fp32"), (4, "bf16")]
    for result in report["results"]:
        assert (result["preset"], result["size"], result["channels"]) == ("coursera-mnist-28", "28x28", 1)
        for name in ("outside_share_percent", "data_share_percent"):
            check_spread(result[name], rounds=2)
        assert result["data_share_percent"]["max"] < result["outside_share_percent"]["max"] < 100
        for what in ("step", "loop"):
            plain, ours = result[f"plain_{what}_img_per_sec"], result[f"our_{what}_img_per_sec"]
            for spread in (plain, ours, result[f"{what}_ratio"]):
                check_spread(spread, rounds=2)
            assert result[f"{what}_ratio"]["rounds"] == [mine / other for mine, other in zip(
                ours["rounds"], plain["rounds"], strict=True)]
        tflop = result["step_gflop"] / 1e3 * result["our_step_img_per_sec"]["median"] / result["batch"]
        assert result["our_tflop_per_sec"] == pytest.approx(tflop)
        assert result["ceiling_percent"] == pytest.approx(100 * tflop / result["ceiling_tflop_per_sec"])
        assert 0 < result["convolutions_share_percent"] < 100 and result["convolutions_ceiling_percent"] > 0
        assert result["memory_mb"] is None

    lines = capsys.readouterr().out.splitlines()
    assert sum("coursera-mnist-28" in line for line in lines) == 2 and str(file) in lines[-1]
    assert max(map(len, lines[3:])) <= 130                 # the table fits the screen


# ---------------------------------------------------------------- turns and shares


def test_the_sides_take_turns_in_both_orders_and_in_whole_pairs_of_steps_after_one_that_does_not_count(
    modules: SimpleNamespace,
) -> None:
    seen: list[str] = []

    def step(side: str) -> int:
        seen.append(side)
        time.sleep(0.0001)                               # a coarse clock must see that time has passed
        return 3

    sides = {side: modules.train_sides.Side(partial(step, side), partial(seen.append, "("), partial(seen.append, ")"))
             for side in "ab"}
    speeds = modules.train_speed.measure_speeds(sides, 2, 0.0, partial(seen.append, "|"))
    a, b = "(aaa)", "(bbb)"
    assert "".join(seen) == a + b + f"{a}{b}|{b}{a}" + f"{b}{a}|{a}{b}"
    assert {name: len(values) for name, values in speeds.items()} == {"a": 2, "b": 2}
    assert modules.train_speed.run_leg(sides["a"], 0.0)[0] == 6            # images of the two steps that count


@pytest.mark.usefixtures("small")
def test_the_shares_are_of_the_loop_with_the_presets_rotation_and_leave_it_as_it_was(
    modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch,
) -> None:
    rotations: list[float] = []

    def watched(images: Tensor, seed: int, indices: NDArray[np.int64], rotation_degrees: float, mirror: bool) -> Tensor:
        rotations.append(rotation_degrees)
        return augment(images, seed, indices, rotation_degrees, mirror)

    monkeypatch.setattr(loop, "augment", watched)
    patched = ("to_float", "augment", "draw_z", "train_step")
    before = {name: getattr(loop, name) for name in patched}, Batches.start
    config = modules.common.config_of("coursera-mnist-28", "fp32", 1, train__batch=4)

    ours = modules.train_sides.Ours(config, modules.train_sides.RandomImages(config))
    shares = modules.train_speed.measure_shares(ours, rounds=1, seconds=0.01)
    assert 0 < shares["data_share_percent"]["median"] < shares["outside_share_percent"]["median"] < 100
    assert set(rotations) == {20.0}
    assert ({name: getattr(loop, name) for name in patched}, Batches.start) == before


@pytest.mark.usefixtures("same_threads", "small")
def test_a_run_of_the_steps_only_leaves_the_loops_out(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench.sides, "plain_loop", None)   # not to be called
    monkeypatch.setattr(bench, "convolutions_share", lambda side: 0.5)
    bench.main(["--preset", "coursera-mnist-28", "--batch", "4", "--threads", "1", "--precision", "fp32", "--rounds", "1",
                "--seconds", "0.01", "--steps-only", "--json", str(tmp_path / "speed.json")])
    (result,) = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))["results"]
    assert result["step_ratio"] and result["loop_ratio"] is result["our_loop_img_per_sec"] is result["memory_mb"] is None
    assert result["convolutions_share_percent"] == 50
    assert "-" in capsys.readouterr().out.splitlines()[-3]


# ---------------------------------------------------------------- files, and what both sides make of them


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("preset", ["coursera-mnist-28", "udacity-pokemon-32"])
def test_both_loops_train_on_the_same_images(modules: SimpleNamespace, tmp_path: Path, preset: str) -> None:
    sides = modules.train_sides
    config = modules.common.config_of(preset, "fp32", 1, train__batch=5)
    sides.write_files(preset, tmp_path / "files", 16)
    pack = sides.packed(tmp_path / "files", config, tmp_path / "packs")
    try:
        assert len(pack) == 15                             # whole batches
        script = sides.load_plain(preset)
        dataset = script.make_dataset(tmp_path / "files")
        if preset == "coursera-mnist-28":                  # it turns each image by an angle of its own
            assert np.array_equal(pack.read(np.arange(15))[:, 0], dataset.images[:15])
        else:
            theirs = torch.stack([dataset[index] for index in range(15)]).add(1).mul(127.5).numpy()
            assert np.abs(pack.read(np.arange(15)) - theirs).mean() < 1
        assert len(np.unique(pack.read(np.arange(15)).reshape(15, -1), axis=0)) == 15

        plain = sides.plain_loop(preset, config, tmp_path / "files", workers=1)
        plain.begin()
        assert plain.step() == 5
        plain.end()
        assert not multiprocessing.active_children()       # or they would read on while another side is measured
        ours = sides.Ours(config, pack)
        assert [ours.step() for _ in range(4)] == [5, 5, 5, 5]
        ours.close()
    finally:
        pack.pack.close()


def test_a_script_without_the_channels_that_are_asked_for_has_no_loop(modules: SimpleNamespace, tmp_path: Path) -> None:
    config = modules.common.config_of("coursera-mnist-28", "fp32", 1, train__batch=4, data__channels=3)
    assert modules.train_sides.plain_loop("coursera-mnist-28", config, tmp_path, workers=0) is None
    speeds = {"plain step": [1.0, 2.0], "step fp32": [2.0, 3.0], "loop fp32": [1.5, 1.5]}
    found = modules.train_speed.speeds_of(speeds, "fp32")
    assert found["loop_ratio"] is None and found["plain_loop_img_per_sec"] is None
    assert found["step_ratio"]["rounds"] == [2.0, 1.5] and found["our_loop_img_per_sec"]["median"] == 1.5


@ON_LINUX
@pytest.mark.usefixtures("small")
def test_a_sides_memory_is_measured_in_a_process_of_its_own_and_grows_with_the_batch(
    modules: SimpleNamespace, tmp_path: Path,
) -> None:
    sides, name = modules.train_sides, "coursera-mnist-28"
    sides.write_files(name, tmp_path / "files", 16)
    few, many = (sides.peak_mb(sides.build_plain, name, modules.common.config_of(name, "fp32", 1, train__batch=batch),
                               tmp_path / "files", 0, threads=1) for batch in (2, 128))
    assert 0 < few < many - 20                             # one activation of 128 x 128 x 13 x 13 floats is 11 MB


@pytest.mark.usefixtures("small")
def test_our_loop_can_be_built_from_the_path_of_its_pack(modules: SimpleNamespace, tmp_path: Path) -> None:
    config = modules.common.config_of("coursera-mnist-28", "fp32", 1, train__batch=4)
    modules.train_sides.write_files("coursera-mnist-28", tmp_path / "files", 16)
    pack = modules.train_sides.packed(tmp_path / "files", config, tmp_path / "packs").pack
    pack.close()
    side, close = modules.train_sides.build_ours(config, pack.path)
    assert [side.step(), side.step()] == [4, 4]
    close()


# ---------------------------------------------------------------- what a step takes, and what it could take


@pytest.mark.parametrize("preset", CLASSICS)
def test_the_products_of_a_step_are_what_torch_counts(modules: SimpleNamespace, preset: str) -> None:
    ceiling = modules.train_ceiling
    config = make_config(load_preset(preset).values, {"train.batch": 3})
    G, D = (network.to("meta").train() for network in build_networks(config.network, config.data, 0))
    state = TrainState(G, D, None, *(torch.optim.Adam(network.parameters()) for network in (G, D)))
    reals = torch.empty(3, config.data.channels, config.data.size.height, config.data.size.width, device="meta")
    z = torch.empty(3, config.network.z_dim, device="meta")
    with FlopCounterMode(display=False) as counted:
        for step in range(2):
            train_step(state, config.plan, loss_pair(config.train.loss, config.plan.real_label), penalties_at(config.train, 0, 0),
                       turns_at(config.plan, step), reals, z, z)
    assert ceiling.flop(ceiling.step_products(config)) == counted.get_total_flops() / 2


def test_a_step_of_ours_needs_no_weight_gradients_of_d_in_gs_turn(modules: SimpleNamespace) -> None:
    config = make_config(load_preset("pytorch-faces-64").values, {"train.batch": 2})
    ours = modules.train_ceiling.flop(modules.train_ceiling.step_products(config)) / 2
    script = modules.train_sides.load_plain("pytorch-faces-64")
    networks = script.make_networks()
    with FlopCounterMode(display=False) as counted:
        script.train_step(*networks, *script.make_optimizers(*networks), torch.zeros(2, 3, 64, 64), script.draw_z)
    assert (round(ours / 1e9, 1), round(counted.get_total_flops() / 2e9, 1)) == (2.3, 2.5)


def test_a_gradient_penalty_counts_too(modules: SimpleNamespace) -> None:
    without, with_r1 = (modules.train_ceiling.flop(modules.train_ceiling.step_products(
        make_config(load_preset("pytorch-faces-64").values, {"train.batch": 2, "train.r1_gamma": gamma}))) for gamma in (0, 1))
    assert 1.2 * without < with_r1 < 1.4 * without         # three more of eleven passes through a network


def test_the_three_products_of_a_convolution_have_the_shapes_that_its_maps_need(modules: SimpleNamespace) -> None:
    ceiling = modules.train_ceiling
    x, w, y = torch.empty(2, 3, 8, 8), torch.empty(5, 3, 4, 4), torch.empty(2, 5, 4, 4)
    rest = ((2, 2), (1, 1), (1, 1), False, (0, 0), 1)
    (forward,) = ceiling.products_of(torch.ops.aten.convolution, (x, w, None, *rest))
    backward = list(ceiling.products_of(torch.ops.aten.convolution_backward, (y, x, w, None, *rest, (True, True, False))))
    assert forward == ("down", 2 * 4 * 4, 3 * 4 * 4, 5)
    assert backward == [("up", 2 * 4 * 4, 5, 3 * 4 * 4), ("weigh", 5, 2 * 4 * 4, 3 * 4 * 4)]
    for product in (forward, *backward):
        left, right = product.operands(torch.bfloat16)
        assert (left @ right).shape == (product.rows, product.columns)
        assert product.flop == 2 * 32 * 48 * 5


def test_the_ceiling_is_the_sum_of_the_medians_as_often_as_each_product_comes(modules: SimpleNamespace) -> None:
    product = modules.train_ceiling.Product
    convolution, linear = product("down", 8, 8, 8), product("linear", 4, 4, 4)
    ceiling = modules.train_ceiling.Ceiling({convolution: 3.0, linear: 0.5}, torch.float32)
    ceiling.measure()
    assert all(len(took) == modules.train_ceiling.TIMED and min(took) > 0 for took in ceiling.took_sec.values())
    ceiling.took_sec = {convolution: [1.0, 2.0, 9.0], linear: [4.0]}
    assert (ceiling.seconds(), ceiling.seconds(convolutions_only=True)) == (8.0, 6.0)


def test_the_time_inside_convolutions_is_found_whoever_computes_them_and_is_counted_once(modules: SimpleNamespace) -> None:
    x, w = torch.randn(8, 16, 32, 32, requires_grad=True), torch.randn(32, 16, 4, 4, requires_grad=True)
    geometry = Geometry((4, 4), (2, 2), (1, 1), (1, 1))
    ways: dict[str, Callable[[], Any]] = {
        "torch": lambda: torch.nn.functional.conv2d(x, w, None, 2, 1).sum().backward(),
        "native": lambda: down(x, w, None, geometry, Kernels()).sum().backward(),
        "lowered": lambda: down(x, w, None, geometry, Kernels("lowered", "lowered", "lowered")).sum().backward(),
        "none": lambda: x.sum().backward(),
    }
    found = {}
    for name, way in ways.items():
        side = modules.train_sides.Side(lambda way=way: way() or 1, begin=lambda: None)
        found[name] = modules.train_ceiling.convolutions_share(side)
    assert found.pop("none") == 0
    assert all(0.1 < share <= 1 for share in found.values()), found


# ---------------------------------------------------------------- the machine


@pytest.mark.parametrize(("found", "culprit"), [
    ({"aten": "AVX2", "onednn": "jit:avx2", "mkl": "Intel(R) Advanced Vector Extensions 2 (Intel(R) AVX2) enabled"}, ""),
    ({"aten": "AVX2", "onednn": "brgconv:avx2", "mkl": ""}, ""),
    ({"aten": "AVX512", "onednn": "jit:avx2", "mkl": ""}, "ATen"),
    ({"aten": "AVX2", "onednn": "brgconv:avx512_core", "mkl": ""}, "oneDNN"),
    ({"aten": "AVX2", "onednn": "", "mkl": ""}, "oneDNN"),
    ({"aten": "AVX2", "onednn": "jit:avx2", "mkl": "Intel(R) Advanced Vector Extensions 512 (Intel(R) AVX-512)"}, "MKL"),
])
def test_whoever_is_not_held_back_to_avx2_is_named(modules: SimpleNamespace, found: dict[str, str], culprit: str) -> None:
    assert modules.common.unbound(found).partition(" ")[0] == culprit


@pytest.mark.skipif(not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="an x86 processor with AVX2")
def test_isa_and_spin_run_the_benchmark_again_with_what_must_stand_in_the_environment(
    bench: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        asked.append((command, options["env"]))
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(bench.subprocess, "run", run)
    with pytest.raises(SystemExit) as ended:
        bench.main(["--isa", "avx2", "--spin", "default", "--rounds", "1"])
    assert ended.value.code == 3
    (command, env), = asked
    assert command[1:] == [str(BENCHMARKS / "train_speed.py"), "--isa", "avx2", "--spin", "default", "--rounds", "1"]
    assert (env["ONEDNN_MAX_CPU_ISA"], env["ATEN_CPU_CAPABILITY"], env["GOMP_SPINCOUNT"]) == ("AVX2", "avx2", "300000")


@pytest.mark.parametrize(("option", "value", "remedy"), [
    ("--batch", "1", "pass 2 or more"),
    ("--rounds", "0", "pass 1 or more"),
    ("--threads", "two", "whole number"),
    ("--seconds", "0", "positive number of seconds"),
    ("--preset", "no-such-preset", "coursera-mnist-28"),
    ("--precision", "fp64", "bf16"),
    ("--isa", "sse", "avx2"),
    ("--json", ".", "name of a file"),
])
def test_a_bad_option_is_refused_before_anything_is_measured(
    bench: Any, capsys: pytest.CaptureFixture[str], option: str, value: str, remedy: str,
) -> None:
    with pytest.raises(SystemExit) as stopped:
        bench.parse_args([option, value])
    assert stopped.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert option in message and value in message and remedy in message


# ---------------------------------------------------------------- growth.py


@pytest.mark.usefixtures("same_threads")
def test_growth_is_measured_point_by_point_written_and_drawn(
    modules: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(modules.growth, "BATCH", 4)
    file, picture = tmp_path / "growth.json", tmp_path / "new" / "growth.png"
    modules.growth.main(["images", "--at", "9", "--precision", "fp32", "--threads", "1", "--seconds", "0.01",
                         "--json", str(file), "--plot", str(picture)])
    report = json.loads(file.read_text(encoding="utf-8"))
    assert (report["benchmark"], report["machine"]["threads"]) == ("growth", 1)
    (result,) = report["results"]
    assert (result["axis"], result["value"], result["precision"]) == ("images", 9, "fp32")
    assert result["steps"] >= 3 and result["img_per_sec"] > 0
    assert (result["peak_mb"] is not None) == sys.platform.startswith("linux")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "images" in capsys.readouterr().out


def test_each_axis_of_growth_changes_what_it_is_named_after(modules: SimpleNamespace) -> None:
    def changed(axis: str, value: int) -> tuple[str, int, int, int]:
        config = modules.growth.config_at(axis, value, "fp32", 1)
        return str(config.data.size), config.train.batch, config.network.g_channels, config.network.d_channels

    assert changed("size", 96) == ("96x96", 64, 64, 64)
    assert changed("batch", 8) == ("64x64", 8, 64, 64)
    assert changed("width", 16) == ("64x64", 64, 16, 16)
    assert changed("images", 1000) == ("32x32", 64, 64, 64)


@pytest.mark.parametrize(("arguments", "remedy"), [
    (["depth"], "size, batch, width, images"), (["--at", "16"], "Name that axis alone"), (["--plot", "."], "name of a file"),
])
def test_growth_refuses_what_it_cannot_measure(
    modules: SimpleNamespace, capsys: pytest.CaptureFixture[str], arguments: list[str], remedy: str,
) -> None:
    with pytest.raises(SystemExit) as stopped:
        modules.growth.parse_args(arguments)
    assert stopped.value.code == 2
    assert remedy in capsys.readouterr().err.splitlines()[-1]
