"""From the bytes of an encoded image of any kind to a plain picture: upright, 8 bit, grey, RGB or RGBA."""

import contextlib
import functools
import io
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from ganvas.data.modes import to_plain_mode
from ganvas.data.source_base import UnreadableError

MAX_PIXELS = 64_000_000            # decodes to 256 MB of RGBA: more is a mistake or an attack on memory
LARGE_PIXELS = 8_000_000           # pictures beyond are decoded one at a time: a few of the largest would fill the memory
_ONE_LARGE = threading.Lock()

# Pillow only recognises these and cannot decode them, except EPS and WMF, which it hands to Ghostscript or Windows:
# an image set from a stranger must not reach either.
_UNUSABLE_FORMATS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_COMMON_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")        # asked first: some of the others have no quick no

# An MPO's second picture is a depth or brightness map, an ICO's a smaller copy: neither is a frame.
_FORMATS_OF_FRAMES = {"AVIF", "GIF", "PNG", "TIFF", "WEBP"}

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {                       # EXIF orientation -> what turns the stored pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS = {b"tEXt", b"zTXt", b"iTXt", b"iCCP"}
_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAGICS = {_PNG_MAGIC: "PNG", b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF", b"BM": "BMP", **dict.fromkeys(_TIFF_MAGICS, "TIFF")}


@dataclass(frozen=True)
class Opened:
    """One decoded image, and how it was stored."""

    image: Image.Image             # upright, in mode L, RGB or RGBA
    format: str                    # "PNG", "JPEG": by content, whatever the file is called
    mode: str                      # as stored: "P", "I;16", "CMYK"
    frames: int                    # of an animation or of the pages of a TIFF; 1 for all else
    turned: bool                   # by its EXIF orientation


def open_picture(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Opened:
    """The first frame of the encoded image `data` as a plain picture, with what is known of it. Profiles are not applied.

    `name` is what messages call it. For deep grey see `modes`. The PNG readers keep the upper 8 of 16 bits of colours.
    Raises UnreadableError: not an image, truncated, over `max_pixels` (checked before decoding), no clear black and white.
    """
    return Frames(data, name, max_pixels).opened()


def open_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """`open_picture(...).image`, without counting frames."""
    return Frames(data, name, max_pixels).read(0)


def one_large_at_a_time(pixels: int) -> contextlib.AbstractContextManager[object]:
    """In what to decode a picture of so many pixels: where they are more than LARGE_PIXELS, one thread at a time is inside."""
    return _ONE_LARGE if pixels > LARGE_PIXELS else contextlib.nullcontext()


@functools.cache
def _readable_formats() -> tuple[str, ...]:
    Image.init()
    common = [kind for kind in _COMMON_FORMATS if kind in Image.OPEN]
    return (*common, *sorted(set(Image.OPEN) - _UNUSABLE_FORMATS - set(common)))


@functools.cache
def image_extensions() -> frozenset[str]:
    """Every file name ending, lower case and with its dot, that Pillow can decode here."""
    readable = {*_readable_formats(), "MPO"}          # MPO is opened by the JPEG reader
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in readable)


class Frames:
    """The frames of one encoded image, best read in their order: an earlier one costs decoding from the start again."""

    def __init__(self, data: bytes, name: str, max_pixels: int = MAX_PIXELS):
        """Reads the header. Raises UnreadableError, which calls the image `name`, as `read` does."""
        self.name, self.turned = name, False
        self._data, self._max_pixels = data, max_pixels
        with self._reasons():
            try:
                self._open()
            # What Pillow says of huge texts, damaged texts and damaged profiles before the pixels or ...
            except (ValueError, UnidentifiedImageError):
                if not self._drop_texts():
                    raise
                self._open()
        self.format, self.mode = str(self._image.format), self._image.mode     # as stored
        # An APNG may carry a picture for viewers without animation, which the others never show.
        self._first = int(bool(getattr(self._image, "default_image", False)))

    @property
    def pixels(self) -> int:
        """Width times height of the frame at hand, from its header: before any is read, of the first."""
        return self._image.width * self._image.height

    def opened(self) -> Opened:
        """The first frame, with what is known of it."""
        count = self.count()           # before reading: counting the frames of a GIF undoes that
        image = self.read(0)
        return Opened(image, self.format, self.mode, count, self.turned)

    def count(self) -> int:
        """How many frames a viewer shows, from headers alone; 1 for formats whose other pictures are no frames."""
        if self.format not in _FORMATS_OF_FRAMES:
            return 1
        try:
            found = int(getattr(self._image, "n_frames", 1))
        except Exception:                         # damaged behind the first frame, which can be read all the same
            return 1
        if self.format == "PNG" and found > 1:    # the header may promise billions
            found = min(found, self._data.count(b"fcTL") + self._first)
        return max(1, found - self._first)

    def read(self, frame: int) -> Image.Image:
        """Frame number `frame`, from 0, composed as a viewer shows it, as a plain picture; to be used before the next call."""
        with self._reasons():
            try:
                return self._read(frame)
            except ValueError:                    # ... behind them
                if not self._drop_texts():
                    raise
                self._open()
                return self._read(frame)

    def _open(self) -> None:
        self._image = Image.open(io.BytesIO(self._data), formats=_readable_formats())
        self._check_size()
        if self._image.format == "PNG":
            _mend_transparency(self._image)

    def _drop_texts(self) -> bool:
        """Cuts texts and profile out of a PNG. False if there are none."""
        slim = _without_texts(self._data) if self._data.startswith(_PNG_MAGIC) else self._data
        dropped = len(slim) < len(self._data)
        self._data = slim
        return dropped

    def _check_size(self) -> None:
        width, height = self._image.size
        if width * height > self._max_pixels:
            raise UnreadableError(self.name, f"{width}x{height} is {width * height:,} pixels; {self._limit}")

    @property
    def _limit(self) -> str:
        return f"the limit is {self._max_pixels:,} pixels"

    def _read(self, frame: int) -> Image.Image:
        image = self._image
        if image.tell() != frame + self._first:
            image.seek(frame + self._first)
            self._check_size()                    # the pages of a TIFF have each their own
        # Pillow turns a TIFF upright by itself when it is loaded.
        turned_by_pillow = image.format == "TIFF" and _orientation(image) in _UPRIGHT
        image.load()
        plain = to_plain_mode(image)
        turn = _UPRIGHT.get(_orientation(image))
        self.turned = turned_by_pillow or turn is not None
        return plain if turn is None else plain.transpose(turn)

    @contextlib.contextmanager
    def _reasons(self) -> Iterator[None]:
        """Whatever fails inside becomes an UnreadableError with its reason."""
        try:
            yield
        except UnreadableError:
            raise
        except UnidentifiedImageError:
            raise UnreadableError(self.name, _why_no_image(self._data)) from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            pixels = _pixels_of_bomb(error)
            raise UnreadableError(self.name, f"{f'{pixels:,}' if pixels else 'too many'} pixels; {self._limit}") from None
        except Exception as error:                # Pillow's readers raise whatever a damaged file makes them stumble over
            text = str(error) or type(error).__name__
            raise UnreadableError(self.name, _PLAINER.get(text, text)) from error


_PLAINER = {                       # than what Pillow says
    "could not create decoder object": "the file is damaged or cut short",
    "cannot load this image": "there are no pixels in the file",
}


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:                 # damaged EXIF beside sound pixels: nothing says that the image is turned
        return 1
    return value if isinstance(value, int) else 1


def _mend_transparency(image: Image.Image) -> None:
    """Brings the transparent colour of a PNG to the scale of the pixels that Pillow gives; must come before loading.

    Pillow leaves it at the stored depth. Of 16-bit colours the upper bytes are compared: what differs less is taken along.
    """
    tiles = getattr(image, "tile", [])            # where the pixels lie, and how they are stored
    depth = tiles[0][3] if tiles else None
    value = image.info.get("transparency")
    if isinstance(value, int) and depth in ("L;2", "L;4"):
        image.info["transparency"] = value * (85 if depth == "L;2" else 17)
    elif isinstance(value, tuple) and depth == "RGB;16B":
        image.info["transparency"] = tuple(part >> 8 for part in value)


def _without_texts(png: bytes) -> bytes:
    """`png` without texts and colour profile, which no pixel needs."""
    kept, position = [_PNG_MAGIC], len(_PNG_MAGIC)
    while position < len(png):
        end = position + 12 + int.from_bytes(png[position : position + 4], "big")
        if png[position + 4 : position + 8] not in _PNG_TEXTS:
            kept.append(png[position:end])
        position = end
    return b"".join(kept)


def _pixels_of_bomb(error: BaseException) -> int:
    found = re.search(r"\d+", str(error))
    return int(found[0]) if found else 0


def _why_no_image(data: bytes) -> str:
    if not data:
        return "the file is empty"
    if not data.strip(b"\0"):
        return "all its bytes are zero"
    start = data[:64].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "it is a web page, not an image: perhaps a download that failed"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the image: run git lfs pull"
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return "it is a HEIC photograph, a format that is not read here: convert it to JPEG or PNG"
    kind = next((kind for magic, kind in _MAGICS.items() if data.startswith(magic)), None)
    if kind is None:
        return "its content is not an image of a known format"
    unusual = ", or its pixels are of a kind that is not read here: save it with 8 or 16 bits" if kind == "TIFF" else ""
    return f"it begins as a {kind}, but its header is damaged{unusual}"
