"""Whether bfloat16 moves quality: pairs of equal runs in bf16 and fp32, judged by `classifier` FID at equal images."""

import argparse
import json
import math
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scipy import stats

from ganvas import __version__, evaluate
from ganvas.files import write_whole

MARGIN = 1.15                  # stated before the runs: bf16's FID over fp32's, geometric mean, must lie within 1/1.15 .. 1.15
LEVEL = 0.05                   # of each of the two one-sided tests: the 90 % interval must lie within (Schuirmann 1987)
PRECISIONS = ("fp32", "bf16")


def run_one(args: argparse.Namespace, precision: str, seed: int) -> dict[str, Any]:
    """Trains one run in a process of its own, as a user would, and evaluates its last checkpoint."""
    out = args.out / f"{precision}-{seed}"
    command = [sys.executable, "-m", "ganvas", "train", args.data, "--preset", args.preset, "--kimg", args.kimg, "--seed", seed,
               "--precision", precision, "--out", out, "--set", "measure.share=0"]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    evaluate(out, checkpoint="last", n=args.n, extractor="classifier", repeats=1)
    rows = [json.loads(line) for line in (out / "stats.jsonl").read_text(encoding="utf-8").splitlines()]
    written = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    figures = {figure["metric"]: figure["value"] for figure in written["figures"]}
    return {"precision": precision, "seed": seed, "fid": figures["fid"], "kid": figures["kid"],
            "img_per_sec": statistics.median(row["img_per_sec"] for row in rows[1:])}


def compare(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The geometric mean of bf16's FID over fp32's in pairs of one seed, its 90 % interval, and whether that is within MARGIN."""
    fid = {(result["precision"], result["seed"]): result["fid"] for result in results}
    logs = [math.log(fid["bf16", seed] / fid["fp32", seed]) for seed in sorted({result["seed"] for result in results})]
    mean, error = statistics.mean(logs), statistics.stdev(logs) / math.sqrt(len(logs))
    half = float(stats.t.ppf(1 - LEVEL, len(logs) - 1)) * error
    low, high = math.exp(mean - half), math.exp(mean + half)
    return {"ratio": math.exp(mean), "low": low, "high": high, "margin": MARGIN, "equivalent": 1 / MARGIN < low <= high < MARGIN}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the images, such as MNIST's four files")
    parser.add_argument("--preset", default="coursera-mnist-28", help="(default: %(default)s)")
    parser.add_argument("--kimg", type=float, default=60, help="length of each run in thousands of images (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=8, help="runs of each precision (default: %(default)s)")
    parser.add_argument("--n", type=int, default=5000, help="samples and reals judged (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs; those that are there go on, or are taken")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes every number to FILE")
    args = parser.parse_args(argv)
    if args.pairs < 2:
        parser.error(f"--pairs {args.pairs}: an interval needs two or more")
    results = []
    for seed in range(args.pairs):
        for precision in PRECISIONS if seed % 2 == 0 else PRECISIONS[::-1]:
            results.append(run_one(args, precision, seed))
            line = "{precision}  seed {seed}  FID {fid:8.1f}  KID {kid:.4f}  {img_per_sec:7,.0f} img/s"
            print(line.format(**results[-1]), flush=True)
    verdict = compare(results)
    print(f"bf16 / fp32: FID {verdict['ratio']:.3f}, 90 % interval {verdict['low']:.3f} to {verdict['high']:.3f}; "
          f"within 1/{MARGIN} and {MARGIN}: {'yes' if verdict['equivalent'] else 'no'}")
    if args.json is not None:
        about = {"benchmark": "precision", "version": 1, "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
                 "ganvas": __version__, "preset": args.preset, "kimg": args.kimg, "n": args.n}
        write_whole(args.json, json.dumps(about | {"results": results, "verdict": verdict}, indent=2) + "\n")
        print(args.json)


if __name__ == "__main__":
    main()
