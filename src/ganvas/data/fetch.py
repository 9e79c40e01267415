"""Public sets of images: downloaded with their checksum, or accepted from the user's hand where an account is needed."""

import contextlib
import errno
import json
import logging
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ganvas.data.cache import DOWNLOADED, cache_root, mark_used, megabytes, partial_folder
from ganvas.data.public_sets import Dataset, PublicFile, find, how_to
from ganvas.errors import DataError
from ganvas.files import whole_file, write_whole

Progress = Callable[[str, int, int | None], None]
"""progress(file name, bytes so far, bytes in all or None)."""

FIRST_WAIT_SEC = 1.0                   # before the second attempt; doubled for each further one
TIMEOUT_SEC = 30                       # without a single byte

_CHUNK_BYTES = 2**18
_PASSING = {408, 425, 429}             # HTTP's own "try again"; so are all from 500 on
_IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def download_folder(name: str) -> Path:
    """Where the cache keeps the files of the set `name`."""
    return cache_root() / "downloads" / name


def fetch(name: str, folder: Path | None = None, *, base_urls: Sequence[str] | None = None, retries: int = 2,
          progress: Progress | None = None) -> Path:
    """The path to pass to `ganvas train` for the set `name`, after downloading what is not there yet and right.

    folder: where the files go; None = in the cache. base_urls: mirrors of your own in place of the set's. retries: more
    attempts at each mirror after a fault that may pass. Files appear whole, checked, or not at all; several processes
    may fetch at once. Raises ConfigError for an unknown name; DataError: for a set that only a person can download
    (the text says how), no mirror with the right file, no room, not writable.
    """
    dataset = find(name)
    if dataset.stacks:
        return _stacked(name, fetch(dataset.stacks, base_urls=base_urls, retries=retries, progress=progress), folder)

    def by_hand(file: PublicFile) -> str:
        return (f"Check the network and try again, or get the file by hand ({dataset.page}) and pass it: "
                f"ganvas data fetch {name} --from {file.name}")

    target = download_folder(name) if folder is None else folder
    missing = [file for file in dataset.files if not _is_there(target / file.name, file, dataset)]
    if missing and dataset.by_hand and not base_urls:
        raise DataError(how_to(name))
    if missing:
        with _written(target, name):
            _prepare(target, name if folder is None else None, sum(file.bytes or 0 for file in missing))
            for file in missing:
                _download(name, file, target, base_urls or dataset.mirrors, retries, progress, by_hand(file))
    mark_used(target)
    return _to_train(dataset, target)


def fetch_file(name: str, file: PublicFile, mirrors: Sequence[str], otherwise: str, *, retries: int = 2,
               progress: Progress | None = None) -> Path:
    """A file that belongs to no set of images, such as a network's weights: from the cache's downloads, or downloaded now.

    name: its folder there. otherwise: what the user can do where it does not come. Raises DataError: no mirror has the
    right file (with what each answered, and `otherwise`), no room, cache not writable.
    """
    target = download_folder(name)
    if not _is_right(target / file.name, file):
        with _written(target, name, can_choose=False):
            _prepare(target, name, file.bytes or 0, can_choose=False)
            _download(name, file, target, mirrors, retries, progress, otherwise)
    mark_used(target)
    return target / file.name


def accept(name: str, given: Path, folder: Path | None = None) -> Path:
    """The path to pass to `ganvas train` for the set `name`, of which the user already has `given`: a file or a folder.

    What is the whole set as it is stays where it lies, unless a folder is named; else it is copied to `folder` (None = the
    cache). Raises DataError: not found, another file, damaged, or files of the set still missing.
    """
    dataset = find(name)
    if not given.exists():
        raise DataError(f"--from {given}: does not exist. It should be {_names(dataset)}, or the folder that holds it.")
    if dataset.stacks:
        return _stacked(name, accept(dataset.stacks, given), folder)
    if given.is_dir() and dataset.by_hand and not (given / dataset.files[0].name).is_file():
        if not any(path.suffix.lower() in _IMAGES for path in given.rglob("*")):
            raise DataError(f"--from {given}: there are no images in this folder. {how_to(name)}")
        return given

    sources = _given_files(dataset, given)
    for file, path in sources.items():
        _check_given(dataset, file, path)
    if len(dataset.files) == 1 and folder is None and not dataset.keep:
        return next(iter(sources.values()))

    target = download_folder(name) if folder is None else folder
    with _written(target, name):
        _prepare(target, name if folder is None else None, sum(path.stat().st_size for path in sources.values()))
        for file, path in sources.items():
            if not (target / file.name).exists() or not path.samefile(target / file.name):
                with whole_file(target / file.name) as partial:
                    _copy(path, partial, dataset.keep)
    missing = [file.name for file in dataset.files if not (target / file.name).is_file()]
    if missing:
        raise DataError(f"--from {given}: copied to {target}, but {' and '.join(missing)} of {name} are still missing there. "
                        "Pass each with --from, or the folder that holds all of them.")
    return _to_train(dataset, target)


def _stacked(name: str, originals: Path, folder: Path | None) -> Path:
    """The file of a set that is made here from the one in the folder `originals`."""
    from ganvas.data.stacked import FILE, stack_digits  # with numpy, which a plain download does without

    target = download_folder(name) if folder is None else folder
    with _written(target, name):
        _prepare(target, name if folder is None else None, 0)
        path = stack_digits(originals, target / FILE)
    mark_used(target)
    return path


# Downloading.

class _WrongFileError(Exception):
    """Something else than the wanted file came; args: the reason, and whether more may come at another attempt."""


class _Bar:
    """What pooch takes for a progress bar; passes on to `progress`."""

    def __init__(self, file: PublicFile, progress: Progress | None):
        self.file, self.progress, self.total, self.done = file, progress, 0, 0

    def update(self, count: int) -> None:
        total = self.file.bytes or self.total or None
        self.done = min(self.done + count, total or self.done + count)
        if self.progress is not None:
            self.progress(self.file.name, self.done, total)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        return


def _download(name: str, file: PublicFile, folder: Path, mirrors: Sequence[str], retries: int,
              progress: Progress | None, otherwise: str) -> None:
    """Puts `file` into `folder` from the first mirror that has it. Raises DataError with what each answered, and `otherwise`."""
    import requests

    failures = []
    for mirror in mirrors:
        address = mirror.rstrip("/") + "/" + file.name
        for attempt in range(1 + retries):
            bar = _Bar(file, progress)
            try:
                with partial_folder(folder / "download") as partial:
                    _stream(address, file, partial, bar)
                    (partial / file.name).replace(folder / file.name)
                return
            except _WrongFileError as error:
                reason, may_pass = error.args
            except requests.RequestException as error:
                reason, may_pass = _reason(error, bar)
            if not may_pass or attempt == retries:
                failures.append(f"\n  {address}: {reason}")
                break
            time.sleep(FIRST_WAIT_SEC * 2**attempt)
    raise DataError(f"{name}: {file.name} cannot be downloaded to {folder}; nothing of it is kept.{''.join(failures)}\n"
                    f"{otherwise}")


def _stream(address: str, file: PublicFile, folder: Path, bar: _Bar) -> None:
    """Downloads to `folder` through pooch. Raises _WrongFileError, requests.RequestException or OSError."""
    import pooch

    # identity: a server that unpacks .gz on the way would make every checksum wrong.
    http = pooch.HTTPDownloader(progressbar=bar, chunk_size=_CHUNK_BYTES, timeout=TIMEOUT_SEC,
                                headers={"Accept-Encoding": "identity"})

    def download(url: str, path: str, owner: Any) -> None:
        http(url, path, owner)
        problem = _problem(Path(path), file)
        if problem is not None:
            raise _WrongFileError(problem, file.bytes is not None and Path(path).stat().st_size < file.bytes)

    store = pooch.create(path=folder, base_url="", registry={file.name: file.checksum}, urls={file.name: address})
    with _quiet(pooch.get_logger()):
        store.fetch(file.name, downloader=download)


def _reason(error: Any, bar: _Bar) -> tuple[str, bool]:
    """Why a request failed, for the user, and whether another attempt may help."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        status = error.response.status_code
        return f"HTTP {status} {error.response.reason}", status >= 500 or status in _PASSING
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate cannot be verified; does a proxy or a wrong clock stand between?", False
    if bar.done:
        total = bar.file.bytes or bar.total
        return f"the connection broke after {bar.done:,}{f' of {total:,}' if total else ''} bytes", True
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT_SEC} seconds", True
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke before the first bytes", True
    if isinstance(error, requests.ConnectionError):
        return "no connection", True
    return str(error), False


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


# Files on disk.

def _is_there(path: Path, file: PublicFile, dataset: Dataset) -> bool:
    """Whether the file is there and right. One given by hand was checked when it came."""
    return path.is_file() if dataset.by_hand else _is_right(path, file)


def _is_right(path: Path, file: PublicFile) -> bool:
    return path.is_file() and _problem(path, file) is None


def _problem(path: Path, file: PublicFile) -> str | None:
    """What shows that `path` is not `file`, or None."""
    import pooch

    if file.checksum is None:
        return None
    size = path.stat().st_size
    kind, _, wanted = file.checksum.partition(":")
    got = pooch.file_hash(str(path), alg=kind)
    if got == wanted:
        return None
    if _is_web_page(path):
        return "a web page came instead of the file; is a login needed here?"
    expected = f"{file.bytes:,} bytes with " if file.bytes is not None else ""
    return f"{size:,} bytes with {kind} {got}, but {expected}{kind} {wanted} was expected"


def _is_web_page(path: Path) -> bool:
    with path.open("rb") as opened:
        return opened.read(512).lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _given_files(dataset: Dataset, given: Path) -> dict[PublicFile, Path]:
    """Which files of the set the user gives."""
    if given.is_dir():
        found = {file: given / file.name for file in dataset.files if (given / file.name).is_file()}
        if not found:
            raise DataError(f"--from {given}: this folder does not hold {_names(dataset)}.")
        return found
    if len(dataset.files) == 1:
        return {dataset.files[0]: given}
    for file in dataset.files:
        if given.name == file.name or _problem(given, file) is None:
            return {file: given}
    raise DataError(f"--from {given}: is none of {_names(dataset)}, neither by its name nor by its content.")


def _check_given(dataset: Dataset, file: PublicFile, path: Path) -> None:
    """Raises DataError if `path` cannot be `file`. Of a set got by hand, other archives of the same images pass too."""
    problem = _problem(path, file)
    if problem is None and file.checksum is not None:
        return
    if not dataset.by_hand:
        raise DataError(f"--from {path}: is not {file.name}: {problem}. Download it again from {dataset.page}.")
    if _is_web_page(path):
        raise DataError(f"--from {path}: is a web page, not the file; was the login forgotten? See {dataset.page}.")
    try:
        with zipfile.ZipFile(path) as archive:
            if any(Path(name).suffix.lower() in _IMAGES for name in archive.namelist()):
                return
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"--from {path}: cannot be opened as a zip ({error}), so it is not the whole download: "
                        f"{path.stat().st_size:,} bytes. Download it again from {dataset.page}.") from error
    raise DataError(f"--from {path}: there are no images in this zip. The right one is at {dataset.page}.")


def _copy(source: Path, target: Path, keep: str) -> None:
    """Copies a file; of a zip only the members in folders called `keep`, if there are any."""
    if keep:
        try:
            with zipfile.ZipFile(source) as archive:
                members = [member for member in archive.infolist() if keep in member.filename.split("/")[:-1]]
                if members:
                    with zipfile.ZipFile(target, "w") as kept:
                        for member in members:
                            kept.writestr(member.filename, archive.read(member))
                    return
        except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
            raise DataError(f"--from {source}: is damaged ({error}). Download it again.") from error
    shutil.copyfile(source, target)


def _prepare(folder: Path, cached_as: str | None, needed: int, can_choose: bool = True) -> None:
    """Makes `folder`, marked as the cache's own unless it is the user's. Raises DataError if `needed` bytes do not fit."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(f"{folder}: {megabytes(needed)} are needed, but only {megabytes(free)} are free there. "
                        f"{_elsewhere('on another disk', can_choose)}")
    if cached_as is not None:
        write_whole(folder / DOWNLOADED, json.dumps({"source": cached_as}))


@contextlib.contextmanager
def _written(folder: Path, name: str, can_choose: bool = True) -> Iterator[None]:
    """Turns what the disk refuses into errors for the user."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"{folder}: the disk became full while {name} was written; nothing half is left. "
                            f"{_elsewhere('on another disk', can_choose)}") from error
        raise DataError(f"{folder}: {name} cannot be written there ({error.strerror or error}). "
                        f"{_elsewhere('that can be written', can_choose)}") from error


def _elsewhere(what: str, can_choose: bool) -> str:
    """Where else the files can go; can_choose: --out was there to be passed."""
    return (f"Pass --out with a folder {what}, or set GANVAS_CACHE to one." if can_choose
            else f"Set GANVAS_CACHE to a folder {what}.")


def _to_train(dataset: Dataset, folder: Path) -> Path:
    """A single file is a source itself; several make their folder one."""
    return folder / dataset.files[0].name if len(dataset.files) == 1 else folder


def _names(dataset: Dataset) -> str:
    return " or ".join(file.name for file in dataset.files)
