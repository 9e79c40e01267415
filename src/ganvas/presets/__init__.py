"""Presets: named sets of values for the options, one YAML file each; its header says what is source and what is choice."""

import difflib
from importlib.resources import files
from typing import Any, NamedTuple

from ganvas.config import from_yaml
from ganvas.errors import ConfigError


class Preset(NamedTuple):
    """A preset as its file states it."""

    name: str
    header: str                    # the comment at the top, without its marks
    values: dict[str, Any]         # {dotted option: value}, to be checked by config.make_config

    @property
    def is_classic(self) -> bool:
        """Whether it is somebody else's system, with a plain script of its own in examples/plain."""
        return "Ours, no classic" not in self.header

    @property
    def is_complete(self) -> bool:
        """Whether it says how to train; one that does not leaves to the images and the machine what it does not name."""
        return "train.batch" in self.values

    @property
    def title(self) -> str:
        """The header's first sentence."""
        return self.header.partition("\n")[0]


def preset_names() -> list[str]:
    """The names of all presets, sorted."""
    return sorted(entry.name.removesuffix(".yaml") for entry in files(__name__).iterdir() if entry.name.endswith(".yaml"))


def load_preset(name: str) -> Preset:
    """The preset of this name. Raises ConfigError that lists the known ones."""
    names = preset_names()
    if name not in names:
        near = [known for known in names if name and known.startswith(name)] or difflib.get_close_matches(name, names, 1, 0.4)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ConfigError(f"unknown preset '{name}': {hint}Known presets: {', '.join(names)}.")
    text = (files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")
    comment = [line for line in text.splitlines() if line.startswith("#")]
    header = "\n".join(line.removeprefix("#").removeprefix(" ") for line in comment).strip()
    return Preset(name, header, {"preset": name} | from_yaml(text, f"preset {name}"))
