"""What a machine has, what a container may use of it, and how much of that training takes: threads and freed memory.

Mostly read from the system's own files. `root` stands before every path, so that a machine can be laid out in a folder;
off Linux the files are absent and the answers None.
"""

import contextlib
import ctypes
import functools
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")
NETWORK_FILE_SYSTEMS = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs",
    "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "orangefs", "smb3", "smbfs"})

# The numbers by which malloc.h names what mallopt sets.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
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


class Memory(NamedTuple):
    """Bytes of memory in a machine."""

    total: int
    free: int


class Threads(NamedTuple):
    """How many threads training gets, and why it is not one for each processor of the machine ("" where it is)."""

    number: int
    why: str


def allowed_processors() -> Collection[int]:
    """The numbers of the processors on which this process may run; all of them where the system does not say."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)


def usable_processors(root: Path = ROOT) -> int:
    """Workers that independent work such as decoding gains from: the processors that this process may run on, hyper-threads
    included, but no more than the control group's quota keeps busy.
    """
    allowed, quota = len(allowed_processors()), cpu_quota(root)
    return allowed if quota is None else min(allowed, math.ceil(quota))


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


def training_threads(root: Path = ROOT, allowed: Collection[int] | None = None, count: int | None = None) -> Threads:
    """One thread for each core that this process may use, at most the control group's quota, rounded.

    allowed: numbers of the processors it may run on; count: how many the machine has; both None = this one's.
    Two hyper-threads share the multipliers of one core, which a matrix product keeps busy from one of them (PyTorch's own
    default, MKL's, is the number of cores, too). A quota of 1.5 processors is used best by two threads: against one, a step of
    coursera-mnist-28 was 1.30 times as fast, at 1.25 1.09 times, at 1 0.81 times, as the threads are stopped at the same time.
    """
    allowed = allowed_processors() if allowed is None else allowed
    count, quota = count or os.cpu_count() or 1, cpu_quota(root)
    cores = usable_cores(root, allowed)
    if quota is not None and (paid := max(1, math.floor(quota + 0.5))) < cores:
        return Threads(paid, f"threads {paid}: the container's quota is {quota:g} processors, and more threads would wait for "
                             "each other")
    if cores < len(allowed):
        return Threads(cores, f"threads {cores}: one for each full core of the {len(allowed)} processors that may be used; "
                              "hyper-threads and power-saving cores speed up no matrix product")
    return Threads(cores, f"threads {cores}: this process may use {cores} of {count} processors" if cores < count else "")


def usable_cores(root: Path, allowed: Collection[int], ask: Callable[[list[str]], str | None] | None = None) -> int:
    """How many cores the processors `allowed` belong to; without those that Apple made to save power. ask: for sysctl.

    Where the system does not say (Windows, some containers), each processor counts as a core.
    """
    siblings = {number: _read(root / f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list") for number in allowed}
    if sys.platform == "darwin" and not any(siblings.values()):
        for name in ("hw.perflevel0.physicalcpu", "hw.physicalcpu"):                 # Apple's own processors; Intel's
            answer = ((ask or output_of)(["/usr/sbin/sysctl", "-n", name]) or "").strip()
            if answer.isdecimal():
                return min(int(answer), len(allowed))
    return len({shared or str(number) for number, shared in siblings.items()})


def memory_limit(root: Path = ROOT) -> int | None:
    """Bytes that the control group allows, the least of all levels; None = no limit."""
    return min((limit for limit, _ in _group_memory(root)), default=None)


def total_memory(root: Path = ROOT) -> int | None:
    """Bytes of memory in the machine."""
    if match := re.search(r"^MemTotal:\s+(\d+) kB", _read(root / "proc/meminfo") or "", re.MULTILINE):
        return int(match[1]) * 1024
    if sys.platform == "win32":
        found = _windows_memory()
        return None if found is None else found.total
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def free_memory(root: Path = ROOT, ask: Callable[[list[str]], str | None] | None = None) -> int | None:
    """Bytes that can be had now without anything being swapped out, within the control group's limit; None = unknown.

    Files' pages that the system keeps only as long as nobody else wants them count as free. ask: for vm_stat, on a Mac.
    """
    left = [limit - used for limit, used in _group_memory(root)]
    if match := re.search(r"^MemAvailable:\s+(\d+) kB", _read(root / "proc/meminfo") or "", re.MULTILINE):
        left.append(int(match[1]) * 1024)
    elif sys.platform == "win32":
        left += [] if (memory := _windows_memory()) is None else [memory.free]
    elif sys.platform == "darwin" and (found := (ask or output_of)(["vm_stat"])):
        page = re.search(r"page size of (\d+) bytes", found)
        pages = re.findall(r"^Pages (?:free|inactive|speculative):\s+(\d+)", found, re.MULTILINE)
        left += [int(page[1]) * sum(map(int, pages))] if page and pages else []
    return max(0, min(left)) if left else None


def own_memory(root: Path = ROOT) -> int | None:
    """Bytes of this process that no file stands behind, which free_memory() does not count; None = unknown."""
    found = re.search(r"^RssAnon:\s+(\d+) kB", _read(root / "proc/self/status") or "", re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _group_memory(root: Path) -> Iterator[tuple[int, int]]:
    """(limit, used) in bytes of each level of the control group that has a limit. used: without files' pages that can go; 0
    where it is not told."""
    names = (("memory.max", "memory.current", "inactive_file"),
             ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))
    for folder in _group_folders("memory", root):
        for limit_name, used_name, idle_name in names:
            limit, used = _read(folder / limit_name), _read(folder / used_name)
            if limit and limit != "max" and int(limit) < _NO_LIMIT:
                idle = re.search(rf"^{idle_name} (\d+)", _read(folder / "memory.stat") or "", re.MULTILINE)
                yield int(limit), max(0, int(used or 0) - (int(idle[1]) if idle else 0))


def keep_freed_memory() -> bool:
    """From now on what is freed is kept for the next allocation instead of being given back; False where that cannot be had.

    PyTorch allocates every activation anew in each step, and glibc maps what is larger than 32 MiB at most and unmaps it when
    it is freed: the system clears every page of it again. A step of pytorch-faces-64 at batch 128 had 334,000 page faults, a
    fifth of its time; with this it has none, at the same peak of memory. The numbers of a training stay the same. It concerns
    the whole process; release_freed_memory() gives back what is free at that moment, default_memory() ends it. Only glibc,
    hence Linux, can be asked.
    """
    # Both are needed: blocks of the heap, not of their own, and a heap whose top is never cut off.
    return _mallopt({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1})


def default_memory() -> bool:
    """Freed memory is given back again, as glibc does it in the steady state of a training; False where nothing can be set.

    There glibc has raised its own thresholds to their largest values, which setting anything stops it from doing.
    """
    # glibc's malloc.c: DEFAULT_MMAP_MAX, DEFAULT_MMAP_THRESHOLD_MAX of 64 bit, and for trimming twice that.
    done = _mallopt({_M_MMAP_MAX: 65_536, _M_MMAP_THRESHOLD: 2**25, _M_TRIM_THRESHOLD: 2**26})
    release_freed_memory()
    return done


@contextlib.contextmanager
def kept_memory(device: str) -> Iterator[None]:
    """Within it freed memory is kept, where training on this device gains from that."""
    kept = device == "cpu" and keep_freed_memory()
    try:
        yield
    finally:
        if kept:
            default_memory()


def release_freed_memory() -> None:
    """Gives back to the system what is free now, where keep_freed_memory() can keep it."""
    if (library := _glibc()) is not None:
        library.malloc_trim(ctypes.c_size_t(0))


def glibc_version() -> str | None:
    """The version of the GNU C library that this process runs on; None on any other."""
    if (library := _glibc()) is None:
        return None
    library.gnu_get_libc_version.restype = ctypes.c_char_p
    return str(library.gnu_get_libc_version().decode())


def cpp_compiler(env: Mapping[str, str] = os.environ) -> str | None:
    """The C++ compiler that torch.compile would call, found; None if it is not there. It asks for CXX first, as PyTorch does."""
    usual = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    return shutil.which(env.get("CXX") or usual)


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


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)                            # the process itself, with the C library that it runs on
    return library if all(hasattr(library, name) for name in ("gnu_get_libc_version", "mallopt", "malloc_trim")) else None


def _mallopt(settings: Mapping[int, int]) -> bool:
    """Sets all of them; False where one could not be."""
    library = _glibc()
    return library is not None and all(library.mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1
                                       for name, value in settings.items())


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _windows_memory() -> Memory | None:
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ulong), ("load", ctypes.c_ulong), ("total", ctypes.c_ulonglong),
                    ("free", ctypes.c_ulonglong), ("others", ctypes.c_ulonglong * 5))

    status = Status(length=ctypes.sizeof(Status))
    library = getattr(ctypes, "windll").kernel32           # noqa: B009 -- absent off Windows, where mypy looks
    return Memory(int(status.total), int(status.free)) if library.GlobalMemoryStatusEx(ctypes.byref(status)) else None
