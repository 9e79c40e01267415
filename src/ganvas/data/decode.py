"""Brings a picture of any size into the pixels that networks see; and the names by which the house knows its images."""

import functools

import numpy as np
from PIL import Image, ImageChops

from ganvas.data.layout import CHECKER_COLOURS, Fit, Layout
from ganvas.data.looks import Look, look
from ganvas.data.modes import image_of_array, to_plain_mode
from ganvas.data.opening import MAX_PIXELS, Opened, image_extensions, open_image, open_picture
from ganvas.data.pixel_art import at_native_size, upscale_factor
from ganvas.data.source_base import Pixels
from ganvas.errors import DataError

__all__ = ["MAX_PIXELS", "Fit", "Layout", "Look", "Opened", "image_extensions", "look", "open_image", "open_picture",
           "to_pixels", "to_plain_mode"]


def to_pixels(image: Image.Image | Pixels, layout: Layout) -> Pixels:
    """`image` as `layout` wants it: (C, H, W) uint8. An array must be (H, W) or (H, W, C), uint8, C of 1, 3 or 4.

    Resizing is Pillow's antialiased bilinear, as in torchvision's Resize; a square "crop" equals its Resize(s) and
    CenterCrop(s). Transparent images are resized with colours weighted by alpha and then laid on the background; where
    transparency is kept, fully transparent pixels come out black: the colour hidden under them never shows. Grey is ITU-R
    601 (Pillow's L). In a `native` layout, an image made of k x k blocks is first reduced to one pixel for each, and one
    that is then enlarged by whole factors is enlarged by repeating its pixels.
    Raises DataError for an array of another kind and for a shape so long that cropping would need MAX_PIXELS.
    """
    picture = image_of_array(image) if isinstance(image, np.ndarray) else to_plain_mode(image)
    if layout.native:
        picture = at_native_size(picture, upscale_factor(picture))
    if layout.channels == 1 and picture.mode == "RGB":
        picture = picture.convert("L")             # before resizing: a third of the work
    if layout.channels != 4 and picture.mode == "RGBA":
        if picture.size == (layout.width, layout.height):
            picture = Image.alpha_composite(_background(layout, "RGBA"), picture).convert("RGB")
        else:
            picture = picture.convert("RGBa")      # premultiplied: exact to resize and to compose
    part, corner = _fitted(picture, layout)
    whole = _with_alpha(part, corner, layout) if layout.channels == 4 else _composed(part, corner, layout)

    pixels = np.array(whole)                       # (H, W) or (H, W, C)
    if layout.channels == 4:
        pixels[pixels[..., 3] == 0] = 0
    return np.ascontiguousarray(pixels.reshape(layout.height, layout.width, layout.channels).transpose(2, 0, 1))


def _with_alpha(part: Image.Image, corner: tuple[int, int], layout: Layout) -> Image.Image:
    part = part.convert("RGBA")                    # opaque: alpha 255
    if part.size == (layout.width, layout.height):
        return part
    canvas = Image.new("RGBA", (layout.width, layout.height))
    canvas.paste(part, corner)
    return canvas


def _composed(part: Image.Image, corner: tuple[int, int], layout: Layout) -> Image.Image:
    """`part` (L, RGB, or premultiplied RGBa) on the layout's background, as L or RGB: after resizing there is the least to do."""
    if part.mode != "RGBa" and part.size == (layout.width, layout.height):
        whole = part
    else:
        whole = _background(layout).copy()
        if part.mode == "RGBa":                    # background * (1 - alpha) + premultiplied colour
            *colours, alpha = part.split()
            black = Image.new("RGB", part.size)
            behind = whole.crop((*corner, corner[0] + part.width, corner[1] + part.height))
            behind.paste(black, mask=alpha)
            part = ImageChops.add(Image.merge("RGB", colours), behind)
        whole.paste(part, corner)
    wanted = "L" if layout.channels == 1 else "RGB"
    return whole if whole.mode == wanted else whole.convert(wanted)


@functools.lru_cache(maxsize=8)
def _background(layout: Layout, mode: str = "RGB") -> Image.Image:
    """What lies behind the images of `layout`; shared: not to be drawn upon."""
    if layout.transparency != "checker":
        return Image.new("RGB", (layout.width, layout.height), layout.background).convert(mode)
    y, x = np.mgrid[: layout.height, : layout.width] // layout.checker_px
    return Image.fromarray(np.array(CHECKER_COLOURS, dtype=np.uint8)[(y + x) % 2]).convert(mode)


def _fitted(picture: Image.Image, layout: Layout) -> tuple[Image.Image, tuple[int, int]]:
    """`picture` at the layout's size, or less where it will be padded, and (left, top) of where it lies there."""
    width, height = picture.size
    if layout.fit == "stretch":
        return _resized(picture, (layout.width, layout.height), layout), (0, 0)

    # One side becomes exactly the target's, the other follows in proportion.
    width_leads = layout.width * height > layout.height * width        # the image is narrower than the target
    if layout.fit == "pad":
        if width_leads:
            size = max(1, round(layout.height * width / height)), layout.height
        else:
            size = layout.width, max(1, round(layout.width * height / width))
        return _resized(picture, size, layout), ((layout.width - size[0]) // 2, (layout.height - size[1]) // 2)

    # torchvision's Resize rounds down.
    size = (layout.width, layout.width * height // width) if width_leads else (layout.height * width // height, layout.height)
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError(f"{width}x{height} is too long to be cropped to {layout.width}x{layout.height}: pass --fit pad")
    large = _resized(picture, size, layout)
    left, top = round((size[0] - layout.width) / 2), round((size[1] - layout.height) / 2)    # half to even, as CenterCrop
    return large.crop((left, top, left + layout.width, top + layout.height)), (0, 0)


def _resized(picture: Image.Image, size: tuple[int, int], layout: Layout) -> Image.Image:
    if picture.size == size:
        return picture
    if layout.native and size[0] % picture.width == 0 and size[1] % picture.height == 0:
        return picture.resize(size, Image.Resampling.NEAREST)
    # Pillow widens the filter when reducing (antialiased), and premultiplies RGBA for the time of resizing.
    return picture.resize(size, Image.Resampling.BILINEAR)
