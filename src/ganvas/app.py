"""From a source of images to a finished run folder: what the command line, notebooks and the studio call."""

import contextlib
import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ganvas import __version__, inspection
from ganvas.config import DataConfig
from ganvas.data.decode import open_image, to_pixels
from ganvas.data.sheet import Sheet
from ganvas.data.sources import UnreadableError, open_source
from ganvas.dataset import layout_of
from ganvas.errors import DataError, RunError
from ganvas.files import whole_file
from ganvas.generator import ImageGenerator, load, load_discriminator
from ganvas.job import Job, Tick
from ganvas.ops.pixels import to_float
from ganvas.report.grid import readable_scale, save_png, tile
from ganvas.run_folder import open_run

SCORED_AT_ONCE = 256
NOT_SINGLE = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".npz", ".npy", ".mat", ".bin")     # files that hold many images


@dataclass(frozen=True)
class Run:
    """A finished, or interrupted, run."""

    path: Path
    nimg: int
    end: str

    def generator(self, checkpoint: str = "best") -> ImageGenerator:
        """Its generator, for a run with Ganvas's own networks (otherwise `ganvas.load(run.path, generator=…)`)."""
        return load(self.path, checkpoint)


def train(source: str | Path | NDArray[Any] | None = None, **options: Any) -> Run:
    """Trains a generator on `source` and returns its run; takes what `iterate` takes. The same call again goes on.

    Ctrl-C and SIGTERM (in the main thread) end it after a checkpoint, with `end` 'SIGINT' or 'SIGTERM'.
    """
    with stop_on_signals() as should_stop:
        job = Job(source, should_stop=should_stop, **options)
        end, nimg = "done", 0
        for tick in job.run():
            end, nimg = tick.end or end, tick.nimg
    return Run(job.folder.path, nimg, end)


def iterate(source: str | Path | NDArray[Any] | None = None, **options: Any) -> Iterator[Tick]:
    """Trains as `train` does, and yields a Tick where something is due; leaving the loop early writes a checkpoint.

    A KeyboardInterrupt in the middle of a step goes back to the checkpoint before; `train` finishes the step first.

    source: folder, archive or file of images, uint8 array (N, H, W[, C]), list of images, map-style torch Dataset, or
        'digits'; None = as `config` says, or digits.
    preset: a name that `ganvas presets` lists; None = what suits the images.
    out: the run folder; None = runs/<name of the source>.
    config: a YAML file or a run folder whose options to start from.
    time: how long to train, such as '10min'; or one of kimg=, epochs=, steps=.
    settings: any option by its dotted name, {'train.betas': [0.5, 0.9]}; short names as keywords: size, channels, fit,
        transparency, native, labels, tile, frames, mirror, holdout, group_by, skip_bad, drop_duplicates, batch, lr, seed,
        device, threads, precision; "auto" where the images, or for precision the machine, may decide.
    generator, discriminator: own modules (or functions that make them): z (N, z_dim) -> (N, C, H, W) in [-1, 1], and
        images -> logits (N,) or (N, 1). loss: an own pair (d_loss, g_loss), each (real_logits, fake_logits) -> sum.
    Checkpoints are written while training goes on: call `tick.settle()` before reading files of the run.
    watch: hears lines and progress. dry_run: two steps in a temporary folder. profile: as many steps under a profiler, no run.
    Raises GanvasError (ConfigError, DataError, RunError) with a message for the user.
    """
    return Job(source, **options).run()


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Callable[[], str | None]]:
    """Gives a function that says which of SIGINT and SIGTERM has come; a second one is handled as it was before.

    Outside the main thread, where Python allows no handlers, nothing changes.
    """
    received: list[str] = []
    before: dict[signal.Signals, Any] = {}

    def note(number: int, frame: object) -> None:
        received.append(signal.Signals(number).name)
        for which, handler in before.items():
            signal.signal(which, handler)

    if threading.current_thread() is threading.main_thread():
        before |= {which: signal.signal(which, note) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: received[0] if received else None
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


def score(
    run: str | Path, images: list[str | Path], checkpoint: str = "best", discriminator: nn.Module | None = None,
    skip_bad: Callable[[UnreadableError], None] | None = None,
) -> list[tuple[str, float]]:
    """(name, D's probability that it is real) for each image, made fit as the run's own images were.

    skip_bad: hears of each image that cannot be read, and it is left out; None = such an image is an error.

    Folders and archives stand for the images in them. D is in eval mode; where it has no running averages
    (radford-faces-64), the images judged together are normalised together.
    Raises DataError for what cannot be read, RunError for what is not a run.
    """
    D, config, _ = load_discriminator(open_run(Path(run)), checkpoint, discriminator)
    names: list[str] = []
    logits: list[torch.Tensor] = []
    named = _pictures(images, config.data, skip_bad)
    with torch.no_grad():
        while some := list(itertools.islice(named, SCORED_AT_ONCE)):
            names += [name for name, _ in some]
            logits.append(D(to_float(torch.from_numpy(np.stack([pixels for _, pixels in some])))).flatten())
    if not names:
        raise DataError("no images to score: name image files or a folder of them.")
    return list(zip(names, torch.cat(logits).sigmoid().tolist(), strict=True))


def _pictures(
    images: list[str | Path], data: DataConfig, skip_bad: Callable[[UnreadableError], None] | None,
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """(name, pixels) of each image in files, folders and archives, cut and made fit as a run's own were."""
    layout = layout_of(data)

    def fitted(name: str, load: Callable[[], bytes | NDArray[np.uint8]]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        try:
            item = load()
            yield name, to_pixels(open_image(item, name) if isinstance(item, bytes) else item, layout)
        except UnreadableError as error:                       # its own text offers an option of training
            if skip_bad is None:
                raise DataError(f"{error.item}: cannot be read as an image ({error.reason}). Pass --skip-bad to leave such "
                                "files out.") from error
            skip_bad(error)

    for where in images:
        path = Path(where)
        if path.is_file() and path.suffix.lower() not in NOT_SINGLE:        # cut by nobody: it may be a tile
            yield from fitted(str(where), path.read_bytes)
            continue
        source = open_source(where, tile=data.tile, frames=data.frames)
        try:
            for i in range(len(source)):
                yield from fitted(source.item_name(i), partial(source.load, i))
        finally:
            source.close()


def inspect(source: str | Path | NDArray[Any] | None = None, *, page: str | Path | None = None, **options: Any) -> Sheet:
    """The data sheet of `source`, as training would show it, without training; takes `iterate`'s options that concern the images.

    page: an HTML file to write it to, with pictures. Files that cannot be read are listed, not refused. What is decoded is
    kept: a training with the same options starts at once. Raises GanvasError with a message for the user.
    """
    return inspection.inspect(source, page=page, **options).sheet


def save_samples(
    generator: ImageGenerator, n: int, seed: int, *, grid: str | None = None, folder: str | None = None,
    npz: str | None = None, scale: int | None = None,
) -> list[Path]:
    """Draws pictures 0 … n - 1 of `seed` and writes them as asked; returns what was written.

    scale: pixels for each pixel; None = what makes a small grid readable, and 1 for single pictures.
    grid: one PNG of all. folder: one PNG each, <seed>-<number>.png. npz: arrays `images` (n, H, W, C) uint8 and `z`.
    Files carry seed, number, and the run's images seen in their PNG text. Raises RunError where one cannot be written.
    """
    images = generator.sample(n, seed)
    source = {"Software": f"Ganvas {__version__}", "ganvas:seed": str(seed), "ganvas:nimg": str(generator.nimg)}
    written: list[Path] = []
    try:
        if grid is not None:
            path = Path(grid)
            picture = tile(images.transpose(0, 3, 1, 2))
            save_png(path, picture, scale or readable_scale(picture), source | {"ganvas:n": str(n)})
            written.append(path)
        if folder is not None:
            for number, picture in enumerate(images):
                save_png(Path(folder) / f"{seed}-{number:05d}.png", picture, scale or 1, source | {"ganvas:number": str(number)})
            written.append(Path(folder))
        if npz is not None:
            path = Path(npz)
            with whole_file(path) as partial, partial.open("wb") as file:
                np.savez_compressed(file, images=images, z=generator.z(n, seed))
            written.append(path)
    except OSError as error:
        raise RunError(f"{error.filename or grid or folder or npz}: cannot be written ({error.strerror}). "
                       "Name another place.") from error
    return written
