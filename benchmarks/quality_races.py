"""The races of quality.py, as data: which images, which sides with which options, how long, and how they are judged."""

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from ganvas.data.sources import open_source
from ganvas.data.stacked import stack_digits
from ganvas.errors import ConfigError, DataError
from ganvas.files import write_whole

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg")


class RunOf(NamedTuple):
    """As an option's value: the run folder that a side of another race has left, with the same seed."""

    race: str
    side: str


class Times(NamedTuple):
    """As an option's value: so many times what the recipe chooses for these images."""

    factor: float


@dataclass(frozen=True)
class Side:
    """One of those who race: a preset, or none, and what differs from it."""

    name: str
    preset: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)       # {dotted name: value, RunOf or Times}


@dataclass(frozen=True)
class Race:
    """Sides that get the same images, in the same layout and division, the same threads and the same time.

    The first side is the one that the others are compared with.
    """

    title: str
    images: str                                                # a file of the data folder, or a name of MADE, or digits
    sides: tuple[Side, ...]
    minutes: float
    data: Mapping[str, Any]                                    # {dotted name: value} for all sides; the reals are read so too
    extractor: str = "random"
    every_sec: float = 60                                      # between two checkpoints
    n: int = 2000                                              # samples in a comparison on the way
    end_n: int = 2000                                          # in each of the `repeats` at the end
    repeats: int = 5
    copies: bool = False                                       # whether samples are compared with training images, one by one
    backgrounds: tuple[str, ...] = ()                          # transparent images: behind which they are judged
    by_label: bool = False                                     # whether samples are asked for by label
    seeds: int = 1

    def quick(self) -> "Race":
        """The same in seconds, to see that everything works; its figures mean nothing."""
        return replace(self, minutes=0.1, every_sec=1, n=64, end_n=64, repeats=2)


def _digits(channels: int = 1, **options: Any) -> dict[str, Any]:
    return {"data.size": "28x28", "data.channels": channels, "data.fit": "stretch", "data.holdout": 0.1} | {
        f"data.{name}": value for name, value in options.items()}


def _pictures(px: int = 64, fit: str = "stretch", **options: Any) -> dict[str, Any]:
    return {"data.size": f"{px}x{px}", "data.channels": 3, "data.fit": fit, "data.transparency": "white", "data.native": False,
            "data.holdout": 0.1} | {f"data.{name}": value for name, value in options.items()}


MODERN = Side("modern")
SPRITES = _pictures()
NARROW = {"network.g_channels": 16, "network.d_channels": 16}


def _against(preset: str) -> tuple[Side, Side]:
    return Side("classic", preset), MODERN


RACES: dict[str, Race] = {
    "digits": Race(
        "the built-in digits: a small race to try the benchmark with", "digits",
        (Side("slow", "digits-16", NARROW | {"train.lr": 5e-5}), Side("fast", "digits-16", NARROW | {"train.lr": 1e-3})),
        0.5, {"data.size": "16x16", "data.channels": 1, "data.holdout": 0.1}, every_sec=3, n=500, end_n=500),
    "mnist-rotated": Race(
        "MNIST, both trained on digits turned by up to 20 degrees, and judged by such", "mnist", _against("coursera-mnist-28"),
        5, _digits(rotation_degrees=20.0), "classifier", every_sec=10),
    "mnist": Race("MNIST, rotation off", "mnist", _against("coursera-mnist-28"), 5, _digits(rotation_degrees=0.0), "classifier",
                  every_sec=10),
    "characters": Race("characters on white", "characters.zip", _against("pytorch-faces-64"), 10, _pictures(fit="crop"),
                       every_sec=40),
    "stacked": Race(
        "Stacked MNIST: 1,000 modes", "stacked-mnist",
        (Side("classic loss", options={"train.loss": "nonsaturating", "train.r1_gamma": 0.0, "train.r2_gamma": 0.0}), MODERN), 30,
        _digits(3), "classifier", every_sec=120, end_n=5200),              # five times: 26,000 samples
    "udacity-artwork": Race("artwork at 32 pixels", "pokemon-artwork.zip", _against("udacity-pokemon-32"), 30, _pictures(32),
                            every_sec=120, copies=True),
    "d2l-sprites": Race("sprites on white", "pokemon-sprites.zip", _against("d2l-pokemon-64"), 30, SPRITES, every_sec=120,
                        copies=True),
    "keras-sprites": Race("sprites on white", "pokemon-sprites.zip", _against("keras-pokemon-64"), 30, SPRITES, every_sec=120,
                          copies=True),
    "faces": Race("grey photographs of faces", "faces-96.zip", _against("pytorch-faces-64"), 30,
                  _pictures(fit="crop", channels=1), every_sec=120),
    "faces-characters": Race("characters on white", "characters.zip", _against("pytorch-faces-64"), 30, _pictures(fit="crop"),
                             every_sec=120),
    "sprites-100": Race(
        "the first 100 sprites", "sprites-100",
        (Side("not augmented", options={"augment.probability": 0.0}), MODERN,
         Side("from characters", options={"train.init_from": RunOf("characters", "modern")}),
         Side("from characters, not augmented",
              options={"train.init_from": RunOf("characters", "modern"), "augment.probability": 0.0})),
        30, _pictures(holdout=0), every_sec=120, copies=True),
    "conditional-mnist": Race(
        "MNIST by label", "mnist", (Side("conditional", "conditional"),), 10, _digits(), "classifier",
        every_sec=40, by_label=True),
    "rgba": Race(
        "characters with transparency", "characters.zip", (MODERN,), 10,
        _pictures(fit="crop", channels=4, transparency="keep"), every_sec=40, backgrounds=("white", "black", "checker")),
}

# One factor at a time, on sprites. The first is the recipe as it is.
ABLATION = Race(
    "one factor at a time, on sprites", "pokemon-sprites.zip",
    (Side("as it is"),
     Side("loss nonsaturating", options={"train.loss": "nonsaturating"}),
     Side("no penalties", options={"train.r1_gamma": 0.0, "train.r2_gamma": 0.0}),
     Side("no R2", options={"train.r2_gamma": 0.0}),
     Side("no augmentation", options={"augment.probability": 0.0}),
     Side("no average", options={"train.ema_half_life_kimg": 0.0}),
     Side("no norm in G", options={"network.g_norm": "none"}),
     Side("twice the width", options={"network.g_channels": Times(2), "network.d_channels": Times(2)}),
     Side("dcgan networks", options={"network.family": "dcgan", "network.g_norm": "batch", "network.g_depth": 0,
                                     "network.d_depth": 0})),
    5, SPRITES, every_sec=60, seeds=2)
ALL_RACES = RACES | {"ablation": ABLATION}


# ---------------------------------------------------------------- images


def _first_sprites(folder: Path, target: Path, count: int = 100) -> Path:
    """The first sprites in the order of their names, as files of their own in the folder `target`."""
    with zipfile.ZipFile(folder / "pokemon-sprites.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith(IMAGE_ENDINGS))[:count]
        for name in names:
            write_whole(target / Path(name).name, archive.read(name))
    return target


MADE: dict[str, Callable[[Path, Path], Path]] = {              # (data folder, folder for what is made) -> source
    "sprites-100": lambda folder, made: _first_sprites(folder, made / "sprites-100"),
    "stacked-mnist": lambda folder, made: stack_digits(folder / "mnist", made / "stacked-mnist.npz"),
}


def source_of(race: Race, folder: Path, made: Path) -> str:
    """What a race's command names as SOURCE; made in the folder `made` first, where it has to be. Raises DataError."""
    if race.images == "digits":
        return "digits"
    try:
        source = MADE[race.images](folder, made) if race.images in MADE else folder / race.images
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: is not there. Name the folder of the image sets as --data.") from error
    if not source.exists():
        raise DataError(f"{source}: is not there. Name the folder of the image sets as --data.")
    open_source(str(source))
    return str(source)


def race_named(name: str) -> Race:
    """The race of that name. Raises ConfigError with the known ones."""
    if name not in ALL_RACES:
        raise ConfigError(f"{name!r}: no such race. Known are {', '.join(ALL_RACES)}.")
    return ALL_RACES[name]
