"""Writes files whole: under a temporary name, synced to disk, then renamed over the target."""

import contextlib
import errno
import itertools
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

_turn = itertools.count()


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; on leaving, it is synced and takes `path`'s place in one rename.

    Whoever reads `path` sees the old file or the new one, never a torn one, whenever the process is killed.
    On an exception the temporary file is removed and `path` stays as it was; a kill leaves it behind, for
    `remove_partials`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The number keeps two threads apart; the suffix stays last because image and video writers look at it.
    partial = path.with_name(f".{path.stem}.{os.getpid()}-{next(_turn)}.partial{path.suffix}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        _rename_over(partial, path)
        sync_folder(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _rename_over(source: Path, target: Path) -> None:
    """Renames; on Windows, where a viewer or virus scanner holding `target` makes this fail, tries for 2 seconds."""
    give_up_at = time.monotonic() + 2
    while True:
        try:
            source.replace(target)
            return
        except PermissionError:
            if os.name != "nt" or time.monotonic() > give_up_at:
                raise
            time.sleep(0.05)


def sync_folder(folder: Path) -> None:
    """Makes a rename inside `folder` survive a power cut, where the system has such a call (Windows has none)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):   # some network and FUSE file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes | str) -> None:
    """Writes `content` (text as UTF-8) to `path` as `whole_file` does."""
    with whole_file(path) as partial:
        partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def remove_partials(folder: Path, pid: int) -> None:
    """Removes from `folder` what process `pid`, killed in the middle of a `whole_file`, left there."""
    for partial in folder.glob(f".*.{pid}-*.partial*"):
        partial.unlink(missing_ok=True)


def create_new(path: Path, content: bytes) -> None:
    """Makes a file that must not be there. Raises FileExistsError if it is, like any other OSError of the system."""
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


def now_of_file_system(folder: Path) -> float:
    """The time on the clock that stamps the files in `folder` (a server's, perhaps), in seconds."""
    probe = folder / f".clock-{uuid.uuid4().hex}"
    create_new(probe, b"")
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
