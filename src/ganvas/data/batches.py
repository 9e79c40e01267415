"""Which image comes when: batches as a pure function of the seed and the number of images seen so far."""

import sys
import threading
from collections.abc import Generator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ganvas import rng
from ganvas.errors import DataError
from ganvas.rng import Purpose

Tail = Literal["ragged", "drop", "replacement"]

_BATCHES_AHEAD = 2
_ORDER_BLOCK = 65536  # positions shuffled at once: 4 ms and 512 KiB on one core, far more than one batch


class Images(Protocol):
    """Images that can be read by position, in any order: a pack, or an index of shards."""

    def __len__(self) -> int: ...

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images at these positions, one copy for each mention. indices: (N,). Returns (N, C, H, W), a new array.

        Called from a background thread, possibly while another thread calls it too.
        """
        ...


class LabelledImages(Images, Protocol):
    """Images of which the classes are known, or None."""

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """(N,), each image's class, -1 for none."""
        ...


@dataclass(frozen=True)
class Schedule:
    """How a run is cut into epochs and batches: arithmetic only. No batch spans two epochs.

    tail says what happens where the images do not divide into batches:
    "ragged"       the last batch of an epoch is smaller; one of fewer than `min_batch` images is left out (a single
                   image cannot be batch-normalised). Fewer images than one batch are one whole batch.
    "drop"         the incomplete batch is left out; the shuffle decides anew in each epoch whose images those are. Fewer
                   images than one batch are one whole batch.
    "replacement"  every image is drawn anew from all of them, and an epoch is ceil(num_images / batch) full batches.

    Raises DataError where not a single batch can be made.
    """

    num_images: int
    batch: int
    tail: Tail
    min_batch: int = 1

    def __post_init__(self) -> None:
        if self.num_images < self.min_batch:
            raise DataError(
                f"{_images(self.num_images)} found, but training needs at least {self.min_batch}. "
                f"Add at least {self.min_batch - self.num_images} more."
            )
        if self.batch < self.min_batch:
            raise DataError(
                f"--batch {self.batch}: a batch needs at least {_images(self.min_batch)}. "
                f"Pass --batch {self.min_batch} or larger."
            )

    @property
    def epoch_images(self) -> int:
        """Real images shown in one epoch."""
        remainder = self.num_images % self.batch
        if self.tail == "replacement":
            return -(-self.num_images // self.batch) * self.batch
        if self.num_images < self.batch:
            return self.num_images
        if self.tail == "drop" or (remainder < self.min_batch and self.num_images > self.batch):
            return self.num_images - remainder
        return self.num_images

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one epoch."""
        return -(-self.epoch_images // self.batch)

    def step_at(self, nimg: int) -> int:
        """Batches shown before the one that starts at `nimg`. Raises ValueError where no batch starts."""
        epoch, position = divmod(nimg, self.epoch_images)
        if nimg < 0 or position % self.batch:
            raise ValueError(f"no batch starts at nimg {nimg} of {self}")
        return epoch * self.steps_per_epoch + position // self.batch

    def nimg_at(self, step: int) -> int:
        """Real images shown in the first `step` batches."""
        epoch, batches = divmod(step, self.steps_per_epoch)
        return epoch * self.epoch_images + batches * self.batch

    def epoch_at(self, nimg: int) -> float:
        """Epochs done after `nimg` images, with their fraction."""
        return nimg / self.epoch_images

    def batch_size_at(self, nimg: int) -> int:
        """Images in the batch that starts at `nimg`. Raises ValueError where no batch starts."""
        self.step_at(nimg)
        return min(self.batch, self.epoch_images - nimg % self.epoch_images)


class Batch(NamedTuple):
    """One batch of real images."""

    indices: NDArray[np.int64]
    """(N,): running numbers of the images in the run, from 0; z and augmentation are keyed by them."""
    images_u8: Tensor
    """(N, C, H, W) uint8, on the CPU."""
    positions: NDArray[np.int64]
    """(N,): which of the images they are."""


class Batches:
    """The batches of a run, at any point of it.

    With running number i of an image, epoch and position are i // epoch_images and i % epoch_images, and the image is
    permute(position) of that epoch; with tail "replacement" it is drawn by i alone (see ganvas.rng). So a run that
    goes on from `nimg` sees the batches that it would have seen without a break.
    """

    def __init__(self, images: Images, schedule: Schedule, seed: int) -> None:
        """Raises ValueError where `schedule` is for another number of images."""
        if len(images) != schedule.num_images:
            raise ValueError(f"a schedule of {schedule.num_images} images cannot serve {len(images)}")
        self.images = images
        self.schedule = schedule
        self.seed = seed
        # Replaced as one tuple, so that a thread never sees one block's number with another block's order.
        self._cached_order: tuple[int, int, NDArray[np.int64]] = (-1, -1, np.empty(0, dtype=np.int64))

    def at(self, nimg: int) -> Batch:
        """The batch that starts after `nimg` images. Raises ValueError where no batch starts."""
        indices = np.arange(nimg, nimg + self.schedule.batch_size_at(nimg), dtype=np.int64)
        positions = self._pack_indices(indices)
        images = self.images.read(positions)
        return Batch(indices, torch.from_numpy(np.require(images, requirements=["C", "W"])), positions)

    def start(self, nimg: int) -> Generator[Batch, None, None]:
        """The batches from `nimg` on, without end, up to two of them prepared ahead in a background thread.

        What fails in the thread is raised here. Closing the iterator, or dropping it, ends the thread.
        Raises ValueError where no batch starts at `nimg`.
        """
        self.schedule.step_at(nimg)
        return self._ahead(nimg)

    def _ahead(self, nimg: int) -> Generator[Batch, None, None]:
        # SimpleQueue and not a semaphore: the `finally` below may run in a garbage collection, inside any other call.
        wanted: SimpleQueue[None] = SimpleQueue()
        prepared: SimpleQueue[Batch | BaseException] = SimpleQueue()
        stopped = threading.Event()

        def prepare(nimg: int) -> None:
            try:
                while True:
                    wanted.get()
                    if stopped.is_set():
                        return
                    batch = self.at(nimg)
                    nimg += len(batch.indices)
                    prepared.put(batch)
            except BaseException as error:
                prepared.put(error)

        thread = threading.Thread(target=prepare, args=(nimg,), name="ganvas-batches", daemon=True)
        thread.start()
        try:
            for _ in range(_BATCHES_AHEAD):
                wanted.put(None)
            while True:
                batch = prepared.get()
                if isinstance(batch, BaseException):
                    raise batch
                wanted.put(None)
                yield batch
        finally:
            stopped.set()
            wanted.put(None)
            # Waits, so that the images may be closed after this. Not at exit, when the thread may be frozen already (in
            # Python 3.13 the program would hang), nor in the thread itself, where a collection may have brought us.
            if not sys.is_finalizing() and threading.current_thread() is not thread:
                thread.join()

    def _pack_indices(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which of the images the running numbers mean. indices: (N,), consecutive and of one epoch. Returns (N,)."""
        if self.schedule.tail == "replacement":
            return rng.integers(self.seed, Purpose.REPLACEMENT, indices, self.schedule.num_images)
        epoch, first = divmod(int(indices[0]), self.schedule.epoch_images)
        stop = first + len(indices)
        parts = [
            self._order(epoch, start // _ORDER_BLOCK)[max(first - start, 0) : stop - start]
            for start in range(first - first % _ORDER_BLOCK, stop, _ORDER_BLOCK)
        ]
        return np.concatenate(parts)

    def _order(self, epoch: int, block: int) -> NDArray[np.int64]:
        """The images at one block of an epoch's positions; the newest block is kept."""
        cached_epoch, cached_block, order = self._cached_order
        if (cached_epoch, cached_block) != (epoch, block):
            stop = min((block + 1) * _ORDER_BLOCK, self.schedule.num_images)
            positions = np.arange(block * _ORDER_BLOCK, stop, dtype=np.int64)
            order = rng.permute(positions, self.schedule.num_images, self.seed, Purpose.ORDER, epoch)
            self._cached_order = (epoch, block, order)
        return order


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
