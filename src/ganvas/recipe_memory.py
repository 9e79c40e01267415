"""Whether a training fits into the memory that is free, and smaller batches and networks where it does not."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from ganvas.config import RunConfig, flatten, make_config
from ganvas.machine import free_memory, own_memory

if TYPE_CHECKING:
    from ganvas.networks.cost import Cost

MUCH = 0.8                             # of the free memory: the pack's pages, and whatever else runs, want some too
BATCH, WIDTHS = "train.batch", ("network.g_channels", "network.d_channels")
SIZES = (BATCH, *WIDTHS)               # the options that memory grows with, besides the images' own size
LEAST = 8                              # of each of them, below which nothing is halved
REMEDY = "pass a smaller --batch, --size or network.g_channels, or end other programs"


def free_on(device: str) -> int | None:
    """Bytes that a run in this process can have on the device, what the process has already among them; None = unknown."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    free = free_memory()
    return None if free is None else free + (own_memory() or 0)


def needed(config: RunConfig, cost: "Cost", pairing: bool) -> int:
    """Bytes that a run of networks of this cost takes at its height. pairing: the loss compares reals with fakes."""
    from ganvas.networks.cost import state_bytes, step_memory

    train, averaged = config.train, config.train.ema_half_life_kimg > 0
    step = step_memory(cost, train.batch, config.execution.precision, averaged, train.second_derivatives, pairing)
    in_writing = 0 if config.execution.device.startswith("cuda") else state_bytes(cost, averaged)      # a checkpoint's copy
    return step + in_writing


def fitting(config: RunConfig, free_bytes: int | None, may_change: Collection[str]) -> tuple[RunConfig, dict[str, str]]:
    """The config with a batch, then widths, halved until the training takes at most MUCH of `free_bytes`, and {option: why}.

    free_bytes: what free_on says; None leaves all as it is. may_change: those of SIZES that nobody asked for. What does not fit
    all the same is said. A user's own networks are left alone: nobody knows what they cost. Imports torch.
    """
    if free_bytes is None or config.network.family == "custom":
        return config, {}
    most, of_free = MUCH * free_bytes, f"more than {MUCH:.0%} of the {_gib(free_bytes)} that are free"
    found, pairing, why = _cost(config), _pairs(config), dict[str, str]()
    need = needed(config, found, pairing)
    for kind in ((BATCH,), WIDTHS):
        options = [option for option in kind if option in may_change]
        before, needed_before = _sizes(config, options), need
        while need > most and any(value > LEAST for value in _sizes(config, options).values()):
            config = make_config(_flat(config), {
                option: max(LEAST, value // 2) if value > LEAST else value for option, value in _sizes(config, options).items()})
            found = found if kind == (BATCH,) else _cost(config)
            need = needed(config, found, pairing)
        for option, value in _sizes(config, options).items():
            if value < before[option]:
                what = "batch" if option == BATCH else "width"
                why[option] = f"{what} {value}: {before[option]} would need about {_gib(needed_before)} GiB, {of_free}"
    if need > most:
        smallest = next(iter(why), BATCH)
        started = f"{why[smallest]}; still" if why else f"batch {config.train.batch}:"
        why[smallest] = f"{started} about {_gib(need)} GiB are needed{'' if why else f', {of_free}'}: {REMEDY}"
    return config, why


def _cost(config: RunConfig) -> "Cost":
    """Of networks built for it, on the CPU: on "meta" the first random number takes a second of imports."""
    from ganvas.networks.build import build_networks
    from ganvas.networks.cost import cost
    from ganvas.networks.latents import latent_size

    data = config.data
    networks = build_networks(config.network, data, config.train.seed)
    return cost(*networks, latent_size(config), (data.channels, data.size.height, data.size.width))


def _pairs(config: RunConfig) -> bool:
    """Whether the loss compares reals with fakes; of a user's own the dearer is assumed."""
    from ganvas.losses import loss_pair

    loss = config.train.loss
    return loss == "custom" or not loss_pair(loss, config.plan.real_label).separable


def _flat(config: RunConfig) -> dict[str, Any]:
    return flatten(config.model_dump(mode="json"))


def _sizes(config: RunConfig, options: Collection[str]) -> dict[str, int]:
    return {option: value for option, value in _flat(config).items() if option in options}


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f}"
