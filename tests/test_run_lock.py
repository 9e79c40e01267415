"""A run folder belongs to one process at a time."""

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

from ganvas import run_lock
from ganvas.errors import RunError
from ganvas.run_folder import RunFolder
from ganvas.run_lock import RunLock

# Takes the lock, says how that went, then answers "check" until its stdin is closed.
HOLDER = """
import os, sys
from pathlib import Path
from ganvas.errors import RunError
from ganvas.run_folder import RunFolder
from ganvas.run_lock import RunLock
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


def write_lock(folder: RunFolder, age_sec: float, **changes: object) -> None:
    fields = {"pid": 4_000_000, "host": "elsewhere", "started_at": "2024-01-01T00:00:00+00:00", "token": "other"}
    whole = folder.path / "lock"
    whole.write_text(json.dumps(fields | changes), encoding="utf-8")
    touched_at = time.time() - age_sec
    os.utime(whole, (touched_at, touched_at))
    whole.replace(folder.lock)


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
    write_lock(folder, 0, pid=os.getpid(), host=socket.gethostname(), pid_space=run_lock._pid_space())
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
    monkeypatch.setattr(run_lock, "STALE_SEC", 1)
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
from ganvas.run_folder import RunFolder
from ganvas.run_lock import RunLock
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
    seen = run_lock._Held.read(folder.lock)
    with RunLock(folder) as winner:
        late = RunLock(folder)
        assert late._take_over(seen) is False
        winner.check()


def test_a_process_that_died_while_taking_over_blocks_nobody(folder):
    write_lock(folder, age_sec=100)
    claim = folder.path / f".run.lock.{run_lock._Held.read(folder.lock).name}.0"
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
    monkeypatch.setattr(run_lock, "HEARTBEAT_SEC", 0.01)
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
