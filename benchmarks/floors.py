"""What the figures say of reals themselves, and which faults they see: `python benchmarks/floors.py --data FOLDER [--plot PNG]`.

Three measurements, all with the extractor `random` and the protocol of `ganvas evaluate` (half A is the reference, half B or
damaged images of half B are measured against it, as many as A has, nothing twice). FOLDER holds pokemon-sprites.zip,
characters.zip, cifar10-jpeg.zip and mnist/; what is missing is left out, and said. Markdown tables are printed.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from sklearn.cluster import KMeans

from ganvas.config import make_config
from ganvas.data.sources import open_source
from ganvas.data.split import Subset
from ganvas.dataset import Dataset, prepare
from ganvas.metrics.copies import CopyReference
from ganvas.metrics.extractor_random import RandomExtractor
from ganvas.metrics.features import extract
from ganvas.metrics.fid import Reference, fid_against
from ganvas.metrics.interval import halves, interval
from ganvas.metrics.kid import kid_of_all
from ganvas.metrics.prdc import prdc

Pixels = NDArray[np.uint8]                                 # (n, C, H, W)
Vectors = NDArray[np.float32]                              # (n, d)
Classes = NDArray[np.int64]                                # (n,)

FIGURES = ("fid", "kid", "precision", "recall", "density", "coverage")
SIZES = (25, 50, 100, 250, 500, 1000, 2000, 5000)
REPEATS, LARGE_REPEATS = 10, 5                             # divisions of the reals at each n; above 1,000 fewer show as much
FAULTS_REPEATS = 5
CLUSTERS = 8                                               # stand for classes where images have no labels
HOLDOUT = 0.3                                              # kept from "training" in the look for copies
MOST_REALS = 20_000                                        # of MNIST and CIFAR: enough for two halves of 5,000, four times


class Set(NamedTuple):
    """A set of real images, and how it is read."""

    file: str
    title: str
    options: dict[str, Any]
    sizes: tuple[int, int]                                 # n of the faults


ON_WHITE = {"data.size": "64", "data.transparency": "white"}
SETS = {
    "sprites": Set("pokemon-sprites.zip", "sprites, 64×64 on white", ON_WHITE, (100, 400)),
    "characters": Set("characters.zip", "characters, 64×64 on white", ON_WHITE, (100, 1000)),
    "mnist": Set("mnist", "MNIST, 28×28", {"data.size": "28", "data.channels": 1}, (100, 1000)),
    "cifar": Set("cifar10-jpeg.zip", "CIFAR-10 (JPEG), 32×32", {"data.size": "32"}, (100, 1000)),
}


def opened(name: str, folder: Path) -> Dataset:
    """The set's images, with their twins and a hold-out."""
    about = SETS[name]
    config = make_config({"network.family": "custom", "data.holdout": HOLDOUT} | about.options)
    return prepare(open_source(str(folder / about.file)), config.data)


def some_of(dataset: Dataset, most: int) -> tuple[Pixels, Classes]:
    """At most so many images in a random order, and their classes: labels, or clusters of their 8x8 thumbnails."""
    pack = dataset.pack
    chosen = np.random.Generator(np.random.Philox(7)).permutation(len(pack))[:most]
    images = pack.read(chosen)
    if pack.labels is not None:
        return images, np.asarray(pack.labels)[chosen]
    thumbs = F.adaptive_avg_pool2d(torch.from_numpy(images).float(), 8).flatten(1).numpy()
    return images, KMeans(CLUSTERS, n_init=1, random_state=0).fit(thumbs).labels_.astype(np.int64)


def figures_of(reals: Vectors, fakes: Vectors) -> dict[str, float]:
    """The six figures of the fakes against the reals."""
    return {"fid": fid_against(Reference.of(reals), fakes), "kid": kid_of_all(reals, fakes).value, **prdc(reals, fakes)._asdict()}


# ---------------------------------------------------------------- floors


def floors(vectors: Vectors, n: int) -> dict[str, list[float]]:
    """Each figure of n reals against n others, for several divisions."""
    rows = []
    for repetition in range(REPEATS if n <= 1000 else LARGE_REPEATS):
        a, b = halves(len(vectors), 0, repetition)
        rows.append(figures_of(vectors[a[:n]], vectors[b[:n]]))
    return {figure: [row[figure] for row in rows] for figure in FIGURES}


# ---------------------------------------------------------------- faults


class Half(NamedTuple):
    """What a fault is made from: n reals of half A, all of half B with their classes, and chance."""

    a: Pixels
    b: Pixels
    classes: Classes
    n: int
    chance: np.random.Generator


def jpeg(half: Half) -> Pixels:
    """Saved as JPEG 30."""
    import io

    found = []
    for image in half.b[:half.n].transpose(0, 2, 3, 1):
        file = io.BytesIO()
        Image.fromarray(image.squeeze()).save(file, "JPEG", quality=30)
        found.append(np.asarray(Image.open(file)).reshape(image.shape))
    return np.stack(found).transpose(0, 3, 1, 2)


def noise(deviation: float) -> Callable[[Half], Pixels]:
    def noisy(half: Half) -> Pixels:
        some = half.b[:half.n]
        drawn = some + deviation * half.chance.standard_normal(some.shape)
        return drawn.round().clip(0, 255).astype(np.uint8)

    return noisy


def blur(half: Half) -> Pixels:
    """Gaussian, σ 1 pixel."""
    weights = torch.exp(-torch.arange(-3, 4).float().square() / 2)
    weights /= weights.sum()
    some = torch.from_numpy(half.b[:half.n]).float()
    n, channels, height, width = some.shape
    padded = F.pad(some.view(n * channels, 1, height, width), (3, 3, 3, 3), mode="replicate")
    soft = F.conv2d(F.conv2d(padded, weights.view(1, 1, 1, 7)), weights.view(1, 1, 7, 1))
    return soft.view(some.shape).round().byte().numpy()


def without(share: float) -> Callable[[Half], Pixels]:
    """Reals of half B without some classes: the one of middle size (share 0), or the smallest that are this share of them."""
    def left(half: Half) -> Pixels:
        order = np.argsort(np.bincount(half.classes), kind="stable")
        dropped = order[:round(share * len(order))] if share else order[len(order) // 2:][:1]
        return half.b[~np.isin(half.classes, dropped)][:half.n]

    return left


def shuffled(half: Half) -> Pixels:
    """Each image's sixteen parts in another order."""
    some = half.b[:half.n]
    n, channels, height, width = some.shape
    parts = some.reshape(n, channels, 4, height // 4, 4, width // 4).transpose(0, 2, 4, 1, 3, 5).reshape(n, 16, channels, -1)
    for image in parts:
        image[:] = image[half.chance.permutation(16)]
    back = parts.reshape(n, 4, 4, channels, height // 4, width // 4).transpose(0, 3, 1, 4, 2, 5)
    return np.ascontiguousarray(back.reshape(some.shape))


def random_pixels(half: Half) -> Pixels:
    shape = half.b[:half.n].shape
    return half.chance.integers(0, 256, shape, dtype=np.uint8)


def replayed(half: Half) -> Pixels:
    """Every tenth is an image of half A."""
    some = half.b[:half.n].copy()
    some[::10] = half.a[::10]
    return some


FAULTS: dict[str, Callable[[Half], Pixels]] = {
    "none (the floor)": lambda half: half.b[:half.n], "noise, σ 4 of 255": noise(4), "noise, σ 16": noise(16), "JPEG 30": jpeg,
    "blur, σ 1 pixel": blur, "one class missing": without(0), "half of the classes missing": without(0.5),
    "4×4 parts shuffled": shuffled, "random pixels": random_pixels, "10 % replayed from A": replayed,
}


def faults(images: Pixels, classes: Classes, n: int, extractor: RandomExtractor) -> dict[str, dict[str, list[float]]]:
    """{fault: {figure: values}} of n damaged images of half B against n reals of half A."""
    found: dict[str, dict[str, list[float]]] = {}
    for repetition in range(FAULTS_REPEATS):
        a, b = halves(len(images), 1, repetition)
        reals = extract(extractor, images[a[:n]]).vectors
        for number, (fault, damaged) in enumerate(FAULTS.items()):
            chance = np.random.Generator(np.random.Philox(key=repetition, counter=[0, 0, 0, number]))
            made = damaged(Half(images[a[:n]], images[b[:3 * n]], classes[b[:3 * n]], n, chance))
            for figure, value in figures_of(reals, extract(extractor, made).vectors).items():
                found.setdefault(fault, {}).setdefault(figure, []).append(value)
    return found


# ---------------------------------------------------------------- copies


def copies(dataset: Dataset, extractor: RandomExtractor, sizes: Sequence[int]) -> list[list[str]]:
    """(samples, n, copies found, verdict, calibrated by): new reals, of which some are replaced by training images."""
    chance = np.random.Generator(np.random.Philox(3))
    train, held = dataset.split.train[:MOST_REALS], chance.permutation(dataset.split.holdout)
    calibrating, fresh = Subset(dataset.pack, np.sort(held[:len(held) // 2])), held[len(held) // 2:]
    subset = Subset(dataset.pack, train)
    reference = CopyReference(
        subset, extract(extractor, subset).vectors, calibrating, extract(extractor, calibrating).vectors,
        groups=dataset.twins.together[train], features_of=lambda some: extract(extractor, some).vectors)
    rows: list[list[str]] = []
    for n in sizes:
        if n > len(fresh):
            continue
        new, old = dataset.pack.read(fresh[:n]), dataset.pack.read(chance.permutation(train)[:n // 10])
        changed = (old[..., ::-1] + 4 * chance.standard_normal(old.shape)).round().clip(0, 255).astype(np.uint8)
        for what, put in (("new reals", new[:0]), ("10 % training images", old), ("10 % mirrored, noise σ 4", changed)):
            samples = np.concatenate([new[len(put):], put])
            said = reference.check(samples, extract(extractor, samples).vectors)
            rows.append([what, str(n), f"{said.rate:.1%}", said.verdict, said.calibrated_by])
    return rows


# ---------------------------------------------------------------- output


def number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:,.0f}"


def shown(figure: str, values: Sequence[float]) -> str:
    """Median (least to greatest), KID times 1,000."""
    found = interval([1000 * value for value in values] if figure == "kid" else values)
    return f"{number(found.value)} ({number(found.low)} to {number(found.high)})"


def cell(figure: str, values: Sequence[float], floor: Sequence[float]) -> str:
    """The median, KID times 1,000; bold where all repetitions lie beyond all of the floor."""
    text = number(float(np.median(values)) * (1000 if figure == "kid" else 1))
    return f"**{text}**" if min(values) > max(floor) or max(values) < min(floor) else text


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def plot(path: Path, found: dict[str, dict[int, dict[str, list[float]]]]) -> None:
    """Four figures of reals over n: the median, with least to greatest around it."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    figure = Figure(figsize=(9, 5.6), layout="constrained", facecolor="#fbfaf7")
    for axes, (name, title) in zip(figure.subplots(2, 2).flat, (
            ("fid", "FID: falls with n"), ("kid", "KID × 1,000: 0 at any n, only surer"), ("recall", "recall"),
            ("coverage", "coverage")), strict=True):
        for (which, sizes), colour in zip(found.items(), ("#c2410c", "#1d6fa5", "#3f7d3a", "#7c3aed"), strict=False):
            scale = 1000 if name == "kid" else 1
            spread = np.array([[np.median(v[name]), min(v[name]), max(v[name])] for v in sizes.values()]) * scale
            label = SETS[which].title.partition(",")[0]
            axes.plot(list(sizes), spread[:, 0], color=colour, label=label, marker="o", markersize=3)
            axes.fill_between(list(sizes), spread[:, 1], spread[:, 2], color=colour, alpha=0.18, linewidth=0)
        axes.set_xscale("log")
        axes.set_xticks(SIZES, [f"{n:,}" for n in SIZES], fontsize=8)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_title(title, fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        if name in ("recall", "coverage"):
            axes.set_ylim(0.78, 1.01)
    figure.axes[0].legend(frameon=False, fontsize=9)
    figure.supxlabel("n: reals of half B measured against n reals of half A", fontsize=9)
    figure.savefig(path, dpi=95)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"sets to measure: {', '.join(SETS)}; default: all")
    parser.add_argument("--data", type=Path, default=os.environ.get("GANVAS_TEST_DATA", "."), help="folder of the sets")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of images (default: %(default)s)")
    parser.add_argument("--plot", type=Path, help="a PNG of the floors")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - set(SETS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(SETS)}")
    torch.set_num_threads(given.threads)
    began_at, extractor = perf_counter(), RandomExtractor()
    print(f"torch {torch.__version__}, numpy {np.__version__}, extractor random ({extractor.dim} features)\n")
    of_n: dict[str, dict[int, dict[str, list[float]]]] = {}
    for name in given.names or SETS:
        if not (given.data / SETS[name].file).exists():
            print(f"{given.data / SETS[name].file}: is not there; {name} is left out", file=sys.stderr)
            continue
        dataset = opened(name, given.data)
        images, classes = some_of(dataset, MOST_REALS)
        vectors = extract(extractor, images).vectors
        print(f"## {SETS[name].title}: {len(dataset.pack):,} images\n\n### Floors: {len(images):,} reals, {REPEATS} divisions "
              f"({LARGE_REPEATS} above 1,000)\n")
        of_n[name] = {n: floors(vectors, n) for n in given.sizes if 2 * n <= len(images)}
        if given.plot is not None and of_n[name]:
            plot(given.plot, of_n)
        print_table(["n", "FID", "KID × 1,000", *FIGURES[2:]], [
            [f"{n:,}", *(shown(figure, values[figure]) for figure in FIGURES)] for n, values in of_n[name].items()])
        for n in SETS[name].sizes:
            print(f"### Faults: {n:,} damaged images of half B, {FAULTS_REPEATS} divisions; bold: clear of the floor\n")
            found = faults(images, classes, n, extractor)
            floor = found[next(iter(FAULTS))]
            print_table(["fault", "FID", "KID × 1,000", *FIGURES[2:]], [
                [fault, *(cell(figure, values[figure], floor[figure]) for figure in FIGURES)] for fault, values in found.items()])
        print(f"### Copies: {len(dataset.split.train[:MOST_REALS]):,} training images, {len(dataset.split.holdout):,} held out\n")
        print_table(["samples", "n", "called copies", "verdict", "calibrated by"],
                    copies(dataset, extractor, SETS[name].sizes))
        dataset.pack.close()
    print(f"{(perf_counter() - began_at) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
