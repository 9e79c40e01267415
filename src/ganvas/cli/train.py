"""`ganvas train`."""

import shlex
from typing import Annotated

import typer

from ganvas.cli.options import config_option


def train(
    source: Annotated[str | None, typer.Argument(
        help="folder, archive or file of images; without one, the built-in handwritten digits", show_default=False)] = None,
    preset: Annotated[str | None, typer.Option(help="a name from `ganvas presets`; without one, what suits the images")] = None,
    out: Annotated[str | None, typer.Option(help="run folder; runs/<name of the source> if left out")] = None,
    time: Annotated[str | None, typer.Option(help="how long to train: 90s, 10min, 1h30min")] = None,
    kimg: Annotated[float | None, typer.Option(help="how long to train, in thousands of real images")] = None,
    epochs: Annotated[float | None, typer.Option(help="how long to train, in passes over the images")] = None,
    steps: Annotated[int | None, typer.Option(help="how long to train, in batches")] = None,
    size: Annotated[str | None, config_option("size")] = None,
    channels: Annotated[str | None, config_option("channels")] = None,
    fit: Annotated[str | None, config_option("fit")] = None,
    transparency: Annotated[str | None, config_option("transparency")] = None,
    labels: Annotated[str | None, config_option("labels")] = None,
    native: Annotated[str | None, config_option("native")] = None,
    mirror: Annotated[str | None, config_option("mirror")] = None,
    tile: Annotated[str | None, config_option("tile")] = None,
    frames: Annotated[str | None, config_option("frames")] = None,
    holdout: Annotated[str | None, config_option("holdout")] = None,
    group_by: Annotated[str | None, config_option("group_by")] = None,
    skip_bad: Annotated[bool | None, config_option("skip_bad")] = None,
    drop_duplicates: Annotated[bool | None, config_option("drop_duplicates")] = None,
    batch: Annotated[int | None, config_option("batch")] = None,
    lr: Annotated[float | None, config_option("lr")] = None,
    seed: Annotated[int | None, config_option("seed")] = None,
    patience: Annotated[str | None, config_option("patience")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps; auto takes the fastest")] = None,
    threads: Annotated[int | None, config_option("threads")] = None,
    precision: Annotated[str | None, config_option("precision")] = None,
    init_from: Annotated[str | None, config_option("init_from")] = None,
    config: Annotated[str | None, typer.Option(help="YAML file, or run folder, whose options to start from")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="any other option, such as train.betas=[0.5,0.9]")] = None,
    explain: Annotated[bool, typer.Option(
        "--explain", help="only tell every choice with its reason, and the speed, length and memory to expect")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="two steps in a temporary folder: does everything work?")] = False,
    profile: Annotated[int | None, typer.Option(
        metavar="N", help="only look where the time of N steps goes: a page and a trace in --out, or profile-<name>")] = None,
) -> None:
    """Train a generator on your images; the same command again goes on where it stopped."""
    from ganvas.cli.watch import train_and_show
    from ganvas.config import parse_setting

    run = train_and_show(
        source, preset=preset, out=out, config=config, time=time, settings=dict(map(parse_setting, set_ or [])),
        dry_run=dry_run, profile=profile, explain=explain, init_from=init_from,
        kimg=kimg, epochs=epochs, steps=steps, size=size, channels=channels, fit=fit,
        transparency=transparency, labels=labels, native=native, mirror=mirror, tile=tile, frames=frames, holdout=holdout,
        group_by=group_by, skip_bad=skip_bad, drop_duplicates=drop_duplicates, batch=batch, lr=lr, seed=seed,
        patience=patience, device=device, threads=threads, precision=precision)
    if not dry_run and not explain and profile is None:
        print(f"new images:  ganvas sample {shlex.quote(str(run.path))}")
