"""The lock that gives a run folder to one process at a time, and its heartbeat."""

import contextlib
import hashlib
import itertools
import json
import os
import socket
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from ganvas.errors import RunError
from ganvas.files import create_new, now_of_file_system, remove_partials
from ganvas.run_folder import RunFolder

HEARTBEAT_SEC = 5.0
STALE_SEC = 60.0      # a lock untouched for so long is nobody's: twelve missed heartbeats


class RunLock:
    """Gives a run folder to one process at a time: `with RunLock(folder) as lock:`.

    The lock is the file run.lock (JSON: who, where, since when), made with O_EXCL and touched every HEARTBEAT_SEC.
    A lock is abandoned when its process is known to be gone, or when it has not been touched for STALE_SEC by the
    clock of the file system (so the clocks of two machines need not agree). An abandoned lock is replaced in one
    rename by whoever makes its claim file first: the claim's name is the hash of the abandoned content, so it can be
    won once, and a process that comes late finds content that it does not know and touches nothing.

    recovered: a sentence about the abandoned lock that was taken over, or None.
    Raises RunError on entering while another process holds the folder.
    """

    def __init__(self, folder: RunFolder):
        self.folder = folder
        self.recovered: str | None = None
        self._content = b""
        self._lost: str | None = None
        self._leave = threading.Event()
        self._heart = threading.Thread(target=self._beat, name=f"heartbeat of {folder.lock}", daemon=True)

    def __enter__(self) -> "RunLock":
        self._content = json.dumps({
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "pid_space": _pid_space(),
            "token": uuid.uuid4().hex,     # tells us from an earlier process of the same number
        }).encode()
        _held_here.add(self._content)
        try:
            self._acquire()
            self._heart.start()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._leave.set()
        self._heart.join()
        self._release()

    def check(self) -> None:
        """Raises RunError if the folder is no longer ours: released, or the computer slept so long that another process took it.

        To be called before anything is written into the folder.
        """
        if self._lost is None:
            self._lost = (f"{self.folder.path}: its training has ended, nothing more is written. Run the same command again to "
                          "go on from the newest checkpoint." if self._leave.is_set() else self._why_lost())
        if self._lost:
            raise RunError(self._lost)

    def _acquire(self) -> None:
        give_up_at = time.monotonic() + 10
        try:
            while time.monotonic() < give_up_at:
                with contextlib.suppress(FileExistsError):
                    create_new(self.folder.lock, self._content)
                    return
                held = _Held.read(self.folder.lock)
                if held is None:                   # released between our two looks
                    continue
                why = held.why_abandoned()
                if why is None:
                    raise RunError(held.refusal(self.folder))
                if self._take_over(held):
                    self.recovered = f"{self.folder.path}: taken over from {held.owner}, which {why}."
                    if held.process_is_here:
                        for part in (self.folder.path, self.folder.samples, self.folder.checkpoints):
                            remove_partials(part, held.pid)
                    return
                time.sleep(0.02)                   # somebody else is taking it over at this moment
        except OSError as error:
            raise RunError(f"{self.folder.lock}: cannot be written ({error.strerror}). Change the permissions of "
                           "the folder or free the disk, or pass another folder as --out.") from error
        raise RunError(f"{self.folder.lock}: is abandoned, but cannot be replaced. Remove this file, if no process "
                       f"trains into {self.folder.path}, or pass another folder as --out.")

    def _take_over(self, held: "_Held") -> bool:
        """Replaces the abandoned lock by ours; False if somebody else was quicker or its owner woke up."""
        for attempt in itertools.count():
            claim = self.folder.path / f".run.lock.{held.name}.{attempt}"
            try:
                create_new(claim, self._content)
                break
            except FileExistsError:
                made = _Held.read(claim)
                if made is None or made.age_sec < STALE_SEC:    # else: made by one who died while taking over
                    return False
        ours = self.folder.path / f".run.lock.{uuid.uuid4().hex}"
        try:
            now = _Held.read(self.folder.lock)
            if now is None or now.content != held.content or now.why_abandoned() is None:
                return False
            create_new(ours, self._content)
            ours.replace(self.folder.lock)
        except PermissionError:        # on Windows another process may be just reading it
            return False
        else:
            return True
        finally:
            ours.unlink(missing_ok=True)
            for done in self.folder.path.glob(f".run.lock.{held.name}.*"):
                with contextlib.suppress(OSError):     # Windows: just being read; left over, it claims nothing new
                    done.unlink()

    def _beat(self) -> None:
        while not self._leave.wait(HEARTBEAT_SEC):
            self._lost = self._why_lost()
            if self._lost:
                return
            with contextlib.suppress(OSError):      # a network file system may be away for a moment
                os.utime(self.folder.lock)

    def _why_lost(self) -> str | None:
        try:
            content = self.folder.lock.read_bytes()
        except FileNotFoundError:
            return (f"{self.folder.lock} is gone: it was deleted, or another process has used {self.folder.path} while "
                    "this one slept. Nothing more is written. Run the same command again to go on from the newest "
                    "checkpoint.")
        except OSError:                             # away for a moment: not known to be lost
            return None
        if content != self._content:
            return (f"{self.folder.path}: {_Held(content, 0).owner} has taken over this run while this process slept "
                    "or hung. Nothing more is written. Let that process go on, or stop it and run this command again.")
        return None

    def _release(self) -> None:
        """Removes the lock if it is still ours."""
        give_up_at = time.monotonic() + 2
        while True:
            try:
                if self.folder.lock.read_bytes() == self._content:
                    self.folder.lock.unlink()
                break
            except PermissionError:        # Windows: another process is just reading it
                if time.monotonic() > give_up_at:
                    break                  # forgotten below, so it counts as abandoned as soon as it is next read
                time.sleep(0.05)
            except OSError:
                break
        _held_here.discard(self._content)


_held_here: set[bytes] = set()             # contents of the locks of this very process


@dataclass(frozen=True)
class _Held:
    """A lock file as it was read."""

    content: bytes
    age_sec: float

    @classmethod
    def read(cls, lock: Path) -> "_Held | None":
        """None when there is no such file. Waits a moment for a lock that is made but not yet written."""
        give_up_at = time.monotonic() + 1
        while True:
            try:
                # Opened before it is looked at: NFS answers a plain stat from a cache that can be a minute old.
                with lock.open("rb") as file:
                    content, touched_at = file.read(), os.fstat(file.fileno()).st_mtime
            except FileNotFoundError:
                return None
            held = cls(content, now_of_file_system(lock.parent) - touched_at)
            if content or held.age_sec > 1 or time.monotonic() > give_up_at:
                return held
            time.sleep(0.02)

    @property
    def fields(self) -> dict[str, Any]:
        try:
            fields = json.loads(self.content)
        except ValueError:
            return {}
        return fields if isinstance(fields, dict) else {}

    @property
    def pid(self) -> int:
        pid = self.fields.get("pid")
        return pid if isinstance(pid, int) else -1

    @property
    def name(self) -> str:
        return hashlib.sha256(self.content).hexdigest()[:16]

    @property
    def owner(self) -> str:
        fields = self.fields
        if not fields:
            return "a process that has not said who it is"
        return (f"process {fields.get('pid', '?')} on {fields.get('host', '?')} "
                f"(since {fields.get('started_at', '?')})")

    @property
    def process_is_here(self) -> bool:
        """Whether its process number means anything to us: same machine, same boot, same container."""
        fields = self.fields
        return (self.pid > 0 and fields.get("host") == socket.gethostname()
                and fields.get("pid_space") == _pid_space())

    def why_abandoned(self) -> str | None:
        """What became of its process, as the end of a sentence; None while it must be taken to be alive."""
        if self.content in _held_here:
            return None
        if self.process_is_here and (self.pid == os.getpid() or not _alive(self.pid)):
            return "has ended without releasing it"
        if self.age_sec > STALE_SEC:
            return f"has given no sign of life for {self.age_sec:.0f} s"
        return None

    def refusal(self, folder: RunFolder) -> str:
        if self.content in _held_here:
            return (f"{folder.path}: this very process ({self.pid}) is already training into it, since "
                    f"{self.fields['started_at']}. Wait until that has ended, or pass another folder as --out.")
        wait_sec = max(1, round(STALE_SEC - self.age_sec))
        return (f"{folder.path}: {self.owner} is training into it. Wait until it has ended, stop it, or pass another "
                f"folder as --out. If it has crashed, try again in {wait_sec} s: a run without a sign of life for "
                f"{STALE_SEC:.0f} s can be taken over.")


def _pid_space() -> str:
    """Names the space in which process numbers are unique: containers and reboots count them anew."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return ""


if sys.platform == "win32":

    def _alive(pid: int) -> bool:
        import ctypes

        kernel32 = ctypes.windll.kernel32          # os.kill(pid, 0) would send a Ctrl-C here
        process = kernel32.OpenProcess(0x00100000, False, pid)                      # SYNCHRONIZE
        if not process:
            return bool(kernel32.GetLastError() == 5)                               # access denied: it is somebody's
        try:
            return bool(kernel32.WaitForSingleObject(process, 0) == 0x102)          # WAIT_TIMEOUT: still running
        finally:
            kernel32.CloseHandle(process)

else:

    def _alive(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:                    # another user's
            return True
        return True
