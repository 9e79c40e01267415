"""Reads from the system's own files what a machine has and what a container may use of it.

`root` stands before every path, so that a machine can be laid out in a folder; off Linux the files are absent and the
answers None.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")
NETWORK_FILE_SYSTEMS = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs",
    "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "orangefs", "smb3", "smbfs"})

_NO_LIMIT = 2**60                      # cgroup v1 writes 2**63 less one page where there is none
_OCTAL = re.compile(r"\\([0-7]{3})")


class Processor(NamedTuple):
    """The first processor of the machine."""

    name: str
    flags: frozenset[str]              # as Linux writes them, such as avx512_bf16


class Mount(NamedTuple):
    """A file system and where it is mounted."""

    point: str
    kind: str

    @property
    def is_network(self) -> bool:
        return self.kind in NETWORK_FILE_SYSTEMS


def usable_processors() -> int:
    """Processors on which this process may run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota(root: Path = ROOT) -> float | None:
    """Processors' worth of time that the control group allows, the least of all levels; None = no limit."""
    quotas = []
    for folder in _group_folders("cpu", root):
        if (text := _read(folder / "cpu.max")) is not None:                          # v2: "150000 100000" or "max 100000"
            quota, period = (*text.split(), "max", "100000")[:2]
        else:
            quota, period = (_read(folder / f"cpu.cfs_{name}_us") or "-1" for name in ("quota", "period"))
        if quota != "max" and int(quota) > 0 and int(period) > 0:
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory_limit(root: Path = ROOT) -> int | None:
    """Bytes that the control group allows, the least of all levels; None = no limit."""
    texts = [_read(folder / name) for folder in _group_folders("memory", root)
             for name in ("memory.max", "memory.limit_in_bytes")]
    limits = [int(text) for text in texts if text and text != "max"]
    return min((limit for limit in limits if limit < _NO_LIMIT), default=None)


def total_memory(root: Path = ROOT) -> int | None:
    """Bytes of memory in the machine."""
    if match := re.search(r"^MemTotal:\s+(\d+) kB", _read(root / "proc/meminfo") or "", re.MULTILINE):
        return int(match[1]) * 1024
    if sys.platform == "win32":
        return _windows_memory()
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def processor(root: Path = ROOT) -> Processor | None:
    """Name and features of the first processor."""
    text = _read(root / "proc/cpuinfo")
    if text is None:
        return None
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags") or fields.get("Features") or ""                      # the latter on ARM
    return Processor(fields.get("model name") or "unnamed", frozenset(flags.split()))


def mount_of(path: Path, root: Path = ROOT) -> Mount | None:
    """The file system on which `path` lies, or will lie once it is made."""
    real, best = Path(path).absolute(), None
    for existing in (real, *real.parents):
        if existing.exists():
            real = existing.resolve()
            break
    for line in (_read(root / "proc/mounts") or "").splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[1])           # a blank is written \040
        if real.is_relative_to(point) and (best is None or len(point) >= len(best.point)):    # the later covers the earlier
            best = Mount(point, fields[2])
    return best


def nvidia_cards(root: Path = ROOT, run: Callable[[list[str]], str | None] | None = None) -> list[str]:
    """Names of the NVIDIA cards that the driver, or else nvidia-smi, tells of. run: what to call nvidia-smi with."""
    informations = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    found = [match[1].strip() for file in informations if (match := re.search(r"^Model:(.*)$", _read(file) or "", re.MULTILINE))]
    if found:
        return found
    text = (run or output_of)(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
    return [line.strip() for line in (text or "").splitlines() if line.strip()]


def output_of(command: list[str]) -> str | None:
    """What a program prints; None if it is not there, fails, or takes more than 10 seconds."""
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run([program, *command[1:]], capture_output=True, text=True, errors="replace", timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _group_folders(controller: str, root: Path) -> Iterator[Path]:
    """The folders of this process's control group and its parents, of version 2 and of version 1 with `controller`.

    A container may be told its path as the host sees it, which is not there inside: the parents reach what is.
    """
    mounted = root / "sys/fs/cgroup"
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        # Joined controllers have one folder, "cpu,cpuacct", and mostly a link for each.
        for base in [mounted / controllers, mounted / controller] if controllers else [mounted, mounted / "unified"]:
            inner = base / group.strip("/")
            if ".." not in inner.parts and base.is_dir():
                yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(base) and folder.is_dir())


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _windows_memory() -> int | None:
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ulong), ("load", ctypes.c_ulong), ("total", ctypes.c_ulonglong),
                    ("others", ctypes.c_ulonglong * 6))

    status = Status(length=ctypes.sizeof(Status))
    library = getattr(ctypes, "windll").kernel32           # noqa: B009 -- absent off Windows, where mypy looks
    return int(status.total) if library.GlobalMemoryStatusEx(ctypes.byref(status)) else None
