"""A run folder has one layout, can be found again, and belongs to one process at a time."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganvas import run_folder
from ganvas.errors import RunError
from ganvas.run_folder import RunFolder, RunLock, newest_run, open_run

# Takes the lock, says how that went, then answers "check" until its stdin is closed.
HOLDER = """
import os, sys
from pathlib import Path
from ganvas.errors import RunError
from ganvas.run_folder import RunFolder, RunLock
try:
    with RunLock(RunFolder(Path(sys.argv[1]))) as lock:
        print("held", lock.recovered, flush=True)
        for line in sys.stdin:
            if line == "raise\\n":
                raise ValueError("training failed")
            try:
                lock.check()
                print("ours", flush=True)
            except RunError as error:
                print("lost", error, flush=True)
except RunError as error:
    print("refused", error, flush=True)
"""


class Holder:
    """A real process that takes the lock of a run folder."""

    def __init__(self, path: Path):
        self.process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1)
        self.said = self.process.stdout.readline().strip()

    def ask(self, question: str) -> str:
        self.process.stdin.write(question + "\n")
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@contextlib.contextmanager
def holding(path: Path) -> Iterator[Holder]:
    holder = Holder(path)
    try:
        yield holder
    finally:
        with contextlib.suppress(OSError):
            holder.process.kill()
        holder.process.wait()
        holder.process.stdout.close()
        with contextlib.suppress(OSError):
            holder.process.stdin.close()


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path / "faces")


def make_run(path: Path, trained_at: float) -> RunFolder:
    run = RunFolder.create(path)
    run.config.touch()
    os.utime(run.config, (trained_at, trained_at))
    return run


def write_lock(folder: RunFolder, age_sec: float, **changes: object) -> None:
    fields = {"pid": 4_000_000, "host": "elsewhere", "started_at": "2024-01-01T00:00:00+00:00", "token": "other"}
    whole = folder.path / "lock"
    whole.write_text(json.dumps(fields | changes), encoding="utf-8")
    touched_at = time.time() - age_sec
    os.utime(whole, (touched_at, touched_at))
    whole.replace(folder.lock)


# Names.

def test_every_name_is_as_the_documentation_says():
    folder = RunFolder(Path("runs/faces"))
    names = {name: getattr(folder, name).relative_to(folder.path).as_posix() for name in
             ("config", "execution", "stats", "tensorboard", "samples", "latest_grid", "reals_grid", "gif", "mp4",
              "curves", "checkpoints", "lock")}
    assert names == {
        "config": "config.yaml", "execution": "execution.json", "stats": "stats.jsonl", "tensorboard": "tensorboard",
        "samples": "samples", "latest_grid": "samples/latest.png", "reals_grid": "samples/reals.png",
        "gif": "progress.gif", "mp4": "progress.mp4", "curves": "curves.png", "checkpoints": "checkpoints",
        "lock": "run.lock"}
    assert folder.grid(345678).as_posix() == "runs/faces/samples/000000345678.png"
    assert folder.checkpoint(345678).as_posix() == "runs/faces/checkpoints/000000345678.safetensors"
    assert folder.generator(345678).as_posix() == "runs/faces/checkpoints/generator-000000345678.safetensors"


def test_checkpoints_are_listed_oldest_first_without_generators_and_half_written_files(folder):
    for nimg in (2000, 10**12, 0):
        folder.checkpoint(nimg).touch()
    folder.generator(2000).touch()
    (folder.checkpoints / ".000000009999.12-0.partial.safetensors").touch()
    assert folder.list_checkpoints() == [(nimg, folder.checkpoint(nimg)) for nimg in (0, 2000, 10**12)]


def test_grids_are_listed_oldest_first_without_latest_and_reals(folder):
    for path in (folder.grid(64), folder.grid(7), folder.latest_grid, folder.reals_grid):
        path.touch()
    assert folder.list_grids() == [(7, folder.grid(7)), (64, folder.grid(64))]


def test_a_folder_that_is_not_there_has_no_checkpoints(tmp_path):
    assert RunFolder(tmp_path / "none").list_checkpoints() == []


# Making and finding.

def test_creating_twice_keeps_what_is_there(folder):
    folder.config.write_text("x", encoding="utf-8")
    assert RunFolder.create(folder.path) == folder
    assert folder.config.read_text(encoding="utf-8") == "x"
    assert sorted(path.name for path in folder.path.iterdir()) == ["checkpoints", "config.yaml", "samples"]


@pytest.mark.parametrize("run", ["file", "file/inside", "file/inside/deep"])
def test_a_file_in_the_way_is_named(tmp_path, run):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(RunError) as error:
        RunFolder.create(tmp_path / run)
    assert f"{tmp_path / 'file'} is a file" in str(error.value)
    assert "--out" in str(error.value)


def test_a_folder_that_cannot_be_written_is_named_with_the_reason(tmp_path, monkeypatch):
    def refuse(*args: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)          # chmod would not stop root
    with pytest.raises(RunError, match="Permission denied") as error:
        RunFolder.create(tmp_path / "faces")
    assert str(tmp_path / "faces") in str(error.value)
    assert "--out" in str(error.value)


def test_the_newest_run_is_the_one_whose_checkpoint_is_newest(tmp_path):
    old = make_run(tmp_path / "old", trained_at=1000)
    make_run(tmp_path / "new", trained_at=2000)
    (tmp_path / "not-a-run").mkdir()
    assert newest_run(tmp_path).path.name == "new"
    old.checkpoint(64).touch()
    assert newest_run(tmp_path).path.name == "old"


@pytest.mark.parametrize("made", [False, True])
def test_without_any_run_the_user_learns_how_to_get_one(tmp_path, made):
    runs = tmp_path / "runs"
    if made:
        runs.mkdir()
    with pytest.raises(RunError, match="ganvas train") as error:
        newest_run(runs)
    assert str(runs) in str(error.value)


def test_a_run_is_opened_by_its_path(tmp_path):
    make_run(tmp_path / "faces", trained_at=1000)
    assert open_run(tmp_path / "faces") == RunFolder(tmp_path / "faces")


def test_a_misspelt_run_gets_the_similar_name(tmp_path):
    make_run(tmp_path / "faces-64", trained_at=1000)
    make_run(tmp_path / "sprites", trained_at=1000)
    with pytest.raises(RunError) as error:
        open_run(tmp_path / "Face-64")
    assert f"Did you mean {tmp_path / 'faces-64'}?" in str(error.value)
    assert "sprites" not in str(error.value)


def test_a_name_like_no_run_gets_the_runs_nearby(tmp_path):
    make_run(tmp_path / "faces", trained_at=1000)
    with pytest.raises(RunError, match="no such run folder") as error:
        open_run(tmp_path / "q")
    assert f"Runs nearby: {tmp_path / 'faces'}" in str(error.value)


def test_a_run_named_without_its_parent_is_found_among_the_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(Path("runs/faces"), trained_at=1000)
    with pytest.raises(RunError) as error:
        open_run(Path("faces"))
    assert f"Did you mean {Path('runs/faces')}?" in str(error.value)


def test_a_folder_without_config_is_no_run_and_the_runs_in_it_are_named(tmp_path):
    make_run(tmp_path / "faces", trained_at=1000)
    with pytest.raises(RunError, match=r"config\.yaml is missing") as error:
        open_run(tmp_path)
    assert str(tmp_path / "faces") in str(error.value)


def test_a_file_is_no_run(tmp_path):
    (tmp_path / "x.png").touch()
    with pytest.raises(RunError, match="a file, not a run folder") as error:
        open_run(tmp_path / "x.png")
    assert "config.yaml" in str(error.value)


# The lock.

def test_a_second_process_is_refused_and_told_who_holds_the_run(folder):
    with RunLock(folder) as lock, holding(folder.path) as second:
        assert second.said.startswith("refused")
        for part in (str(folder.path), f"process {os.getpid()}", socket.gethostname(), "since 20", "--out"):
            assert part in second.said
        lock.check()


def test_the_same_process_cannot_take_the_run_twice(folder):
    with RunLock(folder), pytest.raises(RunError, match="this very process"), RunLock(folder):
        pass
    with RunLock(folder) as lock:
        assert lock.recovered is None


def test_leaving_removes_the_lock_also_after_an_error(folder):
    with contextlib.suppress(ValueError), RunLock(folder):
        assert folder.lock.is_file()
        raise ValueError("training failed")
    with holding(folder.path) as other:
        assert other.said == "held None"
        other.process.stdin.write("raise\n")
        other.end()
    assert sorted(path.name for path in folder.path.iterdir()) == ["checkpoints", "samples"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
def test_the_run_of_a_killed_process_is_free_at_once_and_its_half_written_files_go(folder):
    with holding(folder.path) as killed:
        half = folder.checkpoints / f".000000000064.{killed.process.pid}-3.partial.safetensors"
        half.touch()
        os.kill(killed.process.pid, signal.SIGKILL)
        killed.process.wait()
    assert folder.lock.is_file()
    with RunLock(folder) as lock:
        assert f"process {killed.process.pid}" in lock.recovered
        assert str(folder.path) in lock.recovered
        lock.check()
    assert not half.exists()
    assert sorted(path.name for path in folder.path.iterdir()) == ["checkpoints", "samples"]


def test_a_killed_process_of_another_machine_is_waited_for_until_its_heartbeat_is_old(folder):
    write_lock(folder, age_sec=30)
    with pytest.raises(RunError, match="process 4000000 on elsewhere") as error, RunLock(folder):
        pass
    assert "try again in 30 s" in str(error.value)
    write_lock(folder, age_sec=70)
    with RunLock(folder) as lock:
        assert "no sign of life for 70 s" in lock.recovered


@pytest.mark.parametrize("skew_sec", [-7200, 7200])
def test_the_age_of_a_lock_is_read_from_the_clock_of_the_file_system(folder, monkeypatch, skew_sec):
    write_lock(folder, age_sec=10)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + skew_sec)
    with pytest.raises(RunError, match="elsewhere"), RunLock(folder):
        pass


def test_a_lock_with_our_own_process_number_from_a_former_life_is_free_at_once(folder):
    write_lock(folder, 0, pid=os.getpid(), host=socket.gethostname(), pid_space=run_folder._pid_space())
    with RunLock(folder) as lock:
        assert lock.recovered


def test_process_numbers_of_another_container_mean_nothing_here(folder):
    write_lock(folder, 0, host=socket.gethostname(), pid_space="another container's")
    with pytest.raises(RunError, match="4000000"), RunLock(folder):
        pass


@pytest.mark.parametrize("content", ["", "[1]", '{"pid": "x"}', "\0\0"])
def test_an_unreadable_lock_is_respected_while_fresh_and_taken_when_old(folder, monkeypatch, content):
    folder.lock.write_text(content, encoding="utf-8")
    os.utime(folder.lock, (time.time() - 2, time.time() - 2))
    with pytest.raises(RunError, match="is training into it"), RunLock(folder):
        pass
    monkeypatch.setattr(run_folder, "STALE_SEC", 1)
    with RunLock(folder) as lock:
        assert lock.recovered


def test_only_one_of_four_processes_recovers_an_abandoned_lock(tmp_path):
    rounds = 15
    for number in range(rounds):
        write_lock(RunFolder.create(tmp_path / f"run{number}"), age_sec=100)
    racer = """
import sys, time
from pathlib import Path
from ganvas.errors import RunError
from ganvas.run_folder import RunFolder, RunLock
parent, locks = Path(sys.argv[1]), []
print("ready", flush=True)
start = float(sys.stdin.readline())
for number in range(int(sys.argv[2])):
    while time.time() < start + number * .05:
        pass
    try:
        locks.append(RunLock(RunFolder(parent / f"run{number}")).__enter__())
        print(number, end=" ")
    except RunError as error:
        assert "is training into it" in str(error), error
print(flush=True)
sys.stdin.readline()
for lock in locks:
    lock.check()
"""
    racers = [subprocess.Popen([sys.executable, "-c", racer, str(tmp_path), str(rounds)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, bufsize=1) for _ in range(4)]
    for process in racers:
        assert process.stdout.readline() == "ready\n"
    start = time.time() + 0.1
    for process in racers:
        process.stdin.write(f"{start}\n")
    winners = [int(number) for process in racers for number in process.stdout.readline().split()]
    for process in racers:
        process.communicate("\n")
    assert sorted(winners) == list(range(rounds))
    assert [process.returncode for process in racers] == [0] * 4
    assert not [path for path in tmp_path.glob("run*/.*")]


def test_who_comes_late_to_an_abandoned_lock_leaves_its_new_owner_alone(folder):
    write_lock(folder, age_sec=100)
    seen = run_folder._Held.read(folder.lock)
    with RunLock(folder) as winner:
        late = RunLock(folder)
        assert late._take_over(seen) is False
        winner.check()


def test_a_process_that_died_while_taking_over_blocks_nobody(folder):
    write_lock(folder, age_sec=100)
    claim = folder.path / f".run.lock.{run_folder._Held.read(folder.lock).name}.0"
    claim.write_text("{}", encoding="utf-8")
    os.utime(claim, (time.time() - 90, time.time() - 90))
    with RunLock(folder) as lock:
        assert lock.recovered
        assert not claim.exists()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="Windows has no SIGSTOP")
def test_a_process_that_slept_while_another_took_its_run_stops_and_leaves_the_other_lock_alone(folder):
    with holding(folder.path) as sleeper:
        assert sleeper.ask("check") == "ours"
        os.kill(sleeper.process.pid, signal.SIGSTOP)
        os.utime(folder.lock, (time.time() - 100, time.time() - 100))
        with RunLock(folder) as lock:
            assert "no sign of life" in lock.recovered
            os.kill(sleeper.process.pid, signal.SIGCONT)
            said = sleeper.ask("check")
            assert said.startswith("lost")
            assert f"process {os.getpid()}" in said
            sleeper.end()
            lock.check()


def test_a_deleted_lock_is_noticed_and_not_made_anew(folder):
    with RunLock(folder) as lock:
        folder.lock.unlink()
        with pytest.raises(RunError, match="is gone"):
            lock.check()
    assert not folder.lock.exists()


def test_the_heartbeat_touches_the_lock_and_notices_that_it_was_taken(folder, monkeypatch):
    monkeypatch.setattr(run_folder, "HEARTBEAT_SEC", 0.01)
    with RunLock(folder) as lock:
        os.utime(folder.lock, (1000, 1000))
        assert wait_until(lambda: folder.lock.stat().st_mtime > 1000)
        ours = folder.lock.read_bytes()
        write_lock(folder, age_sec=0)
        assert wait_until(lambda: lock._lost)
        folder.lock.write_bytes(ours)
        with pytest.raises(RunError, match=r"process 4000000 on elsewhere .* has taken over"):
            lock.check()


def test_a_moment_without_the_network_is_no_loss(folder, monkeypatch):
    def away(self: Path) -> bytes:
        raise OSError(5, "Input/output error")

    with RunLock(folder) as lock:
        with monkeypatch.context() as network:
            network.setattr(Path, "read_bytes", away)
            lock.check()
        lock.check()


def test_a_lock_that_cannot_be_written_is_a_users_error_naming_the_reason(tmp_path):
    with pytest.raises(RunError, match="No such file or directory"), RunLock(RunFolder(tmp_path / "gone")):
        pass


def wait_until(condition, at_most_sec: float = 5) -> bool:
    give_up_at = time.monotonic() + at_most_sec
    while not condition() and time.monotonic() < give_up_at:
        time.sleep(0.005)
    return bool(condition())
