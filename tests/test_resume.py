"""A run that was killed and started again is, bit for bit, the run that was not."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ganvas
from ganvas.checkpoint import read_checkpoint
from ganvas.presets import load_preset, preset_names
from ganvas.report.log import CLOCK_FIELDS, read_rows
from ganvas.run_folder import RunFolder
from ganvas.watcher import Watcher
from makers import image_folder

STEPS = 12
NARROW = {"network.g_channels": 4, "network.d_channels": 4, "output.log_every": "2 steps", "output.grid_every": "5 steps",
          "output.checkpoint_every": "5 steps", "output.grid_n": 4}
KILLED = """
import os, signal, sys, time
from pathlib import Path
import ganvas
from ganvas import engine
from ganvas.ops.convolution import Kernels
from ganvas.run_folder import RunFolder
from test_resume import run_options
engine.fastest = lambda shape: Kernels("native", "lowered", "lowered")       # as in the other process
source, preset, out, precision = sys.argv[1:]
for tick in ganvas.iterate(**run_options(source, preset, out, precision=precision)):
    if tick.stats and tick.step == 8:                    # a row later than the checkpoint of step 5
        while not RunFolder(Path(out)).list_checkpoints():         # a thread writes it
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
"""


class Quiet(Watcher):
    def __init__(self):
        self.lines = []

    def tell(self, text):
        self.lines.append(text)


# What a run can have besides its preset's options, all at once; penalties by second derivatives, or by differences.
EVERYTHING = {
    "network.conditional": True, "data.labels": "folder", "network.g_depth": 1, "network.d_depth": 1, "plan.g_fakes": "fresh",
    "train.r1_gamma": 1.0, "train.r2_gamma": 2.0, "train.gamma_start": 10.0, "train.gamma_ramp_kimg": 0.05,
    "train.penalty_every": 2, "train.ema_half_life_kimg": 0.1, "augment.color": 1.0, "augment.translation": 0.125,
    "augment.cutout": 0.5, "augment.probability": 0.7, "data.mirror": True, "data.rotation_degrees": 10, "data.holdout": 4}
MORE = {"everything": EVERYTHING, "differences": EVERYTHING | {"train.penalty": "differences"}}
CLASSICS = [name for name in preset_names() if load_preset(name).values.get("network.family", "residual") != "residual"]


def run_options(source, preset, out, **more):
    size, own = "28" if preset == "coursera-mnist-28" else "16", MORE.get(preset, {})
    return {"source": source, "preset": "conditional" if own else preset, "out": out, "batch": 8, "size": size, "steps": STEPS,
            "threads": 1, "device": "cpu", "settings": NARROW | own, "watch": Quiet(), **more}


def rows(run: Path):
    return [{name: value for name, value in row.items() if name not in CLOCK_FIELDS} for row in read_rows(RunFolder(run).stats)]


def last_state(run: Path):
    tensors, meta = read_checkpoint(RunFolder(run).list_checkpoints()[-1][1])
    return tensors, meta["nimg"]


@pytest.mark.parametrize(("preset", "precision"), [
    *((preset, "fp32") for preset in (*CLASSICS, "modern-32", "everything")),
    *((preset, "bf16") for preset in ("coursera-mnist-28", "pytorch-faces-64", "differences"))])
def test_killed_and_started_again_equals_an_unbroken_run(preset, precision, tmp_path):
    for kind in range(2):
        image_folder(tmp_path / "images" / f"kind {kind}", n=10, seed=kind)
    source = str(tmp_path / "images")
    command = [sys.executable, "-c", KILLED, source, preset, str(tmp_path / "killed"), precision]
    killed = subprocess.run(command, cwd=Path(__file__).parent, check=False)
    assert killed.returncode == -signal.SIGKILL
    before = rows(tmp_path / "killed")
    again = run_options(source, preset, tmp_path / "killed", precision=precision)
    ganvas.train(**again)
    assert any("goes on from" in line and "(bit-exact)" in line for line in again["watch"].lines)

    ganvas.train(**run_options(source, preset, tmp_path / "straight", precision=precision))
    noted = [json.loads((tmp_path / run / "execution.json").read_text()) for run in ("killed", "straight")]
    assert noted[0]["kernels"] == noted[1]["kernels"] and noted[0]["environment"] == noted[1]["environment"]
    expected, nimg = last_state(tmp_path / "straight")
    found, found_nimg = last_state(tmp_path / "killed")
    assert found_nimg == nimg
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    assert rows(tmp_path / "killed") == rows(tmp_path / "straight")
    assert len(before) == 5                       # steps 1, 2, 4, 6 and 8; the last two were written again
    assert len(rows(tmp_path / "straight")) == 1 + STEPS // 2
