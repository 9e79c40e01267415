"""From a preset (or none), a look at the images and the machine to one complete config, with a reason for every choice.

Nothing below this file and recipe_*.py knows "auto".
"""

import contextlib
import re
from collections.abc import Callable, Mapping
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
from ganvas.presets import load_preset
from ganvas.recipe_images import from_images, possible_size
from ganvas.recipe_memory import SIZES, fitting
from ganvas.recipe_modern import DECIDED, Labels, augmentation, conditional, modern, own
from ganvas.values import ImageSize

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
    images: int = 0, labels: Labels | None = None, settled: Mapping[str, Any] | None = None, time_sec: float | None = None,
    free: Callable[[str], int | None] = lambda device: None,
) -> Recipe:
    """The config of a run on `source`. Later layers win: preset (or what suits the images), `base` (a config file), `options`.

    images: how many there are. labels: their classes. time_sec: --time, where it is given. settled: the options of a run that
    goes on; what was chosen for it stays. free: the bytes that a run can have on a device, None = nobody knows.
    Raises ConfigError that names every unknown or impossible option.
    """
    if preset and base.get("preset", preset) != preset:        # a whole config would silently win over every value of the preset
        raise ConfigError(f"--preset {preset}: the file or run of --config names all options already (it started from "
                          f"'{base['preset'] or 'the images'}'). Give one of the two.")
    preset = preset or str(base.get("preset") or "") or ("digits-16" if source == "digits" else None)
    settled, why = settled or {}, dict[str, str]()
    layer = load_preset(preset).values if preset else {}
    is_classic = layer.get("network.family", "residual") != "residual"     # those say everything about the images, too
    given = {"data.source": source} | dict(options)
    if str(given.get("data.channels")) in ("1", "3", "4"):     # a flag gives text
        given["data.channels"] = int(given["data.channels"])

    # The images.
    asked = {**layer, **base, **given}
    wanted = [option for option in FROM_IMAGES if asked.get(option, None if is_classic else "auto") == "auto"]
    given = {option: value for option, value in given.items() if option not in wanted}
    base = {option: value for option, value in base.items() if option not in wanted and not option.startswith("data.class_")}
    layer = {option: value for option, value in layer.items() if option not in wanted}
    chosen = from_images(look, images, classic=is_classic, given={**layer, **base, **given})
    for option in wanted:
        value, reason = chosen[option]
        layer[option] = settled.get(option, value)
        if layer[option] == value and reason:
            why[option] = reason

    # The machine.
    threads = training_threads()
    if threads.why:
        why["execution.threads"] = threads.why
    machine = {"execution.device": "cpu", "execution.threads": threads.number}
    if given.get("execution.device", base.get("execution.device", "auto")) == "auto":
        given["execution.device"] = best_device()
    _match_channels(given, base, layer)
    if str(device := given.get("execution.device", base.get("execution.device", "cpu"))).startswith("cuda"):
        check_device(str(device))                              # before it is asked what it can

    # What trains: a preset's own, or what suits both.
    if not (preset and load_preset(preset).is_complete):
        size = ImageSize(64, 64)
        with contextlib.suppress(ValueError):                  # of a size that is none, which make_config tells
            size = ImageSize.parse({**layer, **base, **given}["data.size"])
        values, reasons = own() if given.get("network.family") == "custom" else modern(images, size, str(device))
        layer = values | layer
        why = {option: reason for option, reason in reasons.items() if layer.get(option) == values.get(option)} | why
    asked = {**layer, **base, **given}
    if asked.get("network.family") == "residual":
        values, reasons = augmentation(images)
        layer = values | layer
        why |= reasons
    _classes(layer, base, given, labels, settled, why)
    if asked.get("network.family") == "residual" and settled.get("preset") == (preset or ""):      # decided once in a run
        kept = {option: settled[option] for option in DECIDED & settled.keys()}
        why = {option: reason for option, reason in why.items() if kept.get(option, layer.get(option)) == layer.get(option)}
        layer |= kept
    machine |= _execution({**layer, **given}, given, base, settled, why)
    wish = settled.get("execution.compile", base.pop("execution.compile", None))
    if given.get("execution.compile") == "auto":
        del given["execution.compile"]
    config = make_config(machine, layer, base, given)
    why = {option: reason for option, reason in why.items() if option not in base and option not in given}
    config = _compiles(possible_size(config, why), time_sec, given, wish, why)
    check_device(config.execution.device)
    if not settled:
        named = {**base, **given, **(load_preset(preset).values if preset else {})}
        # Of other families no run that goes on would keep what was chosen here.
        mine = [option for option in SIZES if option not in named] if config.network.family == "residual" else []
        config, reasons = fitting(config, free(config.execution.device), mine)
        why |= reasons
    _hints(config, look, why)
    _slow(config, given, why)
    return Recipe(config, why)


def _classes(
    layer: dict[str, Any], base: Mapping[str, Any], given: Mapping[str, Any], labels: Labels | None,
    settled: Mapping[str, Any], why: dict[str, str],
) -> None:
    """Adds to `layer` whether the networks are told the classes, and which there are."""
    asked = {**layer, **base, **given}
    if asked.get("network.family") == "residual" and "network.conditional" not in asked:
        value, reason = conditional(labels, asked.get("data.labels", "none") != "none")
        layer["network.conditional"] = settled.get("network.conditional", value)
        if reason and layer["network.conditional"] == value:
            why["network.conditional"] = reason
    if {**layer, **base, **given}.get("network.conditional"):
        if labels is None:
            raise ConfigError("network.conditional: the images have no labels; name their classes with --labels folder, or "
                              "--labels FILE:COLUMN")
        layer["data.class_names"] = settled.get("data.class_names", labels.names)
        layer["data.class_counts"] = settled.get("data.class_counts", labels.counts)       # job.py counts those of training


def _execution(
    asked: Mapping[str, Any], given: dict[str, Any], base: dict[str, Any], settled: Mapping[str, Any], why: dict[str, str],
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
    found = suited(device, str({**asked, **base}.get("network.family", "")))
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
    train, network = config.train, config.network
    always_twice = train.second_derivatives and train.penalty_every == 1
    possible = not (always_twice or network.conditional or network.family == "custom") and config.execution.device == "cpu"
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
