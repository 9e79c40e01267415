import subprocess
import sys
import threading

import pytest

from ganvas.background import Background


def test_work_runs_in_another_thread_one_after_the_other_in_order():
    background, seen, running = Background("work"), [], []
    def work(number):
        running.append(number)
        assert len(running) == 1
        seen.append((number, threading.current_thread() is threading.main_thread()))
        running.pop()
    for number in range(20):
        background.start(lambda number=number: work(number))
    background.wait()
    assert seen == [(number, False) for number in range(20)]


def test_a_second_start_waits_for_the_first_work_and_no_thread_is_left():
    background, go, seen = Background("work"), threading.Event(), []
    threads = threading.active_count()
    background.start(lambda: seen.append(go.wait(10)))
    assert seen == []                                          # start came back before the work was done
    threading.Timer(0.05, go.set).start()
    background.start(lambda: seen.append("second"))
    assert seen[0] is True
    background.wait()
    assert seen == [True, "second"]
    assert threading.active_count() == threads


def fail():
    raise OSError(28, "No space left on device")


def test_a_failure_is_raised_by_each_later_call_and_nothing_more_is_done():
    background, seen = Background("work"), []
    background.start(fail)
    for call in (background.wait, background.check, background.wait, lambda: background.start(lambda: seen.append(1))):
        with pytest.raises(OSError, match="No space left"):
            call()
    assert seen == []


def test_check_does_not_wait():
    background, go = Background("work"), threading.Event()
    background.start(lambda: go.wait(10) and fail())
    background.check()
    go.set()
    with pytest.raises(OSError, match="No space left"):
        background.wait()


INTERRUPTED = """
import os, signal, threading, time
from ganvas.background import Background

said = []

def work():
    for _ in range(2):                # twice in one wait
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.3)
    said.append("done")

background = Background("work")
background.start(work)
try:
    background.wait()
except KeyboardInterrupt:
    said.append("interrupted")
background.wait()                     # once
background.start(lambda: said.append("more"))
background.wait()
print(said, threading.active_count())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_a_wait_interrupted_by_ctrl_c_ends_after_the_work():
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED], timeout=30, capture_output=True, check=True, text=True)
    assert ended.stdout.strip() == "['done', 'interrupted', 'more'] 1"
    assert ended.stderr == ""


def test_without_a_thread_the_caller_does_the_work_and_hears_of_its_failure(monkeypatch):
    def none_left(thread):
        raise RuntimeError("can't start new thread")
    monkeypatch.setattr(threading.Thread, "start", none_left)
    background, seen = Background("work"), []
    background.start(lambda: seen.append(threading.current_thread() is threading.main_thread()))
    assert seen == [True]
    with pytest.raises(OSError, match="No space left"):
        background.start(fail)


AT_THE_END = """
import sys, threading, time
from pathlib import Path
from ganvas.background import Background

def kept(name):                       # a generator that only the interpreter's end closes
    background = Background(name)
    try:
        yield
    finally:
        background.start(lambda: Path(name).write_text("whole"))
        background.wait()

def slow():
    time.sleep(0.3)
    Path("slow").write_text("whole")

def from_a_daemon():
    Background("slow").start(slow)

generator = kept("late")
next(generator)
daemon = threading.Thread(target=from_a_daemon, daemon=True)
daemon.start()
daemon.join()
"""


def test_an_interpreter_that_ends_finishes_the_work_and_does_not_hang(tmp_path):
    ended = subprocess.run([sys.executable, "-c", AT_THE_END], cwd=tmp_path, timeout=30, capture_output=True, check=True)
    assert ended.stderr == b""
    assert (tmp_path / "slow").read_text() == (tmp_path / "late").read_text() == "whole"
