"""Parts of a source's pictures as images of their own: the tiles of sprite sheets, the frames of animations."""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from ganvas.data.source_base import Pixels, Source, UnreadableError, stamp_of
from ganvas.data.source_pictures import STILL, Films, Reader, Sheets
from ganvas.errors import ConfigError, DataError

FramesWanted = Literal["first", "all"]

_WHOLE = STILL                         # instead of a frame, row or column: all there is


class _Part(NamedTuple):
    """Where one item lies."""

    picture: int                       # its index in the source
    frame: int = _WHOLE
    row: int = _WHOLE
    column: int = _WHOLE


def parts_of(source: Source, tile: tuple[int, int] | None, frames: FramesWanted,
             progress: Callable[[int, int], None] | None = None) -> Source:
    """The parts of the pictures of `source` as a source: tiles of `tile` = (width, height), "all" frames, or both.

    Tiles go row by row; empty ones are left out (nothing in them shows, or, on a sheet without transparency, a single
    colour), and so is what is no whole tile at the right and at the bottom: `notes` say how much. Frames are as a viewer
    shows them, repeated ones too: of GIF, APNG, WEBP and AVIF, and the pages of TIFF. A part is called
    "sheet.png[row 2, column 5]" or "walk.gif[frame 3]", counted from 1. With tiles, each picture is decoded once here, else
    its header is read; a picture that cannot be read stays one item that cannot. With None and "first" it is `source` itself.
    progress(pictures searched, all): called after each; what it raises ends the search. Closing the result closes `source`,
    which is left open where this raises. Raises DataError for a picture smaller than a tile, and if every tile is empty.
    """
    if frames not in get_args(FramesWanted):
        raise ConfigError(f"frames {frames!r}: must be first or all.")
    if tile is not None and min(tile) < 1:
        raise ConfigError(f"tile {tile[0]}x{tile[1]}: both sides must be at least 1 pixel.")
    return source if tile is None and frames == "first" else PartsSource(source, tile, frames, progress)


class PartsSource(Source):
    """See `parts_of`. Reading parts in their order decodes each sheet once, and each animation once for each thread."""

    def __init__(self, source: Source, tile: tuple[int, int] | None, frames: FramesWanted,
                 progress: Callable[[int, int], None] | None = None):
        self._source, self._tile = source, tile
        self._empty = self._animations = self._frames = self._sheets = 0
        self._cut: list[str] = []                    # sheets that are no whole number of tiles
        self._pixels = np.zeros(len(source), dtype=np.int64)         # of each picture
        self._stored: list[tuple[str, str, int]] = []                # of each picture: format, mode, frames
        self._kinds: dict[tuple[str, str, int], tuple[str, str, int]] = {}       # the distinct ones: a million need one object
        found: list[_Part] = []
        for picture in range(len(source)):
            found += self._parts_in(picture, frames)
            if progress is not None:
                progress(picture + 1, len(source))
        self._parts: npt.NDArray[np.int32] = np.array(found, dtype=np.int32).reshape(-1, len(_Part._fields))
        if not found:
            raise DataError(f"{source.where}: all {self._empty:,} tiles of {_size(tile)} are empty. Pass another --tile.")

        pictures = self._parts[:, 0]
        pixels = self._pixels.tolist()
        self._open_sheets = Sheets(source, pixels, np.bincount(pictures, minlength=len(source)).tolist())
        self._open_films = Films(source, pixels)
        labels = None if source.labels is None else source.labels[pictures]
        super().__init__(source.where, source.name, stamp_of([source.stamp, "parts", tile, frames]), labels=labels,
                         class_names=source.class_names, notes=[*source.notes, *self._own_notes(frames)],
                         unlabelled=np.flatnonzero(np.isin(pictures, list(source.unlabelled))).tolist())
        self.ignored = list(getattr(source, "ignored", []))      # the source's notes speak of them already

    def __len__(self) -> int:
        return len(self._parts)

    def item_name(self, index: int) -> str:
        return self._name_of(self._part(index))

    def load(self, index: int) -> bytes | Pixels:
        part = self._part(index)
        if part[1:] == (_WHOLE,) * 3:
            return self._source.load(part.picture)
        name = self._name_of(part)
        if part.frame == _WHOLE:
            return self._cropped(self._open_sheets.image(part.picture, name), part, name)
        with self._open_films.frame(part.picture, part.frame, name) as image:
            return self._cropped(image, part, name)

    def stored(self, index: int) -> tuple[str, str, int]:
        part = self._part(index)
        form, mode, frames = self._stored[part.picture]
        return form, mode, frames if part.frame == _WHOLE else 1

    def file_size(self, index: int) -> int | None:
        part = self._part(index)
        return self._source.file_size(part.picture) if part[1:] == (_WHOLE,) * 3 else None

    def close(self) -> None:
        self._open_sheets.close()
        self._open_films.close()
        self._source.close()

    def _cropped(self, image: Image.Image, part: _Part, name: str) -> Pixels:
        if part.row != _WHOLE and self._tile is not None:
            width, height = self._tile
            left, top = part.column * width, part.row * height
            if left + width > image.width or top + height > image.height:
                raise UnreadableError(name, f"the picture has become smaller: {_size(image.size)}")
            image = image.crop((left, top, left + width, top + height))
        pixels = np.array(image)
        return pixels[..., None] if pixels.ndim == 2 else pixels

    def _part(self, index: int) -> _Part:
        return _Part(*self._parts[index].tolist())

    def _name_of(self, part: _Part) -> str:
        places = [f"{place} {number + 1}" for place, number in zip(_Part._fields[1:], part[1:], strict=True) if number != _WHOLE]
        name = self._source.item_name(part.picture)
        return f"{name}[{', '.join(places)}]" if places else name

    # Finding the parts.

    def _parts_in(self, picture: int, frames: FramesWanted) -> list[_Part]:
        try:
            reader = Reader(self._source, picture)
        except UnreadableError:
            self._note(picture, "", "", 1)
            return [_Part(picture)]
        if reader.frames is None:
            count = 1
            self._note(picture, *self._source.stored(picture))
        else:
            count = reader.frames.count()            # before reading: counting the frames of a GIF undoes that
            self._note(picture, reader.frames.format, reader.frames.mode, count)
        self._pixels[picture] = reader.pixels
        if frames == "first":
            count = 1
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

    def _note(self, picture: int, form: str, mode: str, frames: int) -> None:
        kind = form, mode, frames
        assert len(self._stored) == picture, "each picture is noted once, in their order"
        self._stored.append(self._kinds.setdefault(kind, kind))

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


def _size(size: tuple[int, int] | None) -> str:
    return f"{size[0]}x{size[1]}" if size else ""


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
