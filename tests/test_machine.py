import os
import subprocess
import sys
from pathlib import Path

import pytest

from ganvas import machine


@pytest.fixture
def lay(tmp_path):
    """Writes the files of a machine, {path: text}, under one folder and returns it."""
    def lay(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n", encoding="utf-8")
        return tmp_path
    return lay


V2 = "0::/user/job"
V1 = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc"


@pytest.mark.parametrize(("files", "quota"), [
    ({}, None),
    ({"proc/self/cgroup": V2, "sys/fs/cgroup/user/job/cpu.max": "max 100000"}, None),
    ({"proc/self/cgroup": V2, "sys/fs/cgroup/user/job/cpu.max": "150000 100000"}, 1.5),
    ({"proc/self/cgroup": V2, "sys/fs/cgroup/user/job/cpu.max": "max 100000", "sys/fs/cgroup/user/cpu.max": "50000 100000"}, 0.5),
    ({"proc/self/cgroup": "0::/host/only", "sys/fs/cgroup/cpu.max": "400000 100000"}, 4),
    ({"proc/self/cgroup": "0::/../../other", "sys/fs/cgroup/cpu.max": "200000 100000"}, None),
    ({"proc/self/cgroup": V1, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
      "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000"}, None),
    ({"proc/self/cgroup": V1, "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us": "250000",
      "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us": "100000"}, 2.5),
    ({"proc/self/cgroup": V1, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "300000",
      "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000"}, 3),
])
def test_the_quota_is_the_least_of_all_levels_of_either_version(lay, files, quota):
    assert machine.cpu_quota(lay(files)) == quota


def cores(*shared):
    """The files that say which processors share a core: "0,4" and so on."""
    return {f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list": siblings
            for siblings in shared for number in siblings.split(",")}


def group(quota):
    return {"proc/self/cgroup": V2, "sys/fs/cgroup/user/job/cpu.max": f"{int(quota * 100_000)} 100000"}


HYPER = cores("0,4", "1,5", "2,6", "3,7")


@pytest.mark.parametrize(("files", "allowed", "threads", "said"), [
    ({}, range(8), 8, ""),
    (cores(*"01234567"), range(8), 8, ""),
    (HYPER, range(8), 4, "threads 4: one for each full core of the 8 processors"),
    (HYPER, {0, 4}, 1, "threads 1: one for each full core of the 2 processors"),
    (HYPER, {0, 1, 6}, 3, "threads 3: this process may use 3 of 8 processors"),
    (HYPER, {0, 1, 2, 4}, 3, "threads 3: one for each full core of the 4 processors"),
    (group(2.4), range(8), 2, "threads 2: the container's quota is 2.4 processors"),
    (group(1.5), range(8), 2, "threads 2: the container's quota is 1.5 processors"),
    (group(0.5), range(8), 1, "threads 1: the container's quota is 0.5 processors"),
    (group(3.4) | HYPER, range(8), 3, "quota is 3.4"),
    (group(6) | HYPER, range(8), 4, "full core"),
    (group(8), range(8), 8, "")])
def test_threads_are_the_cores_that_are_allowed_and_paid_for(lay, monkeypatch, files, allowed, threads, said):
    monkeypatch.setattr(sys, "platform", "linux")
    chosen = machine.training_threads(lay(files), allowed, count=8)
    assert chosen.number == threads
    assert chosen.why.startswith(said) if said.startswith("threads") else said in chosen.why
    assert (chosen.why == "") == (said == "")


@pytest.mark.parametrize(("answers", "count"), [
    ({"hw.perflevel0.physicalcpu": "6\n", "hw.physicalcpu": "8\n"}, 6), ({"hw.physicalcpu": "4\n"}, 4), ({}, 8)])
def test_a_mac_is_asked_for_its_performance_cores_and_else_for_its_cores(tmp_path, monkeypatch, answers, count):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert machine.usable_cores(tmp_path, range(8), lambda command: answers.get(command[-1])) == count


@pytest.mark.parametrize(("quota", "count"), [(None, 8), (0.5, 1), (2.5, 3), (64, 8)])
def test_decoding_uses_every_processor_that_the_quota_keeps_busy(lay, monkeypatch, quota, count):
    monkeypatch.setattr(machine, "allowed_processors", lambda: range(8))
    assert machine.usable_processors(lay({} if quota is None else group(quota))) == count


@pytest.mark.parametrize(("files", "limit"), [
    ({}, None),
    ({"proc/self/cgroup": V2, "sys/fs/cgroup/user/job/memory.max": "max"}, None),
    ({"proc/self/cgroup": V2, "sys/fs/cgroup/user/job/memory.max": "8000", "sys/fs/cgroup/user/memory.max": "6000"}, 6000),
    ({"proc/self/cgroup": V1, "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}, None),
    ({"proc/self/cgroup": V1, "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "5000"}, 5000),
])
def test_the_memory_limit_is_the_least_of_all_levels_of_either_version(lay, files, limit):
    assert machine.memory_limit(lay(files)) == limit


def test_memory_is_read_from_meminfo_and_asked_of_the_system_elsewhere(lay, tmp_path):
    assert machine.total_memory(lay({"proc/meminfo": "MemTotal:       16384 kB\nMemFree: 1 kB"})) == 16384 * 1024
    assert machine.total_memory(tmp_path / "nothing") > 10**8


MEMINFO = {"proc/meminfo": "MemTotal:       100 kB\nMemAvailable:   40 kB"}


@pytest.mark.parametrize(("files", "free"), [
    ({}, 40 * 1024),
    ({"user/memory.max": "max", "user/memory.current": "9"}, 40 * 1024),
    ({"user/memory.max": "6000"}, 6000),
    ({"user/memory.max": "6000", "user/memory.current": "7000"}, 0),
    ({"user/memory.max": "6000", "user/memory.current": "5000", "user/memory.stat": "anon 1\ninactive_file 2000"}, 3000),
    ({"user/memory.max": "6000", "user/memory.current": "100", "user/job/memory.max": "5000", "user/job/memory.current": "90"},
     4910),
])
def test_free_memory_is_the_least_of_what_the_system_has_and_each_level_leaves(lay, files, free):
    group = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    assert machine.free_memory(lay(MEMINFO | {"proc/self/cgroup": V2} | group)) == free


def test_free_memory_knows_groups_of_version_1(lay):
    group = {"memory.limit_in_bytes": "8000", "memory.usage_in_bytes": "5000",
             "memory.stat": "inactive_file 1\ntotal_inactive_file 1000"}
    files = {f"sys/fs/cgroup/memory/{name}": text for name, text in group.items()}
    assert machine.free_memory(lay(MEMINFO | {"proc/self/cgroup": V1} | files)) == 4000


def test_without_groups_the_systems_own_word_counts(lay):
    assert machine.free_memory(lay(MEMINFO)) == 40 * 1024


def test_a_mac_is_asked_for_its_free_pages(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    said = ("Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages free:        10.\nPages active:      500.\n"
            "Pages inactive:     5.\nPages speculative:  1.\nPages throttled:    7.\n")
    assert machine.free_memory(tmp_path, lambda command: said) == 16 * 16384
    assert machine.free_memory(tmp_path, lambda command: None) is None
    assert machine.free_memory(tmp_path, lambda command: "otherwise") is None


def test_a_processs_own_memory_is_what_no_file_stands_behind(lay, tmp_path):
    assert machine.own_memory(lay({"proc/self/status": "Name:\tpython\nVmRSS:\t  90 kB\nRssAnon:\t  50 kB\nRssFile:\t  40 kB"})
                              ) == 50 * 1024
    assert machine.own_memory(tmp_path / "nothing") is None


def test_the_processor_is_the_first_one_listed(lay):
    root = lay({"proc/cpuinfo": "processor\t: 0\nmodel name\t: Fast One\nflags\t\t: fpu avx2\n\n"
                                "processor\t: 1\nmodel name\t: Other"})
    assert machine.processor(root) == ("Fast One", {"fpu", "avx2"})


def test_an_arm_processor_has_features_and_perhaps_no_name(lay):
    root = lay({"proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd sve"})
    assert machine.processor(root) == ("unnamed", {"fp", "asimd", "sve"})


def test_without_the_systems_files_the_answer_is_none(tmp_path):
    assert machine.processor(tmp_path) is None
    assert machine.mount_of(tmp_path, tmp_path) is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such table")
def test_a_folder_belongs_to_the_innermost_mount(lay, tmp_path):
    inner = str(tmp_path / "net work").replace(" ", r"\040")
    root = lay({"proc/mounts": f"/dev/sda / ext4 rw 0 0\nserver:/x {inner} nfs4 rw 0 0\nodd line"})
    (tmp_path / "net work").mkdir()
    assert machine.mount_of(tmp_path / "net work" / "not" / "yet", root) == (str(tmp_path / "net work"), "nfs4")
    assert machine.mount_of(tmp_path / "net work", root).is_network
    assert machine.mount_of(tmp_path, root) == ("/", "ext4")
    assert not machine.mount_of(tmp_path, root).is_network


def test_nvidia_cards_are_found_by_the_driver_and_else_by_its_program(lay, tmp_path):
    root = lay({"proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA H200\nIRQ: 5"})
    assert machine.nvidia_cards(root, run=lambda command: "not asked") == ["NVIDIA H200"]
    none = tmp_path / "none"
    assert machine.nvidia_cards(none, run=lambda command: "GTX 970\nTesla K80\n") == ["GTX 970", "Tesla K80"]
    assert machine.nvidia_cards(none, run=lambda command: None) == []


def test_a_program_that_is_absent_or_fails_has_no_output():
    assert machine.output_of(["no-such-program-anywhere"]) is None
    assert machine.output_of([sys.executable, "-c", "raise SystemExit(9)"]) is None
    assert machine.output_of([sys.executable, "-c", "print('yes')"]).strip() == "yes"


# ---------------------------------------------------------------- freed memory

# Page faults of 4 allocations of 64 MiB that are written to: 16,384 pages each, unless the memory stays.
FAULTS = """
import resource
import numpy as np
from ganvas import machine

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        np.empty(2**26, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return sum(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) // 1024

print(faults(), machine.keep_freed_memory(), faults(), faults(), resident())
machine.release_freed_memory()
print(resident())
print(machine.default_memory(), faults(), resident())
"""


@pytest.mark.skipif(machine.glibc_version() is None, reason="only glibc can be told to keep freed memory")
def test_freed_memory_is_kept_until_it_is_released_or_the_default_returns():
    # numpy asks for huge pages, of which a fault brings 512 at once, or none.
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True,
                          env=dict(os.environ, NUMPY_MADVISE_HUGEPAGE="0", MALLOC_ARENA_MAX="1"))
    usual, kept, settling, none, held, released, back, again, given_back = done.stdout.split()
    assert (kept, back) == ("True", "True")
    assert int(usual) > 60_000 and int(again) > 60_000
    assert int(settling) < int(usual) / 2 and int(none) < 100
    assert int(released) < int(held) - 50 and int(given_back) < int(held) - 50


@pytest.mark.skipif(machine.glibc_version() is None, reason="only glibc can be told to keep freed memory")
def test_threads_can_still_allocate_more_than_their_own_heaps_hold():
    code = """
import threading
import numpy as np
from ganvas import machine
assert machine.keep_freed_memory()
done = []
def work():
    done.append(np.empty(2**28, np.uint8).nbytes)
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(done)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"[{2**28}, {2**28}]\n"


def test_elsewhere_freed_memory_cannot_be_kept_and_that_is_told(monkeypatch):
    monkeypatch.setattr(machine, "_glibc", lambda: None)
    assert machine.keep_freed_memory() is False
    assert machine.default_memory() is False
    assert machine.glibc_version() is None
    machine.release_freed_memory()


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_only_linux_is_asked_for_glibc(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    assert machine._glibc.__wrapped__() is None


# ---------------------------------------------------------------- programs


def test_the_compiler_is_the_one_of_cxx_or_the_systems_own(monkeypatch):
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/bin/{name}" if name != "gone" else None)
    for platform, usual in (("linux", "g++"), ("darwin", "clang++"), ("win32", "cl")):
        monkeypatch.setattr(sys, "platform", platform)
        assert machine.cpp_compiler({}) == f"/bin/{usual}"
        assert machine.cpp_compiler({"CXX": "icpx"}) == "/bin/icpx"
        assert machine.cpp_compiler({"CXX": "gone"}) is None


def test_importing_ganvas_before_torch_shortens_the_busy_waiting_unless_the_user_has_decided():
    code = "import ganvas, os, sys; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    clean = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    for given, expected in (({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean | given)
        assert done.stdout.split() == [expected, "False"]


def test_this_machine_can_be_read():
    assert machine.usable_processors() >= 1
    assert 1 <= machine.training_threads().number <= len(machine.allowed_processors())
    quota = machine.cpu_quota()
    assert quota is None or quota > 0
    limit = machine.memory_limit()
    assert limit is None or limit > 0
    free, total = machine.free_memory(), machine.total_memory()
    assert total is not None
    assert free is None or 10**7 < free <= min(total, limit or total)
    own = machine.own_memory()
    assert own is None or 10**7 < own < total
    machine.mount_of(Path.cwd())
