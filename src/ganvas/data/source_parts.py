"""Parts of a source's pictures as images of their own: the tiles of sprite sheets, the frames of animations."""

import threading
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from ganvas.data.modes import image_of_array
from ganvas.data.opening import MAX_PIXELS, Frames
from ganvas.data.source_base import Pixels, Source, UnreadableError, stamp_of
from ganvas.errors import ConfigError, DataError

FramesWanted = Literal["first", "all"]

_MOST_READERS = 16                     # pictures kept open: one for each thread that may read
_WHOLE = -1                            # instead of a frame, row or column: all there is


class _Part(NamedTuple):
    """Where one item lies."""

    picture: int                       # its index in the source
    frame: int = _WHOLE
    row: int = _WHOLE
    column: int = _WHOLE


def parts_of(source: Source, tile: tuple[int, int] | None, frames: FramesWanted) -> Source:
    """The parts of the pictures of `source` as a source: tiles of `tile` = (width, height), "all" frames, or both.

    Tiles go row by row; empty ones are left out (nothing in them shows, or, on a sheet without transparency, a single
    colour), and so is what is no whole tile at the right and at the bottom: `notes` say how much. Frames are as a viewer
    shows them, repeated ones too: of GIF, APNG, WEBP and AVIF, and the pages of TIFF. A part is called
    "sheet.png[row 2, column 5]" or "walk.gif[frame 3]", counted from 1. With tiles, each picture is decoded once here, else
    its header is read; a picture that cannot be read stays one item that cannot. With None and "first" it is `source` itself.
    Closing the result closes `source`. Raises DataError for a picture smaller than a tile, and if every tile is empty.
    """
    if frames not in get_args(FramesWanted):
        raise ConfigError(f"frames {frames!r}: must be first or all.")
    if tile is not None and min(tile) < 1:
        raise ConfigError(f"tile {tile[0]}x{tile[1]}: both sides must be at least 1 pixel.")
    return source if tile is None and frames == "first" else PartsSource(source, tile, frames)


class PartsSource(Source):
    """See `parts_of`. Reading parts in their order decodes each picture once for each thread."""

    def __init__(self, source: Source, tile: tuple[int, int] | None, frames: FramesWanted):
        self._source, self._tile = source, tile
        self._readers: list[_Reader] = []            # at rest; the latest used is the last
        self._lock = threading.Lock()
        self._empty = self._animations = self._frames = self._sheets = 0
        self._cut: list[str] = []                    # sheets that are no whole number of tiles
        found = [part for picture in range(len(source)) for part in self._parts_in(picture, frames)]
        self._parts: npt.NDArray[np.int32] = np.array(found, dtype=np.int32).reshape(-1, len(_Part._fields))
        if not found:
            raise DataError(f"{source.where}: all {self._empty:,} tiles of {_size(tile)} are empty. Pass another --tile.")

        labels = None if source.labels is None else source.labels[self._parts[:, 0]]
        super().__init__(source.where, source.name, stamp_of([source.stamp, "parts", tile, frames]), labels=labels,
                         class_names=source.class_names, notes=[*source.notes, *self._own_notes(frames)])
        self.ignored = list(getattr(source, "ignored", []))      # the source's notes speak of them already

    def __len__(self) -> int:
        return len(self._parts)

    def item_name(self, index: int) -> str:
        return self._name_of(self._part(index))

    def load(self, index: int) -> bytes | Pixels:
        part = self._part(index)
        if part[1:] == (_WHOLE,) * 3:
            return self._source.load(part.picture)
        reader = self._reader(part)
        image = reader.read(max(part.frame, 0), self._name_of(part))
        if part.row != _WHOLE and self._tile is not None:
            width, height = self._tile
            left, top = part.column * width, part.row * height
            if left + width > image.width or top + height > image.height:
                raise UnreadableError(self._name_of(part), f"the picture has become smaller: {_size(image.size)}")
            image = image.crop((left, top, left + width, top + height))
        pixels = np.array(image)
        self._put_back(reader)                       # one that failed is not: it may stand anywhere
        return pixels[..., None] if pixels.ndim == 2 else pixels

    def close(self) -> None:
        with self._lock:
            self._readers.clear()
        self._source.close()

    def _part(self, index: int) -> _Part:
        return _Part(*self._parts[index].tolist())

    def _name_of(self, part: _Part) -> str:
        places = [f"{place} {number + 1}" for place, number in zip(_Part._fields[1:], part[1:], strict=True) if number != _WHOLE]
        name = self._source.item_name(part.picture)
        return f"{name}[{', '.join(places)}]" if places else name

    # Finding the parts.

    def _parts_in(self, picture: int, frames: FramesWanted) -> list[_Part]:
        try:
            reader = _Reader(self._source, picture)
        except UnreadableError:
            return [_Part(picture)]
        count = reader.frames.count() if reader.frames is not None and frames == "all" else 1
        self._animations += count > 1
        self._frames += count if count > 1 else 0
        numbers = range(count) if count > 1 else (_WHOLE,)
        if self._tile is None:
            return [_Part(picture, frame) for frame in numbers]
        parts: list[_Part] = []
        for frame in numbers:
            try:
                image = reader.read(max(frame, 0), self._name_of(_Part(picture, frame)))
            except UnreadableError:                  # the frames behind a damaged one are lost with it
                return [*parts, _Part(picture, frame)]
            parts += self._tiles_in(image, _Part(picture, frame), self._tile)
        return parts

    def _tiles_in(self, image: Image.Image, whole: _Part, tile: tuple[int, int]) -> list[_Part]:
        name, (width, height) = self._name_of(whole), tile
        columns, rows = image.width // width, image.height // height
        if not columns or not rows:
            raise DataError(f"{name}: is {_size(image.size)}, smaller than a tile of {_size(tile)}. Pass a smaller --tile, or "
                            "remove the picture.")
        self._sheets += 1
        if image.width % width or image.height % height:
            self._cut.append(f"{name}, {_size(image.size)}")
        see_through = image.mode == "RGBA" and image.getchannel("A").getextrema()[0] != 255
        full: list[_Part] = []
        for row in range(rows):                      # one row of tiles at a time: a large sheet is not copied whole
            strip = np.asarray(image.crop((0, row * height, columns * width, (row + 1) * height)))
            tiles = strip.reshape(height, columns, width, -1)
            filled = tiles[..., 3].any(axis=(0, 2)) if see_through else (tiles != tiles[:1, :, :1]).any(axis=(0, 2, 3))
            full += [whole._replace(row=row, column=column) for column in np.flatnonzero(filled).tolist()]
            self._empty += columns - int(filled.sum())
        return full

    def _own_notes(self, frames: FramesWanted) -> list[str]:
        notes = []
        if frames == "all":
            notes.append(f"{self._frames:,} frames of {_counted(self._animations, 'animation')}" if self._animations
                         else "no picture has more than one frame")
        if self._tile is not None:
            tiles = int((self._parts[:, 2] != _WHOLE).sum())
            notes.append(f"{_counted(tiles, 'tile')} of {_size(self._tile)} cut from {_counted(self._sheets, 'picture')}"
                         + (f"; {_counted(self._empty, 'empty tile')} left out" if self._empty else ""))
        if self._cut:
            notes.append(f"what is no whole tile at the right or bottom was left out of {_counted(len(self._cut), 'picture')} "
                         f"(the first: {self._cut[0]})")
        return notes

    # Reading them: each thread takes a reader for itself and puts it back.

    def _reader(self, part: _Part) -> "_Reader":
        """The reader that stands nearest before the wanted frame, or a new one."""
        with self._lock:
            fit = [each for each in self._readers if each.picture == part.picture and each.at <= max(part.frame, 0)]
            if fit:
                best = max(fit, key=lambda reader: reader.at)
                self._readers.remove(best)
                return best
        return _Reader(self._source, part.picture)

    def _put_back(self, reader: "_Reader") -> None:
        with self._lock:
            self._readers.append(reader)
            while len(self._readers) > 1 and (len(self._readers) > _MOST_READERS
                                              or sum(each.pixels for each in self._readers) > MAX_PIXELS):
                self._readers.pop(0)


class _Reader:
    """One picture of a source, open at one of its frames."""

    def __init__(self, source: Source, picture: int):
        item = source.load(picture)
        self.picture = picture
        self.frames = Frames(item, source.item_name(picture)) if isinstance(item, bytes) else None
        self._image = None if isinstance(item, bytes) else image_of_array(item)
        self.at = _WHOLE if self._image is None else 0       # the frame that `_image` is

    @property
    def pixels(self) -> int:
        return self._image.width * self._image.height if self._image is not None else 0

    def read(self, frame: int, name: str) -> Image.Image:
        """That frame as a plain picture, to be used before the next call. Raises UnreadableError, which says `name`."""
        if self._image is None or self.at != frame:
            assert self.frames is not None, "an array has one frame"
            self.frames.name = name
            self._image = self.frames.read(frame)
            self.at = frame
        return self._image


def _size(size: tuple[int, int] | None) -> str:
    return f"{size[0]}x{size[1]}" if size else ""


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
