"""benchmarks/data.py: that it runs and what it writes; never how fast anything is."""

import importlib.util
import json
import sys
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganvas.data.sources import open_source
from makers import image_folder

pytest.importorskip("torchvision", reason="packing is compared with torchvision: pip install ganvas[examples]")
SCRIPT = Path(__file__).parents[1] / "benchmarks" / "data.py"
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="anonymous memory is read from /proc")


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("benchmark_of_data", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module                      # the DataLoader's processes look for it where they are spawned
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def check_spread(spread: dict[str, Any], rounds: int) -> None:
    assert len(spread["rounds"]) == rounds
    assert 0 < spread["min"] == min(spread["rounds"]) <= spread["median"] <= spread["max"] == max(spread["rounds"])


@ON_LINUX
def test_a_quick_run_measures_what_is_there_and_tells_what_is_not(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    images = image_folder(tmp_path / "images", 6)
    with zipfile.ZipFile(tmp_path / "cifar10-jpeg.zip", "w") as packed:
        for path in sorted(images.iterdir()):
            packed.write(path, path.name)
    file = tmp_path / "new" / "data.json"
    bench.main(["--quick", "--rounds", "2", "--workers", "1", "--data", str(tmp_path), "--json", str(file)])

    report = json.loads(file.read_text(encoding="utf-8"))
    assert (report["benchmark"], report["version"], report["rounds"], report["quick"]) == ("data", 1, 2, True)
    assert datetime.fromisoformat(report["date_utc"]).utcoffset() == timedelta(0)
    assert report["machine"]["processor"] and report["machine"]["cores"] >= 1
    packing, twins, memory = (report["results"][kind] for kind in ("packing", "twins", "memory"))
    assert [(result["set"], result["images"]) for result in packing] == [("cifar10-jpeg", 6), ("photographs", 4)]
    for result in packing:
        assert result["workers"] == 1
        for name in ("our_img_per_sec", "torchvision_img_per_sec", "ratio"):
            check_spread(result[name], rounds=2)
        assert min(result["our_cpu_usec"]["rounds"] + result["torchvision_cpu_usec"]["rounds"]) >= 0    # its clock is coarse
    assert [(result["set"], result["images"]) for result in twins] == [("cifar10-jpeg.zip", 6)]
    assert [result["images"] for result in memory] == [500, 2000]
    for result in memory:
        assert result["disk_bytes"] > result["images"] * 3072
        assert result["pack_peak_bytes"] >= result["start_bytes"] > 0

    told = capsys.readouterr().out
    assert "faces-96: left out, because" in told
    assert "mnist: left out, because" in told
    assert "ours / tv" in told and str(file) in told


def test_both_sides_read_every_image(bench: ModuleType, tmp_path: Path) -> None:
    image_folder(tmp_path / "set" / "all", 5)
    assert bench.pack_all(tmp_path / "set", 8, 1) == bench.load_all(tmp_path / "set", 8, 0) == 5


def test_the_sides_take_turns_in_both_orders(bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def side(name: str, seconds: float) -> Any:
        def run(folder: Path, size: int, workers: int) -> int:
            seen.append(name)
            bench.threading.Event().wait(seconds)
            return 1
        return run

    monkeypatch.setattr(bench, "pack_all", side("ours", 0.01))
    monkeypatch.setattr(bench, "load_all", side("theirs", 0.02))
    result = bench.measure_pair(tmp_path, 8, 1, rounds=3)
    assert seen == ["theirs", "ours", "ours", "theirs", "theirs", "ours"]
    assert result["ratio"]["median"] > 1                 # ours took half the time


def test_photographs_are_of_the_size_asked_for_and_all_different(bench: ModuleType, tmp_path: Path) -> None:
    bench.write_photographs(tmp_path / "photographs", 3, 160)
    images = [Image.open(path) for path in sorted((tmp_path / "photographs").iterdir())]
    assert [image.size for image in images] == [(160, 120)] * 3
    assert len({image.tobytes() for image in images}) == 3


def test_synthetic_images_all_differ_and_are_made_when_asked_for(bench: ModuleType) -> None:
    source = bench.Synthetic(1_000_000)
    assert len(source) == 1_000_000
    assert source.load(999_999).shape == (32, 32, 3)
    assert len({source.load(index).tobytes() for index in range(0, 1_000_000, 997)}) == 1004


@ON_LINUX
def test_memory_that_no_file_stands_behind_is_counted(bench: ModuleType) -> None:
    with bench.peak_memory() as peak:
        block = np.ones(2**26, np.uint8)                 # 64 MiB
    assert 2**26 <= peak.peak - peak.start < 2**27
    assert block[-1] == 1


def test_the_first_images_of_a_source_are_a_source(bench: ModuleType, tmp_path: Path) -> None:
    whole = open_source(image_folder(tmp_path / "images", 4))
    some = bench.FirstOf(whole, 3)
    assert [some.item_name(index) for index in range(len(some))] == [whole.item_name(index) for index in range(3)]
    assert some.load(2) == whole.load(2)
    assert some.stamp != whole.stamp


@pytest.mark.parametrize(("options", "remedy"), [
    (["speed"], "packing, twins, memory"),
    (["--rounds", "0"], "pass 1 or more"),
    (["--workers", "two"], "--workers"),
    (["--json", "."], "name of a file"),
])
def test_a_bad_option_is_refused_before_anything_is_measured(
    bench: ModuleType, capsys: pytest.CaptureFixture[str], options: list[str], remedy: str,
) -> None:
    with pytest.raises(SystemExit) as stopped:
        bench.parse_args(options)
    assert stopped.value.code == 2
    assert remedy in capsys.readouterr().err.splitlines()[-1]
