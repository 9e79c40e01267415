"""Seconds and memory of the metrics at the sizes that are published: `python benchmarks/metrics.py [NAME ...] [--threads N]`.

Each is run once, in a process of its own, on seeded random inputs; a markdown table is printed. Memory is the most anonymous
memory above what stood there before the call, inputs included there (Linux only). The machine should be otherwise idle.
"""

import argparse
import multiprocessing
import re
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ganvas.machine import usable_processors
from ganvas.metrics.diversity import diversity
from ganvas.metrics.fid import Reference, fid_against
from ganvas.metrics.kid import kid, kid_of_all
from ganvas.metrics.nearest import k_nearest
from ganvas.metrics.prdc import prdc
from ganvas.metrics.sliced import sliced_wasserstein
from ganvas.metrics.spectrum import spectrum

Task = Callable[[], object]


def features(n: int, d: int, seed: int) -> NDArray[np.float32]:
    """Correlated and not negative, as pooled features are: (n, d)."""
    rng = np.random.Generator(np.random.Philox(seed))
    mixing = np.random.Generator(np.random.Philox(99)).standard_normal((64, d), dtype=np.float32)
    own = rng.standard_normal((n, d), dtype=np.float32)
    return np.maximum(rng.standard_normal((n, 64), dtype=np.float32) @ mixing / 8 + own, 0)


def images(n: int, *shape: int, seed: int = 0) -> NDArray[np.uint8]:
    """uint8 (n, *shape)."""
    return np.random.Generator(np.random.Philox(seed)).integers(0, 256, (n, *shape), dtype=np.uint8)


def fid_ready() -> Task:
    reference, fakes = Reference.of(features(10_000, 2048, 0)), features(10_000, 2048, 1)
    return lambda: fid_against(reference, fakes)


def fid_reference() -> Task:
    reals = features(10_000, 2048, 0)
    return lambda: Reference.of(reals)


def nearest_pixels() -> Task:
    references, queries = (images(n, 784, seed=n).astype(np.float32) for n in (60_000, 10_000))
    return lambda: k_nearest(queries, references, 5)


def nearest_features() -> Task:
    references, queries = features(60_000, 2048, 0), features(10_000, 2048, 1)
    return lambda: k_nearest(queries, references, 5)


def on_features(metric: Callable[[NDArray[Any], NDArray[Any]], object]) -> Callable[[], Task]:
    def prepare() -> Task:
        reals, fakes = features(10_000, 2048, 0), features(10_000, 2048, 1)
        return lambda: metric(reals, fakes)

    return prepare


def diversity_of_2000() -> Task:
    vectors, pictures = features(2000, 2048, 0), images(2000, 3, 64, 64)
    return lambda: diversity(vectors, pictures)


def sliced_of_2000() -> Task:
    reals, fakes = images(2000, 3, 64, 64), images(2000, 3, 64, 64, seed=1)
    return lambda: sliced_wasserstein(reals, fakes)


def spectrum_of_2000() -> Task:
    pictures = images(2000, 3, 64, 64)
    return lambda: spectrum(pictures)


TASKS: dict[str, tuple[str, Callable[[], Task]]] = {
    "fid": ("FID, 10,000 x 2,048, reals' factor ready", fid_ready),
    "fid-reference": ("FID, the factor of 10,000 x 2,048 reals", fid_reference),
    "nearest-784": ("5 nearest of 60,000 for 10,000, d = 784, bytes", nearest_pixels),
    "nearest-2048": ("5 nearest of 60,000 for 10,000, d = 2,048", nearest_features),
    "prdc": ("PRDC, 10,000 against 10,000, d = 2,048, k = 5", on_features(prdc)),
    "kid": ("KID, 100 subsets of 1,000, d = 2,048", on_features(kid)),
    "kid-all": ("KID, all pairs of 10,000, d = 2,048", on_features(kid_of_all)),
    "diversity": ("diversity of 2,000 images 64x64, d = 2,048", diversity_of_2000),
    "sliced": ("sliced Wasserstein, 2,000 against 2,000, 64x64", sliced_of_2000),
    "spectrum": ("spectrum of 2,000 images 64x64", spectrum_of_2000),
}


def measure(name: str, threads: int) -> tuple[float, float, float | None]:
    """(seconds, processor seconds, MB above the start or None where the system does not tell) of one call."""
    torch.set_num_threads(threads)
    task = TASKS[name][1]()
    start, peak, done = anonymous_mb(), [0.0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], anonymous_mb() or 0.0)
            sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started_at, used_before = perf_counter(), process_time()
    task()
    elapsed_sec, used_sec = perf_counter() - started_at, process_time() - used_before
    done.set()
    watcher.join()
    return elapsed_sec, used_sec, None if start is None else max(0.0, peak[0] - start)


def anonymous_mb() -> float | None:
    """Memory of this process that no file backs, as Linux says it."""
    try:
        found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    except OSError:
        return None
    return int(found[1]) / 1024 if found else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(TASKS)}; default: all")
    parser.add_argument("--threads", type=int, default=usable_processors(), help="of torch (default: %(default)s); numpy's are "
                        "set by OMP_NUM_THREADS or OPENBLAS_NUM_THREADS")
    given = parser.parse_args()
    if unknown := set(given.names) - set(TASKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(TASKS)}")
    print(f"torch {torch.__version__}, numpy {np.__version__}, {given.threads} threads\n")
    print("| what | seconds | processor seconds | MB above its inputs |\n| --- | ---: | ---: | ---: |")
    for name in given.names or TASKS:
        # A fresh process each: memory that an earlier call left behind would hide the next one's.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            seconds, used, megabytes = process.submit(measure, name, given.threads).result()
        memory = "–" if megabytes is None else f"{megabytes:.0f}"
        print(f"| {TASKS[name][0]} | {seconds:.1f} | {used:.1f} | {memory} |", flush=True)


if __name__ == "__main__":
    main()
