"""The files of a tar: a plain one is read where it lies; a compressed one is unpacked once, to a file without a name."""

import bz2
import errno
import gzip
import hashlib
import lzma
import os
import shutil
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from ganvas.data.cache import cache_root
from ganvas.data.source_base import UnreadableError, files, printable, stamp_of, stamp_of_file
from ganvas.data.source_listing import HEAD_BYTES, MAX_FILE_BYTES, Files
from ganvas.data.source_zip import MAX_COMPRESSION_RATIO, SMALL_MEMBER_BYTES, leaves_its_folder, refuse_member_outside
from ganvas.errors import DataError

TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")

_CHUNK_BYTES = 2**20
_XZ_MEMORY = 256 * 2**20               # `xz -9` needs 65 MB; a hostile header may ask for 4 GB
_MOST_HEADER_BYTES = 2**20             # of an extended header, which tarfile holds in memory
_ROOM_LEFT_BYTES = 64 * 2**20
_LOOK_AGAIN_BYTES = 64 * 2**20         # between two looks at the room that is left
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_KINDS = {tarfile.SYMTYPE: "link", tarfile.LNKTYPE: "link", tarfile.FIFOTYPE: "named pipe", tarfile.CHRTYPE: "device",
          tarfile.BLKTYPE: "device"}


class Tar(Files):
    """The regular files in a tar; links and devices are left out, a member that would leave its folder refuses the archive."""

    def __init__(self, path: Path, where: str):
        super().__init__(where, f"{path.name}!")
        self._lock = threading.Lock()              # where the system cannot read at a place, one position for all threads
        self._places: dict[str, tuple[int, int]] = {}    # name -> (offset, size) of the content
        try:
            self._file, self._content = _plain_tar(path, where)
        except OSError as error:
            raise DataError(f"{where}: cannot be read ({error.strerror or error}).") from error
        try:
            self._index()
        except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, RecursionError) as error:
            self.close()
            raise DataError(f"{where}: cannot be read as a tar ({error}). It may be damaged or cut short: download or pack it "
                            "again.") from error
        except BaseException:
            self.close()
            raise
        self.names = list(self._places)

    def size(self, name: str) -> int:
        return self._places[name][1]

    def stamp(self, name: str) -> tuple[int, str]:
        return self._places[name][1], self._content

    def head(self, name: str) -> bytes:
        offset, size = self._places[name]
        return self._at(offset, min(size, HEAD_BYTES))

    def read(self, name: str) -> bytes:
        offset, size = self._places[name]
        shown = printable(self.show(name))
        if size > MAX_FILE_BYTES:
            raise UnreadableError(shown, f"{size:,} bytes are more than an image should have; the limit is {MAX_FILE_BYTES:,}")
        try:
            data = self._at(offset, size)
        except OSError as error:
            raise UnreadableError(shown, error.strerror or str(error)) from error
        if len(data) < size:
            raise UnreadableError(shown, "the archive was cut short while it was in use")
        return data

    def close(self) -> None:
        self._file.close()

    def _at(self, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), size, offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)

    def _index(self) -> None:
        """Fills `_places` and `left_out` from the headers."""
        end, repeated = -1, 0
        self._file.seek(0)
        with tarfile.open(fileobj=self._file, mode="r:", tarinfo=_Header) as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()            # type: ignore[attr-defined]  # it keeps all headers, but places are enough
                if archive.offset <= end or member.size < 0:
                    raise tarfile.ReadError(f"the header of {member.name!r} points backwards")
                end = archive.offset
                name = member.name.replace("\\", "/")
                while name.startswith("./"):
                    name = name[2:]
                if leaves_its_folder(name):
                    raise refuse_member_outside(member.name, self.where)
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    kind = _KINDS.get(member.type, "sparse file" if member.isreg() else "special file")
                    self.left_out.append((name, f"{kind} in the archive"))
                    continue
                repeated += name in self._places
                self._places[name] = member.offset_data, member.size
            rest = self._at(max(0, archive.offset), tarfile.BLOCKSIZE)
            if rest.strip(b"\0"):                  # tarfile takes a damaged header for the end
                raise tarfile.ReadError(f"no header at byte {archive.offset:,}")
        if repeated:
            self.notes.append(f"{files(repeated)} in the archive replaced by a later one of the same name")


class _Header(tarfile.TarInfo):
    """A header that does not promise more than should be held in memory."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: Any, errors: Any) -> "_Header":
        header = super().frombuf(buf, encoding, errors)
        if header.type in _EXTENDED and not 0 <= header.size <= _MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"an extended header of {header.size:,} bytes")
        return header


def name_without_ending(path: Path) -> str:
    """"faces" for faces.tar.gz."""
    ending = next(ending for ending in sorted(TAR_ENDINGS, key=len, reverse=True) if path.name.lower().endswith(ending))
    return path.name[:-len(ending)] or path.name


def _plain_tar(path: Path, where: str) -> tuple[IO[bytes], str]:
    """The tar as an open file without compression, and what changes with its content."""
    file = path.open("rb")
    try:
        start = file.read(6)
        if not start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")):
            return file, stamp_of(stamp_of_file(os.fstat(file.fileno())))
        file.seek(0)
        packed_bytes = os.fstat(file.fileno()).st_size
        with file:
            return _unpacked(_chunks(file, start), packed_bytes, where)
    except BaseException:
        file.close()
        raise


def _chunks(file: IO[bytes], start: bytes) -> Iterator[bytes]:
    if start.startswith(b"\xfd7zXZ\0"):
        yield from _xz_chunks(file)
        return
    opened = cast(IO[bytes], gzip.GzipFile(fileobj=file) if start.startswith(b"\x1f\x8b") else bz2.BZ2File(file))
    with opened:
        while chunk := opened.read(_CHUNK_BYTES):
            yield chunk


def _xz_chunks(file: IO[bytes]) -> Iterator[bytes]:
    """As LZMAFile reads, but with a limit on memory."""
    packed = file.read(_CHUNK_BYTES)
    while packed:
        unpacker = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
        while not unpacker.eof:
            if unpacker.needs_input and not packed:
                raise EOFError("it ends in the middle of its compressed data")
            chunk = unpacker.decompress(packed if unpacker.needs_input else b"", _CHUNK_BYTES)
            if chunk:
                yield chunk
            packed = file.read(_CHUNK_BYTES) if unpacker.needs_input and not unpacker.eof else b""
        packed = (unpacker.unused_data + file.read(_CHUNK_BYTES)).lstrip(b"\0")     # streams may be padded with zeros


def _unpacked(chunks: Iterator[bytes], packed_bytes: int, where: str) -> tuple[IO[bytes], str]:
    """`chunks` in a file of the cache that has no name and vanishes when it is closed; and a hash of them."""
    scratch = cache_root() / "scratch"
    remedy = "Set GANVAS_CACHE to a folder on another disk, or unpack the archive yourself and pass the folder."
    digest, written = hashlib.sha256(), 0
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 (the archive stays open)
    except OSError as error:
        raise DataError(f"{scratch}: {where} cannot be unpacked there ({error.strerror or error}). {remedy}") from error
    try:
        for chunk in chunks:
            wanted = _ROOM_LEFT_BYTES + max(0, packed_bytes - written)
            if written % _LOOK_AGAIN_BYTES < len(chunk) and shutil.disk_usage(scratch).free < wanted:
                raise OSError(errno.ENOSPC, "too little room is left")
            written += len(chunk)
            if written > max(SMALL_MEMBER_BYTES, MAX_COMPRESSION_RATIO * packed_bytes):
                raise DataError(f"{where}: unpacks from {packed_bytes:,} bytes to more than {MAX_COMPRESSION_RATIO} times as "
                                "many, which "
                                "images do not. If it is to be trusted, unpack it yourself and pass the folder.")
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        return file, digest.hexdigest()
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, ValueError) as error:
        file.close()
        raise DataError(f"{where}: cannot be unpacked ({error}). It may be damaged or cut short: download it again.") from error
    except OSError as error:
        file.close()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"{scratch}: the disk has too little room to unpack {where} ({written:,} bytes were). "
                            f"{remedy}") from error
        raise DataError(f"{where}: cannot be unpacked ({error.strerror or error}). It may be damaged: download it "
                        "again.") from error
    except BaseException:
        file.close()
        raise
