"""Looks at the machine, the installation and the disks: what is fine, what to know, and the line that mends a fault."""

import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ganvas import machine
from ganvas.machine import ROOT

State = Literal["ok", "note", "fault"]

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
LITTLE_DISK, LITTLE_MEMORY = 5 * 10**9, 4 * 10**9
EXTRAS = {
    "examples": "the plain scripts in examples/plain", "inception": "FID and KID in the space of published figures",
    "dev": "tests, lint and the lock"}
CODECS = {"webp": "WebP", "avif": "AVIF", "jpg_2000": "JPEG 2000"}

_PYTORCH = "choose your system at pytorch.org/get-started and run the line it shows"
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_PROC_BIND", "KMP_AFFINITY", "GOMP_CPU_AFFINITY")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. remedy: the line that mends it, or what to do; "" where all is well."""

    name: str
    state: State
    text: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Everything, in an order in which it can be read. A probe that fails is itself a finding; nothing is raised."""
    probes: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("Python", python), ("environment", environment), ("PyTorch", pytorch), ("torchvision", torchvision), ("device", devices),
        ("threads", threads), ("thread variables", thread_variables), ("processor", processor), ("memory", memory),
        ("freed memory", freed_memory), ("C++ compiler", compiler), ("cache", cache_disk), ("runs", runs_disk),
        ("dependencies", dependencies), ("extras", extras), ("image codecs", codecs),
        ("terminal", terminal), ("long paths", long_paths)]
    findings: list[Finding] = []
    for name, probe in probes:
        try:
            findings += probe()
        except Exception as error:
            findings.append(Finding(name, "note", f"could not be examined ({_short(error)})"))
    return findings


# Python.

def python(version: tuple[int, int, int] = sys.version_info[:3], bits: int = 64 if sys.maxsize > 2**32 else 32) -> list[Finding]:
    """Version and word size of this Python."""
    text = f"{'.'.join(map(str, version))}, {bits} bit"
    wanted = "install a 64 bit Python 3.12 from python.org and make a new environment with it"
    if version[:2] < OLDEST_PYTHON or bits != 64:
        return [Finding("Python", "fault", f"{text}; Ganvas needs 3.11 to 3.13 of 64 bit", wanted)]
    if version[:2] > NEWEST_PYTHON:
        return [Finding("Python", "note", f"{text}; tested are 3.11 to 3.13", f"if something fails, {wanted}")]
    return [Finding("Python", "ok", text)]


def environment(prefix: str = sys.prefix, base: str = sys.base_prefix, env: Mapping[str, str] = os.environ) -> list[Finding]:
    """Whether packages of this Python are apart from the system's."""
    if prefix != base or env.get("CONDA_PREFIX"):
        return [Finding("environment", "ok", prefix)]
    if "COLAB_RELEASE_TAG" in env:
        return [Finding("environment", "ok", "Colab's own")]
    return [Finding("environment", "note", f"none: packages go to the system's Python at {prefix}",
                    "python -m venv .venv, then its own pip installs apart from the rest")]


# PyTorch.

def pytorch(load: Callable[[], Any] = lambda: importlib.import_module("torch")) -> list[Finding]:
    """Version and build of torch, after importing it."""
    from packaging.version import Version

    try:
        torch = load()
    except Exception as error:                             # a broken library shows as almost any of them
        return [Finding("PyTorch", "fault", f"cannot be imported ({_short(error)})", f"to install it, {_PYTORCH}")]
    text = f"{torch.__version__}, built for {_build(torch)}"
    if Version(torch.__version__).release < (2, 8):
        return [Finding("PyTorch", "fault", f"{text}; 2.8 or newer is needed", f"to renew it, {_PYTORCH}")]
    return [Finding("PyTorch", "ok", text)]


def torchvision(is_there: bool | None = None,
                load: Callable[[], Any] = lambda: importlib.import_module("torchvision")) -> list[Finding]:
    """Whether torchvision, if it is installed, is the one made for this torch."""
    if not (importlib.util.find_spec("torchvision") is not None if is_there is None else is_there):
        return [Finding("torchvision", "ok", "not installed; only the plain examples need it")]
    try:
        return [Finding("torchvision", "ok", str(load().__version__))]
    except Exception as error:
        return [Finding("torchvision", "fault", f"does not fit this PyTorch ({_short(error)})",
                        f"install torch and torchvision together: {_PYTORCH}")]


def devices(torch: Any = None, root: Path = ROOT, run: Callable[[list[str]], str | None] | None = None,
            env: Mapping[str, str] = os.environ) -> list[Finding]:
    """What can be trained on, and a card that could be but is not."""
    torch = importlib.import_module("torch") if torch is None else torch
    cards = machine.nvidia_cards(root, run)
    if torch.cuda.is_available():
        return [_gpu(torch, index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        return [Finding("device", "ok", "mps: Apple's GPU")]
    if not cards:
        return [Finding("device", "ok", "cpu; no GPU that PyTorch can use was found")]
    shown = f"NVIDIA card found ({', '.join(cards)}), but"
    if torch.version.cuda is None:
        return [Finding("device", "fault", f"{shown} this PyTorch is for {_build(torch)}",
                        f"pip uninstall torch torchvision; then {_PYTORCH}, with CUDA")]
    if (hidden := env.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [Finding("device", "note", f"{shown} CUDA_VISIBLE_DEVICES={hidden!r} hides it", "unset CUDA_VISIBLE_DEVICES")]
    return [Finding("device", "fault", f"{shown} its driver does not serve CUDA {torch.version.cuda}",
                    f"renew the driver (nvidia.com/drivers); or, for an older CUDA, {_PYTORCH}")]


def _gpu(torch: Any, index: int) -> Finding:
    properties = torch.cuda.get_device_properties(index)
    text = f"cuda:{index}: {properties.name}, {_gb(properties.total_memory)}"
    if torch.version.hip:
        return Finding("device", "ok", text)
    major, minor = properties.major, properties.minor
    text += f", capability {major}.{minor}"
    # Code made for 8.0 runs on 8.6; what is meant for later cards than any known then is compiled from "compute".
    built = [name.partition("_")[::2] for name in torch.cuda.get_arch_list()]
    numbers = [(kind, *divmod(int(number.rstrip("af")), 10)) for kind, number in built]
    served = any((have == major and least <= minor) if kind == "sm" else (have, least) <= (major, minor)
                 for kind, have, least in numbers)
    if numbers and not served:
        return Finding("device", "fault", f"{text}: this PyTorch ({_build(torch)}) holds no code for it",
                       f"for a build that does, {_PYTORCH}; or train with --device cpu")
    return Finding("device", "ok", text)


def _build(torch: Any) -> str:
    if torch.version.hip:
        return f"ROCm {torch.version.hip}"
    return f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU only"


# Processors and memory.

def threads(allowed: Collection[int] | None = None, count: int | None = None, root: Path = ROOT) -> list[Finding]:
    """Processors of the machine, the threads that training gets, and why not one for each."""
    count = count or os.cpu_count() or 1
    chosen = machine.training_threads(root, allowed, count)
    return [Finding("threads", "ok", f"{count} processors; {chosen.why or f'threads {chosen.number}: one for each'}")]


def thread_variables(env: Mapping[str, str] = os.environ) -> list[Finding]:
    """Variables that bind the threads of libraries."""
    found = [f"{name}={env[name]}" for name in _THREAD_VARIABLES if name in env]
    if not found:
        return []
    return [Finding("thread variables", "note", f"{', '.join(found)}; --threads decides over PyTorch's own",
                    f"unless meant so: unset {' '.join(item.partition('=')[0] for item in found)}")]


def processor(root: Path = ROOT, capability: Callable[[], str] | None = None) -> list[Finding]:
    """Name and the features on which arithmetic's speed hangs."""
    about = machine.processor(root)
    flags = about.flags if about is not None else frozenset()
    known = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX512-BF16", "amx_tile": "AMX", "asimd": "NEON", "sve": "SVE"}
    parts = [about.name if about is not None else platform.processor() or platform.machine(),
             *(shown for flag, shown in known.items() if flag in flags)]
    try:
        parts.append(f"PyTorch uses {(capability or _torch_capability)()}")
    except Exception:                                      # said above: torch cannot be imported
        parts.append("PyTorch not asked")
    if about is not None and platform.machine() in ("x86_64", "AMD64") and flags and "avx2" not in flags:
        return [Finding("processor", "note", f"{', '.join(parts)}; without AVX2 training takes several times as long",
                        "if this is a virtual machine, let it see the host's processor")]
    return [Finding("processor", "ok", ", ".join(parts))]


def _torch_capability() -> str:
    return str(importlib.import_module("torch").backends.cpu.get_cpu_capability())


def memory(root: Path = ROOT) -> list[Finding]:
    """Memory of the machine and what a container may use of it."""
    total, limit = machine.total_memory(root), machine.memory_limit(root)
    usable = min((amount for amount in (total, limit) if amount is not None), default=None)
    if usable is None:
        return [Finding("memory", "note", "unknown")]
    text = _gb(total) if total is not None else "unknown in all"
    if limit is not None and limit == usable:
        text += f", of which a container may use {_gb(limit)}"
    if usable < LITTLE_MEMORY:
        return [Finding("memory", "note", f"{text}: little", "close other programs, or train with a smaller --batch and --size")]
    return [Finding("memory", "ok", text)]


def freed_memory(version: str | None = None) -> list[Finding]:
    """Whether training on the processor reuses its memory from step to step. version: of glibc; None = this system's."""
    version = version or machine.glibc_version()
    if version is not None:
        return [Finding("freed memory", "ok", f"kept from step to step while training on the processor (glibc {version})")]
    return [Finding("freed memory", "ok", "goes back to the system after each step; only on Linux with glibc can it be kept")]


def compiler(env: Mapping[str, str] = os.environ) -> list[Finding]:
    """The C++ compiler that torch.compile needs on a processor."""
    if (found := machine.cpp_compiler(env)) is not None:
        return [Finding("C++ compiler", "ok", found)]
    asked = f"; CXX={env['CXX']} is no program" if env.get("CXX") else ""
    return [Finding("C++ compiler", "ok", f"none{asked}: training does without torch.compile")]


# Disks.

def cache_disk() -> list[Finding]:
    """The disk of packs and downloads."""
    from ganvas.data.cache import cache_root

    return disk("cache", cache_root(), "set GANVAS_CACHE to a folder on another disk", local_remedy=True)


def runs_disk() -> list[Finding]:
    """The disk of runs."""
    return disk("runs", Path("runs"), "pass --out with a folder on another disk")


def disk(name: str, folder: Path, remedy: str, *, local_remedy: bool = False, root: Path = ROOT,
         env: Mapping[str, str] = os.environ) -> list[Finding]:
    """Room on the disk of `folder` and whether it can be written. local_remedy: slow where it is a network's, as packs are."""
    existing = next((path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()), None)
    if existing is None:
        return [Finding(name, "fault", f"{folder}: there is no such disk", remedy)]
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return [Finding(name, "fault", f"{folder}: cannot be written ({error.strerror or error})", remedy)]
    free = shutil.disk_usage(existing).free
    text = f"{folder}: {_gb(free)} free"
    findings = [Finding(name, "note", f"{text}: little", remedy) if free < LITTLE_DISK else Finding(name, "ok", text)]
    mount = machine.mount_of(folder, root)
    if local_remedy and mount is not None and mount.is_network and not env.get("GANVAS_SCRATCH"):
        findings.append(Finding(name, "note", f"it lies on a network ({mount.kind}), which may be slow to train from",
                                "set GANVAS_SCRATCH to a folder on this machine's own disk"))
    return findings


# The installation.

def dependencies(requires: list[str] | None = None,
                 version_of: Callable[[str], str] = importlib.metadata.version) -> list[Finding]:
    """Whether every package that Ganvas needs is installed, in a version that it may be."""
    wrong = [problem for requirement in _requirements(requires) if (problem := _problem(requirement, version_of))]
    if not wrong:
        return [Finding("dependencies", "ok", "all there, in versions that fit")]
    return [Finding("dependencies", "fault", "; ".join(wrong), "make test or make demo mends the environment of a checkout; "
                    "elsewhere: python -m pip install --upgrade ganvas")]


def extras(requires: list[str] | None = None, version_of: Callable[[str], str] = importlib.metadata.version,
           names: list[str] | None = None) -> list[Finding]:
    """Which of the optional parts are installed, and the line that installs each of the others."""
    names = importlib.metadata.metadata("ganvas").get_all("Provides-Extra") or [] if names is None else names
    texts, lines = [], []
    for name in names:
        there = not any(_problem(requirement, version_of) for requirement in _requirements(requires, extra=name))
        texts.append(f"{name}: {'installed' if there else 'not installed'}{f' ({EXTRAS[name]})' if name in EXTRAS else ''}")
        lines += [] if there else [f"python -m pip install {_pip_name(name)}"]
    return [Finding("extras", "ok", "; ".join(texts) or "there are none", "; ".join(lines))]


def _requirements(requires: list[str] | None, extra: str = "") -> list[Any]:
    """What Ganvas asks for on this system: its core, or what `extra` adds to it. Its own extras in each other are left out."""
    from packaging.requirements import Requirement

    texts = importlib.metadata.requires("ganvas") or [] if requires is None else requires
    found = [requirement for text in texts if (requirement := Requirement(text)).name != "ganvas"]

    def asked(requirement: Requirement, extra: str) -> bool:
        return requirement.marker is None or requirement.marker.evaluate({"extra": extra})

    return [requirement for requirement in found if asked(requirement, extra) and not (extra and asked(requirement, ""))]


def _problem(requirement: Any, version_of: Callable[[str], str]) -> str | None:
    """Why a requirement is not met, or None."""
    wanted = f"{requirement.name}{requirement.specifier}"
    try:
        version = version_of(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{wanted} is missing"
    fits = requirement.specifier.contains(version, prereleases=True)
    return None if fits else f"{wanted} is needed, but {version} is installed"


def _pip_name(extra: str) -> str:
    """What to tell pip for this extra: the checkout, where Ganvas is installed from one."""
    about = json.loads(importlib.metadata.distribution("ganvas").read_text("direct_url.json") or "{}")
    editable = about.get("dir_info", {}).get("editable", False)
    return f'-e ".[{extra}]" (in the checkout)' if editable else f'"ganvas[{extra}]"'


def codecs(check: Callable[[str], bool] | None = None) -> list[Finding]:
    """Which of the rarer image formats this Pillow can read."""
    if check is None:
        from PIL import features

        def check(name: str) -> bool:
            return bool(features.check(name))
    there = [shown for name, shown in CODECS.items() if _known(check, name)]
    missing = [shown for shown in CODECS.values() if shown not in there]
    if not missing:
        return [Finding("image codecs", "ok", ", ".join(there))]
    return [Finding("image codecs", "note", f"this Pillow cannot read {', '.join(missing)}",
                    "python -m pip install --upgrade pillow")]


def _known(check: Callable[[str], bool], name: str) -> bool:
    try:
        return check(name)
    except ValueError:                                     # a Pillow that has not heard of the format
        return False


# The terminal and the system.

def terminal(encoding: str | None = None) -> list[Finding]:
    """Whether the terminal shows every character of a file's name."""
    encoding = encoding or getattr(sys.stdout, "encoding", None) or "ascii"
    if encoding.lower().replace("-", "").replace("_", "") in ("utf8", "cp65001"):
        return [Finding("terminal", "ok", "UTF-8")]
    return [Finding("terminal", "note", f"{encoding}: letters that it lacks are shown as ?", "set PYTHONUTF8=1"
                    + (" and run chcp 65001" if sys.platform == "win32" else ""))]


def long_paths(enabled: Callable[[], bool] | None = None) -> list[Finding]:
    """Whether Windows allows paths of more than 260 characters; nothing elsewhere."""
    if enabled is None and sys.platform != "win32":
        return []
    if (enabled or _long_paths_enabled)():
        return [Finding("long paths", "ok", "allowed")]
    return [Finding("long paths", "note", "paths of more than 260 characters are refused by Windows",
                    "as administrator: reg add HKLM\\SYSTEM\\CurrentControlSet\\Control\\FileSystem /v LongPathsEnabled "
                    "/t REG_DWORD /d 1 /f")]


def _long_paths_enabled() -> bool:
    winreg = importlib.import_module("winreg")             # absent off Windows
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Control\FileSystem") as key:
        return bool(winreg.QueryValueEx(key, "LongPathsEnabled")[0])


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _gb(count: float) -> str:
    return f"{count / 1e9:,.1f} GB"
