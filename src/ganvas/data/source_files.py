"""Sources made of image files: a folder, or a zip that is read where it lies and never unpacked to disk."""

import os
import re
import stat
import threading
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np

from ganvas.data.decode import image_extensions
from ganvas.data.source_base import Labels, Source, UnreadableError, counted, files, stamp_of
from ganvas.errors import DataError

MAX_MEMBER_BYTES = 256 * 2**20
MAX_COMPRESSION_RATIO = 200          # images are compressed already; zip bombs reach 1,000 and more
SMALL_MEMBER_BYTES = 8 * 2**20       # a plain bitmap of one colour passes any ratio, harmlessly

_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini"}
_SPLIT_NAMES = {"train", "training", "test", "testing", "val", "valid", "validation"}


class FolderSource(Source):
    """Every image file under a folder, at any depth, sorted by its relative name."""

    def __init__(self, folder: Path, where: str, by_folder: bool):
        self._folder = folder
        found, ignored = _files_under(folder, where)
        self._names, unfit = images_among(found)
        ignored += unfit
        if not self._names:
            raise DataError(_no_images(where, "the folder and its sub-folders", ignored))
        labels, class_names, notes = folder_labels(self._names, where, by_folder)
        stamp = stamp_of((name, *_size_and_time(folder / name)) for name in self._names)
        super().__init__(where, folder.resolve().name or "images", stamp,
                         labels=labels, class_names=class_names, notes=_ignored_note(ignored) + notes)

    def __len__(self) -> int:
        return len(self._names)

    def item_name(self, index: int) -> str:
        return f"{self.name}/{self._names[index]}"

    def load(self, index: int) -> bytes:
        try:
            return (self._folder / self._names[index]).read_bytes()
        except OSError as error:
            raise UnreadableError(self.item_name(index), error.strerror or str(error)) from error


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        info = path.stat()
    except OSError:                    # a link to nowhere: reported with the unreadable images
        return -1, 0
    return info.st_size, info.st_mtime_ns


class ZipSource(Source):
    """Every image file in a zip, sorted by name; one dangerous member and the whole archive is refused."""

    def __init__(self, path: Path, where: str, by_folder: bool):
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
            raise DataError(f"{where}: cannot be read as a zip ({error}). Download or pack it again.") from error
        self._lock = threading.Lock()            # one file position for all threads
        self._file_name = path.name
        try:
            members = {_checked_name(member, where): member for member in self._zip.infolist() if not member.is_dir()}
            self._names, ignored = images_among(members)
            if not self._names:
                raise DataError(_no_images(where, "the archive", ignored))
            self._members = [members[name] for name in self._names]
            for member in self._members:
                _check_readable(member, where)
            labels, class_names, notes = folder_labels(self._names, where, by_folder)
        except BaseException:
            self._zip.close()
            raise
        repeated = sum(not member.is_dir() for member in self._zip.infolist()) - len(members)
        if repeated:
            notes.append(f"{files(repeated)} in the archive replaced by a later one of the same name")
        stamp = stamp_of((name, member.file_size, member.CRC)
                         for name, member in zip(self._names, self._members, strict=True))
        super().__init__(where, path.stem, stamp,
                         labels=labels, class_names=class_names, notes=_ignored_note(ignored) + notes)

    def __len__(self) -> int:
        return len(self._names)

    def item_name(self, index: int) -> str:
        return f"{self._file_name}!{self._names[index]}"

    def load(self, index: int) -> bytes:
        member = self._members[index]
        try:
            with self._lock, self._zip.open(member) as file:
                return file.read()               # stops at the declared size, which is checked, and compares the CRC
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
            raise UnreadableError(self.item_name(index), f"damaged in the archive: {error}") from error

    def close(self) -> None:
        self._zip.close()


def _checked_name(member: zipfile.ZipInfo, where: str) -> str:
    """The member's name with forward slashes. Raises DataError where it would leave the folder it is unpacked in."""
    name = member.filename.replace("\\", "/")    # some Windows tools write those
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
        raise DataError(f"{where}: its member {member.filename!r} points outside the archive, so the archive is not to be "
                        "trusted and nothing was read. Unpack it with care and pass the folder.")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise DataError(f"{where}: its member {member.filename!r} is a symbolic link, so nothing was read. "
                        "Pack the archive again with the files themselves.")
    return name


def _check_readable(member: zipfile.ZipInfo, where: str) -> None:
    if member.flag_bits & 1:
        raise DataError(f"{where}: its member {member.filename!r} is encrypted. "
                        "Unpack the archive with its password and pass the folder.")
    ratio = member.file_size / max(1, member.compress_size)
    if member.file_size > MAX_MEMBER_BYTES or (member.file_size > SMALL_MEMBER_BYTES and ratio > MAX_COMPRESSION_RATIO):
        raise DataError(f"{where}: its member {member.filename!r} unpacks from {member.compress_size:,} to "
                        f"{member.file_size:,} bytes, more than an image should (at most {MAX_MEMBER_BYTES:,} bytes, and "
                        f"{MAX_COMPRESSION_RATIO} times its packed size). Remove it from the archive.")


def _files_under(folder: Path, where: str) -> tuple[list[str], Counter[str]]:
    """Relative names with forward slashes of all files under `folder`, through links too, and what was left out."""
    def give_up(error: OSError) -> None:
        raise DataError(f"{where}: the folder {error.filename} cannot be read ({error.strerror}).") from error

    names: list[str] = []
    left_out: Counter[str] = Counter()
    seen: set[str] = set()
    for parent, children, file_names in os.walk(folder, followlinks=True, onerror=give_up):
        real = os.path.realpath(parent)
        if real in seen:                         # a link to a folder met already, perhaps to one of its own parents
            left_out["linked folder met twice"] += 1
            children.clear()
            continue
        seen.add(real)
        children.sort()
        relative = Path(parent).relative_to(folder)
        names += [(relative / name).as_posix() for name in file_names]
    return names, left_out


def images_among(names: Iterable[str]) -> tuple[list[str], Counter[str]]:
    """The image files among relative `names`, sorted, and how many others there are by reason."""
    images: list[str] = []
    ignored: Counter[str] = Counter()
    for name in names:
        reason = _why_ignored(name)
        if reason is None:
            images.append(name)
        else:
            ignored[reason] += 1
    # macOS may hand out é as e and accent: composed, the order is the same everywhere.
    return sorted(images, key=lambda name: (unicodedata.normalize("NFC", name), name)), ignored


def _why_ignored(name: str) -> str | None:
    *folders, file_name = name.split("/")
    if "__MACOSX" in folders or file_name.startswith("._"):
        return "macOS metadata"
    if file_name.lower() in _SYSTEM_FILES:
        return file_name
    if any(part.startswith(".") for part in (*folders, file_name)):
        return "hidden"
    ending = PurePosixPath(file_name).suffix.lower()
    return None if ending in image_extensions() else ending or "without an ending"


def _ignored_note(ignored: Counter[str]) -> list[str]:
    return [f"{files(ignored.total())} ignored: {counted(ignored)}"] if ignored else []


def _no_images(where: str, place: str, ignored: Counter[str]) -> str:
    found = f"Found there: {counted(ignored)}." if ignored else "There are no files at all."
    inner = [ending for ending in (".zip", ".npz", ".npy") if ending in ignored]
    remedy = f" Pass the {' or '.join(inner)} file itself." if inner else " Pass the folder that holds your images."
    return f"{where}: no images. Looked in {place} for .png, .jpg, .webp, .gif, .bmp and the like. {found}{remedy}"


def folder_labels(names: list[str], where: str, by_folder: bool) -> tuple[Labels | None, list[str], list[str]]:
    """Labels from the first folder of each name, the class names, and notes; (None, [], notes) if not `by_folder`.

    A folder that wraps all of them, as in a zip made from one folder, is passed over. Raises DataError if an image lies
    in no class folder, or if there are fewer than two classes.
    """
    split = [name.split("/") for name in names]
    depth = 0
    while all(len(parts) > depth + 2 and parts[depth] == split[0][depth] for parts in split):
        depth += 1
    loose = [name for name, parts in zip(names, split, strict=True) if len(parts) <= depth + 1]
    owners = [parts[depth] for parts in split if len(parts) > depth + 1]
    class_names = sorted(set(owners))
    splits = f"the sub-folders {', '.join(class_names)} look like parts of a set, not classes"
    are_splits = len(class_names) > 1 and all(name.lower() in _SPLIT_NAMES for name in class_names)

    if not by_folder:
        if are_splits:
            return None, [], [f"{splits}: images of all of them are used"]
        if loose or len(class_names) < 2:
            return None, [], []
        return None, [], [f"labels found in {len(class_names)} sub-folders: pass --labels folder to keep them"]

    if loose:
        raise DataError(f"{where}: {loose[0]} lies in no class folder ({len(loose):,} of {len(names):,} images do), but "
                        "--labels folder takes the class from the first sub-folder. Move it into one, or pass "
                        "--labels none.")
    if len(class_names) < 2:
        raise DataError(f"{where}: only one class folder, {class_names[0]!r}, but labels need two or more. Pass --labels "
                        "none, or the folder above.")
    numbers = {name: number for number, name in enumerate(class_names)}
    labels = np.array([numbers[owner] for owner in owners], dtype=np.int64)
    return labels, class_names, [splits] if are_splits else []
