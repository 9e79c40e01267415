import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace as Namespace

import pytest

from ganvas import doctor
from ganvas.doctor import examine


def only(findings):
    (finding,) = findings
    return finding


def fake_torch(version="2.9.0+cpu", cuda=None, hip=None, gpus=(), mps=False, archs=("sm_80", "sm_90", "compute_90")):
    """What the probes ask of torch. gpus: (name, major, minor) of each card that it can use."""
    properties = [Namespace(name=name, major=major, minor=minor, total_memory=24 * 10**9) for name, major, minor in gpus]
    return Namespace(
        __version__=version, version=Namespace(cuda=cuda, hip=hip),
        cuda=Namespace(is_available=lambda: bool(gpus), device_count=lambda: len(gpus), get_arch_list=lambda: list(archs),
                       get_device_properties=lambda index: properties[index]),
        backends=Namespace(mps=Namespace(is_available=lambda: mps)))


def fails(error):
    def load():
        raise error
    return load


def no_card(command):
    return None


# ---------------------------------------------------------------- all of it


def test_this_machine_is_examined_without_a_failing_probe_and_every_fault_has_a_remedy():
    findings = examine()
    assert [finding for finding in findings if "could not be examined" in finding.text] == []
    assert {"Python", "PyTorch", "device", "threads", "processor", "memory", "freed memory", "C++ compiler", "cache",
            "runs", "dependencies", "extras", "image codecs", "terminal"} <= {finding.name for finding in findings}
    assert all(finding.remedy for finding in findings if finding.state != "ok")
    own_words = [finding for finding in findings if finding.name not in ("cache", "runs", "environment")]    # not a path
    assert all((finding.text + finding.remedy).isascii() for finding in own_words)


def test_a_probe_that_fails_is_a_finding_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(doctor, "memory", fails(RuntimeError("no such thing\nat all")))
    found = {finding.name: finding for finding in examine()}
    assert found["memory"] == doctor.Finding("memory", "note", "could not be examined (RuntimeError: no such thing)")
    assert "terminal" in found


def test_examining_makes_no_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANVAS_CACHE", str(tmp_path / "a" / "b"))
    examine()
    assert list(tmp_path.iterdir()) == []


def test_the_module_imports_without_torch():
    code = "import sys, ganvas.doctor; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


# ---------------------------------------------------------------- Python and PyTorch


@pytest.mark.parametrize(("version", "bits", "state", "said"), [
    ((3, 11, 0), 64, "ok", "3.11.0, 64 bit"), ((3, 13, 9), 64, "ok", "3.13.9"), ((3, 10, 12), 64, "fault", "needs 3.11 to 3.13"),
    ((3, 12, 1), 32, "fault", "32 bit"), ((3, 14, 0), 64, "note", "tested are 3.11 to 3.13")])
def test_python_must_be_of_a_supported_version_and_64_bit(version, bits, state, said):
    finding = only(doctor.python(version, bits))
    assert finding.state == state and said in finding.text
    assert (finding.remedy == "") == (state == "ok")


@pytest.mark.parametrize(("prefix", "env", "state"), [
    ("/home/a/.venv", {}, "ok"), ("/usr", {}, "note"), ("/usr", {"CONDA_PREFIX": "/opt/conda"}, "ok"),
    ("/usr", {"COLAB_RELEASE_TAG": "1"}, "ok")])
def test_an_environment_of_its_own_is_recommended(prefix, env, state):
    finding = only(doctor.environment(prefix, "/usr", env))
    assert finding.state == state
    assert ("-m venv" in finding.remedy) == (state == "note")


@pytest.mark.parametrize(("torch", "state", "said"), [
    (fake_torch(), "ok", "2.9.0+cpu, built for the CPU only"), (fake_torch("2.8.0", cuda="12.8"), "ok", "built for CUDA 12.8"),
    (fake_torch("2.10.0", hip="6.4"), "ok", "built for ROCm 6.4"), (fake_torch("2.7.1"), "fault", "2.8 or newer is needed"),
    (fake_torch("2.8.0a0+git1"), "ok", "2.8.0a0")])
def test_pytorch_says_its_version_and_build_and_must_be_new_enough(torch, state, said):
    finding = only(doctor.pytorch(lambda: torch))
    assert finding.state == state and said in finding.text


@pytest.mark.parametrize("error", [ImportError("no libcudart"), OSError("DLL load failed"), AttributeError("odd")])
def test_a_pytorch_that_cannot_be_imported_is_a_fault_with_its_reason(error):
    finding = only(doctor.pytorch(fails(error)))
    assert finding.state == "fault" and str(error) in finding.text and "pytorch.org/get-started" in finding.remedy


def test_torchvision_of_another_torch_is_a_fault_and_none_is_fine():
    finding = only(doctor.torchvision(True, fails(RuntimeError("operator torchvision::nms does not exist"))))
    assert finding.state == "fault" and "torchvision::nms" in finding.text and "together" in finding.remedy
    assert only(doctor.torchvision(False)).state == "ok"
    assert only(doctor.torchvision(True, lambda: Namespace(__version__="0.24"))).text == "0.24"


# ---------------------------------------------------------------- devices


def test_every_gpu_is_listed_with_memory_and_capability(tmp_path):
    torch = fake_torch(cuda="12.8", gpus=[("H200", 9, 0), ("A10", 8, 6)])
    texts = [finding.text for finding in doctor.devices(torch, tmp_path, no_card, {})]
    assert texts == ["cuda:0: H200, 24.0 GB, capability 9.0", "cuda:1: A10, 24.0 GB, capability 8.6"]


@pytest.mark.parametrize(("capability", "archs", "state"), [
    ((9, 0), ["sm_80", "sm_90"], "ok"), ((8, 6), ["sm_80"], "ok"), ((8, 0), ["sm_86"], "fault"),
    ((5, 2), ["sm_75", "sm_90"], "fault"), ((12, 0), ["sm_90"], "fault"), ((12, 0), ["sm_90", "compute_90"], "ok"),
    ((9, 0), ["sm_90a"], "ok"), ((12, 1), ["sm_120"], "ok"), ((7, 0), [], "ok")])
def test_a_gpu_without_code_in_this_build_is_a_fault(tmp_path, capability, archs, state):
    torch = fake_torch(cuda="12.8", gpus=[("card", *capability)], archs=archs)
    finding = only(doctor.devices(torch, tmp_path, no_card, {}))
    assert finding.state == state
    assert ("no code for it" in finding.text) == (state == "fault")


def test_amd_and_apple_gpus_are_named(tmp_path):
    amd = fake_torch(hip="6.4", gpus=[("Radeon", 11, 0)], archs=["gfx1100"])
    assert only(doctor.devices(amd, tmp_path, no_card, {})).text == "cuda:0: Radeon, 24.0 GB"
    assert only(doctor.devices(fake_torch(mps=True), tmp_path, no_card, {})).text.startswith("mps")
    assert only(doctor.devices(fake_torch(), tmp_path, no_card, {})).text.startswith("cpu")


def test_a_card_beside_a_cpu_only_pytorch_is_a_fault_with_the_line_that_mends_it(tmp_path):
    finding = only(doctor.devices(fake_torch(), tmp_path, lambda command: "GeForce RTX 4090\n", {}))
    assert finding.state == "fault"
    assert "NVIDIA card found (GeForce RTX 4090), but this PyTorch is for the CPU only" in finding.text
    assert "pip uninstall torch" in finding.remedy and "pytorch.org/get-started" in finding.remedy


def test_a_card_whose_driver_is_too_old_is_a_fault(tmp_path):
    finding = only(doctor.devices(fake_torch(cuda="12.8"), tmp_path, lambda command: "Tesla V100", {}))
    assert finding.state == "fault" and "driver does not serve CUDA 12.8" in finding.text
    assert "nvidia.com/drivers" in finding.remedy


def test_a_card_that_is_hidden_is_told_so(tmp_path):
    finding = only(doctor.devices(fake_torch(cuda="12.8"), tmp_path, lambda command: "A10", {"CUDA_VISIBLE_DEVICES": ""}))
    assert finding.state == "note" and "CUDA_VISIBLE_DEVICES" in finding.remedy


# ---------------------------------------------------------------- processors, memory, disks


def container(root, cpu="max 100000", memory="max", meminfo="MemTotal: 16000000 kB"):
    for name, text in {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": cpu, "sys/fs/cgroup/memory.max": memory,
                       "proc/meminfo": meminfo}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(("allowed", "cpu", "said"), [
    (range(8), "max 100000", "8 processors; threads 8: one for each"),
    (range(3), "max 100000", "8 processors; threads 3: this process may use 3 of 8"),
    (range(8), "225000 100000", "8 processors; threads 2: the container's quota is 2.25"),
    (range(8), "800000 100000", "8 processors; threads 8: one for each")])
def test_the_threads_of_a_training_are_told_with_their_reason(tmp_path, allowed, cpu, said):
    finding = only(doctor.threads(allowed, 8, container(tmp_path, cpu)))
    assert finding.state == "ok" and finding.text.startswith(said)


def test_freed_memory_is_kept_with_glibc_only(monkeypatch):
    assert "kept from step to step" in only(doctor.freed_memory("2.36")).text and "2.36" in only(doctor.freed_memory("2.36")).text
    monkeypatch.setattr(doctor.machine, "glibc_version", lambda: None)
    assert "only on Linux with glibc" in only(doctor.freed_memory()).text


def test_the_compiler_is_named_and_without_one_training_does_without(monkeypatch):
    monkeypatch.setattr(doctor.machine, "cpp_compiler", lambda env: "/usr/bin/g++")
    assert only(doctor.compiler({})).text == "/usr/bin/g++"
    monkeypatch.setattr(doctor.machine, "cpp_compiler", lambda env: None)
    assert only(doctor.compiler({})).text == "none: training does without torch.compile"
    assert "CXX=gone is no program" in only(doctor.compiler({"CXX": "gone"})).text


def test_thread_variables_are_shown_where_set():
    assert doctor.thread_variables({}) == []
    finding = only(doctor.thread_variables({"OMP_NUM_THREADS": "1", "HOME": "/"}))
    assert finding.state == "note" and "OMP_NUM_THREADS=1" in finding.text and "unset OMP_NUM_THREADS" in finding.remedy


def test_the_processors_features_and_what_pytorch_uses_are_named(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("model name : Big Chip\nflags : avx2 avx512f avx512_bf16 amx_tile")
    assert only(doctor.processor(tmp_path, lambda: "AVX512")).text == (
        "Big Chip, AVX2, AVX-512, AVX512-BF16, AMX, PyTorch uses AVX512")
    assert "PyTorch not asked" in only(doctor.processor(tmp_path, fails(ImportError()))).text
    assert "PyTorch uses NEON" in only(doctor.processor(tmp_path / "elsewhere", lambda: "NEON")).text


def test_a_processor_without_avx2_is_noted(tmp_path, monkeypatch):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("model name : Common KVM processor\nflags : fpu sse2")
    monkeypatch.setattr(doctor.platform, "machine", lambda: "x86_64")
    assert only(doctor.processor(tmp_path, lambda: "DEFAULT")).state == "note"


@pytest.mark.parametrize(("memory", "state", "said"), [
    ("max", "ok", "16.4 GB"), ("8000000000", "ok", "16.4 GB, of which a container may use 8.0 GB"),
    ("1000000000", "note", "1.0 GB: little")])
def test_memory_is_that_of_the_machine_and_of_its_container(tmp_path, memory, state, said):
    finding = only(doctor.memory(container(tmp_path, memory=memory)))
    assert finding.state == state and said in finding.text


def test_a_disk_says_its_room_and_little_is_noted(tmp_path, monkeypatch):
    for free, state in ((10**12, "ok"), (10**9, "note")):
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path, free=free: Namespace(free=free))
        folder = tmp_path / "not" / "yet"
        finding = only(doctor.disk("cache", folder, "elsewhere", root=tmp_path))
        assert finding.state == state and str(folder) in finding.text and f"{free / 1e9:,.1f} GB" in finding.text


def test_a_disk_that_cannot_be_written_is_a_fault(tmp_path):
    (tmp_path / "file").write_text("no folder")
    finding = only(doctor.disk("runs", tmp_path / "file", "pass --out", root=tmp_path))
    assert finding.state == "fault" and "cannot be written" in finding.text and finding.remedy == "pass --out"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such table")
def test_a_cache_on_a_network_is_noted_unless_scratch_is_set(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/mounts").write_text("server:/home / nfs4 rw 0 0")
    findings = doctor.disk("cache", tmp_path, "", local_remedy=True, root=tmp_path, env={})
    assert (findings[-1].state, "nfs4" in findings[-1].text, "GANVAS_SCRATCH" in findings[-1].remedy) == ("note", True, True)
    assert len(doctor.disk("cache", tmp_path, "", local_remedy=True, root=tmp_path, env={"GANVAS_SCRATCH": "/tmp"})) == 1
    assert len(doctor.disk("runs", tmp_path, "", root=tmp_path, env={})) == 1


# ---------------------------------------------------------------- the installation


REQUIRES = ["numpy>=1.26", "pillow>=10.3", 'winthing>=1; sys_platform == "none"', 'onnx>=1.16; extra == "export"',
            'ganvas[export]; extra == "dev"', 'pytest>=8; extra == "dev"']


def installed(**versions):
    def version_of(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]
    return version_of


def test_missing_and_old_dependencies_are_all_named():
    assert only(doctor.dependencies(REQUIRES, installed(numpy="2.0", pillow="10.3"))).state == "ok"
    finding = only(doctor.dependencies(REQUIRES, installed(numpy="1.20")))
    assert finding.state == "fault"
    assert "numpy>=1.26 is needed, but 1.20 is installed" in finding.text and "pillow>=10.3 is missing" in finding.text
    assert "pip install" in finding.remedy and "onnx" not in finding.text


def test_extras_say_which_are_there_and_how_to_get_the_others():
    finding = only(doctor.extras(REQUIRES, installed(onnx="1.17"), ["export", "dev"]))
    assert finding.state == "ok"
    assert finding.text.startswith("export: installed; dev: not installed (tests")
    assert "pip install" in finding.remedy and "[dev]" in finding.remedy and "[export]" not in finding.remedy


def test_every_extra_of_the_project_has_its_purpose():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(doctor.EXTRAS) == set(project["optional-dependencies"])


def test_a_pillow_that_lacks_a_codec_is_noted():
    assert only(doctor.codecs(lambda name: True)).text == "WebP, AVIF, JPEG 2000"
    finding = only(doctor.codecs(lambda name: name == "webp"))
    assert finding.state == "note" and "AVIF, JPEG 2000" in finding.text and "pillow" in finding.remedy
    assert "AVIF" in only(doctor.codecs(lambda name: fails(ValueError(name))() if name == "avif" else True)).text


@pytest.mark.parametrize(("encoding", "state"), [
    ("utf-8", "ok"), ("UTF8", "ok"), ("cp65001", "ok"), ("cp1252", "note"), ("ascii", "note")])
def test_a_terminal_that_is_not_utf8_is_noted(encoding, state):
    finding = only(doctor.terminal(encoding))
    assert finding.state == state and ("PYTHONUTF8" in finding.remedy) == (state == "note")


def test_long_paths_concern_windows_only():
    if sys.platform != "win32":
        assert doctor.long_paths() == []
    assert only(doctor.long_paths(lambda: True)).state == "ok"
    finding = only(doctor.long_paths(lambda: False))
    assert finding.state == "note" and "LongPathsEnabled" in finding.remedy
