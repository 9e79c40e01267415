"""From a source of images to a finished run folder: what the command line, notebooks and the studio call."""

import contextlib
import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ganvas import __version__, inspection, sprites
from ganvas.config import DataConfig
from ganvas.data.decode import open_image, to_pixels
from ganvas.data.sheet import Sheet
from ganvas.data.sources import UnreadableError, open_source
from ganvas.dataset import layout_of
from ganvas.errors import ConfigError, DataError, RunError
from ganvas.files import whole_file, write_whole
from ganvas.generator import ImageGenerator, load, load_discriminator
from ganvas.job import Job, Tick
from ganvas.judging import dataset_of
from ganvas.metrics.health_record import PROBABILITIES
from ganvas.ops.pixels import to_float
from ganvas.palette import Colours, palette_of, repaint
from ganvas.report.grid import Picture, best_columns, readable_scale, save_png, tile
from ganvas.request import Images
from ganvas.run_folder import open_run
from ganvas.watcher import Watcher

SCORED_AT_ONCE = 256
CLASSES_LISTED = 40            # in a message
GRID_GAP = 2
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
        transparency, native, labels, tile, frames, mirror, holdout, group_by, skip_bad, drop_duplicates, init_from, batch, lr,
        seed, device, threads, precision; "auto" where the images, or for precision the machine, may decide.
    generator, discriminator: own modules (or functions that make them): z (N, z_dim) -> (N, C, H, W) in [-1, 1], and
        images -> logits (N,) or (N, 1); four channels are premultiplied.
    loss: an own pair (d_loss, g_loss), each (real_logits, fake_logits) -> sum.
    Checkpoints are written while training goes on: call `tick.settle()` before reading files of the run.
    watch: hears lines and progress. dry_run: two steps in a temporary folder. profile: so many steps under a profiler, no run.
    explain: only tells every choice with its reason, and what to expect.
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


class Score(NamedTuple):
    """What a discriminator says of an image."""

    image: str
    logit: float                   # larger = looks more real
    probability: float | None      # that it is real; None where D's loss gives its logits no such meaning


def score(
    run: str | Path, images: list[str | Path], checkpoint: str = "best", discriminator: nn.Module | None = None,
    skip_bad: Callable[[UnreadableError], None] | None = None,
) -> list[Score]:
    """How real D finds each image, made fit as the run's own images were.

    Without train.loss nonsaturating or minimax, a logit is no probability: only the differences between images mean something.
    A conditional D is not told the images' classes.
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
    found = torch.cat(logits)
    probabilities = found.sigmoid().tolist() if config.train.loss in PROBABILITIES else [None] * len(names)
    return list(map(Score, names, found.tolist(), probabilities))


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


def class_number(generator: ImageGenerator, label: str) -> int:
    """The position of a class among those that a conditional generator was trained on; upper and lower case as they may be.

    Raises ConfigError, which lists the classes, where there is none of that name, or none at all.
    """
    names = generator.class_names
    if not names:
        raise ConfigError(f"--label {label}: this generator was trained without classes. Leave it out, or train a conditional "
                          "one, with labels.")
    if label in names:
        return names.index(label)
    alike = [number for number, name in enumerate(names) if name.casefold() == label.casefold()]
    if len(alike) == 1:
        return alike[0]
    if alike:
        raise ConfigError(f"--label {label}: may be {' or '.join(names[number] for number in alike)}. Write it as one of them.")
    listed = ", ".join(names[:CLASSES_LISTED]) + (f", … ({len(names):,} in all)" if len(names) > CLASSES_LISTED else "")
    raise ConfigError(f"--label {label}: is no class of this generator. It knows: {listed}.")


def palette_of_run(
    run: str | Path, generator: ImageGenerator, source: Images | None = None, watch: Watcher | None = None,
) -> tuple[Colours, str]:
    """The colours of the images that `generator`, of this run, was trained on: (k, 3) uint8, k up to 256, and what they are.

    source: its images, where they have moved. Raises ConfigError for what is no run folder, DataError where the images are
    not there, or not the same.
    """
    path = Path(run)
    if path.is_file():
        raise ConfigError(f"--palette data: {path} is a generator alone, and knows nothing of the images. Name its run folder, "
                          "or a palette file.")
    where = generator.config.data.source if source is None else source
    try:
        dataset = dataset_of(open_run(path), generator.config, where, watch or Watcher())
    except DataError as error:
        raise DataError(f"--palette data: {error} If the run's images are elsewhere now, name them as --data; or name a palette "
                        "file.") from error
    try:
        colours, exact = palette_of(dataset.train, generator.config.train.seed)
        count = f"{len(dataset.train):,} training images"
    finally:
        dataset.pack.close()
    return colours, f"the {len(colours)} colours of {count}" if exact else f"{len(colours)} of the colours of {count}"


def save_samples(
    generator: ImageGenerator, n: int, seed: int, *, grid: str | None = None, folder: str | None = None,
    npz: str | None = None, sheet: str | None = None, as_json: bool = False, scale: int | None = None,
    palette: Colours | None = None, hard_alpha: bool = False, label: int | None = None,
) -> list[Path]:
    """Draws pictures 0 … n - 1 of `seed` and writes them as asked; returns what was written.

    scale: pixels for each pixel; None = what makes a small grid readable, and 1 for all else.
    grid: one PNG of all. folder: one PNG each, <seed>-<number>.png. npz: arrays `images` (n, H, W, C) uint8 and `z`.
    sheet: one RGBA PNG of all, edge to edge. as_json: beside the sheet, or else the grid, the places of the pictures on it.
    palette: (k, 3) uint8, colours to repaint the pictures in, everywhere; grey ones become RGB by colours. hard_alpha: each
    pixel opaque or clear. label: the class of all, a position in generator.class_names.
    Files carry seed, number, class, and the run's images seen in their PNG text. Raises RunError where one cannot be
    written, ConfigError for what this generator cannot do.
    """
    if hard_alpha:
        sprites.check_alpha(generator.image_channels)
    if as_json:
        sprites.check_json(sheet, grid)
    images, z = generator.sample(n, seed, label=label), generator.z(n, seed, label=label)
    images = sprites.hard_alpha(images) if hard_alpha else images
    images = images if palette is None else repaint(images, palette)
    frames: list[dict[str, Any]] = [
        {"filename": f"{seed}-{number:05d}.png", "seed": seed, "number": number} for number in range(n)]
    if generator.class_names:                                  # z ends in the class, one-hot
        classes = z[:, generator.z_dim:].argmax(axis=1).tolist()
        frames = [frame | {"label": generator.class_names[number]} for frame, number in zip(frames, classes, strict=True)]
    source = {"Software": f"Ganvas {__version__}", "ganvas:seed": str(seed), "ganvas:nimg": str(generator.nimg)}
    if label is not None:
        source["ganvas:label"] = generator.class_names[label]
    written: list[Path] = []

    def save_all(where: str, picture: Picture, columns: int, gap: int, enlarged: int, with_json: bool) -> None:
        path = Path(where)
        save_png(path, picture, enlarged, source | {"ganvas:n": str(n)})
        written.append(path)
        if with_json:
            beside = path.with_suffix(".json")
            write_whole(beside, sprites.frames_json(path, picture, images.shape[1:3], columns, gap, enlarged, frames))
            written.append(beside)

    try:
        if grid is not None:
            columns = best_columns(n, images.shape[2] / images.shape[1])
            picture = tile(images.transpose(0, 3, 1, 2), columns, GRID_GAP)
            save_all(grid, picture, columns, GRID_GAP, scale or readable_scale(picture), as_json and sheet is None)
        if sheet is not None:
            picture, columns = sprites.sheet(images)
            save_all(sheet, picture, columns, 0, scale or 1, as_json)
        if folder is not None:
            for frame, picture in zip(frames, images, strict=True):
                about = {f"ganvas:{name}": str(frame[name]) for name in frame if name != "filename"}
                save_png(Path(folder) / frame["filename"], picture, scale or 1, source | about)
            written.append(Path(folder))
        if npz is not None:
            path = Path(npz)
            with whole_file(path) as partial, partial.open("wb") as file:
                np.savez_compressed(file, images=images, z=z)
            written.append(path)
    except OSError as error:
        raise RunError(f"{error.filename or grid or sheet or folder or npz}: cannot be written ({error.strerror}). "
                       "Name another place.") from error
    return written
