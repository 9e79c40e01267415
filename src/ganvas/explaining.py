"""`--explain`: what a training would do, with the reason of every choice, its speed here and its memory, without training."""

import copy
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ganvas.budget import Budget, measured_speed
from ganvas.config import RunConfig, fields, flatten
from ganvas.data.batches import Schedule
from ganvas.losses import LossPair
from ganvas.machine import free_memory
from ganvas.networks.cost import cost, step_memory
from ganvas.networks.latents import latent_size
from ganvas.presets import load_preset
from ganvas.recipe_modern import REASONS
from ganvas.training.loop import nimg_of
from ganvas.watcher import duration, seen

SHOWN = ("data", "network", "plan", "train", "augment", "length", "execution")
SPEED_SEC = 4.0                # of training that is thrown away
MUCH = 0.8                     # of the free memory


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
    budget: Budget | None,
) -> str:
    """The page: choices with their reasons, then the prediction. networks: as they would train; they stay as they are."""
    return "\n".join([*_choices(config, why), "", *_prediction(config, networks, losses, images, budget)])


def _choices(config: RunConfig, why: Mapping[str, str]) -> list[str]:
    """A line for each option that is not as it is by itself, or of which there is something to say."""
    values, usual = flatten(config.model_dump(mode="json")), flatten(RunConfig().model_dump(mode="json"))
    preset = load_preset(config.preset) if config.preset else None
    given = preset.values if preset else {}
    lines = [f"choices for {config.data.source}" + (f", preset {config.preset}: {preset.title}" if preset else "")]
    for name, field in fields():
        if name.partition(".")[0] not in SHOWN:
            continue
        reason = why.get(name) or (f"preset {config.preset}" if name in given and given[name] != "auto" else "")
        if reason or values[name] != usual[name]:
            told = reason or (REASONS.get(name) if config.network.family == "residual" else "") or field.description or ""
            lines.append(f"  {name:<28}{values[name]!s:<16}  {told}".rstrip())
    return lines


def _prediction(
    config: RunConfig, networks: tuple[nn.Module, nn.Module], losses: LossPair, images: int, budget: Budget | None,
) -> list[str]:
    size, batch = config.data.size, config.train.batch
    noise = Noise(config, images)
    speed = measured_speed(config, copy.deepcopy(networks), noise, losses, SPEED_SEC)
    shape = (config.data.channels, size.height, size.width)
    found = cost(*networks, latent_size(config), shape)
    train = config.train
    penalised = bool(train.r1_gamma or train.r2_gamma or train.gp_weight) and train.penalty == "exact"
    need = step_memory(found, batch, config.execution.precision, train.ema_half_life_kimg > 0, penalised,
                       pairing=train.loss == "relativistic")
    if budget is not None:
        budget.open(0.0, config.measure.share)
        nimg = budget.first_goal(0, lambda _: speed, lambda speed, goal: None)
    else:
        nimg = nimg_of(config.length, Schedule(images, batch, config.plan.tail))
    lines = [
        "prediction",
        f"  {'networks':<28}G {found.parameters_g:,} and D {found.parameters_d:,} weights, "
        f"{found.macs_g / 1e6:,.0f} and {found.macs_d / 1e6:,.0f} million multiplications an image",
        f"  {'speed here':<28}{speed:,.0f} images a second",
        f"  {'length':<28}{seen(nimg)}, {nimg / images:,.1f} epochs, about {duration(nimg / speed)} of training",
        f"  {'memory':<28}about {need / 2**30:.1f} GiB while training",
    ]
    free = free_memory() if config.execution.device == "cpu" else None
    if free is not None and need > MUCH * free:
        lines.append(f"  {'':<28}of {free / 2**30:.1f} GiB that are free: pass a smaller --batch, --size or network.g_channels")
    return lines
