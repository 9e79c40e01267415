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


def test_this_machine_can_be_read():
    assert machine.usable_processors() >= 1
    quota = machine.cpu_quota()
    assert quota is None or quota > 0
    limit = machine.memory_limit()
    assert limit is None or limit > 0
    machine.mount_of(Path.cwd())
