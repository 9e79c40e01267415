"""Loads a checkpoint's generator and samples from it; used by the loop's pictures, metrics, exploring and export."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ganvas.best import read_best
from ganvas.checkpoint import read_checkpoint, read_newest
from ganvas.config import RunConfig, flatten, make_config
from ganvas.errors import RunError
from ganvas.networks.build import build_networks
from ganvas.networks.folding import folded
from ganvas.networks.latents import draw_latents
from ganvas.ops.pixels import to_uint8
from ganvas.rng import Purpose
from ganvas.run_folder import RunFolder, open_run

CHUNK = 64                       # images that go through G together, always: rounding and batch statistics stay the same
BATCH_NORM_BATCHES = 16          # of CHUNK images, for the statistics of an averaged generator

Version = tuple[Tensor, int, int]                              # a tensor, how often it was written to, where it lies


class ImageGenerator:
    """A trained generator. The same seed gives the same pictures, however many are asked for at once.

    `network` has the checkpoint's weights; pictures are made by a copy of it with folded batch norms. Change its tensors, in
    place or for others, and the pictures change; only what is written through a tensor's `.data` stays unnoticed.
    """

    def __init__(self, network: nn.Module, config: RunConfig, nimg: int, averaged: bool, device: str = "cpu"):
        self.network = network.to(device).eval().requires_grad_(False)
        self._folded: tuple[list[Version], nn.Module] | None = None        # what it was made of, and the copy
        self.config, self.nimg, self.averaged, self.device = config, nimg, averaged, device
        self.z_dim, self.image_channels = config.network.z_dim, config.data.channels
        self.class_names = config.data.class_names if config.network.conditional else ()      # () = knows of no classes
        self.image_size = (config.data.size.height, config.data.size.width)

    def z(
        self, n: int, seed: int = 0, start: int = 0, purpose: Purpose = Purpose.SAMPLE, label: int | None = None,
    ) -> NDArray[np.float32]:
        """What the pictures start … start + n - 1 of this seed and purpose are made from, (n, latents), by the prior of the run.

        label: the class of all of them, a position in class_names; None = drawn as often as the training images have it.
        """
        if label is not None and not 0 <= label < len(self.class_names):
            raise ValueError(f"label {label}: this generator knows {len(self.class_names)} classes, counted from 0")
        indices = np.arange(start, start + n, dtype=np.int64)
        return draw_latents(self.config, seed, purpose, indices, None if label is None else np.full(n, label, np.int64))

    def sample(
        self, n: int, seed: int = 0, start: int = 0, purpose: Purpose = Purpose.SAMPLE, label: int | None = None,
    ) -> NDArray[np.uint8]:
        """The pictures start … start + n - 1 of this seed and purpose, (n, H, W, C) uint8; label as in `z`.

        Whole chunks of CHUNK pictures are made, so that picture k of a seed has the same companions, hence the same bits, in
        every call; a generator without running averages (radford-faces-64) needs that.
        """
        first, last = start // CHUNK, -(-(start + n) // CHUNK)
        chunks = [to_uint8(self(torch.from_numpy(self.z(CHUNK, seed, chunk * CHUNK, purpose, label))))
                  for chunk in range(first, last)]
        images = torch.cat(chunks)[start - first * CHUNK:][:n] if n else torch.empty(0, self.image_channels, *self.image_size)
        pictures: NDArray[np.uint8] = images.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()
        return pictures

    @torch.no_grad()
    def __call__(self, z: Tensor) -> Tensor:
        """The images of these latents, as `z` gives them: (N, C, H, W) float32 in [-1, 1], made in eval mode, CHUNK at a time.

        Four channels are premultiplied: ops.pixels.to_uint8 makes files of them.
        Without running averages (radford-faces-64) a chunk is normalised by itself, so an image depends on the others in
        it, and a chunk of one raises ValueError.
        """
        sampler = self._sampler()
        return torch.cat([sampler(part.to(self.device)) for part in torch.split(z, CHUNK)])

    def _sampler(self) -> nn.Module:
        """The network's folded copy, made anew where a tensor of the network has changed since the last one."""
        versions = _versions(self.network)
        if self._folded is None or versions is None or not _are_same(versions, self._folded[0]):
            on_mps = torch.device(self.device).type == "mps"   # where channels_last kernels have been wrong
            sampler = folded(self.network, torch.contiguous_format if on_mps else torch.channels_last)
            self._folded = versions or [], sampler
        return self._folded[1]


def _versions(network: nn.Module) -> list[Version] | None:
    """Those of all parameters and buffers; None where PyTorch does not count: what was made in torch.inference_mode."""
    tensors = [*network.parameters(), *network.buffers()]
    if any(tensor.is_inference() for tensor in tensors):
        return None
    return [(tensor, tensor._version, tensor.data_ptr()) for tensor in tensors]


def _are_same(versions: list[Version], before: list[Version]) -> bool:
    return len(versions) == len(before) and all(
        now[0] is then[0] and now[1:] == then[1:] for now, then in zip(versions, before, strict=True))


def load(
    run: str | Path, checkpoint: str | int = "best", generator: nn.Module | None = None, device: str = "cpu",
) -> ImageGenerator:
    """The generator of a run folder or of one generator file.

    checkpoint: 'best' (as measured in training; the last one of a run that was not measured), 'last' or a number of images.

    `generator`: your own module, for a run trained with one; its weights are replaced by the checkpoint's.
    Raises RunError for what is not a run or cannot be read, ConfigError where the run needs `generator` and has none.
    """
    path = Path(run)
    if path.is_file():
        tensors, meta = read_checkpoint(path)
    else:
        folder = open_run(path)
        files = [(nimg, folder.generator(nimg)) for nimg, _ in folder.list_checkpoints()]
        tensors, meta = _read_chosen(folder, files, str(checkpoint))
    if meta.get("kind") != "generator":
        raise RunError(f"{path}: is a training state. Pass the run folder, or the generator-… file beside it.")
    config = config_of(meta, str(path))
    network = generator if generator is not None else build_networks(config.network, config.data, seed=0)[0]
    _load_weights(network, tensors, str(path))
    return ImageGenerator(network, config, meta["nimg"], meta["averaged"], device)


def load_discriminator(
    run: RunFolder, checkpoint: str = "best", discriminator: nn.Module | None = None,
) -> tuple[nn.Module, RunConfig, int]:
    """(D in eval mode, the run's config, nimg) of a training state. Raises as `load` does."""
    tensors, meta = _read_chosen(run, run.list_checkpoints(), checkpoint)
    config = config_of(meta, str(run.path))
    D = discriminator if discriminator is not None else build_networks(config.network, config.data, seed=0)[1]
    own = {name.removeprefix("D/"): tensor for name, tensor in tensors.items() if name.startswith("D/")}
    _load_weights(D, own, str(run.path))
    return D.eval().requires_grad_(False), config, meta["nimg"]


def generator_file(
    network: nn.Module, config: RunConfig, nimg: int, averaged: bool,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a generator's own file holds, for checkpoint.write_checkpoint."""
    meta = {"kind": "generator", "nimg": nimg, "averaged": averaged, "config": config.model_dump(mode="json"), **alpha_of(config)}
    return network.state_dict(), meta


def alpha_of(config: RunConfig) -> dict[str, str]:
    """What a checkpoint's meta says of the fourth channel that its networks know; {} where there is none."""
    return {"alpha": "premultiplied"} if config.data.channels == 4 else {}


def config_of(meta: dict[str, Any], where: str) -> RunConfig:
    """The config that a checkpoint carries. Raises RunError, which names `where`, for a fourth channel of another kind."""
    config = make_config(flatten(meta["config"]))
    if any(meta.get(name) != value for name, value in alpha_of(config).items()):
        raise RunError(f"{where}: was made by an earlier Ganvas, whose networks learnt straight alpha, so its pictures would "
                       "come out wrong. Train it anew, in a new folder (--out).")
    return config


def chosen(run: RunFolder, found: list[tuple[int, Path]], checkpoint: str) -> tuple[int, Path] | None:
    """(nimg, file) of `found` that --checkpoint names: 'best' or a number of images; None for 'last'. Raises RunError.

    A run without measurements has no best checkpoint: its last one is taken.
    """
    if not found:
        raise RunError(f"{run.path}: has no checkpoint yet. Train it first, or wait for its first checkpoint.")
    by_nimg = {str(nimg): (nimg, path) for nimg, path in found}
    if checkpoint == "best":
        best = read_best(run)
        return None if best is None else by_nimg.get(str(best.nimg))
    if checkpoint == "last":
        return None
    if checkpoint.replace(",", "").replace("_", "") not in by_nimg:
        raise RunError(f"{run.path}: has no checkpoint '{checkpoint}'. It has: best, last, {', '.join(by_nimg)}.")
    return by_nimg[checkpoint.replace(",", "").replace("_", "")]


def _read_chosen(run: RunFolder, found: list[tuple[int, Path]], checkpoint: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The content of the file that `checkpoint` names; 'last' is the newest that can be read, as in training."""
    named = chosen(run, found, checkpoint)
    if named is not None:
        return read_checkpoint(named[1])
    newest = read_newest([path for _, path in found])
    return newest[:2] if newest is not None else read_checkpoint(found[-1][1])


def _load_weights(network: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise RunError(f"{where}: its weights do not fit this network. {error}") from error


# ---------------------------------------------------------------- from networks in training


class Sampler:
    """Copies of one session's network in training, made ready for sampling as `for_sampling` does.

    Picture, measurement and checkpoint of one moment share a copy, which nobody may change: the batch-norm statistics of an
    average take as long as a step or two.
    """

    def __init__(self, network: nn.Module, config: RunConfig, averaged: bool):
        self.network, self.config, self.averaged = network, config, averaged
        self._made: tuple[int, nn.Module] | None = None        # the last one

    def at(self, nimg: int) -> nn.Module:
        """The copy of now, when the network has seen `nimg` images of this session's run."""
        if self._made is None or self._made[0] != nimg:
            self._made = nimg, for_sampling(self.network, self.config, self.averaged)
        return self._made[1]


def for_sampling(network: nn.Module, config: RunConfig, averaged: bool) -> nn.Module:
    """A copy of `network` in eval mode, with batch-norm statistics of its own where its weights are averages."""
    sampler = copy.deepcopy(network).eval().requires_grad_(False)
    if averaged:
        reestimate_batch_norm(sampler, config)
    return sampler


@torch.no_grad()
def reestimate_batch_norm(network: nn.Module, config: RunConfig) -> None:
    """Sets the running statistics of batch norm to those of 16 seeded batches of 64.

    The running averages that came with averaged weights belong to other weights: they are no statistics of this network.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None                                   # a plain mean over the batches
        norm.train()
    device = next(network.parameters()).device
    for batch in range(BATCH_NORM_BATCHES if norms else 0):
        indices = np.arange(batch * CHUNK, (batch + 1) * CHUNK, dtype=np.int64)
        z = draw_latents(config, config.train.seed, Purpose.BATCH_NORM, indices)
        network(torch.from_numpy(z).to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


@torch.no_grad()
def progress_grid(sampler: Sampler, nimg: int) -> NDArray[np.uint8]:
    """The pictures of a run in training, (N, C, H, W) uint8, as its output options say; the network stays as it was.

    'train' mode normalises by the statistics of this very batch, as most of the classics' own pictures do.
    """
    network, config = sampler.network, sampler.config
    output, classes = config.output, config.num_classes
    first = 0 if output.grid_z == "fixed" else nimg
    indices = np.arange(first, first + output.grid_n, dtype=np.int64)
    labels = np.arange(output.grid_n, dtype=np.int64) % classes if classes else None           # one after the other
    z = torch.from_numpy(draw_latents(config, config.train.seed, Purpose.GRID, indices, labels))
    z = z.to(next(network.parameters()).device)
    if output.grid_mode == "eval":
        images = sampler.at(nimg)(z)
    else:
        with unchanged(network):
            images = network.train()(z)
    pictures: NDArray[np.uint8] = to_uint8(images).cpu().numpy()
    return pictures


@contextmanager
def unchanged(network: nn.Module) -> Iterator[None]:
    """Restores buffers and training mode afterwards."""
    was_training, buffers = network.training, [buffer.clone() for buffer in network.buffers()]
    try:
        yield
    finally:
        network.train(was_training)
        for buffer, before in zip(network.buffers(), buffers, strict=True):
            buffer.copy_(before)
