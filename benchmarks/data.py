"""How fast images become a pack, and how much memory that takes: against torchvision's ImageFolder, and by itself."""

import argparse
import hashlib
import importlib
import importlib.util
import json
import os
import platform
import statistics
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import PIL
import torch
from PIL import Image

from ganvas import __version__
from ganvas.data.layout import Layout
from ganvas.data.pack import Pack, build_pack
from ganvas.data.source_base import Pixels, Source
from ganvas.data.sources import open_source
from ganvas.data.twins import find_twins
from ganvas.files import write_whole

Side = Callable[[Path, int, int], int]       # (folder, size, workers) -> how many images

KINDS = ("packing", "twins", "memory")
BATCH = 128
MIB = 2**20
STATUS = Path("/proc/self/status")


class ImageSet(NamedTuple):
    """Files of one kind, and the size to which they are brought."""

    name: str
    most: int                          # of them are taken
    size: int


ARCHIVES = (ImageSet("characters", 4_000, 64), ImageSet("faces-96", 4_000, 64), ImageSet("cifar10-jpeg", 10_000, 32),
            ImageSet("pokemon-artwork", 4_000, 64))
PHOTOGRAPHS = ImageSet("photographs", 200, 64)
TWIN_SETS = (("mnist", Layout(28, 28, 1)), ("cifar10-jpeg.zip", Layout(32, 32)))


# ---------------------------------------------------------------- packing, against ImageFolder


def pack_all(folder: Path, size: int, workers: int) -> int:
    """Finds and packs every image under `folder`, synced to disk in a cache of its own. Returns how many."""
    with TemporaryDirectory() as cache:
        pack = build_pack(open_source(folder), Layout(size, size), cache_dir=Path(cache), workers=workers)
        count = len(pack)
        pack.close()
    return count


def load_all(folder: Path, size: int, workers: int) -> int:
    """One pass of torchvision's ImageFolder through a DataLoader, as in PyTorch's DCGAN tutorial. Returns how many images."""
    from torchvision import datasets, transforms

    dataset = datasets.ImageFolder(str(folder), transforms.Compose([
        transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor(),
        transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]))
    return sum(len(images) for images, _ in torch.utils.data.DataLoader(dataset, BATCH, num_workers=workers))


def measure_pair(folder: Path, size: int, workers: int, rounds: int) -> dict[str, Any]:
    """Images a second of both sides, ours / torchvision's, and the processors' time in microseconds an image.

    The sides change places in every other round.
    """
    speeds: dict[Side, list[float]] = {pack_all: [], load_all: []}
    costs: dict[Side, list[float]] = {pack_all: [], load_all: []}
    for index in range(rounds):
        for side in (pack_all, load_all) if index % 2 else (load_all, pack_all):
            started_at, cpu_before_sec = perf_counter(), cpu_seconds()
            count = side(folder, size, workers)
            speeds[side].append(count / (perf_counter() - started_at))
            costs[side].append(1e6 * (cpu_seconds() - cpu_before_sec) / count)
    ours, theirs = speeds[pack_all], speeds[load_all]
    return {"our_img_per_sec": spread(ours), "torchvision_img_per_sec": spread(theirs),
            "ratio": spread([mine / other for mine, other in zip(ours, theirs, strict=True)]),
            "our_cpu_usec": spread(costs[pack_all]), "torchvision_cpu_usec": spread(costs[load_all])}


def cpu_seconds() -> float:
    """Time that this process and the finished ones it started have spent on processors: a busy machine alters it little."""
    return sum(os.times()[:4])


def measure_packing(args: argparse.Namespace, scratch: Path) -> Iterator[dict[str, Any]]:
    """All sets that are there, with each number of workers."""
    importlib.import_module("torchvision")                           # not in the time of its first pass
    for chosen in (*ARCHIVES, PHOTOGRAPHS):
        folder = scratch / chosen.name
        if chosen is PHOTOGRAPHS:
            count, side = (4, 160) if args.quick else (chosen.most, 1600)
            write_photographs(folder / "all", count, side)
        elif (archive := args.data / f"{chosen.name}.zip").is_file():
            count = unpack(archive, folder / "all", min(chosen.most, 40) if args.quick else chosen.most)
        else:
            print(f"{chosen.name}: left out, because {archive} is not there", flush=True)
            continue
        for path in sorted(folder.rglob("*.*")):
            path.read_bytes()                                        # both sides find the files in memory
        for workers in args.workers:
            about = {"set": chosen.name, "images": count, "size": chosen.size, "workers": workers, "load": load()}
            result = about | measure_pair(folder, chosen.size, workers, args.rounds)
            print(row(result), flush=True)
            yield result


def unpack(archive: Path, folder: Path, most: int) -> int:
    """Writes the first `most` images of a zip into `folder`, numbered. Returns how many."""
    folder.mkdir(parents=True)
    with zipfile.ZipFile(archive) as packed:
        names = [name for name in sorted(packed.namelist()) if name.lower().endswith((".png", ".jpg", ".jpeg"))][:most]
        for index, name in enumerate(names):
            (folder / f"{index:06}{Path(name).suffix}").write_bytes(packed.read(name))
    return len(names)


def write_photographs(folder: Path, count: int, width: int) -> None:
    """JPEGs of width x 3/4 width with detail of every scale, as photographs have: clips of one large field of coloured noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    height, large = width * 3 // 4, (width * 3 // 2, width * 9 // 8)
    field = np.zeros((large[1], large[0], 3), np.float32)
    for octave in range(10):
        cells = rng.integers(0, 256, (3 << octave, 4 << octave, 3), np.uint8)
        field += 0.65**octave * np.asarray(Image.fromarray(cells).resize(large, Image.Resampling.BICUBIC), np.float32)
    field = 255 * (field - field.min()) / (field.max() - field.min())
    whole = Image.fromarray(field.astype(np.uint8))
    for index in range(count):
        left, top = int(rng.integers(large[0] - width)), int(rng.integers(large[1] - height))
        whole.crop((left, top, left + width, top + height)).save(folder / f"{index:03}.jpg", quality=90)


# ---------------------------------------------------------------- near duplicates


def measure_twins(args: argparse.Namespace, scratch: Path) -> Iterator[dict[str, Any]]:
    """Seconds in which the twins of each large set are found, once it is packed."""
    for name, layout in TWIN_SETS:
        if not (args.data / name).exists():
            print(f"{name}: left out, because {args.data / name} is not there", flush=True)
            continue
        source: Source = open_source(args.data / name)
        if args.quick:
            source = FirstOf(source, 200)
        pack, pack_sec = timed(partial(build_pack, source, layout, cache_dir=scratch / "packs"))
        twins, twins_sec = timed(partial(find_twins, pack.facts, pack.thumbs))
        result = {"set": name, "images": len(pack), "pack_sec": pack_sec, "twins_sec": twins_sec, "pairs": len(twins.pairs),
                  "exhaustive": twins.exhaustive, "load": load()}
        print(f"{name}: {len(pack):,} images packed in {pack_sec:.1f} s, {len(twins.pairs):,} pairs of twins found in "
              f"{twins_sec:.1f} s", flush=True)
        pack.close()
        source.close()
        yield result


class FirstOf(Source):
    """The first images of another source."""

    def __init__(self, whole: Source, count: int):
        super().__init__(whole.where, whole.name, f"{whole.stamp} {count}")
        self._whole, self._count = whole, min(count, len(whole))

    def __len__(self) -> int:
        return self._count

    def item_name(self, index: int) -> str:
        return self._whole.item_name(index)

    def load(self, index: int) -> bytes | Pixels:
        return self._whole.load(index)


# ---------------------------------------------------------------- memory


class Synthetic(Source):
    """Up to 1,048,576 different images of 32x32x3, made when they are asked for: nothing of them lies on a disk."""

    def __init__(self, count: int):
        super().__init__("synthetic", "synthetic", f"synthetic {count}")
        self._count = count
        self._noise = np.frombuffer(hashlib.shake_256(b"synthetic").digest(MIB + 3072), np.uint8)

    def __len__(self) -> int:
        return self._count

    def item_name(self, index: int) -> str:
        return f"synthetic[{index}]"

    def load(self, index: int) -> Pixels:
        return self._noise[index:index + 3072].reshape(32, 32, 3)


def measure_memory(args: argparse.Namespace, scratch: Path) -> Iterator[dict[str, Any]]:
    """Peaks of anonymous memory while few and many images are packed, and while batches are read: they should be as one."""
    batches = 4 if args.quick else 200
    for count in (500, 2_000) if args.quick else (1_000, 100_000, 1_000_000):          # the first is to warm up
        source, cache = Synthetic(count), scratch / f"packs-{count}"
        with peak_memory() as packing:
            pack, pack_sec = timed(partial(build_pack, source, Layout(32, 32), cache_dir=cache))
        with peak_memory() as reading:
            _, read_sec = timed(partial(read_batches, pack, batches))
        disk = sum(path.stat().st_size for path in pack.path.iterdir())
        pack.close()
        for path in pack.path.iterdir():
            path.unlink()
        result = {"images": count, "pack_sec": pack_sec, "pack_peak_bytes": packing.peak, "start_bytes": packing.start,
                  "read_peak_bytes": reading.peak, "read_sec": read_sec, "batches": batches, "disk_bytes": disk, "load": load()}
        print(f"{count:,} images of 32x32: packed in {pack_sec:.1f} s ({count / pack_sec:,.0f} img/s), {disk / MIB:,.1f} MiB "
              f"on disk; anonymous memory {packing.start / MIB:.1f} MiB before, at most {packing.peak / MIB:.1f} MiB while "
              f"packing, {reading.peak / MIB:.1f} MiB while {batches} batches of {BATCH} were read in {read_sec:.2f} s",
              flush=True)
        yield result


def read_batches(pack: Pack, count: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(count):
        pack.read(rng.integers(0, len(pack), BATCH))


class Peak:
    """Anonymous memory of this process in bytes, at the start and at most."""

    def __init__(self) -> None:
        self.start = self.peak = anonymous_bytes()


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Samples the memory every 20 ms while the block runs."""
    found, over = Peak(), threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            found.peak = max(found.peak, anonymous_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()
        found.peak = max(found.peak, anonymous_bytes())


def anonymous_bytes() -> int:
    """RssAnon: what no file stands behind. Memory maps of a pack do not count: the system takes those pages back at will."""
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))


# ---------------------------------------------------------------- the machine, the table, the command line


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """(what `work` returns, seconds)."""
    started_at = perf_counter()
    return work(), perf_counter() - started_at


def spread(values: list[float]) -> dict[str, Any]:
    """What is kept of a quantity that was measured in each round."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "rounds": values}


def load() -> float | None:
    """How many processes ran or waited in the last minute, ours among them; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def machine() -> dict[str, Any]:
    """What a measurement depends on besides the code."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"processor": names[0] if names else platform.processor() or platform.machine(), "cores": os.cpu_count(),
            "system": platform.platform(), "python": platform.python_version(), "numpy": np.__version__,
            "pillow": PIL.__version__, "torch": torch.__version__, "ganvas": __version__}


HEADER = (f"{'set':<16}{'images':>7}{'size':>5}{'workers':>8} |{'tv img/s':>9}{'ours':>7}{'ours / tv':>10}{'(min-max)':>13} |"
          f"{'tv CPU us':>10}{'ours':>7} |{'load':>5}")


def row(result: dict[str, Any]) -> str:
    """One line of the table of packing; medians."""
    theirs, ours, ratio, their_cpu, our_cpu = (result[name] for name in (
        "torchvision_img_per_sec", "our_img_per_sec", "ratio", "torchvision_cpu_usec", "our_cpu_usec"))
    extremes = f"({ratio['min']:.2f}-{ratio['max']:.2f})"
    return (f"{result['set']:<16}{result['images']:>7,}{result['size']:>5}{result['workers']:>8} |{theirs['median']:>9,.0f}"
            f"{ours['median']:>7,.0f}{ratio['median']:>10.2f}{extremes:>13} |{their_cpu['median']:>10,.0f}"
            f"{our_cpu['median']:>7,.0f} |{result['load'] or 0:>5.1f}")


def at_least_1(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is too small: pass 1 or more")
    return value


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures how images become a pack. benchmarks/README.md says what is "
                                                 "measured, and what the numbers mean.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"what to measure, of {', '.join(KINDS)} (default: all)")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GANVAS_TEST_DATA", "data")), metavar="FOLDER",
                        help="where the zips of images and the folder mnist lie (default: $GANVAS_TEST_DATA, else %(default)s)")
    parser.add_argument("--workers", nargs="+", type=at_least_1, default=[1, 2], help="threads of ours, processes of the "
                        "DataLoader (default: 1 2)")
    parser.add_argument("--rounds", type=at_least_1, default=5, help="of packing; the table shows medians (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a few images only, to see that everything runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes every number, the machine and the date to FILE")
    args = parser.parse_args(argv)
    if unknown := [kind for kind in args.kinds if kind not in KINDS]:
        parser.error(f"{unknown[0]}: is not measured here. Pass some of {', '.join(KINDS)}.")
    args.kinds = args.kinds or list(KINDS)
    if args.json is not None and args.json.is_dir():
        parser.error(f"--json {args.json}: is a folder. Pass the name of a file in it.")
    if "packing" in args.kinds and importlib.util.find_spec("torchvision") is None:
        parser.error('packing is compared with torchvision: pip install "ganvas[examples]"')
    if "memory" in args.kinds and not STATUS.is_file():
        parser.error(f"memory is read from {STATUS}, which only Linux has. Pass packing twins.")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    where, started = machine(), datetime.now(UTC)
    print(f"{where['processor']}, {where['cores']} cores, Python {where['python']}, Pillow {where['pillow']}, torch "
          f"{where['torch']}; load {load()}", flush=True)
    results: dict[str, list[dict[str, Any]]] = {}
    for kind, measured in (("packing", measure_packing), ("twins", measure_twins), ("memory", measure_memory)):
        if kind in args.kinds:
            print(f"\n{HEADER if kind == 'packing' else kind}", flush=True)
            with TemporaryDirectory(prefix="ganvas-benchmark-") as scratch:
                results[kind] = list(measured(args, Path(scratch)))
    if args.json is not None:
        report = {"benchmark": "data", "version": 1, "date_utc": started.isoformat(timespec="seconds"), "machine": where,
                  "rounds": args.rounds, "quick": args.quick, "results": results}
        write_whole(args.json, json.dumps(report, indent=2) + "\n")
        print(f"\n{args.json}")


if __name__ == "__main__":
    main()
