"""Sources made of image files: the source itself, whatever holds the files, and the commonest holder, a folder."""

import errno
import io
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from ganvas.data.source_base import Source, UnreadableError, printable, stamp_of, stamp_of_file
from ganvas.data.source_labels import labels_of_files
from ganvas.data.source_listing import HEAD_BYTES, MAX_FILE_BYTES, Files, images_among, why_ignored
from ganvas.errors import DataError

__all__ = ["FileSource", "Folder", "FolderSource", "ListedFiles", "images_among", "read_regular_file"]

_SPECIAL = {stat.S_IFIFO: "is a named pipe, not a file", stat.S_IFSOCK: "is a socket, not a file",
            stat.S_IFCHR: "is a device, not a file", stat.S_IFBLK: "is a device, not a file",
            stat.S_IFDIR: "is a folder, not a file"}


class FileSource(Source):
    """The image files of a container, sorted by name, or in the order given."""

    def __init__(self, files: Files, name: str, images: Sequence[str], ignored: Sequence[tuple[str, str]], labels: str = "none"):
        """images, ignored: as `images_among` gives them. labels: see `open_source`. Raises DataError: labels that are missing."""
        self._files, self._images = files, list(images)
        files.check(images)
        found = labels_of_files(files, self._images, labels)
        self._why_unlabelled = found.why_unlabelled
        stamp = stamp_of([*((name, *files.stamp(name)) for name in self._images), *sorted(found.unlabelled)])
        left_out = [(name, reason) for name, reason in (*files.left_out, *ignored) if name != found.table]
        super().__init__(files.where, name, stamp, labels=found.labels, class_names=found.class_names,
                         notes=[*files.notes, *found.notes], unlabelled=found.unlabelled,
                         ignored=[(printable(files.show(name)), printable(reason)) for name, reason in left_out])

    def __len__(self) -> int:
        return len(self._images)

    def item_name(self, index: int) -> str:
        return printable(self._files.show(self._images[index]))

    def load(self, index: int) -> bytes:
        if index in self.unlabelled:
            raise UnreadableError(self.item_name(index), self._why_unlabelled)
        return self._files.read(self._images[index])

    def file_size(self, index: int) -> int | None:
        size = self._files.size(self._images[index])
        return size if size >= 0 else None

    def close(self) -> None:
        self._files.close()


class FolderSource(FileSource):
    """Every image file under a folder, at any depth, sorted by its relative name."""


class Folder(Files):
    """All files under a folder, through links too; each linked folder once."""

    place = "the folder and its sub-folders"

    def __init__(self, folder: Path, where: str):
        super().__init__(where, f"{folder.resolve().name or 'images'}/")
        self._root = _long(str(folder))
        self._look_through()

    def size(self, name: str) -> int:
        return self.stamp(name)[0]

    def stamp(self, name: str) -> tuple[int, ...]:
        return _stamp(self._path(name))

    def head(self, name: str) -> bytes:
        try:
            with _open_regular(self._path(name)) as file:
                return file.read(HEAD_BYTES) or b""
        except OSError:
            return b""

    def read(self, name: str) -> bytes:
        return read_regular_file(self._path(name), printable(self.show(name)))

    def _path(self, name: str) -> str:
        return os.path.join(self._root, name.replace("/", os.sep)) if name else self._root    # noqa: PTH118 (Path is slow here)

    def _look_through(self) -> None:
        """Fills `names` and `left_out`. A loop, not a recursion: folders may be nested deeper than Python's stack."""
        seen: set[str] = set()
        pending = [("", os.path.realpath(self._root))]
        while pending:
            inside, real = pending.pop()
            if real in seen:                     # a link to a folder met already, perhaps to one of its own parents
                self.left_out.append((inside, "linked folder met twice"))
                continue
            seen.add(real)
            try:
                with os.scandir(self._path(inside)) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                reason = error.strerror or str(error)
                if not inside:
                    raise DataError(f"{self.where}: the folder cannot be read ({reason}).") from error
                self.left_out.append((inside, f"unreadable folder ({reason})"))
                self.notes.append(f"{printable(self.show(inside))}: this folder cannot be read ({reason}), so images in it "
                                  "are missing")
                continue
            folders = []
            for entry in found:
                name = f"{inside}/{entry.name}" if inside else entry.name
                if _answers(entry.is_dir):
                    # Only links need asking (and Windows' junctions, which look like folders): it takes long for deep ones.
                    asked = os.name == "nt" or entry.is_symlink()
                    folders.append((name, os.path.realpath(entry.path) if asked else os.path.join(real, entry.name)))    # noqa: PTH118
                elif _answers(entry.is_file) or why_ignored(name) is None:
                    self.names.append(name)      # a pipe or dangling link with an image's name is an image that cannot be read
                else:
                    self.left_out.append((name, _why_no_file(entry.path)))
            pending += reversed(folders)


class ListedFiles(Files):
    """Files that the caller named one by one; their order and repetitions stay."""

    def __init__(self, paths: Sequence[Path]):
        super().__init__("the list of files", "")
        self.names = [path.as_posix() for path in paths]

    def size(self, name: str) -> int:
        return self.stamp(name)[0]

    def stamp(self, name: str) -> tuple[int, ...]:
        return _stamp(_long(name))

    def head(self, name: str) -> bytes:
        return b""                               # whoever names a file means it: none is left out by its content

    def read(self, name: str) -> bytes:
        return read_regular_file(_long(name), printable(name))


def read_regular_file(path: str, shown: str) -> bytes:
    """The content of a regular file of at most MAX_FILE_BYTES. Raises UnreadableError, which calls it `shown`.

    Pipes, sockets and devices are never opened: reading one may wait for ever.
    """
    try:
        with _open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise UnreadableError(shown, f"{size:,} bytes are more than an image should have; the limit is "
                                             f"{MAX_FILE_BYTES:,}")
            return file.read(size) or b""            # None where a file of the system has nothing to say yet
    except OSError as error:
        raise UnreadableError(shown, error.strerror or str(error)) from error


def _open_regular(path: str) -> io.FileIO:
    if reason := _special(os.stat(path).st_mode):    # noqa: PTH116 (here and below: Path is slow, a million times)
        raise OSError(errno.EINVAL, reason)
    # Not blocking, and looked at again: another process may put a pipe in the file's place.
    file = io.FileIO(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)))
    if reason := _special(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, reason)
    return file


def _special(mode: int) -> str | None:
    return None if stat.S_ISREG(mode) else _SPECIAL.get(stat.S_IFMT(mode), "is no regular file")


def _why_no_file(path: str) -> str:
    try:
        return _special(os.stat(path).st_mode) or "is no regular file"    # noqa: PTH116
    except FileNotFoundError:
        return "link to nowhere"
    except OSError as error:
        return f"cannot be opened ({error.strerror or error})"


def _answers(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError:                                  # links in a circle
        return False


def _stamp(path: str) -> tuple[int, ...]:
    try:
        return stamp_of_file(os.stat(path))          # noqa: PTH116
    except OSError:                                  # a link to nowhere: reported with the unreadable images
        return (-1,)


def _long(path: str) -> str:
    """`path`, on Windows in the form that may be longer than 260 characters."""
    if os.name != "nt" or path.startswith("\\\\"):
        return path
    return "\\\\?\\" + os.path.abspath(path)         # noqa: PTH100
