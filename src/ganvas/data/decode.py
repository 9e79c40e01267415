"""Opens one image of any kind and makes it fit the network's input: upright, 8 bit, composed, resized."""

import functools
import io
import re
import struct
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from ganvas.data.source_base import Pixels, Source, UnreadableError
from ganvas.errors import ConfigError, DataError

Fit = Literal["crop", "pad", "stretch"]

MAX_PIXELS = 64_000_000            # decodes to 256 MB of RGBA: more is a mistake or an attack on memory

# Pillow only recognises these and cannot decode them, except EPS and WMF, which it hands to Ghostscript or Windows:
# an image set from a stranger must not reach either.
_UNUSABLE_FORMATS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}

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


@dataclass(frozen=True)
class Layout:
    """The shape in which every image of a pack is stored, and how each is brought into it.

    height, width: in pixels. channels: 1 grey, 3 RGB, 4 RGB and alpha (not premultiplied).
    fit: "crop" the middle, "pad" so that all of the image shows, or "stretch" without regard to proportions.
    transparency: the colour that shows through ("white", "black", "#rrggbb"), which is also the colour of the padding;
    or "keep", which goes with 4 channels and only with them.
    """

    height: int
    width: int
    channels: Literal[1, 3, 4] = 3
    fit: Fit = "crop"
    transparency: str = "white"

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ConfigError(f"image size {self.width}x{self.height}: both sides must be at least 1 pixel.")
        if self.channels not in (1, 3, 4):
            raise ConfigError(f"channels {self.channels}: must be 1 (grey), 3 (colour) or 4 (colour with transparency).")
        if self.fit not in ("crop", "pad", "stretch"):
            raise ConfigError(f"fit {self.fit!r}: must be crop, pad or stretch.")
        if self.transparency == "keep" and self.channels != 4:
            raise ConfigError(f"transparency keep needs a fourth channel, but channels is {self.channels}: set channels to "
                              "4, or give a colour for the transparent parts.")
        if self.transparency != "keep":
            _ = self.background
            if self.channels == 4:
                raise ConfigError(f"4 channels keep transparency, but transparency is {self.transparency!r}: set it to "
                                  "keep, or channels to 3.")

    @property
    def background(self) -> tuple[int, int, int]:
        """The colour behind transparent pixels as (r, g, b), 0 to 255; black for "keep", where nothing shows."""
        named = {"white": (255, 255, 255), "black": (0, 0, 0), "keep": (0, 0, 0)}
        if self.transparency in named:
            return named[self.transparency]
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", self.transparency):
            raise ConfigError(f"transparency {self.transparency!r}: must be white, black, a colour such as #ffcc00, "
                              "or keep.")
        red, green, blue = bytes.fromhex(self.transparency[1:])
        return red, green, blue

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one stored image."""
        return self.channels, self.height, self.width


@functools.cache
def _readable_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(sorted(set(Image.OPEN) - _UNUSABLE_FORMATS))


@functools.cache
def image_extensions() -> frozenset[str]:
    """Every file name ending, lower case and with its dot, that Pillow can decode here."""
    readable = {*_readable_formats(), "MPO"}          # MPO is opened by the JPEG reader
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in readable)


def open_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The first frame of the encoded image `data`, upright, as 8-bit L, RGB or RGBA; colour profiles are not applied.

    `name` is what messages call it. 16-bit grey is divided by 257 where any value exceeds 255; float grey may lie in
    0..1 or 0..255. Raises UnreadableError: not an image, truncated, over `max_pixels` (checked before decoding), ...
    """
    limit = f"the limit is {max_pixels:,} pixels"
    try:
        image = Image.open(io.BytesIO(data), formats=_readable_formats())
        if image.width * image.height > max_pixels:
            raise UnreadableError(name, f"{image.width}x{image.height} is {image.width * image.height:,} pixels; {limit}")
        image.load()
        upright = _UPRIGHT.get(_orientation(image))
        plain = to_plain_mode(image)
        return plain if upright is None else plain.transpose(upright)
    except UnreadableError:
        raise
    except UnidentifiedImageError:
        reason = "the file is empty" if not data else "its content is not an image of a known format"
        raise UnreadableError(name, reason) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        found = re.search(r"\d+", str(error))
        size = f"{int(found[0]):,} pixels" if found else "too many pixels"
        raise UnreadableError(name, f"{size}; {limit}") from None
    except Exception as error:        # Pillow's readers raise whatever a damaged file makes them stumble over
        raise UnreadableError(name, f"{error or type(error).__name__}") from error


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except (SyntaxError, ValueError, OSError, KeyError, TypeError, struct.error):
        return 1                      # damaged EXIF beside sound pixels: nothing says that the image is turned
    return value if isinstance(value, int) else 1


def to_plain_mode(image: Image.Image) -> Image.Image:
    """`image` in mode L, RGB, or RGBA where anything can be transparent. Raises ValueError where no rule is clear."""
    if image.mode.startswith("I") or image.mode == "F":
        return _grey_of_deep(image)
    if image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey_of_deep(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits (modes I, I;16, F) as L, or as RGBA if one of its values is declared transparent."""
    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if image.mode == "F" and low >= 0 and high <= 1:
        eight_bit = values * 255
    elif low >= 0 and high <= 255:
        eight_bit = values
    elif image.mode != "F" and low >= 0 and high <= 65535:
        eight_bit = values / 257
    else:
        raise ValueError(f"grey values from {low:g} to {high:g} have no agreed black and white; save it with 8 or 16 bits")
    grey = Image.fromarray(np.rint(eight_bit).astype(np.uint8))
    see_through = image.info.get("transparency")
    if not isinstance(see_through, int):
        return grey
    grey.putalpha(Image.fromarray(np.where(values == see_through, 0, 255).astype(np.uint8)))
    return grey.convert("RGBA")


def to_pixels(image: Image.Image | Pixels, layout: Layout) -> Pixels:
    """`image` as `layout` wants it: (C, H, W) uint8. An array must be (H, W) or (H, W, C), uint8, C of 1, 3 or 4.

    Transparency is composed before resizing; kept transparency is resized premultiplied, and fully transparent pixels
    come out black: the colour hidden under them never shows. Resizing is Pillow's antialiased bilinear, as in
    torchvision's Resize; a square "crop" equals its Resize(s) and CenterCrop(s). Grey is ITU-R 601 (Pillow's L).
    Raises DataError for an array of another kind and for a shape so long that cropping would need MAX_PIXELS.
    """
    picture = _image_of_array(image) if isinstance(image, np.ndarray) else to_plain_mode(image)
    if layout.channels == 4:
        picture = picture.convert("RGBA")          # opaque: alpha 255
    else:
        if picture.mode == "RGBA":
            behind = Image.new("RGBA", picture.size, (*layout.background, 255))
            picture = Image.alpha_composite(behind, picture).convert("RGB")
        picture = picture.convert("L" if layout.channels == 1 else "RGB")
    picture = _fitted(picture, layout)

    pixels = np.array(picture)                     # (H, W) or (H, W, C)
    if layout.channels == 4:
        pixels[pixels[..., 3] == 0] = 0
    return np.ascontiguousarray(pixels.reshape(layout.height, layout.width, layout.channels).transpose(2, 0, 1))


def _image_of_array(array: Pixels) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise DataError(f"an array of shape {array.shape} and type {array.dtype} is no image: it must be (H, W) or "
                        "(H, W, C) with 1, 3 or 4 channels, and uint8.")
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def _fitted(picture: Image.Image, layout: Layout) -> Image.Image:
    """`picture` at exactly the layout's width and height; its mode is kept."""
    width, height = picture.size
    bilinear = Image.Resampling.BILINEAR           # Pillow widens the filter when reducing: antialiased

    if layout.fit == "stretch":
        return picture.resize((layout.width, layout.height), bilinear)

    # One side becomes exactly the target's, the other follows in proportion.
    width_leads = layout.width * height > layout.height * width        # the image is narrower than the target
    if layout.fit == "pad":
        if width_leads:
            size = max(1, round(layout.height * width / height)), layout.height
        else:
            size = layout.width, max(1, round(layout.width * height / width))
        small = picture.resize(size, bilinear)
        background = (*layout.background, 0) if picture.mode == "RGBA" else layout.background
        canvas = Image.new("RGB" if picture.mode == "L" else picture.mode, (layout.width, layout.height), background)
        canvas = canvas.convert(picture.mode)
        canvas.paste(small, ((layout.width - size[0]) // 2, (layout.height - size[1]) // 2))
        return canvas

    # torchvision's Resize rounds down.
    size = (layout.width, layout.width * height // width) if width_leads else (layout.height * width // height, layout.height)
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError(f"{width}x{height} is too long to be cropped to {layout.width}x{layout.height}: pass --fit pad")
    large = picture.resize(size, bilinear)
    left, top = round((size[0] - layout.width) / 2), round((size[1] - layout.height) / 2)    # half to even, as CenterCrop
    return large.crop((left, top, left + layout.width, top + layout.height))


@dataclass(frozen=True)
class Look:
    """What a sample of a source looks like. Sizes are (width, height) before resizing; shares run from 0 to 1."""

    looked: int                          # images read
    unreadable: int                      # tried, but not readable
    common_size: tuple[int, int]         # the most frequent
    min_size: tuple[int, int]            # the smallest width and the smallest height, perhaps of two images
    max_size: tuple[int, int]
    grey_share: float                    # all channels equal wherever anything shows
    transparent_share: float             # something less than opaque


def look(source: Source, count: int = 64) -> Look:
    """Opens up to `count` images spread evenly over `source` and says what they are like; unreadable ones are skipped.

    For hints such as "all images are grey: pass --channels 1". Raises DataError if none of them is readable.
    """
    sizes: list[tuple[int, int]] = []
    grey = transparent = 0
    failures: list[UnreadableError] = []
    for index in np.unique(np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int)):
        try:
            item = source.load(int(index))
            image = open_image(item, source.item_name(int(index))) if isinstance(item, bytes) else _image_of_array(item)
        except UnreadableError as error:
            failures.append(error)
            continue
        sizes.append(image.size)
        grey += _is_grey(image)
        transparent += image.mode == "RGBA" and bool(np.asarray(image)[..., 3].min() < 255)
    if not sizes:
        raise DataError(f"{source.where}: none of {len(failures)} images tried can be read. The first: {failures[0]}")
    widths, heights = zip(*sizes, strict=True)
    return Look(
        looked=len(sizes), unreadable=len(failures), common_size=Counter(sizes).most_common(1)[0][0],
        min_size=(min(widths), min(heights)), max_size=(max(widths), max(heights)),
        grey_share=grey / len(sizes), transparent_share=transparent / len(sizes))


def _is_grey(image: Image.Image) -> bool:
    if image.mode == "L":
        return True
    pixels = np.asarray(image)
    visible = pixels[pixels[..., 3] > 0] if image.mode == "RGBA" else pixels
    return bool((visible[..., 0] == visible[..., 1]).all() and (visible[..., 1] == visible[..., 2]).all())
