"""The files of a zip, read where they lie and never unpacked to disk."""

import re
import stat
import threading
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from ganvas.data.source_base import UnreadableError, files, printable
from ganvas.data.source_listing import HEAD_BYTES, MAX_FILE_BYTES, Files
from ganvas.errors import DataError

MAX_COMPRESSION_RATIO = 200          # images are compressed already; zip bombs reach 1,000 and more
SMALL_MEMBER_BYTES = 8 * 2**20       # a plain bitmap of one colour passes any ratio, harmlessly

_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


class Zip(Files):
    """The members of a zip; one that would leave its folder, or a link, and the whole archive is refused."""

    def __init__(self, path: Path, where: str):
        super().__init__(where, f"{path.name}!")
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
            raise DataError(f"{where}: cannot be read as a zip ({error}). Download or pack it again.") from error
        self._lock = threading.Lock()            # one file position for all threads
        try:
            named = [member for member in self._zip.infolist() if member.filename]
            found = [member for member in named if not member.is_dir()]
            self.left_out += [("", "member without a name")] * (len(self._zip.infolist()) - len(named))
            self._members = {_checked_name(member, where): member for member in found}
        except BaseException:
            self._zip.close()
            raise
        self.names = list(self._members)
        if repeated := len(found) - len(self._members):
            self.notes.append(f"{files(repeated)} in the archive replaced by a later one of the same name")

    def size(self, name: str) -> int:
        return self._members[name].file_size

    def stamp(self, name: str) -> tuple[int, int]:
        return self._members[name].file_size, self._members[name].CRC

    def head(self, name: str) -> bytes:
        try:
            with self._lock, self._zip.open(self._members[name]) as file:
                return file.read(HEAD_BYTES)
        except _DAMAGE:
            return b""

    def read(self, name: str) -> bytes:
        try:
            with self._lock, self._zip.open(self._members[name]) as file:
                return file.read()               # stops at the declared size, which is checked, and compares the CRC
        except _DAMAGE as error:
            raise UnreadableError(printable(self.show(name)), f"damaged in the archive: {error}") from error

    def check(self, names: Iterable[str]) -> None:
        for name in names:
            _check_readable(self._members[name], self.where)

    def close(self) -> None:
        self._zip.close()


def leaves_its_folder(name: str) -> bool:
    """Whether unpacking a member of this name would write outside the folder that it is unpacked in."""
    return name.startswith("/") or re.match(r"[A-Za-z]:", name) is not None or ".." in name.split("/")


def refuse_member_outside(name: str, where: str) -> DataError:
    """The error for an archive with such a member."""
    return DataError(f"{where}: its member {name!r} points outside the archive, so the archive is not to be "
                     "trusted and nothing was read. Unpack it with care and pass the folder.")


def _checked_name(member: zipfile.ZipInfo, where: str) -> str:
    """The member's name with forward slashes. Raises DataError where it would leave the folder it is unpacked in."""
    name = member.filename.replace("\\", "/")    # some Windows tools write those
    if leaves_its_folder(name):
        raise refuse_member_outside(member.filename, where)
    if stat.S_ISLNK(member.external_attr >> 16):
        raise DataError(f"{where}: its member {member.filename!r} is a symbolic link, so nothing was read. "
                        "Pack the archive again with the files themselves.")
    return name


def _check_readable(member: zipfile.ZipInfo, where: str) -> None:
    if member.flag_bits & 1:
        raise DataError(f"{where}: its member {member.filename!r} is encrypted. "
                        "Unpack the archive with its password and pass the folder.")
    ratio = member.file_size / max(1, member.compress_size)
    if member.file_size > MAX_FILE_BYTES or (member.file_size > SMALL_MEMBER_BYTES and ratio > MAX_COMPRESSION_RATIO):
        raise DataError(f"{where}: its member {member.filename!r} unpacks from {member.compress_size:,} to "
                        f"{member.file_size:,} bytes, more than an image should (at most {MAX_FILE_BYTES:,} bytes, and "
                        f"{MAX_COMPRESSION_RATIO} times its packed size). Remove it from the archive.")
