"""What every source of images offers, whatever it is stored in."""

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from ganvas.errors import DataError

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

MOST_LISTED = 10                       # failures in one message

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_NO_UNICODE = re.compile("[\ud800-\udfff]")


class UnreadableError(DataError):
    """One item that cannot be read as an image; `item` and `reason` allow a list of many to be made."""

    def __init__(self, item: str, reason: str):
        super().__init__(f"{item}: cannot be read as an image ({reason}). "
                         "Remove it, or pass --skip-bad to leave such files out.")
        self.item, self.reason = item, reason


class Source(ABC):
    """Images in a fixed order that is the same on every system, found but not yet decoded.

    A new kind of source is a subclass with `__len__`, `item_name` and `load`, and a line in `sources.open_source`.
    """

    def __init__(self, where: str, name: str, stamp: str, *, labels: Labels | None = None,
                 class_names: Sequence[str] = (), notes: Iterable[str] = (), ignored: Iterable[tuple[str, str]] = (),
                 unlabelled: Iterable[int] = ()):
        self.where = where                        # as the user wrote it: for messages
        # How the user would call it: runs/<name>. Not all that writes there takes bytes that are no Unicode.
        self.name = _NO_UNICODE.sub("_", name)
        self.stamp = stamp                        # changes when the content does; cheap, so that a cached pack is found fast
        self.labels = labels                      # (N,) int64, indices into class_names; None = no labels
        self.class_names = tuple(class_names)
        self.unlabelled = frozenset(unlabelled)   # images that lack a label where others have one: theirs means nothing
        self.ignored = list(ignored)              # (name as the user would call it, reason) of each file found and left out
        reasons = Counter(reason for _, reason in self.ignored)
        summary = [f"{files(reasons.total())} ignored: {counted(reasons)}"] if reasons else []
        self.notes = [*summary, *notes]           # what the user should be told: ignored files, labels found, parts used

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def item_name(self, index: int) -> str:
        """What the user would call that image: "sprites/a.png", "x.zip!a/b.png", "train-images[17]"."""

    @abstractmethod
    def load(self, index: int) -> bytes | Pixels:
        """The bytes of an encoded image file, or (H, W, C) uint8 pixels. May be called from several threads.

        Raises UnreadableError for this one item.
        """

    def stored(self, index: int) -> tuple[str, str, int]:
        """How an image that `load` gives as pixels was stored: format ("PNG"), mode ("P"), and the number of its frames.

        ("", "", 1) where pixels are all there ever was.
        """
        return "", "", 1

    def file_size(self, index: int) -> int | None:
        """Bytes of the image's file, without opening it; None for one that is in no file of its own, or has gone."""
        return None

    def close(self) -> None:
        """Closes open files; the source cannot be read afterwards."""
        return


def stamp_of(parts: Iterable[object]) -> str:
    """A hash of `parts` in their order, each separated from the next."""
    digest = hashlib.sha256()
    for part in parts:
        # File names that are not valid Unicode reach Python as surrogates; repr keeps those encodable and the parts apart.
        digest.update(repr(part).encode("utf-8", "backslashreplace"))
        digest.update(b"\0")
    return digest.hexdigest()


def stamp_of_file(info: os.stat_result) -> tuple[int, int, int, int]:
    """What changes when a file's content does, and differs between two files of the same name, size and time.

    Not the device: its number may change when the system starts again.
    """
    return info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino


def counted(reasons: Counter[str]) -> str:
    """"12 .txt, 3 hidden": the most frequent first, at most six of them."""
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    listed = [f"{count} {reason}" for reason, count in ordered[:6]]
    rest = sum(count for _, count in ordered[6:])
    return ", ".join([*listed, f"{rest} others"] if rest else listed)


def printable(name: str) -> str:
    """`name` on one line and encodable: line breaks, other control characters, text that turns the direction of reading,
    and bytes that are no Unicode, as backslash escapes."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), name)


def listed(failures: Sequence[tuple[str, str]], count: int) -> str:
    """The first of `count` failures (name, reason), MOST_LISTED at most, each on a line of its own, to follow a sentence."""
    lines = [f"\n  {name}: {reason}" for name, reason in failures[:MOST_LISTED]]
    return "".join(lines) + (f"\n  ... and {count - len(lines):,} more" if count > len(lines) else "")


def files(count: int) -> str:
    """"1 file", "2 files"."""
    return f"{count:,} file{'' if count == 1 else 's'}"
