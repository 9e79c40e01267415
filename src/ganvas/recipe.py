"""From a preset (or none), a look at the images and the machine to one complete config, with a reason for every choice.

Nothing below this file knows "auto".
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ganvas.config import (
    FROM_IMAGES,
    LENGTHS,
    SHORT,
    RunConfig,
    fields,
    flatten,
    from_yaml,
    make_config,
)
from ganvas.data.looks import Look
from ganvas.errors import ConfigError
from ganvas.machine import cpp_compiler, training_threads, usable_processors
from ganvas.networks.shapes import nearest_size, stages
from ganvas.presets import load_preset
from ganvas.values import ImageSize

MOST_ROUNDING = 1.25         # of a side; beyond, a size is refused rather than rounded
MOST_AUTO_PX = 64            # the largest side chosen unasked: what a laptop trains in an evening

MOSTLY = 0.5                 # share of the images from which on they all are treated so
CLEAR_AREA = 0.02            # mean share of transparent pixels from which on transparency matters
ENLARGED = 0.2               # share of enlarged pixel art from which on all of it is brought to its own size
BOTH_WAYS = 0.72             # accuracy in telling images from mirrored ones: sprites .66, faces .58; 8x8 digits .83, MNIST .94
HOLDOUT, MOST_HELD = 0.1, 2000
FEWEST_TO_HOLD = 20          # of fewer images none can be spared
REPAYS_COMPILING_SEC = 1800  # of --time: a minute of warm-up is repaid after eight, and the clock may have been wrong
MOST_COMPILED_PX = 32 * 32
HOW_IT_COMPUTES = ("execution.precision", "execution.channels_last")


class Recipe(NamedTuple):
    """A complete config, and what was chosen or changed on the way there: {option: a line that says it}."""

    config: RunConfig
    why: dict[str, str]

    @property
    def reasons(self) -> list[str]:
        """The lines alone."""
        return list(self.why.values())


def options_from(short: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """{dotted name: value} from short names (None = not given), an amount of training, and dotted settings.

    Raises ConfigError for a name that is neither, or for more than one amount of training.
    """
    given = {name: value for name, value in short.items() if value is not None}
    lengths = [name for name in LENGTHS if name in given]
    if len(lengths) > 1:
        raise ConfigError(f"--{lengths[0]} {given[lengths[0]]} and --{lengths[1]} {given[lengths[1]]} both say how long to "
                          "train: give one of them.")
    options: dict[str, Any] = {"length": f"{given.pop(lengths[0])} {lengths[0]}"} if lengths else {}
    unknown = [name for name in given if name not in SHORT]
    if unknown:
        raise ConfigError(f"unknown option '{unknown[0]}': known are {', '.join([*SHORT, *LENGTHS, 'time'])}; "
                          "any other goes into settings={'train.betas': [0.5, 0.9]}.")
    options |= {SHORT[name]: value for name, value in given.items()}
    twice = [name for name in settings if name in options]
    if twice:
        raise ConfigError(f"{twice[0]}: given both as a flag ({options[twice[0]]}) and in --set ({settings[twice[0]]}): "
                          "give it once.")
    if "preset" in settings:
        raise ConfigError(f"--set preset={settings['preset']}: name the preset as --preset {settings['preset']}.")
    return options | dict(settings)


def complete(
    source: str, look: Look, preset: str | None, base: Mapping[str, Any], options: Mapping[str, Any], *,
    images: int = 0, settled: Mapping[str, Any] | None = None, time_sec: float | None = None,
) -> Recipe:
    """The config of a run on `source`. Later layers win: preset (or what suits the images), `base` (a config file), `options`.

    images: how many there are. time_sec: --time, where it is given. settled: the options of a run that goes on; what was chosen
    from its images stays. Raises ConfigError that names every unknown or impossible option.
    """
    if preset and base.get("preset", preset) != preset:        # a whole config would silently win over every value of the preset
        raise ConfigError(f"--preset {preset}: the file or run of --config names all options already (it started from "
                          f"'{base['preset'] or 'the images'}'). Give one of the two.")
    preset = preset or str(base.get("preset") or "") or ("digits-16" if source == "digits" else None)
    layer, why = (load_preset(preset).values, {}) if preset else _suited()
    given = {"data.source": source} | dict(options)
    if str(given.get("data.channels")) in ("1", "3", "4"):     # a flag gives text
        given["data.channels"] = int(given["data.channels"])
    wanted = [option for option in FROM_IMAGES if {**base, **given}.get(option, None if preset else "auto") == "auto"]
    given = {option: value for option, value in given.items() if option not in wanted}
    chosen = _from_images(look, images, classic=preset is not None, given={**base, **given})
    for option in wanted:
        value, reason = chosen[option]
        layer[option] = (settled or {}).get(option, value)
        if layer[option] == value and reason:
            why[option] = reason
    base = {option: value for option, value in base.items() if option not in wanted}
    threads = training_threads()
    if threads.why:
        why["execution.threads"] = threads.why
    machine = {"execution.device": "cpu", "execution.threads": threads.number}
    if given.get("execution.device", base.get("execution.device", "auto")) == "auto":
        given["execution.device"] = best_device()
    _match_channels(given, base, layer)
    if str(device := given.get("execution.device", base.get("execution.device", "cpu"))).startswith("cuda"):
        check_device(str(device))                              # before it is asked what it can
    machine |= _execution(given, base, settled or {}, why)
    wish = (settled or {}).get("execution.compile", base.pop("execution.compile", None))
    if given.get("execution.compile") == "auto":
        del given["execution.compile"]
    config = make_config(machine, layer, base, given)
    why = {option: reason for option, reason in why.items() if option not in base and option not in given}
    config = _compiles(_possible_size(config, why), time_sec, given, wish, why)
    check_device(config.execution.device)
    _hints(config, look, why)
    _slow(config, given, why)
    return Recipe(config, why)


def _execution(
    given: dict[str, Any], base: dict[str, Any], settled: Mapping[str, Any], why: dict[str, str],
) -> dict[str, Any]:
    """How the device computes, where it is not asked for: as the run that goes on did, else what suits device and networks.

    What a file or another run says holds on a machine that is made for it; elsewhere it is left, and said. What was asked for
    outright holds always.
    """
    wanted = [option for option in HOW_IT_COMPUTES if given.get(option, "auto") == "auto"]
    if not wanted:
        return {}
    from ganvas.engine import bf16_by, likes_channels_last, suited  # torch is first needed here

    device = str(given.get("execution.device", base.get("execution.device", "cpu")))
    found = suited(device, str(given.get("network.family", base.get("network.family", ""))))
    can = {"execution.precision": bool(bf16_by(device)), "execution.channels_last": likes_channels_last(device)}
    values: dict[str, Any] = {}
    for option in wanted:
        given.pop(option, None)
        value, reason = found[option]
        if settled.get("execution.device") == device:          # a run from before there was a choice computed plainly
            wish = settled.get(option, {"execution.precision": "fp32", "execution.channels_last": False}[option])
        else:
            wish = base.get(option, "auto")
        base.pop(option, None)
        plain = wish in ("fp32", False)
        values[option] = value if wish == "auto" else wish if plain or can[option] else value
        if wish == "bf16" and values[option] != wish:
            why[option] = ("precision fp32: nothing here multiplies bf16 fast, as that run or file has it; --precision bf16 "
                           "takes it all the same, and may be many times slower")
        elif wish == "auto" and reason:
            why[option] = reason
    return values


def _compiles(
    config: RunConfig, time_sec: float | None, given: Mapping[str, Any], wish: Any, why: dict[str, str],
) -> RunConfig:
    """The config with torch.compile, where a run is long enough to repay its warm-up, or the run that goes on or a file says so.

    wish: what those say. Only measured on CPUs: a minute, for an eighth less time with networks of 28 pixels, none with 64.
    """
    possible = not config.train.r1_gamma and config.network.family != "custom" and config.execution.device == "cpu"
    if "execution.compile" in given or not possible or cpp_compiler() is None:
        return config
    small = config.data.size.height * config.data.size.width <= MOST_COMPILED_PX
    chosen = bool(wish) if wish is not None else small and (time_sec or 0) >= REPAYS_COMPILING_SEC
    if chosen and wish is None:
        why["execution.compile"] = "compile on: a minute of warm-up makes small networks an eighth faster, and is repaid"
    return config.model_copy(update={"execution": config.execution.model_copy(update={"compile": chosen})})


def _match_channels(given: dict[str, Any], base: Mapping[str, Any], layer: Mapping[str, Any]) -> None:
    """Adds to `given` the channels that go with a transparency that was asked for alone, and the other way round.

    What is in `given` was asked for rather than what is in `base`, and both rather than what is in `layer`.
    """
    for asked, others in ((given, {**layer, **base}), ({**base, **given}, layer)):
        transparency, channels = asked.get("data.transparency"), asked.get("data.channels")
        if transparency is not None and channels is None:
            if transparency == "keep":
                given["data.channels"] = 4
            elif others.get("data.channels") == 4:
                given["data.channels"] = 3
            return
        if channels is not None and transparency is None:
            if channels == 4:
                given["data.transparency"] = "keep"
            elif others.get("data.transparency") == "keep":
                given["data.transparency"] = "white"
            return


def _suited() -> tuple[dict[str, Any], dict[str, str]]:
    """The values where no preset was asked for, apart from those taken from the images, and {option: why it is so}."""
    why = {
        "network.family": "networks and optimizer of pytorch-faces-64, with an averaged generator (half-life 10 kimg): "
                          "steadier samples",
        "length": "length 200 kimg: pass --time, --kimg or --epochs for another",
    }
    values = load_preset("pytorch-faces-64").values | {
        "preset": "", "train.batch": 64, "train.ema_half_life_kimg": 10, "length": "200 kimg",
        "output.grid_mode": "eval", "output.grid_every": "5 kimg", "output.checkpoint_every": "20 kimg",
    }
    return values, why


def _from_images(look: Look, images: int, classic: bool, given: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
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


def _possible_size(config: RunConfig, why: dict[str, str]) -> RunConfig:
    wanted = config.data.size
    if config.network.family != "dcgan" or stages(wanted.height, wanted.width):
        return config
    high, wide = nearest_size(wanted.height, wanted.width)
    if max(high / wanted.height, wanted.height / high, wide / wanted.width, wanted.width / wide) > MOST_ROUNDING:
        raise ConfigError(f"--size {wanted}: a DCGAN's sides are 3 to 8 pixels doubled equally often, such as 64x64, 48x64 or "
                          f"96x96; the nearest is {wide}x{high}. Pass a size of that kind.")
    why["data.size"] = f"size {wide}x{high} instead of {wanted}: each side must be 3 to 8 pixels doubled equally often"
    return config.model_copy(update={"data": config.data.model_copy(update={"size": ImageSize(wide, high)})})


def _hints(config: RunConfig, look: Look, why: dict[str, str]) -> None:
    if look.grey_share == 1 and config.data.channels == 3:
        why["data.channels"] = "the images look grey, and will be trained in three channels: --channels 1 is faster"
    if look.transparent_share and config.data.channels != 4:
        why["data.transparency"] = (
            f"transparent parts are shown on {config.data.transparency}: --transparency keep learns them instead")


def _slow(config: RunConfig, given: Mapping[str, Any], why: dict[str, str]) -> None:
    """Says what was asked for and is slow on this machine."""
    threads, processors = config.execution.threads, usable_processors()
    if "execution.threads" in given and threads > processors:
        why["execution.threads"] = f"threads {threads}: this process may use {processors}; more than that wait for each other"
    if given.get("execution.precision") == "bf16":
        from ganvas.engine import bf16_by

        if not bf16_by(config.execution.device):
            why["execution.precision"] = ("precision bf16: nothing here multiplies it fast, and it may be many times slower; "
                                          "--precision fp32")


def best_device() -> str:
    """cuda, else mps, else cpu."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def check_device(device: str) -> None:
    """Raises ConfigError for a device that this machine or this torch does not have."""
    if device == "cpu":
        return
    import torch

    kind, _, index = device.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else int(kind == "cpu" or torch.backends.mps.is_available())
    if int(index or 0) >= count:
        have = [f"cuda:{i}" for i in range(torch.cuda.device_count())] + (["mps"] if torch.backends.mps.is_available() else [])
        raise ConfigError(f"--device {device}: not available here. Use one of: {', '.join([*have, 'cpu'])}, or auto.")


def config_values(where: str) -> dict[str, Any]:
    """{dotted name: value} of --config: a YAML file, or a run folder whose options to take. Raises ConfigError."""
    path = Path(where)
    file = path / "config.yaml" if path.is_dir() else path
    try:
        return from_yaml(file.read_text(encoding="utf-8"), str(file))
    except OSError as error:
        raise ConfigError(f"--config {where}: cannot be read ({error.strerror}). Pass a YAML file or a run folder.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--config {where}: is not text. Pass a YAML file or a run folder.") from error


def seconds(text: str | float) -> float:
    """`90`, `90s`, `10min`, `1.5h` or `1h30min` in seconds. Raises ConfigError."""
    written = f"{text}s" if re.fullmatch(r"\s*[\d.]+\s*", str(text)) else str(text)
    # A unit for every number: `1h30` may mean 30 minutes or 30 seconds.
    match = re.fullmatch(r"\s*(?:([\d.]+)\s*h)?\s*(?:([\d.]+)\s*m(?:in)?)?\s*(?:([\d.]+)\s*s)?\s*", written)
    try:
        total = sum(float(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True)) if match else 0
    except ValueError:
        total = 0
    if total <= 0:
        raise ConfigError(f"--time {text}: write a time such as 90s, 10min or 1h30min.")
    return total


def table(config: RunConfig) -> list[tuple[str, str, str]]:
    """Every option as (dotted name, value, meaning), for people to read."""
    values = flatten(config.model_dump(mode="json"))
    return [(name, str(values[name]), field.description or "") for name, field in fields()]
