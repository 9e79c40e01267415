"""The shape in which every image of a pack is stored, and how each is brought into it."""

import re
from dataclasses import dataclass
from typing import Literal

from ganvas.errors import ConfigError

Fit = Literal["crop", "pad", "stretch"]

CHECKER_COLOURS = ((255, 255, 255), (192, 192, 192))       # the square in the upper left corner has the first


@dataclass(frozen=True)
class Layout:
    """The shape in which every image of a pack is stored, and how each is brought into it.

    height, width: in pixels. channels: 1 grey, 3 RGB, 4 RGB and alpha (not premultiplied).
    fit: "crop" the middle, "pad" so that all of the image shows, or "stretch" without regard to proportions.
    transparency: what shows through and lies around padded images: a colour ("white", "black", "#rrggbb"), or "checker",
    the light and grey board of drawing programs; or "keep", which goes with 4 channels and only with them.
    native: the images are pixel art. Those enlarged by a whole factor are first brought back to their own size (see
    `pixel_art`), and whatever is enlarged by a whole factor to reach this layout stays sharp.
    """

    height: int
    width: int
    channels: Literal[1, 3, 4] = 3
    fit: Fit = "crop"
    transparency: str = "white"
    native: bool = False

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ConfigError(f"image size {self.width}x{self.height}: both sides must be at least 1 pixel.")
        if self.channels not in (1, 3, 4):
            raise ConfigError(f"channels {self.channels}: must be 1 (grey), 3 (colour) or 4 (colour with transparency).")
        if self.fit not in ("crop", "pad", "stretch"):
            raise ConfigError(f"fit {self.fit!r}: must be crop, pad or stretch.")
        _ = self.background
        if self.transparency == "keep" and self.channels != 4:
            raise ConfigError(f"transparency keep needs a fourth channel, but channels is {self.channels}: set channels to "
                              "4, or transparency to white, black, checker or a colour such as #ffcc00.")
        if self.transparency != "keep" and self.channels == 4:
            raise ConfigError(f"4 channels keep transparency, but transparency is {self.transparency!r}: set it to "
                              "keep, or channels to 3.")

    @property
    def background(self) -> tuple[int, int, int]:
        """The colour behind transparent pixels as (r, g, b), 0 to 255: of "checker" the mean, of "keep" black (nothing shows)."""
        named = {"white": (255, 255, 255), "black": (0, 0, 0), "checker": (224, 224, 224), "keep": (0, 0, 0)}
        if self.transparency in named:
            return named[self.transparency]
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", self.transparency):
            raise ConfigError(f"transparency {self.transparency!r}: must be keep, white, black, checker, or a colour such as "
                              "#ffcc00.")
        red, green, blue = bytes.fromhex(self.transparency[1:])
        return red, green, blue

    @property
    def checker_px(self) -> int:
        """The side of one square of "checker", measured on the finished picture."""
        return max(2, min(self.height, self.width) // 8)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one stored image."""
        return self.channels, self.height, self.width
