"""`ganvas sample`."""

from pathlib import Path
from typing import Annotated

import typer

from ganvas.cli.options import CHECKPOINT, RUN
from ganvas.errors import ConfigError


def sample(
    run: Annotated[str | None, RUN] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="how many pictures")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="the same seed gives the same pictures, however many")] = 0,
    grid: Annotated[str | None, typer.Option(help="one picture of all of them; samples.png if nothing else is asked for")] = None,
    dir_: Annotated[str | None, typer.Option("--dir", help="a folder with one PNG for each")] = None,
    npz: Annotated[str | None, typer.Option(help="one file with the array images (n, H, W, C) uint8, and z")] = None,
    scale: Annotated[int | None, typer.Option(
        min=1, max=64, help="pixels for each pixel, nearest neighbour; small grids are enlarged if left out")] = None,
    checkpoint: Annotated[str, CHECKPOINT] = "best",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps; auto takes the fastest")] = "cpu",
) -> None:
    """Make new images with a trained generator."""
    from ganvas.app import save_samples
    from ganvas.best import which_of
    from ganvas.config import make_config
    from ganvas.generator import load
    from ganvas.recipe import best_device, check_device
    from ganvas.run_folder import RunFolder, newest_run
    from ganvas.watcher import seen

    if grid is None and dir_ is None and npz is None:
        grid = "samples.png"
    if grid is not None and Path(grid).suffix.lower() != ".png":
        raise ConfigError(f"--grid {grid}: pictures are PNG files; name it {Path(grid).stem or 'samples'}.png.")
    device = best_device() if device == "auto" else device
    make_config({"execution.device": device})                  # what is no device at all
    check_device(device)
    path = Path(run) if run is not None else newest_run().path
    generator = load(path, checkpoint, device=device)
    which = f" ({which_of(RunFolder(path), generator.nimg)})" if path.is_dir() else ""
    print(f"{path}: {'averaged ' if generator.averaged else ''}generator after {seen(generator.nimg)}{which}")
    for made in save_samples(generator, n, seed, grid=grid, folder=dir_, npz=npz, scale=scale):
        print(made)
