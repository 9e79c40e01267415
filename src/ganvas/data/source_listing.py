"""Which of many named files are images: what every container (folder, zip, tar) must offer, and how it is looked through."""

import posixpath
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable

from ganvas.data.decode import image_extensions
from ganvas.data.source_base import counted

MAX_FILE_BYTES = 256 * 2**20           # decode.MAX_PIXELS as plain RGBA; an image file that is larger is a mistake or an attack
HEAD_BYTES = 32

_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini"}
# They begin like a TIFF, but what Pillow would find in them is the camera's thumbnail.
_CAMERA_RAW = {".3fr", ".arw", ".cr2", ".dcr", ".dng", ".erf", ".kdc", ".nef", ".nrw", ".orf", ".pef", ".rw2", ".srw"}
_UNREADABLE_IMAGES = {".heic", ".heif", ".jxl"}    # pictures without doubt: said to be unreadable rather than passed over


class Files(ABC):
    """Named files in one place. Names are relative to it, with forward slashes, and in no particular order."""

    place = "the archive"                          # for "Looked in ..."

    def __init__(self, where: str, label: str):
        self.where = where                         # as the user wrote it: for messages
        self.label = label                         # what stands before a name: "sprites/", "x.zip!"
        self.names: list[str] = []
        self.left_out: list[tuple[str, str]] = []  # (name, reason): found, but never to be opened
        self.notes: list[str] = []

    def show(self, name: str) -> str:
        """What the user would call that file."""
        return f"{self.label}{name}"

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes of that file, unpacked; -1 if that cannot be told."""

    @abstractmethod
    def stamp(self, name: str) -> tuple[object, ...]:
        """What changes when the content of that file does."""

    @abstractmethod
    def head(self, name: str) -> bytes:
        """The first HEAD_BYTES of that file, or fewer; nothing if it cannot be read."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The whole file. May be called from several threads. Raises UnreadableError."""

    def check(self, names: Iterable[str]) -> None:
        """Raises DataError if reading one of `names` would be dangerous or impossible for the whole container."""
        return

    def close(self) -> None:
        """Closes open files."""
        return


def images_among(names: Iterable[str],
                 head: Callable[[str], bytes] = lambda name: b"") -> tuple[list[str], list[tuple[str, str]]]:
    """The image files among relative `names`, sorted, and (name, reason) of each other one.

    head(name) gives the first bytes of a file whose ending is not an image's: if they are, it is an image with a wrong name.
    """
    images: list[str] = []
    ignored: list[tuple[str, str]] = []
    for name in names:
        reason = why_ignored(name)
        if reason is None or (is_looked_into(name) and begins_like_an_image(head(name))):
            images.append(name)
        else:
            ignored.append((name, reason))
    # macOS may hand out é as e and accent: composed, the order is the same everywhere.
    return sorted(images, key=lambda name: (unicodedata.normalize("NFC", name), name)), ignored


def why_ignored(name: str) -> str | None:
    """The reason for which a file of this name is no image, or None if it is one by its ending."""
    if reason := _why_never(name):
        return reason
    ending = _ending(name)
    return None if ending in image_extensions() or ending in _UNREADABLE_IMAGES else ending or "without an ending"


def is_looked_into(name: str) -> bool:
    """Whether a file that is no image by its name may be one by its content."""
    return _why_never(name) is None and _ending(name) not in _CAMERA_RAW


def _ending(name: str) -> str:
    ending = posixpath.splitext(name)[1].lower()    # Path takes ten times as long, a million times
    return "" if ending == "." else ending


def _why_never(name: str) -> str | None:
    *folders, file_name = name.split("/")
    if "__MACOSX" in folders or file_name.startswith("._"):
        return "macOS metadata"
    if file_name.lower() in _SYSTEM_FILES:
        return file_name
    if any(part.startswith(".") for part in (*folders, file_name)):
        return "hidden"
    return None


def begins_like_an_image(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a PNG, JPEG, GIF, BMP, WebP or TIFF."""
    if head.startswith(b"BM"):                     # two letters prove little: the reserved bytes and the second header's size too
        return head[6:10] == bytes(4) and int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124)
    if head.startswith(b"RIFF"):
        return head[8:12] == b"WEBP"
    return head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*"))


def no_images(files: Files, ignored: list[tuple[str, str]]) -> str:
    """The message for a place without images: where was looked for what, and what was there instead."""
    reasons = Counter(reason for _, reason in ignored)
    found = f"Found there: {counted(reasons)}." if reasons else "There are no files at all."
    inner = [ending for ending in (".zip", ".tar", ".tgz", ".npz", ".npy", ".mat") if ending in reasons]
    remedy = f" Pass the {' or '.join(inner)} file itself." if inner else " Pass the folder that holds your images."
    return f"{files.where}: no images. Looked in {files.place} for .png, .jpg, .webp, .gif, .bmp and the like. {found}{remedy}"
