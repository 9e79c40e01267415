"""Decoded pictures for threads that read parts of them: sheets, which all threads share, and films, each for one at a time."""

import contextlib
import math
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from PIL import Image

from ganvas.data.modes import image_of_array
from ganvas.data.opening import LARGE_PIXELS, MAX_PIXELS, Frames, one_large_at_a_time
from ganvas.data.source_base import Source

_MOST_KEPT = 16                        # sheets, and films at rest
_PIXELS_A_SEC = 30_000_000             # decoded from PNG by one core

STILL = -1                             # instead of the number of a frame


class Reader:
    """One picture of a source, open at one of its frames."""

    def __init__(self, source: Source, picture: int):
        """Reads the header. Raises UnreadableError, as `read` does."""
        item = source.load(picture)
        self.picture = picture
        self.frames = Frames(item, source.item_name(picture)) if isinstance(item, bytes) else None     # None: an array
        self._image = None if isinstance(item, bytes) else image_of_array(item)
        self.at = STILL if self._image is None else 0          # the frame that `_image` is

    @property
    def pixels(self) -> int:
        """Width times height of the frame at hand: before any is read, of the first."""
        if self._image is not None:
            return self._image.width * self._image.height
        return self.frames.pixels if self.frames is not None else 0

    def read(self, frame: int, name: str) -> Image.Image:
        """That frame as a plain picture, to be used before the next call. Raises UnreadableError, which says `name`."""
        if self._image is None or self.at != frame:
            assert self.frames is not None, "an array has one frame"
            self.frames.name = name
            self._image = self.frames.read(frame)
            self.at = frame
        return self._image


@dataclass
class _Sheet:
    """A picture that is decoded (`image`), or that a thread is decoding (None)."""

    pixels: int
    unread: int                        # parts not asked for since it was decoded
    image: Image.Image | None = None
    used_at: float = 0.0
    users: dict[int, float] = field(default_factory=dict)      # thread -> when it asked last

    def wanted_sec(self) -> float:
        """For how long it is better left to the threads that read it: at most as long as decoding it again would take."""
        if self.image is None:
            return math.inf
        others = [at for thread, at in self.users.items() if thread != threading.get_ident()]
        if self.unread <= 0 or not others:
            return 0
        return max(others) + self.pixels / _PIXELS_A_SEC - time.monotonic()


class Sheets:
    """Still pictures of a source, each decoded by one thread for all of them: to crop a decoded picture is safe from threads.

    Kept are up to 16 of together 64 million pixels (256 MB), or one. Threads that are at different pictures would push out
    each other's: whoever needs room waits for the others to finish with theirs, but no longer than decoding takes.
    """

    def __init__(self, source: Source, pixels: Sequence[int], parts: Sequence[int]):
        """pixels: the size of each picture. parts: how many times each will be asked for by who reads all parts once."""
        self._source, self._pixels, self._parts = source, pixels, parts
        self._kept: dict[int, _Sheet] = {}
        self._changed = threading.Condition()
        # Large ones always by the same thread: each has a heap of its own, in which what was freed of a sheet stays occupied.
        self._large = ThreadPoolExecutor(1, thread_name_prefix="sheets")

    def image(self, picture: int, name: str) -> Image.Image:
        """That picture, to be cropped and not changed. Raises UnreadableError, which says `name`."""
        with self._changed:
            while (sheet := self._kept.get(picture)) is None or sheet.image is None:
                if sheet is not None:                          # another thread is decoding it
                    self._changed.wait()
                elif (wait_sec := self._make_room(int(self._pixels[picture]))) > 0:
                    self._changed.wait(None if wait_sec == math.inf else wait_sec)
                else:
                    sheet = self._kept[picture] = _Sheet(int(self._pixels[picture]), int(self._parts[picture]))
                    break
            if sheet.image is not None:
                return self._used(sheet, sheet.image)
        try:
            large = sheet.pixels > LARGE_PIXELS
            image = self._large.submit(self._decoded, picture, name).result() if large else self._decoded(picture, name)
        except BaseException:
            with self._changed:
                self._kept.pop(picture, None)
                self._changed.notify_all()
            raise
        with self._changed:
            sheet.image = image
            self._changed.notify_all()
            return self._used(sheet, image)

    def close(self) -> None:
        with self._changed:
            self._kept.clear()
        self._large.shutdown(cancel_futures=True)

    def _decoded(self, picture: int, name: str) -> Image.Image:
        with one_large_at_a_time(int(self._pixels[picture])):
            return Reader(self._source, picture).read(0, name)

    def _make_room(self, pixels: int) -> float:
        """Puts pictures away until one of `pixels` fits: 0 where it does, else the seconds to wait before trying again."""
        while _is_full(pixels, self._kept.values()):
            number, sheet = min(self._kept.items(), key=lambda kept: (kept[1].image is None, kept[1].unread > 0, kept[1].used_at))
            if (wait_sec := sheet.wanted_sec()) > 0:
                return wait_sec
            del self._kept[number]
        return 0

    def _used(self, sheet: _Sheet, image: Image.Image) -> Image.Image:
        sheet.used_at = sheet.users[threading.get_ident()] = time.monotonic()
        sheet.unread -= 1
        if sheet.unread == 0:
            self._changed.notify_all()
        return image


class Films:
    """Animations of a source: each thread takes a reader for itself and puts it back, so that frames are read forward."""

    def __init__(self, source: Source, pixels: Sequence[int]):
        """pixels: the size of each picture."""
        self._source, self._pixels = source, pixels
        self._readers: list[Reader] = []                       # at rest; the latest used is the last
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def frame(self, picture: int, frame: int, name: str) -> Iterator[Image.Image]:
        """That frame as a plain picture, while the context lasts. Raises UnreadableError, which says `name`."""
        with one_large_at_a_time(int(self._pixels[picture])):
            reader = self._taken(picture, frame)
            yield reader.read(frame, name)
            self._put_back(reader)                             # one that failed is not: it may stand anywhere

    def close(self) -> None:
        with self._lock:
            self._readers.clear()

    def _taken(self, picture: int, frame: int) -> Reader:
        """The reader that stands nearest before the wanted frame, or a new one."""
        with self._lock:
            fit = [each for each in self._readers if each.picture == picture and each.at <= frame]
            if fit:
                best = max(fit, key=lambda reader: reader.at)
                self._readers.remove(best)
                return best
            self._make_room(int(self._pixels[picture]))
        return Reader(self._source, picture)

    def _put_back(self, reader: Reader) -> None:
        with self._lock:
            self._make_room(reader.pixels)
            self._readers.append(reader)

    def _make_room(self, pixels: int) -> None:
        while _is_full(pixels, self._readers):
            self._readers.pop(0)


def _is_full(pixels: int, kept: Collection[Reader | _Sheet]) -> bool:
    """Whether one of `kept` must go before a picture of `pixels` comes."""
    return bool(kept) and (len(kept) >= _MOST_KEPT or pixels + sum(each.pixels for each in kept) > MAX_PIXELS)
