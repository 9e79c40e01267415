"""benchmarks/train_speed.py: that it runs and what it writes; never how fast anything is."""

import importlib.util
import json
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ganvas.config import make_config
from ganvas.data.batches import Batches
from ganvas.ops.augment import augment
from ganvas.presets import load_preset
from ganvas.training import loop

pytest.importorskip("torchvision", reason="the plain scripts import torchvision: pip install ganvas[examples]")
SCRIPT = Path(__file__).parents[1] / "benchmarks" / "train_speed.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_speed", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


@pytest.mark.usefixtures("same_threads")
def test_a_short_run_writes_every_number_the_machine_and_the_date(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "new" / "speed.json"
    bench.main(["--preset", "coursera-mnist-28", "udacity-pokemon-32", "--batch", "4", "--channels", "1", "--threads", "1",
                "--rounds", "2", "--seconds", "0.01", "--json", str(file)])

    report = json.loads(file.read_text(encoding="utf-8"))
    assert (report["benchmark"], report["version"], report["rounds"], report["seconds"]) == ("train_speed", 1, 2, 0.01)
    assert datetime.fromisoformat(report["date_utc"]).utcoffset() == timedelta(0)
    assert report["machine"]["threads"] == 1
    assert report["machine"]["torch"] == torch.__version__
    assert report["machine"]["processor"] and report["machine"]["cores"] >= report["machine"]["usable_cores"] >= 1
    assert [(result["preset"], result["size"]) for result in report["results"]] == [
        ("coursera-mnist-28", "28x28"), ("udacity-pokemon-32", "32x32")]
    for result in report["results"]:
        assert (result["batch"], result["channels"]) == (4, 1)
        for name in ("plain_img_per_sec", "our_img_per_sec", "ratio", "data_share_percent"):
            check_spread(result[name], rounds=2)
        pairs = zip(result["our_img_per_sec"]["rounds"], result["plain_img_per_sec"]["rounds"], strict=True)
        assert result["ratio"]["rounds"] == [ours / plain for ours, plain in pairs]
        assert result["data_share_percent"]["max"] < 100

    table = capsys.readouterr().out
    assert "coursera-mnist-28" in table and "udacity-pokemon-32" in table and str(file) in table


def test_the_sides_take_turns_in_both_orders_and_in_whole_pairs_of_steps(bench: ModuleType) -> None:
    seen: list[str] = []

    def step(side: str) -> None:
        seen.append(side)
        time.sleep(0.0001)                               # a coarse clock must see that time has passed

    result = bench.measure_pair(partial(step, "a"), partial(step, "b"), batch=1, rounds=2, seconds=0.0)
    warm_up, first, second = "aabb", "aa bb bb aa", "bb aa aa bb"
    assert "".join(seen) == (warm_up + first + second).replace(" ", "")
    check_spread(result["ratio"], rounds=2)


def test_the_data_share_times_the_loop_with_the_presets_rotation_and_leaves_it_as_it_was(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch,
) -> None:
    rotations: list[float] = []

    def watched(images: Tensor, seed: int, indices: NDArray[np.int64], rotation_degrees: float, mirror: bool) -> Tensor:
        rotations.append(rotation_degrees)
        return augment(images, seed, indices, rotation_degrees, mirror)

    monkeypatch.setattr(loop, "augment", watched)
    monkeypatch.setattr(bench, "NUM_IMAGES", 16)
    before = {name: getattr(loop, name) for name in ("to_float", "augment", "draw_z")}, Batches.start
    config = make_config(load_preset("coursera-mnist-28").values, {"train.batch": 4})

    share = bench.measure_data_share(config, bench.RandomImages(config), rounds=1, seconds=0.01)
    assert 0 < share["median"] < 100
    assert set(rotations) == {20.0}
    assert ({name: getattr(loop, name) for name in ("to_float", "augment", "draw_z")}, Batches.start) == before


@pytest.mark.parametrize(("option", "value", "remedy"), [
    ("--batch", "1", "pass 2 or more"),
    ("--rounds", "0", "pass 1 or more"),
    ("--threads", "two", "whole number"),
    ("--seconds", "0", "positive number of seconds"),
    ("--preset", "no-such-preset", "coursera-mnist-28"),
    ("--json", ".", "name of a file"),
])
def test_a_bad_option_is_refused_before_anything_is_measured(
    bench: ModuleType, capsys: pytest.CaptureFixture[str], option: str, value: str, remedy: str,
) -> None:
    with pytest.raises(SystemExit) as stopped:
        bench.parse_args([option, value])
    assert stopped.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert option in message and value in message and remedy in message
