"""What a look at the images says about the options of a run: size, channels, fit, transparency, mirroring, hold-out."""

from collections.abc import Mapping
from typing import Any

from ganvas.config import RunConfig
from ganvas.data.looks import Look
from ganvas.errors import ConfigError
from ganvas.networks.shapes import nearest_size, stages
from ganvas.values import ImageSize

MOST_ROUNDING = 1.25         # of a side; beyond, a size is refused rather than rounded
MOST_AUTO_PX = 64            # the largest side chosen unasked: what a laptop trains in an evening

MOSTLY = 0.5                 # share of the images from which on they all are treated so
CLEAR_AREA = 0.02            # mean share of transparent pixels from which on transparency matters
ENLARGED = 0.2               # share of enlarged pixel art from which on all of it is brought to its own size
BOTH_WAYS = 0.72             # accuracy in telling images from mirrored ones: sprites .66, faces .58; 8x8 digits .83, MNIST .94
HOLDOUT, MOST_HELD = 0.1, 2000
FEWEST_TO_HOLD = 20          # of fewer images none can be spared


def from_images(look: Look, images: int, classic: bool, given: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """{option: (value, why)} of what suits the images, for each of FROM_IMAGES; an empty reason is not worth a line.

    classic: the preset is one of the tutorials', which know no transparency.
    """
    size, why_size = _own_size(look, native=str(given.get("data.native", "auto")) not in ("False", "off", "no"))
    grey, sprites = look.grey_share == 1, look.transparent_share > MOSTLY and look.transparent_area >= CLEAR_AREA
    keep = (sprites and not classic and given.get("data.channels") not in (1, 3)
            and given.get("data.transparency", "auto") in ("auto", "keep"))
    enlarged = look.upscaled_share >= ENLARGED
    both_ways = look.faces_both_ways <= BOTH_WAYS
    holdout = 0.0 if classic or images < FEWEST_TO_HOLD else HOLDOUT if images * HOLDOUT <= MOST_HELD else float(MOST_HELD)
    channels: tuple[int, str] = (4, "") if keep else (1, "channels 1: all of the images looked at are grey") if grey else (
        3, "channels 3: the images are in colour")
    return {
        "data.size": (str(size), why_size),
        "data.channels": channels,
        "data.fit": ("pad", "fit pad: most images have transparent parts, as sprites do") if sprites else
                    ("crop", "fit crop: photographs are cropped to the middle"),
        "data.transparency": ("keep", f"transparency keep: {look.transparent_area:.0%} of the pixels are transparent, so the "
                              "networks learn four channels") if keep else ("white", ""),
        "data.native": (enlarged, f"native on: {look.upscaled_share:.0%} of the images are pixel art enlarged by a whole factor, "
                        "which is brought back to its own size" if enlarged else ""),
        "data.mirror": (both_ways, f"mirror {'on' if both_ways else 'off'}: {look.faces_both_ways:.0%} of the images can be told "
                        "from their mirror images (50% would be by chance)" if look.looked >= FEWEST_TO_HOLD else ""),
        "data.holdout": (holdout, f"holdout {holdout:g}: kept out of training, to judge by; --holdout 0 trains on all"
                         if holdout else ""),
    }


def _own_size(look: Look, native: bool) -> tuple[ImageSize, str]:
    """The images' own size, or their commonest shape, at most 64 pixels and such as a DCGAN can make; and why."""
    same = look.min_size == look.max_size
    enlarged = native and look.upscaled_share >= ENLARGED and min(look.native_size) > 0
    width, height = look.native_size if enlarged else look.common_size
    factor = min(1.0, MOST_AUTO_PX / max(width, height))
    if same or enlarged:
        shape = width * factor, height * factor
        what = f"are mostly {width}x{height} in their own pixels" if enlarged else f"are all {width}x{height}"
    elif look.aspect_share > MOSTLY:
        across, down = look.aspect
        longest = min(MOST_AUTO_PX, max(width, height))
        shape = longest * across / max(look.aspect), longest * down / max(look.aspect)
        what = f"are mostly of the shape {across}:{down} ({look.aspect_share:.0%} of them)"
    else:
        shape = (min(MOST_AUTO_PX, width, height),) * 2
        what = f"have many shapes, most often {width}x{height}"
    high, wide = nearest_size(max(6, round(shape[1])), max(6, round(shape[0])))
    return ImageSize(wide, high), f"size {wide}x{high}: the images {what}; at most {MOST_AUTO_PX} pixels unless you pass --size"


def possible_size(config: RunConfig, why: dict[str, str]) -> RunConfig:
    wanted = config.data.size
    if config.network.family not in ("dcgan", "residual") or stages(wanted.height, wanted.width):
        return config
    high, wide = nearest_size(wanted.height, wanted.width)
    if max(high / wanted.height, wanted.height / high, wide / wanted.width, wanted.width / wide) > MOST_ROUNDING:
        raise ConfigError(f"--size {wanted}: a generator's sides are 3 to 8 pixels doubled equally often, such as 64x64, 48x64 "
                          f"or 96x96; the nearest is {wide}x{high}. Pass a size of that kind.")
    why["data.size"] = f"size {wide}x{high} instead of {wanted}: each side must be 3 to 8 pixels doubled equally often"
    return config.model_copy(update={"data": config.data.model_copy(update={"size": ImageSize(wide, high)})})
