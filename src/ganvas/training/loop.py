"""The training loop: order and cadence. It yields; whoever consumes the ticks draws, writes and decides when to stop."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.profiler import record_function

from ganvas.config import AugmentConfig, RunConfig
from ganvas.data.batches import Batches, LabelledImages, Schedule
from ganvas.errors import DivergedError
from ganvas.losses import LossPair
from ganvas.networks.latents import draw_latents
from ganvas.ops.augment import augment
from ganvas.ops.diff_augment import Policy
from ganvas.ops.pixels import to_float
from ganvas.rng import Purpose
from ganvas.training.draws import Draws
from ganvas.training.ema import half_life_at, update_ema
from ganvas.training.penalties import penalties_at
from ganvas.training.state import TrainState, memory_format
from ganvas.training.steps import train_step, turns_at
from ganvas.values import Amount


@dataclass(frozen=True)
class Tick:
    """What stands after one step; the state is whole and may be saved while the consumer holds the tick."""

    nimg: int
    step: int                              # updates so far
    epoch: float                           # passes over the images so far
    row: dict[str, Any] | None             # a row of statistics, where one is due
    grid_due: bool
    checkpoint_due: bool
    end: str | None                        # "done", or the reason that should_stop gave


def train(
    state: TrainState, config: RunConfig, images: LabelledImages, losses: LossPair,
    should_stop: Callable[[], str | None] = lambda: None, goal: Callable[[], int] | None = None,
) -> Iterator[Tick]:
    """Trains `state` up to config.length, a tick for each step; starts at state.nimg, so that resuming is the same call.

    images: what `read(indices)` gives is uint8 (N, C, H, W). should_stop: asked after each step; a reason ends the run.
    goal: the images after which the run is done, asked before the first step and after each; None = config.length.
    Raises DivergedError, before anything is due, where a statistic or weight is no longer finite.
    """
    device, seed, output = torch.device(config.execution.device), config.train.seed, config.output
    schedule = make_schedule(config, len(images), state)
    goal = goal or partial(nimg_of, config.length, schedule)
    batches, layout = Batches(images, schedule, seed).start(state.nimg), memory_format(config)
    policy, known_labels = policy_of(config.augment), images.labels

    if state.nimg >= goal():
        return
    while True:
        # Update the networks whose turn it is.
        step = schedule.step_at(state.nimg)
        turns = turns_at(config.plan, step)
        with record_function("ganvas.data"):
            batch = next(batches)
            images_u8 = batch.images_u8.to(device, non_blocking=True, memory_format=layout)
            reals = to_float(images_u8)                                                  # (N, C, H, W) in [-1, 1]
            reals = augment(reals, seed, batch.indices, config.data.rotation_degrees, config.data.mirror)
            own_labels = known_labels[batch.positions] if config.num_classes and known_labels is not None else None
            z = draw_z(config, Purpose.Z, batch.indices, own_labels)                     # (N, latents)
            needs_more = config.plan.g_fakes == "fresh" and turns == "DG"
            z_fresh = draw_z(config, Purpose.Z_G, batch.indices, own_labels) if needs_more else z
            labels = None if own_labels is None else torch.from_numpy(own_labels).to(device)
        penalties = penalties_at(config.train, step if config.plan.turns == "both" else step // 2, state.nimg)     # of D's turns
        with _own_randomness(config, state.nimg):
            stats = train_step(state, config.plan, losses, penalties, turns, reals, z, z_fresh,
                               Draws(seed, batch.indices, policy), labels)
        with record_function("ganvas.stats"):
            state.stats.add(stats)
        if state.G_ema is not None:
            with record_function("ganvas.ema"):
                update_ema(state.G_ema, state.G, half_life_at(config.train, state.nimg), len(reals))
        before, state.nimg = state.nimg, state.nimg + len(reals)

        # Say what is due.
        due = partial(passed, schedule, before, state.nimg)
        end = "done" if state.nimg >= goal() else should_stop()
        log_due = due(output.log_every) or before == 0         # the first step too: how D and G begin
        grid_due = due(output.grid_every) or end in ("done", "time", "patience")
        checkpoint_due = due(output.checkpoint_every) or due(output.keep_every) or end is not None
        if log_due or grid_due or checkpoint_due:
            check_finite(state, weights_too=grid_due or checkpoint_due)
        step, epoch, row = schedule.step_at(state.nimg), schedule.epoch_at(state.nimg), None
        if log_due:
            row = {"nimg": state.nimg, "epoch": round(epoch, 4), "step": step} | state.stats.means()
            state.stats.clear()
        yield Tick(state.nimg, step, epoch, row, grid_due, checkpoint_due, end)
        if end:
            return


def draw_z(
    config: RunConfig, purpose: Purpose, indices: NDArray[np.int64], labels: NDArray[np.int64] | None = None,
) -> Tensor:
    """What G makes these running images from, (N, latents) float32 on the run's device; labels: (N,), their classes."""
    z = draw_latents(config, config.train.seed, purpose, indices, labels)
    return torch.from_numpy(z).to(config.execution.device)


def policy_of(config: AugmentConfig) -> Policy | None:
    """How D's images are changed; None where they are not."""
    return Policy(config.color, config.translation, config.cutout, config.probability) if config.is_on else None


def make_schedule(config: RunConfig, num_images: int, state: TrainState) -> Schedule:
    """Which running image starts which batch. The smallest batch is what the networks' batch norm can normalise."""
    smallest = max(int(getattr(network, "min_batch", 2)) for network in (state.G, state.D))     # 2: a user's own may be any
    return Schedule(num_images, config.train.batch, config.plan.tail, smallest)


@contextmanager
def _own_randomness(config: RunConfig, nimg: int) -> Iterator[None]:
    """Makes what a user's own layers draw from torch's generator (dropout, noise) a function of (seed, nimg) too."""
    if config.network.family != "custom":
        yield
        return
    device = torch.device(config.execution.device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed((config.train.seed * 1_000_003 + nimg) % 2**63)
        yield


def passed(schedule: Schedule, before: int, now: int, every: Amount | None) -> bool:
    """Whether a multiple of `every` lies in (before, now], both in images; never, if it is None."""
    if every is None:
        return False
    if every.unit == "steps":
        return schedule.step_at(now) // int(every.value) > schedule.step_at(before) // int(every.value)
    images = every.value * (1000 if every.unit == "kimg" else schedule.epoch_images)
    return math.floor(now / images + 1e-9) > math.floor(before / images + 1e-9)


def nimg_of(length: Amount, schedule: Schedule) -> int:
    """The number of images after which a run of this length is done."""
    if length.unit == "steps":
        return schedule.nimg_at(int(length.value))
    return math.ceil(length.value * (1000 if length.unit == "kimg" else schedule.epoch_images) - 1e-6)


def check_finite(state: TrainState, weights_too: bool) -> None:
    """Raises DivergedError where an open statistic (or a weight) is NaN or infinite; waits for the device."""
    bad = [name for name, value in state.stats.means().items() if not math.isfinite(value)]
    if bad or (weights_too and not state.all_finite()):
        raise DivergedError(
            f"training diverged: {', '.join(bad) or 'a weight'} is NaN or infinite near image {state.nimg:,}. "
            "Lower the learning rate (for example --lr 0.0001) and start a new run with --out.")
