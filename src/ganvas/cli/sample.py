"""`ganvas sample`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ganvas.cli.options import CHECKPOINT, RUN
from ganvas.errors import ConfigError

if TYPE_CHECKING:
    from ganvas.generator import ImageGenerator
    from ganvas.palette import Colours


def sample(
    run: Annotated[str | None, RUN] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="how many pictures")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="the same seed gives the same pictures, however many")] = 0,
    label: Annotated[str | None, typer.Option(
        help="pictures of this class, of a generator that knows classes; all of them, mixed as in training, if left out")] = None,
    grid: Annotated[str | None, typer.Option(help="one picture of all of them; samples.png if nothing else is asked for")] = None,
    dir_: Annotated[str | None, typer.Option("--dir", help="a folder with one PNG for each")] = None,
    npz: Annotated[str | None, typer.Option(help="one file with the array images (n, H, W, C) uint8, and z")] = None,
    sheet: Annotated[str | None, typer.Option(help="a sprite sheet: one PNG of all, edge to edge, clear where none lies")] = None,
    as_json: Annotated[bool, typer.Option(
        "--json", help="beside the sheet, or else the grid: where each picture lies on it, as game engines read it")] = False,
    scale: Annotated[int | None, typer.Option(
        min=1, max=64, help="pixels for each pixel, nearest neighbour; small grids are enlarged if left out")] = None,
    palette: Annotated[str | None, typer.Option(
        help="only these colours: data = those of the run's images, at most 256, or FILE.gpl, or FILE.png")] = None,
    data: Annotated[str | None, typer.Option(help="with --palette data: the run's images, where they are elsewhere now")] = None,
    hard_alpha: Annotated[bool, typer.Option(
        "--hard-alpha", help="each pixel opaque or clear, whatever its alpha is nearer to")] = False,
    checkpoint: Annotated[str, CHECKPOINT] = "best",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps; auto takes the fastest")] = "cpu",
) -> None:
    """Make new images with a trained generator."""
    from ganvas.app import class_number, save_samples
    from ganvas.best import which_of
    from ganvas.config import make_config
    from ganvas.generator import load
    from ganvas.palette import read_palette
    from ganvas.recipe import best_device, check_device
    from ganvas.run_folder import RunFolder, newest_run
    from ganvas.sprites import check_alpha, check_json
    from ganvas.watcher import seen

    if grid is None and dir_ is None and npz is None and sheet is None:
        grid = "samples.png"
    for name, file in (("grid", grid), ("sheet", sheet)):
        if file is not None and Path(file).suffix.lower() != ".png":
            raise ConfigError(f"--{name} {file}: pictures are PNG files; name it {Path(file).stem or 'samples'}.png.")
    if grid is not None and sheet is not None and Path(grid).resolve() == Path(sheet).resolve():
        raise ConfigError(f"--sheet {sheet}: is --grid's file too. Name another one.")
    if as_json:
        check_json(sheet, grid)
    if data is not None and palette != "data":
        raise ConfigError(f"--data {data}: is looked at for the colours of --palette data alone. Leave it out.")
    colours = read_palette(Path(palette)) if palette not in (None, "data") else None
    told = f"the {len(colours)} colours of {palette}" if colours is not None else ""
    device = best_device() if device == "auto" else device
    make_config({"execution.device": device})                  # what is no device at all
    check_device(device)
    path = Path(run) if run is not None else newest_run().path
    generator = load(path, checkpoint, device=device)
    number = None if label is None else class_number(generator, label)
    if hard_alpha:
        check_alpha(generator.image_channels)
    which = f" ({which_of(RunFolder(path), generator.nimg)})" if path.is_dir() else ""
    print(f"{path}: {'averaged ' if generator.averaged else ''}generator after {seen(generator.nimg)}{which}")
    if palette == "data":
        colours, told = _palette_of_run(path, generator, data)
    if told:
        print(f"painted in {told}")
    for made in save_samples(generator, n, seed, grid=grid, folder=dir_, npz=npz, sheet=sheet, as_json=as_json, scale=scale,
                             palette=colours, hard_alpha=hard_alpha, label=number):
        print(made)


def _palette_of_run(path: Path, generator: "ImageGenerator", data: str | None) -> "tuple[Colours, str]":
    from ganvas.app import palette_of_run
    from ganvas.cli.terminal import TerminalWatcher

    watcher = TerminalWatcher()
    try:
        return palette_of_run(path, generator, data, watcher)
    finally:
        watcher.progress.stop()
