"""`--explain`: what a training would do, with the reason of every choice, its speed here and its memory, without training."""

import copy
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import nn

from ganvas.budget import Budget, measured_speed
from ganvas.config import RunConfig, fields, flatten
from ganvas.data.batches import Schedule
from ganvas.data.split import wanted_holdout
from ganvas.losses import LossPair
from ganvas.networks.cost import Cost, cost
from ganvas.networks.latents import latent_size
from ganvas.presets import Preset, load_preset
from ganvas.recipe_memory import MUCH, REMEDY, free_on, needed
from ganvas.recipe_modern import augmentation, modern, own, reasons
from ganvas.training.loop import nimg_of
from ganvas.values import Amount
from ganvas.watcher import duration, seen

SHOWN = ("data", "network", "plan", "train", "augment", "length", "execution")
NOT_ASKED = ("data.", "execution.", "network.conditional")     # where images and machine have a say besides preset and recipe
SPEED_SEC = 4.0                # of training that is thrown away


class Begun(NamedTuple):
    """The run that would go on, as its newest checkpoint has it."""

    nimg: int
    spent_sec: float
    options: Mapping[str, Any]         # by dotted name
    length: Amount | None              # what this --time made of itself in an earlier session
    is_past_its_best: bool             # nothing better has come for measure.patience


class Noise:
    """As many images as there will be, of random pixels: how fast a training is does not hang on what it sees."""

    def __init__(self, config: RunConfig, images: int):
        size = config.data.size
        self.pixels = np.random.default_rng(0).integers(
            0, 256, (min(images, 2 * config.train.batch), config.data.channels, size.height, size.width), np.uint8)
        self.images = images
        self.labels: NDArray[np.int64] | None = np.arange(images) % config.num_classes if config.num_classes else None

    def __len__(self) -> int:
        return self.images

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(n,) to (n, C, H, W)."""
        return np.asarray(self.pixels[indices % len(self.pixels)])


def explain(
    config: RunConfig, why: Mapping[str, str], networks: tuple[nn.Module, nn.Module], losses: LossPair, images: int,
    budget: Budget | None, begun: Begun | None = None,
) -> str:
    """The page: choices with their reasons, then the prediction.

    networks: as they would train; they stay as they are. images: how many the source has. begun: None = a new run.
    """
    trained_on = images - wanted_holdout(config.data.holdout, images)
    return "\n".join([*_choices(config, why, images, budget is not None, {} if begun is None else begun.options), "",
                      *_prediction(config, networks, losses, trained_on, budget, begun)])


# ---------------------------------------------------------------- choices


def _choices(config: RunConfig, why: Mapping[str, str], images: int, timed: bool, began: Mapping[str, Any]) -> list[str]:
    """A line for each option that is not as it is by itself, or of which there is something to say."""
    values, usual = flatten(config.model_dump(mode="json")), flatten(RunConfig().model_dump(mode="json"))
    preset = load_preset(config.preset) if config.preset else None
    of_preset = _as_dumped(preset.values) if preset else {}
    of_recipe, because = _recipes_own(config, preset, images)
    lines = [f"choices for {config.data.source}" + (f", preset {config.preset}: {preset.title}" if preset else "")]
    for name, field in fields():
        if name.partition(".")[0] not in SHOWN or (timed and name == "length"):
            continue
        value, expected = values[name], of_preset.get(name, of_recipe.get(name, usual[name]))
        if name in why:
            told = why[name]
        elif value != expected and (name in of_preset or name in of_recipe or not name.startswith(NOT_ASKED)):
            told = "as the run began" if began.get(name) == value else "as you asked"
        elif name in of_preset:
            told = f"preset {config.preset}" if value == expected else field.description or ""
        elif value != usual[name]:
            told = because.get(name, field.description or "")
        else:
            continue
        lines.append(f"  {name:<28}{value!s:<16}  {told}".rstrip())
    return lines


def _recipes_own(config: RunConfig, preset: Preset | None, images: int) -> tuple[dict[str, Any], dict[str, str]]:
    """({option: value}, {option: why}) of what the recipe says to such images where nobody asks for anything else."""
    chosen, because = dict[str, Any](), dict[str, str]()
    residual = config.network.family == "residual"
    if config.network.family == "custom":
        chosen = own()[0]
    elif preset is None or not preset.is_complete:
        chosen = modern(images, config.data.size, config.execution.device)[0]
        because = reasons(chosen, config.data.size) if residual else {}
    chosen = (augmentation(images)[0] if residual else {}) | chosen
    return _as_dumped({name: value for name, value in chosen.items() if name not in ("preset", "data.size")}), because


def _as_dumped(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options from YAML as a config dumps them, to compare with; without what is left open."""
    known = dict(fields())
    found = {}
    for name, value in values.items():
        if value != "auto":
            option = TypeAdapter[Any](Annotated[known[name].annotation, known[name]])      # type: ignore[arg-type]
            found[name] = option.dump_python(option.validate_python(value), mode="json")
    return found


# ---------------------------------------------------------------- prediction


def _prediction(
    config: RunConfig, networks: tuple[nn.Module, nn.Module], losses: LossPair, images: int, budget: Budget | None,
    begun: Begun | None,
) -> list[str]:
    """images: those that are trained on."""
    free = free_on(config.execution.device)                    # before the measurement takes some
    speed = measured_speed(config, copy.deepcopy(networks), Noise(config, images), losses, SPEED_SEC)
    found = _cost(config, networks)
    not_counted = "; what torch.compile adds to that is not measured here" if config.execution.compile else ""
    rows = [("speed here", f"{speed:,.0f} images a second{not_counted}"),
            ("length", _length(config, images, speed, budget, begun))]
    if found is not None:
        rows.insert(0, ("networks", f"G {found.parameters_g:,} and D {found.parameters_d:,} weights, "
                        f"{found.macs_g / 1e6:,.0f} and {found.macs_d / 1e6:,.0f} million multiplications an image"))
        rows += _memory(needed(config, found, not losses.separable), free, begun)
    return ["prediction", *(f"  {what:<28}{text}" for what, text in rows)]


def _cost(config: RunConfig, networks: tuple[nn.Module, nn.Module]) -> Cost | None:
    """None of a user's own networks that refuse tensors without numbers."""
    data = config.data
    try:
        return cost(*networks, latent_size(config), (data.channels, data.size.height, data.size.width))
    except Exception:                                          # whatever their code raises
        if config.network.family != "custom":
            raise
        return None


def _length(config: RunConfig, images: int, speed: float, budget: Budget | None, begun: Begun | None) -> str:
    schedule = Schedule(images, config.train.batch, config.plan.tail)
    done, length = (0, None) if begun is None else (begun.nimg, begun.length)
    if budget is None:
        goal = nimg_of(config.length, schedule)
    elif length is not None:
        goal = nimg_of(length, schedule)
    else:
        budget.open(0.0 if begun is None else begun.spent_sec, config.measure.share)
        goal = budget.first_goal(done, lambda _: speed, lambda speed, goal: None)
    if begun is not None and begun.is_past_its_best:
        return f"{seen(done)} are done, and nothing better came for --patience: a larger one, or none, continues"
    if begun is not None and goal <= done:
        return f"{seen(done)} are done already: a larger --time, --kimg, --epochs or --steps continues"
    return (f"{seen(goal)}, {goal / images:,.1f} epochs, about {duration((goal - done) / speed)} of training"
            + (f" after the {seen(done)} that are done" if done else ""))


def _memory(need: int, free: int | None, begun: Begun | None) -> list[tuple[str, str]]:
    rows = [("memory", f"about {need / 2**30:.1f} GiB while training")]
    if free is not None and need > MUCH * free:
        remedy = REMEDY if begun is None else "end other programs"
        rows.append(("", f"of {free / 2**30:.1f} GiB that are free: {remedy}"))
    return rows
