"""Names of everything in a run folder, and the lock that gives the folder to one process."""

import contextlib
import difflib
import errno
import hashlib
import itertools
import json
import os
import re
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
from ganvas.files import remove_partials

HEARTBEAT_SEC = 5.0
STALE_SEC = 60.0      # a lock untouched for so long is nobody's: twelve missed heartbeats


@dataclass(frozen=True)
class RunFolder:
    """The files of one run; properties are names, whether or not the file is there yet."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def execution(self) -> Path:
        return self.path / "execution.json"

    @property
    def stats(self) -> Path:
        return self.path / "stats.jsonl"

    @property
    def images(self) -> Path:
        return self.path / "images.csv.gz"

    @property
    def data_page(self) -> Path:
        return self.path / "data.html"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def latest_grid(self) -> Path:
        return self.samples / "latest.png"

    @property
    def reals_grid(self) -> Path:
        return self.samples / "reals.png"

    @property
    def gif(self) -> Path:
        return self.path / "progress.gif"

    @property
    def mp4(self) -> Path:
        return self.path / "progress.mp4"

    @property
    def curves(self) -> Path:
        return self.path / "curves.png"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def lock(self) -> Path:
        return self.path / "run.lock"

    def grid(self, nimg: int) -> Path:
        return self.samples / f"{nimg:012d}.png"

    def checkpoint(self, nimg: int) -> Path:
        return self.checkpoints / f"{nimg:012d}.safetensors"

    def generator(self, nimg: int) -> Path:
        return self.checkpoints / f"generator-{nimg:012d}.safetensors"

    def list_checkpoints(self) -> list[tuple[int, Path]]:
        """(nimg, path) of every whole training state, oldest first."""
        return _numbered(self.checkpoints, ".safetensors")

    def list_grids(self) -> list[tuple[int, Path]]:
        """(nimg, path) of every progress grid, oldest first."""
        return _numbered(self.samples, ".png")

    @classmethod
    def create(cls, path: Path) -> "RunFolder":
        """The run folder at `path`, made if it is not there.

        Raises RunError when it cannot be made or written to, before hours of training find out.
        """
        folder = cls(path)
        try:
            for part in (path, folder.samples, folder.checkpoints):
                part.mkdir(parents=True, exist_ok=True)
            _now_of_file_system(path)
        except (FileExistsError, NotADirectoryError) as error:
            raise RunError(f"{path}: cannot be a run folder, because {_file_in_the_way(folder)} is a file. "
                           "Remove or rename that file, or pass another folder as --out.") from error
        except OSError as error:
            raise RunError(f"{path}: cannot be written to ({error.strerror}). "
                           "Change its permissions or free the disk, or pass another folder as --out.") from error
        return folder


def _numbered(folder: Path, suffix: str) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    pattern = re.compile(r"(\d{12,})" + re.escape(suffix))
    matches = ((pattern.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in matches if match)


def _file_in_the_way(folder: RunFolder) -> Path:
    candidates = (*reversed(folder.path.parents), folder.path, folder.samples, folder.checkpoints)
    return next((part for part in candidates if part.is_file()), folder.path)


def open_run(path: Path) -> RunFolder:
    """The run that was trained into `path`. Raises RunError, naming what is missing and what may have been meant."""
    folder = RunFolder(path)
    if folder.config.is_file():
        return folder
    if path.is_dir():
        runs = _runs_in(path)
        meant = f" Did you mean one of the runs in it: {_listed(runs)}?" if runs else _other_runs(path)
        raise RunError(f"{path}: not a run folder ({folder.config.name} is missing).{meant}")
    if path.exists():
        raise RunError(f"{path}: a file, not a run folder. Pass the folder that training wrote into, "
                       f"the one with {folder.config.name} in it.{_other_runs(path)}")
    raise RunError(f"{path}: no such run folder.{_other_runs(path)}")


def newest_run(runs: Path = Path("runs")) -> RunFolder:
    """The run in `runs` that was trained last, by the time of its newest checkpoint (or config, if it has none).

    Raises RunError when there is none.
    """
    folders = _runs_in(runs)
    if not folders:
        what = "has no run in it" if runs.is_dir() else "no such folder, so there is no run yet"
        raise RunError(f"{runs}: {what}. Train one with `ganvas train FOLDER_OF_IMAGES`, or name the run folder.")
    return RunFolder(max(folders, key=lambda path: (_trained_at(RunFolder(path)), path)))


def _trained_at(folder: RunFolder) -> float:
    files = [folder.config, *(path for _, path in folder.list_checkpoints())]
    return max(path.stat().st_mtime for path in files)


def _runs_in(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if RunFolder(path).config.is_file())


def _other_runs(path: Path) -> str:
    """A sentence naming the runs near `path` that may have been meant, those with a similar name if there are any."""
    by_name = {run.name.casefold(): run for parent in dict.fromkeys((Path("runs"), path.parent))
               for run in _runs_in(parent)}
    similar = difflib.get_close_matches(path.name.casefold(), by_name)
    if similar:
        return f" Did you mean {_listed([by_name[name] for name in similar])}?"
    if by_name:
        return f" Runs nearby: {_listed(sorted(by_name.values()))}."
    return " Train one with `ganvas train FOLDER_OF_IMAGES`."


def _listed(paths: list[Path], most: int = 8) -> str:
    rest = f" and {len(paths) - most} more" if len(paths) > most else ""
    return ", ".join(str(path) for path in paths[:most]) + rest


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
        """Raises RunError if the folder is no longer ours: the computer slept so long that another process took it.

        To be called before anything is written into the folder.
        """
        if self._lost is None and not self._leave.is_set():
            self._lost = self._why_lost()
        if self._lost:
            raise RunError(self._lost)

    def _acquire(self) -> None:
        give_up_at = time.monotonic() + 10
        try:
            while time.monotonic() < give_up_at:
                with contextlib.suppress(FileExistsError):
                    _create(self.folder.lock, self._content)
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
                _create(claim, self._content)
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
            _create(ours, self._content)
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
            held = cls(content, _now_of_file_system(lock.parent) - touched_at)
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


def _create(path: Path, content: bytes) -> None:
    """Raises FileExistsError if it is there, like any other OSError of the system."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o644)
    except PermissionError as error:
        if os.name == "nt" and path.exists():      # what Windows says of a file that is just being deleted
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        raise
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except BaseException:              # a full disk must not leave a lock without a name
        path.unlink(missing_ok=True)
        raise


def _now_of_file_system(folder: Path) -> float:
    """The time on the clock that stamps the files in `folder` (a server's, perhaps), in seconds."""
    probe = folder / f".clock-{uuid.uuid4().hex}"
    _create(probe, b"")
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


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
