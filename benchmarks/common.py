"""What the benchmarks of training share: the machine and what its libraries use of it, options, and what is kept of rounds."""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ganvas import __version__
from ganvas.config import RunConfig, make_config
from ganvas.engine import bf16_by, suited
from ganvas.machine import glibc_version, output_of, processor, training_threads
from ganvas.presets import load_preset

# oneDNN computes convolutions and bfloat16 products, MKL products in float32, ATen the rest: all three are held back.
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
LIBGOMP_SPIN = {"GOMP_SPINCOUNT": "300000"}              # what libgomp takes where nothing is said; ours is in ganvas/__init__.py
# One convolution and one product, each of which the libraries then tell about.
VERBOSE = ("import torch; torch.nn.functional.conv2d(torch.ones(2, 16, 8, 8), torch.ones(16, 16, 3, 3)); "
           "torch.ones(64, 64) @ torch.ones(64, 64)")
NEVER = "1000000000 steps"

Spread = dict[str, Any]        # median, min, max, and rounds: the value of each round


def config_of(name: str, precision: str, threads: int, **given: Any) -> RunConfig:
    """The preset as `ganvas train` would run it on this machine without end, in `precision`, and without pictures.

    given: what is not as in the preset, {"train__batch": 16} for train.batch; None = as there. Pictures and checkpoints have a
    cadence in epochs, and a benchmark's few images would make those far too short.
    """
    preset = load_preset(name).values
    family = make_config(preset).network.family
    return make_config(
        preset, {option: value for option, (value, _) in suited("cpu", family).items()},
        {"length": NEVER, "output.grid_every": NEVER, "output.checkpoint_every": NEVER, "execution.threads": threads,
         "execution.precision": precision},
        {option.replace("__", "."): value for option, value in given.items() if value is not None})


def usual_precisions() -> list[str]:
    """What training may compute in on this machine without being slowed down."""
    return ["fp32", "bf16"] if bf16_by("cpu") else ["fp32"]


def spread(values: list[float]) -> Spread:
    """What is kept of a quantity that was measured in each round."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "rounds": values}


# ---------------------------------------------------------------- the machine


def machine(threads: int) -> dict[str, Any]:
    """What a measurement depends on besides the code."""
    found = processor()
    name = found.name if found else (output_of(["sysctl", "-n", "machdep.cpu.brand_string"]) or platform.processor()).strip()
    return {
        "processor": name or platform.machine(), "bf16_by": bf16_by("cpu"), "cores": os.cpu_count(),
        "usable_cores": training_threads().number, "threads": threads, "spin": os.environ.get("GOMP_SPINCOUNT", ""),
        "instructions": instructions(), "system": platform.platform(), "glibc": glibc_version(),
        "python": platform.python_version(), "torch": torch.__version__, "ganvas": __version__,
    }


def instructions() -> dict[str, str]:
    """What the libraries use of the processor: ATen by what it tells, oneDNN and MKL by what they say of a process of their own.

    "" where a library says nothing, as where it is not there.
    """
    told = subprocess.run(
        [sys.executable, "-c", VERBOSE], capture_output=True, encoding="utf-8", errors="replace", check=False,
        env=os.environ | {"ONEDNN_VERBOSE": "1", "MKL_VERBOSE": "1", "OMP_NUM_THREADS": "1"}).stdout
    convolution = re.search(r"^onednn_verbose.*?,exec,cpu,convolution,([^,]*)", told, re.MULTILINE)
    mkl = re.search(r"^MKL_VERBOSE .*? 64 architecture (.*?) processors", told, re.MULTILINE)
    return {"aten": torch.backends.cpu.get_cpu_capability(), "onednn": convolution[1] if convolution else "",
            "mkl": mkl[1] if mkl else ""}


def unbound(found: Mapping[str, str]) -> str:
    """Which library the variables of AVX2 do not hold back, for people; "" if they bind.

    found: as `instructions` gives it. oneDNN must say so; MKL tells nothing on processors that are not Intel's.
    """
    if found["aten"] != "AVX2":
        return f"ATen uses {found['aten']}"
    if "avx2" not in found["onednn"]:                                # such as "jit:avx2", "brgconv:avx2"
        return f"oneDNN computes a convolution by {found['onednn'] or 'something that it does not tell'}"
    if "512" in found["mkl"] or "AMX" in found["mkl"]:
        return f"MKL uses {found['mkl']}"
    return ""


def described(where: Mapping[str, Any]) -> str:
    """The machine, for a table's head."""
    uses = where["instructions"]
    return (f"{where['processor']}, {where['threads']} of {where['cores']} cores, torch {where['torch']}; ATen {uses['aten']}, "
            f"oneDNN {uses['onednn'] or '-'}, MKL {uses['mkl'] or '-'}")


# ---------------------------------------------------------------- options


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """--precision and --threads, with what a training takes as the defaults."""
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), metavar="NAME", default=usual_precisions(),
                        help="what our networks compute in: fp32, bf16 (default: those that this processor is made for)")
    parser.add_argument("--threads", type=at_least(1), default=training_threads().number,
                        help="CPU threads of torch (default: as a training takes, here %(default)s)")


def at_least(smallest: int) -> Callable[[str], int]:
    """Of an option's text: the whole number, if it is not below `smallest`."""
    def parse(text: str) -> int:
        if (value := int(text)) < smallest:
            raise argparse.ArgumentTypeError(f"{value} is too small: pass {smallest} or more")
        return value
    parse.__name__ = "whole number"                                  # argparse: "invalid whole number value: 'x'"
    return parse


def positive_seconds(text: str) -> float:
    if not 0 < (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a time: pass a positive number of seconds")
    return value
