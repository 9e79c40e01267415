"""The sides that train_speed.py compares: a preset's plain script and Ganvas, on images in memory and on files."""

import gzip
import importlib.util
import multiprocessing
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

from ganvas.config import RunConfig
from ganvas.data.batches import Images
from ganvas.data.pack import Pack, build_pack
from ganvas.data.sources import open_source
from ganvas.data.split import Subset
from ganvas.dataset import layout_of
from ganvas.engine import prepare
from ganvas.losses import loss_pair
from ganvas.machine import default_memory, keep_freed_memory
from ganvas.networks.build import build_networks
from ganvas.ops.pixels import to_float
from ganvas.profiling import PeakMemory, anonymous_mb
from ganvas.training import loop
from ganvas.training.loop import Tick
from ganvas.training.state import TrainState

PLAIN = Path(__file__).parents[1] / "examples" / "plain"
CLASSICS = sorted(path.stem for path in PLAIN.glob("*.py"))

NUM_IMAGES = 16_384            # 200 MB at 64x64 colour: more than any processor's cache, as a real pack is
NUM_FILES = 2_048
FILE_SIZE = (178, 218)         # width and height of CelebA's aligned faces
PLAIN_BATCHES = 8              # batches in float32 that the plain script takes in turn
TURNS = 2                      # what is measured is whole pairs of steps: radford-faces-64 updates G in one, D in the next
MEMORY_STEPS = 4


@dataclass(frozen=True)
class Side:
    """Somebody's training, a step at a time. `begin` and `end` stand around each leg that it runs."""

    step: Callable[[], int]                                          # returns how many real images the step has shown
    begin: Callable[[], object]
    end: Callable[[], object] = lambda: None


class RandomImages:
    """Random bytes in memory, read by position as a pack is."""

    labels = None

    def __init__(self, config: RunConfig, num_images: int | None = None):
        """Whole batches only, so that no smaller batch at an epoch's end blurs the measurement. num_images: at least."""
        batches, size = -(-(num_images or NUM_IMAGES) // config.train.batch), config.data.size
        shape = (batches * config.train.batch, config.data.channels, size.height, size.width)
        self.images_u8 = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.images_u8)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images at these positions, copied. indices: (N,). Returns (N, C, H, W)."""
        return self.images_u8[indices]


# ---------------------------------------------------------------- the plain script


class Plain:
    """The networks and optimizers of a plain script, and its train_step on what `next_reals` gives."""

    def __init__(self, name: str, config: RunConfig, next_reals: Callable[[], Tensor]):
        self.script, self.next_reals, self.steps = load_plain(name), next_reals, count()
        torch.manual_seed(config.train.seed)
        self.networks = self.script.make_networks(config.data.channels)
        self.optimizers = self.script.make_optimizers(*self.networks)

    def step(self) -> int:
        reals = self.next_reals()
        self.script.train_step(*self.networks, *self.optimizers, reals, self.script.draw_z, step=next(self.steps))
        return len(reals)


def plain_step(name: str, config: RunConfig, images: RandomImages) -> Side:
    """The plain script's train_step on the batches that it is given in turn, ready in float32."""
    some_u8 = torch.from_numpy(images.images_u8[: PLAIN_BATCHES * config.train.batch])
    reals = to_float(some_u8).view(-1, config.train.batch, *some_u8.shape[1:])       # (batches, N, C, H, W) in [-1, 1]
    turns = count()
    return Side(Plain(name, config, lambda: reals[next(turns) % len(reals)]).step, begin=default_memory)


def plain_loop(name: str, config: RunConfig, folder: Path, workers: int) -> Side | None:
    """The plain script's loop: its own Dataset of `folder`, read by the processes of a DataLoader; None where it has not as
    many channels.

    An endless epoch, so that no processes are started within a leg; they are started before it, and ended after it, or they
    would read ahead while another side is measured.
    """
    script, channels = load_plain(name), config.data.channels
    if channels != script.CHANNELS and not reads_any_channels(script):
        return None
    dataset = script.make_dataset(folder, channels) if reads_any_channels(script) else script.make_dataset(folder)
    # Forked where that can be had: a spawned process could not import a script whose name holds hyphens.
    forks = "fork" in multiprocessing.get_all_start_methods()
    batches = DataLoader(dataset, config.train.batch, sampler=RandomSampler(dataset, replacement=True, num_samples=10**9),
                         num_workers=workers if forks else 0, multiprocessing_context="fork" if forks and workers else None)
    running: list[Iterator[Tensor]] = []

    def begin() -> None:
        default_memory()
        running.append(iter(batches))

    return Side(Plain(name, config, lambda: next(running[0])).step, begin, running.clear)


def load_plain(name: str) -> ModuleType:
    """The script as a module; by its path, because its name holds hyphens."""
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), PLAIN / f"{name}.py")
    assert spec is not None and spec.loader is not None, f"{PLAIN / name}.py is a Python file"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reads_any_channels(script: ModuleType) -> bool:
    """Whether its dataset can be grey or in colour; MNIST's is grey."""
    return not hasattr(script, "IMAGES_FILE")


# ---------------------------------------------------------------- ours


class Ours:
    """Ganvas's training, as job.py runs it: networks, engine, state, and the loop that the ticks come from."""

    def __init__(self, config: RunConfig, images: Images, tell: Callable[[str], None] = lambda text: None):
        G, D = build_networks(config.network, config.data, config.train.seed)
        self.config, self.engine = prepare(config, G, D, tell)
        state = TrainState.create(self.config, G, D)
        losses = loss_pair(config.train.loss, config.plan.real_label)
        self.ticks: Any = loop.train(state, self.config, images, losses)
        self.nimg = 0

    def step(self) -> int:
        tick: Tick = next(self.ticks)
        shown, self.nimg = tick.nimg - self.nimg, tick.nimg
        return shown

    @property
    def side(self) -> Side:
        return Side(self.step, begin=keep_freed_memory)

    def close(self) -> None:
        """Ends the thread that prepares batches."""
        self.ticks.close()


def packed(folder: Path, config: RunConfig, cache: Path) -> Subset:
    """The pack of the same files, as whole batches."""
    source = open_source(folder)
    try:
        return whole_batches(build_pack(source, layout_of(config.data), cache_dir=cache), config)
    finally:
        source.close()


def whole_batches(pack: Pack, config: RunConfig) -> Subset:
    """The pack's first images, as many as make whole batches."""
    whole = len(pack) - len(pack) % config.train.batch
    assert whole, f"{len(pack)} images are no batch of {config.train.batch}"
    return Subset(pack, np.arange(whole, dtype=np.int64))


# ---------------------------------------------------------------- files, for both


def write_files(name: str, folder: Path, count: int) -> None:
    """`count` smooth random images, as the preset's plain script reads them: JPEGs, or MNIST's file.

    Clips of one large field with detail of every scale, so that decoding them costs what photographs cost.
    """
    script = load_plain(name)
    grey = not reads_any_channels(script)
    width, height = (script.IMAGE_SIZE, script.IMAGE_SIZE) if grey else FILE_SIZE
    clips = smooth_images(count, height, width)
    folder.mkdir(parents=True)
    if grey:
        with gzip.open(folder / script.IMAGES_FILE, "wb", compresslevel=1) as file:
            file.write(np.array([0x803, count, height, width], dtype=">i4").tobytes())
            for clip in clips:
                file.write(clip[..., 0].tobytes())
        return
    (folder / "all").mkdir()
    for index, clip in enumerate(clips):
        Image.fromarray(clip).save(folder / "all" / f"{index:06}.jpg", quality=90)


def smooth_images(count: int, height: int, width: int) -> Generator[NDArray[np.uint8], None, None]:
    """uint8 (height, width, 3), different clips of one field of coloured noise in eight octaves."""
    rng = np.random.default_rng(0)
    large = (4 * width, 4 * height)
    field = np.zeros((large[1], large[0], 3), np.float32)
    for octave in range(8):
        cells = rng.integers(0, 256, (4 << octave, 4 << octave, 3), np.uint8)
        field += 0.65**octave * np.asarray(Image.fromarray(cells).resize(large, Image.Resampling.BICUBIC), np.float32)
    field = 255 * (field - field.min()) / (field.max() - field.min())
    whole = field.astype(np.uint8)
    for _ in range(count):
        left, top = int(rng.integers(large[0] - width)), int(rng.integers(large[1] - height))
        yield np.ascontiguousarray(whole[top:top + height, left:left + width])


# ---------------------------------------------------------------- memory


def peak_mb(build: Callable[..., tuple[Side, Callable[[], object]]], *arguments: Any, threads: int) -> float:
    """MB of anonymous memory that a side's steps take at most above what stood before it was built, in a process of its own.

    build: a function of a module; gives the side, and what to call when it is done with.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_peak_mb, build, arguments, threads).result()


def _peak_mb(build: Callable[..., tuple[Side, Callable[[], object]]], arguments: tuple[Any, ...], threads: int) -> float:
    torch.set_num_threads(threads)
    importlib.import_module("torchvision.utils")                     # only plain scripts import it: not a matter of training
    before, (side, close) = anonymous_mb(), build(*arguments)
    side.begin()
    with PeakMemory() as memory:
        for _ in range(MEMORY_STEPS):
            side.step()
    side.end()
    close()
    assert before is not None and memory.peak_mb is not None, "asked for only where the system tells"
    return memory.peak_mb - before


def build_plain(name: str, config: RunConfig, folder: Path, workers: int) -> tuple[Side, Callable[[], object]]:
    """The plain script's loop, for peak_mb. Its DataLoader's processes are not in the measurement."""
    side = plain_loop(name, config, folder, workers)
    assert side is not None, "measured only where the script reads these files"
    return side, lambda: None


def build_ours(config: RunConfig, pack_path: Path) -> tuple[Side, Callable[[], object]]:
    """Our loop on a pack that is there, for peak_mb."""
    pack = Pack(pack_path, from_cache=True)
    ours = Ours(config, whole_batches(pack, config))

    def close() -> None:
        ours.close()
        pack.close()

    return ours.side, close
