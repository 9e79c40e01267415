"""How good generators get in the same time, classic against modern: races, a blind comparison of samples, an ablation.

Each side is `ganvas train … --time …` in a process of its own, one after the other, with the same images, division and threads.
The clock starts with the process, so that imports count; decoded images and measured kernels are there before.
Nothing is drawn or measured on the way. Checkpoints come by the clock and are judged afterwards, all against the same reals; the
last one within the time is the side's end. What has been run or judged is not done again: an interrupted race goes on.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from common import at_least, described, machine
from quality_blind import count, write_sheet
from quality_judging import (
    Judge,
    are_apart,
    figure_of,
    in_time,
    judge_run,
    reached_sec,
    samples,
    sides_of,
)
from quality_plots import SHOWN, Strip, moments_of, plot, strip
from quality_races import ALL_RACES, RACES, Race, race_named, source_of
from quality_runs import Clock, SideRun, command_of, last_lines, run_side, runs_of

from ganvas.errors import ConfigError, GanvasError, RunError
from ganvas.files import write_whole
from ganvas.machine import training_threads

COLUMNS = ("fid", "kid", "precision", "recall", "density", "coverage")
HEADS = {"fid": "FID", "kid": "KID × 1,000"}
MODES = ("modes", "mode_kl")

Judged = list[dict[str, Any]]


# ---------------------------------------------------------------- a race


def run_race(name: str, race: Race, args: argparse.Namespace) -> list[tuple[SideRun, Clock]]:
    """All sides with all seeds, in the order in which they run; what has been run is not run again. Raises GanvasError."""
    source = source_of(race, args.data, args.out / "data")
    ran = []
    for side, run in runs_of(name, race, args.out, args.seed):
        print(f"{name}: {side.name}, seed {run.seed}: " + ("is there" if run.is_finished else f"{race.minutes:g} minutes"),
              flush=True)
        command = command_of(race, side, source, run, args.out, args.threads)
        clock = run_side(run, command, again=side.name in args.again)
        if clock.exit:
            print(f"{run.path}: ended with {clock.exit} after {clock.sec:,.0f} s:\n{last_lines(run.log)}", file=sys.stderr)
        ran.append((run, clock))
    position = {side.name: index for index, side in enumerate(race.sides)}
    return sorted(ran, key=lambda pair: (position[pair[0].side], pair[0].seed))


def race_and_judge(name: str, race: Race, args: argparse.Namespace) -> tuple[Judged, list[Strip], Judge]:
    """Runs and judges it, and writes <out>/<name>.json. Returns what is known of each run, and samples for the picture."""
    ran = run_race(name, race, args)
    judge = Judge(race, source_of(race, args.data, args.out / "data"))
    try:
        judged = [judge_run(judge, run, clock) | {"command": clock.command} for run, clock in ran]
        shown = strips(race, judge, [pair for pair in ran if pair[0].seed == args.seed])
    finally:
        judge.close()
    about = {"benchmark": "quality", "version": 1, "race": name, "title": race.title, "minutes": race.minutes,
             "date_utc": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(args.threads),
             "extractor": judge.extractor.name, "n": race.n, "end_n": race.end_n, "repeats": race.repeats, "runs": judged}
    write_whole(args.out / f"{name}.json", json.dumps(about, indent=1))
    plot(args.out / f"{name}-and-reals.png", race.title, judged, shown)
    return judged, shown[:-1], judge                           # results are published, and real images belong to others


def strips(race: Race, judge: Judge, ran: list[tuple[SideRun, Clock]]) -> list[Strip]:
    """Samples of each side at some moments, the sides by turns, behind each of the race's backgrounds at the end; then reals."""
    of_sides: list[list[Strip]] = []
    for run, clock in ran:
        moments = moments_of(in_time(clock, race), 60 * race.minutes)
        backgrounds = race.backgrounds or ("white",)
        of_sides.append([])
        for row in moments:
            images = samples(run.generator(row["nimg"]), SHOWN)
            for background in backgrounds if row is moments[-1] else backgrounds[:1]:
                behind = f", on {background}" if race.backgrounds else ""
                of_sides[-1].append((f"{run.side}, {row['sec']:,.0f} s{behind}", strip(images, background)))
    reals = judge.dataset.pack.read(judge.positions[:SHOWN])
    return [*(found for found in chain(*zip_longest(*of_sides)) if found), ("reals", strip(judge.views[0].reals(reals)))]


# ---------------------------------------------------------------- what is written


def cell(figure: dict[str, Any]) -> str:
    """The value, and its least and greatest."""
    scale = 1000 if figure["metric"] == "kid" else 1
    value, low, high = (number(figure[part] * scale) for part in ("value", "low", "high"))
    return value if low == high else f"{value} ({low} … {high})"


def number(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 1 else f"{value:.3f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def page(name: str, race: Race, judged: Judged, judge: Judge, args: argparse.Namespace, picture: str) -> str:
    """The result of a race as Markdown."""
    lines = [f"# {name}: {race.title}", "", f"`python benchmarks/quality.py race {name}{_more(race, args)}`, "
             f"{datetime.now(UTC).date()}. {described(machine(args.threads))}.", "",
             f"{race.minutes:g} minutes for each side, from the start of its process. In each of {race.repeats} comparisons at "
             f"the end {race.end_n:,} samples, or half of the reals if these are fewer, are compared with as many reals; "
             f"extractor {judge.extractor.name}. Median (least … greatest); *reals*: other reals in the samples' place.", "",
             f"![figures over time, and samples]({picture})", ""]
    for view in judge.views:
        if view.name:
            lines += [f"## On {view.name}", ""]
        first = judged[0]
        rows = [[row["side"], str(row["seed"]), f"{row['curve'][-1]['sec']:,.0f}", f"{row['nimg'] / 1000:,.1f}",
                 *(cell(figure_of(row, metric, view.name)) for metric in COLUMNS)] for row in judged]
        floors = [figure_of(first, metric, view.name) for metric in COLUMNS]
        rows.append(["*reals*", "", "", "", *(cell({"metric": figure["metric"], "value": figure["floor"],
                                                     "low": figure["floor_low"], "high": figure["floor_high"]})
                                               for figure in floors)])
        lines += [*table(["side", "seed", "last, s", "kimg", *(HEADS.get(metric, metric) for metric in COLUMNS)], rows), ""]
    for say in (_beside, _modes, _copies, _agreement, _early_ends):
        lines += say(judged)
    lines += ["Commands (each with an `--out` of its own):", "", *(
        f"- {row['side']}: `{shown_command(row['command'], args)}`" for row in judged if row["seed"] == args.seed), ""]
    return "\n".join(lines)


def shown_command(command: Sequence[str], args: argparse.Namespace) -> str:
    """The command as people may read it: folders of this machine are left out, and what --set gives needs no quotes."""
    shown = ["ganvas", *command]
    for folder in (args.out / "data", args.out, args.data):
        shown = [part.replace(f"{folder}{os.sep}", "").replace(f"{folder.as_posix()}/", "") for part in shown]
    return " ".join(f"'{part}'" if " " in part else part for part in (part.replace('"', "") for part in shown))


def _more(race: Race, args: argparse.Namespace) -> str:
    """The options of the command that are not as they come."""
    given = {"--minutes": (args.minutes, None), "--seeds": (args.seeds, None), "--seed": (args.seed, 0), "--n": (args.n, None),
             "--extractor": (args.extractor, None)}
    told = "".join(f" {flag} {value:g}" if isinstance(value, int | float) else f" {flag} {value}"
                   for flag, (value, usual) in given.items() if value != usual)
    return told + (" --quick" if args.quick else "")


def _beside(judged: Judged) -> list[str]:
    """Each side beside the first: after how many seconds it has what that has at the end, and whether the intervals are apart."""
    if len(judged) < 2:
        return []
    lines = []
    first, *others = judged
    for row in others:
        if row["side"] == first["side"] or row["seed"] != first["seed"]:
            continue
        end, told = first["curve"][-1], []
        for metric in ("fid", "coverage"):
            sec = reached_sec(row["curve"], metric, end[metric])
            told.append(f"{HEADS.get(metric, metric)} ({number(end[metric])}): "
                        + ("not reached" if sec is None else f"after {sec:,.0f} s" if end[metric] else "nothing to reach"))
        apart = [f"{HEADS.get(metric, metric)} {'yes' if are_apart(figure_of(row, metric), figure_of(first, metric)) else 'no'}"
                 for metric in ("fid", "kid", "coverage")]
        ratio = figure_of(first, "fid")["value"] / figure_of(row, "fid")["value"]
        lines.append(f"- **{row['side']}** reaches what {first['side']} has after {end['sec']:,.0f} s: {'; '.join(told)}. "
                     f"Better at the end with intervals apart: {', '.join(apart)}; FID {number(ratio)} times as low.")
    return [*lines, ""]


def _modes(judged: Judged) -> list[str]:
    known = {figure["metric"] for row in judged for figure in next(iter(row["figures"].values()))}
    if not known >= {"modes"}:
        return []
    rows = []
    for row in judged:
        figures = {figure["metric"]: figure for figure in next(iter(row["figures"].values())) if figure["metric"] in MODES}
        kl = figures.get("mode_kl")
        rows.append([row["side"], str(row["seed"]), f"{figures['modes']['n']:,}", number(figures["modes"]["value"]),
                     number(figures["modes"]["floor"]), figures["modes"]["note"], number(kl["value"]) if kl else "infinite",
                     number(kl["floor"]) if kl else ""])
    return [*table(["side", "seed", "samples", "modes", "of reals", "", "KL", "of reals"], rows), ""]


def _copies(judged: Judged) -> list[str]:
    lines = [f"- {row['side']}, seed {row['seed']}: {row['copies']['text']}" for row in judged if row["copies"]]
    return ["Copies:", "", *lines, ""] if lines else []


def _agreement(judged: Judged) -> list[str]:
    rows = [[row["side"], str(row["seed"]), f"{row['agreement']['all']:.1%}", f"{row['agreement']['reals']:.1%}",
             ", ".join(f"{name} {share:.0%}" for name, share in row["agreement"]["by_label"].items())]
            for row in judged if row["agreement"]]
    return [*table(["side", "seed", "class agreement", "of reals", "by label"], rows), ""] if rows else []


def _early_ends(judged: Judged) -> list[str]:
    lines = [f"- {row['side']}, seed {row['seed']}, ended by itself with {row['exit']} after {row['curve'][-1]['sec']:,.0f} s."
             for row in judged if row["exit"]]
    return [*lines, ""] if lines else []


def write_results(name: str, race: Race, args: argparse.Namespace) -> None:
    """Races, judges, and writes <results>/<date>-quality-<name>.md and .png."""
    judged, shown, judge = race_and_judge(name, race, args)
    stem = f"{datetime.now(UTC).date()}-quality-{name}"
    plot(args.results / f"{stem}.png", f"{name}: {race.title}", judged, shown)
    write_whole(args.results / f"{stem}.md", page(name, race, judged, judge, args, f"{stem}.png"))
    print(f"{args.results / stem}.md\n{args.results / stem}.png\n{args.out / name}.json")


# ---------------------------------------------------------------- the ablation


def ablation_page(race: Race, judged: Judged, judge: Judge, args: argparse.Namespace) -> str:
    """Means over the seeds, each seed's value, and differences from the first side, seed by seed."""
    base = {row["seed"]: row for row in judged if row["side"] == race.sides[0].name}
    rows = []
    for side, runs in sides_of(judged):
        cells = [side, f"{statistics.mean(row['nimg'] for row in runs) / 1000:,.1f}"]
        for metric in ("fid", "kid", "coverage"):
            scale = 1000 if metric == "kid" else 1
            values = {row["seed"]: scale * figure_of(row, metric)["value"] for row in runs}
            shown = f"{number(statistics.mean(values.values()))} ({', '.join(map(number, values.values()))})"
            gaps = [value - scale * figure_of(base[seed], metric)["value"] for seed, value in values.items()]
            cells += [shown, "" if side == race.sides[0].name else f"{statistics.mean(gaps):+.3g} "
                      f"({min(gaps):+.3g} … {max(gaps):+.3g})"]
        rows.append(cells)
    floors = [figure_of(judged[0], metric)["floor"] * (1000 if metric == "kid" else 1) for metric in ("fid", "kid", "coverage")]
    rows.append(["*reals*", "", *(text for floor in floors for text in (number(floor), ""))])
    head = ["variant", "kimg", "FID", "difference", "KID × 1,000", "difference", "coverage", "difference"]
    changes = [f"- {side.name}: " + ", ".join(f"`{option}={value}`" for option, value in side.options.items())
               for side in race.sides if side.options]
    return "\n".join([
        f"# ablation: {race.title}", "", f"`python benchmarks/quality.py ablation{_more(race, args)}`, "
        f"{datetime.now(UTC).date()}. {described(machine(args.threads))}.", "",
        f"{race.minutes:g} minutes for each run, {race.seeds} seeds; extractor {judge.extractor.name}. Mean (each seed's value); "
        "differences from the first variant with the same seed, mean (least … greatest).", "", *table(head, rows), "", *changes,
        "", *_early_ends(judged)])


def write_ablation(race: Race, args: argparse.Namespace) -> None:
    judged, _, judge = race_and_judge("ablation", race, args)
    file = args.results / f"{datetime.now(UTC).date()}-quality-ablation.md"
    write_whole(file, ablation_page(race, judged, judge, args))
    print(f"{file}\n{args.out / 'ablation'}.json")


# ---------------------------------------------------------------- blind


def write_blind(name: str, race: Race, args: argparse.Namespace) -> None:
    """The sheet of pairs in <out>/blind/<name>, its key in <out>/blind-keys. Raises RunError where a side has not been run."""
    if len(race.sides) < 2:
        raise ConfigError(f"{name}: has one side, and pairs need two. Races of two: "
                          f"{', '.join(known for known, other in RACES.items() if len(other.sides) > 1)}.")
    images = {}
    for side in (race.sides[0], race.sides[1]):
        run = SideRun(args.out, name, side.name, race.minutes, args.seed)
        clock = run.clock()
        if clock is None or clock.exit is None:
            raise RunError(f"{run.path}: is not there, or not finished. First run `python benchmarks/quality.py race {name}`.")
        images[side.name] = samples(run.generator(in_time(clock, race)[-1]["nimg"]), args.pairs * args.block**2)
    folder, key = args.out / "blind" / name, args.out / "blind-keys" / f"{name}.json"
    for path in write_sheet(folder, key, images, args.pairs, args.block, args.seed):
        print(path)
    print(f"choose \"left\" or \"right\" for each pair in {folder / 'choices.json'}; then\n"
          f"python benchmarks/quality.py blind-score {name} {folder / 'choices.json'} --out {args.out}")


def write_score(name: str, race: Race, args: argparse.Namespace) -> None:
    """Counts the choices, and writes <results>/<date>-quality-<name>-blind.md with each of them."""
    found = count(args.out / "blind-keys" / f"{name}.json", args.choices)
    told = ", ".join(f"{side} {wins}" for side, wins in found.wins.items())
    lines = [f"# {name}, blind: {race.title}", "", f"Of {found.pairs} pairs: **{told}**. Were both alike, one of them would win "
             f"so many with a probability of {min(1.0, 2 * found.p_value):.2g}.", "",
             *table(["pair", "chosen", "which was"], found.rows), ""]
    file = args.results / f"{datetime.now(UTC).date()}-quality-{name}-blind.md"
    write_whole(file, "\n".join(lines))
    print(f"{told}\n{file}")


# ---------------------------------------------------------------- the command


def race_of(name: str, args: argparse.Namespace) -> Race:
    """The race as the options change it. Raises ConfigError."""
    race = race_named(name)
    race = race.quick() if args.quick else race
    wanted = {"minutes": args.minutes, "seeds": args.seeds, "extractor": args.extractor, "n": args.n, "end_n": args.n}
    race = replace(race, **{field: value for field, value in wanted.items() if value is not None})
    unknown = set(args.again) - {side.name for side in race.sides}
    if unknown:
        raise ConfigError(f"--again {', '.join(sorted(unknown))}: {name} has the sides "
                          f"{', '.join(side.name for side in race.sides)}.")
    return race


def positive(text: str) -> float:
    if not 0 < (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a time: pass a positive number of minutes")
    return value


def parser_of() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, text: str, *, of_race: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        if of_race:
            added.add_argument("race", choices=tuple(ALL_RACES), metavar="RACE", help=f"one of {', '.join(ALL_RACES)}")
        added.add_argument("--minutes", type=positive, help="for each run (default: the race's own)")
        added.add_argument("--out", type=Path, default=Path("runs/quality"), help="folder of all runs (default: %(default)s)")
        added.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder of pages and pictures")
        added.add_argument("--seed", type=at_least(0), default=0, help="the first seed (default: %(default)s)")
        added.add_argument("--quick", action="store_true", help="seconds for each run, few samples: only to see that it works")
        added.set_defaults(again=[], seeds=None, extractor=None, n=None)
        return added

    for name, text in (("race", "run a race's sides, where that has not been done; judge them, write page and picture"),
                       ("ablation", "the recipe with one factor changed at a time")):
        racing = command(name, text, of_race=name == "race")
        racing.add_argument("--seeds", type=at_least(1), help="seeds of each side (default: the race's own)")
        racing.add_argument("--data", type=Path, default=Path(os.environ.get("GANVAS_TEST_DATA", ".")),
                            help="folder of the image sets")
        racing.add_argument("--threads", type=at_least(1), default=training_threads().number,
                            help="CPU threads of each training (default: as a training takes, here %(default)s)")
        racing.add_argument("--extractor", help="what sees the images (default: the race's own)")
        racing.add_argument("--n", type=at_least(16), help="samples in each comparison (default: the race's own)")
        racing.add_argument("--again", nargs="+", default=[], metavar="SIDE", help="sides to train anew, though they are there")
    blind = command("blind", "a sheet of numbered pairs of samples, one of each of the first two sides")
    blind.add_argument("--pairs", type=at_least(1), default=40, help="(default: %(default)s)")
    blind.add_argument("--block", type=at_least(1), default=1, help="N x N samples of a side in a pair (default: %(default)s)")
    command("blind-score", "count the choices").add_argument("choices", type=Path, help="the choices.json that was filled in")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser_of().parse_args(arguments)
    name = "ablation" if args.command == "ablation" else args.race
    tasks: dict[str, Callable[[str, Race, argparse.Namespace], None]] = {
        "race": write_results, "ablation": lambda _, race, args: write_ablation(race, args), "blind": write_blind,
        "blind-score": write_score}
    try:
        tasks[args.command](name, race_of(name, args), args)
    except GanvasError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
