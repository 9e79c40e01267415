"""Values that are written as text: amounts of training, sizes, shares, and how each is read and checked."""

import math
import re
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer


class Amount(NamedTuple):
    """An amount of training, such as `20 epochs`, `10000 steps` or `25 kimg` (thousands of real images)."""

    value: float
    unit: Literal["epochs", "steps", "kimg"]

    def __str__(self) -> str:
        return f"{self.value!r}".removesuffix(".0") + f" {self.unit}"

    @classmethod
    def parse(cls, text: object) -> "Amount":
        """Reads the written form. Raises ValueError, which says how to write one."""
        match = re.fullmatch(r"\s*((?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*(epoch|step|kimg)s?\s*", str(text))
        if not match:
            raise ValueError("write an amount of training such as '20 epochs', '500 steps' or '25 kimg'")
        value = float(match[1])
        if not 0 < value < math.inf or (match[2] == "step" and value != int(value)):
            raise ValueError("an amount of training must be positive, and steps must be whole")
        units: dict[str, Literal["epochs", "steps", "kimg"]] = {"epoch": "epochs", "step": "steps", "kimg": "kimg"}
        return cls(value, units[match[2]])


class ImageSize(NamedTuple):
    """Width and height in pixels, written `64x48` (width first), or `64` for a square."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @classmethod
    def parse(cls, text: object) -> "ImageSize":
        """Reads the written form. Raises ValueError, which says how to write one."""
        match = re.fullmatch(r"\s*(\d{1,5})(?:\s*[xX×]\s*(\d{1,5}))?\s*", str(text))
        if not match:
            raise ValueError("write a size in pixels such as '64x48' (width x height), or '64' for a square")
        size = cls(int(match[1]), int(match[2] or match[1]))
        if min(size) < 1:
            raise ValueError("both sides must be at least 1 pixel")
        return size


AsText = PlainSerializer(str, return_type=str)
AmountField = Annotated[Amount, BeforeValidator(Amount.parse), AsText]
ImageSizeField = Annotated[ImageSize, BeforeValidator(ImageSize.parse), AsText]
Transparency = Annotated[str, Field(pattern=r"^(white|black|checker|keep|#[0-9a-fA-F]{6})$")]


def _number(value: object) -> object:
    """`3` as 3: a flag that may also be "auto" gives text."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _share(value: object) -> object:
    """`10%` as 0.1; all else as it is, for pydantic to judge."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value) if isinstance(value, str) else None
    if match and float(match[1]) >= 100:
        raise ValueError("a percentage must be below 100")
    return float(match[1]) / 100 if match else value


def _whole_from_one(value: float) -> float:
    if value > 1 and value != int(value):
        raise ValueError("write a share below 1, or a whole number of images")
    return value


def _expression(value: str) -> str:
    try:
        re.compile("" if value in ("none", "folder") else value)
    except re.error as error:
        raise ValueError(f"is neither none nor folder, and no regular expression ({error})") from error
    return value


Channels = Annotated[Literal[1, 3, 4], BeforeValidator(_number)]
Holdout = Annotated[float, BeforeValidator(_share), AfterValidator(_whole_from_one), Field(ge=0)]
GroupBy = Annotated[str, AfterValidator(_expression)]
