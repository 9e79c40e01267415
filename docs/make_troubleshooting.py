"""Provokes what docs/troubleshooting.md is about, draws docs/pictures/trouble-*.png, and fills in what the reports found.

    python docs/make_troubleshooting.py [FOLDER]

The diagnoses on the page are those of each run's own report.html. In FOLDER the runs stay, and a second call goes on where the
first one stopped; without it they are thrown away. A quarter of an hour on one core; tests/test_docs_troubleshooting.py checks
that page, pictures and this list belong together, without training.
"""

import contextlib
import html
import re
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from ganvas.best import read_best
from ganvas.generator import load
from ganvas.report.grid import tile
from ganvas.report.log import read_rows
from ganvas.run_folder import RunFolder
from ganvas.watcher import seen

DOCS = Path(__file__).parent
PAGE, PICTURES = DOCS / "troubleshooting.md", DOCS / "pictures"
BLOCK = re.compile(r"<!-- (?P<name>[\w ]+): made by docs/make_troubleshooting\.py -->\n.*?<!-- end of (?P=name) -->", re.DOTALL)
FINDING = re.compile(r'<li class="(?:bad|mixed)"><h3>(?P<name>[^<]+)<span class="tag">(?P<severity>\w+)</span>'
                     r'(?:<span>(?P<since>[^<]+)</span>)?</h3>\s*<p>(?P<evidence>.*?)</p>\s*'
                     r"<p><b>What helps:</b> (?P<advice>.*?)</p>", re.DOTALL)
ONE_CORE = ("--device", "cpu", "--threads", "1")       # the same bits everywhere, and no fight over cores
OFTEN = '--set "measure.every=50 steps"'               # so short a run has no time for measuring in its share
CLASSIC = "ganvas train digits --preset coursera-mnist-28 --batch 16"
NARROW = f"{CLASSIC} --set network.g_channels=16 --set network.d_channels=16"
COLUMNS, ROWS = 6, 5                                   # of the grids
NEIGHBOURS = (14, 24, 748, 572)                        # of neighbours.png: four rows of the first two columns
INK, QUIET = "#24221f", "#6c675f"
COLOURS = ("#2b8a4b", "#e08e1b", "#1f6fb4")


@dataclass(frozen=True)
class Case:
    """A run that provokes one diagnosis, and what of it is shown."""

    name: str                          # of the diagnosis; "healthy" has none
    command: str                       # as the page shows it
    curve: Mapping[str, str]           # key of a row of stats.jsonl or metrics.jsonl -> words
    of: str                            # what the curve is of
    cure: str = ""                     # the command of the same run with the cure; empty: none is shown
    cured: str = "cured"               # words above its samples
    is_log: bool = False

    @property
    def picture(self) -> str:
        return f"trouble-{self.name.lower().replace(' ', '-')}.png"


def small(options: str, out: str, often: str = OFTEN, g: int = 32, d: int = 32) -> str:
    """The command of a run on digits with networks of these widths."""
    widths = f"--set network.g_channels={g} --set network.d_channels={d}"
    return f"ganvas train digits --batch 32 {widths} {options} {often} --out runs/{out}"


OPINION = {"D(x)": "D(x), reals", "D(G(z))_before": "D(G(z)), fakes"}
HEALTHY = small("--steps 600", "healthy")
FEW = small("--steps 2200 --holdout 98%", "copying", '--set "measure.every=100 steps"')
CASES = (
    Case("healthy", HEALTHY, OPINION, "D's probabilities"),
    Case("D wins", small("--steps 500 --set train.loss=minimax", "d-wins", g=8), OPINION, "D's probabilities", HEALTHY),
    Case("G wins", small("--steps 500", "g-wins", d=1), OPINION, "D's probabilities", HEALTHY),
    Case("mode collapse", f"{NARROW} --steps 450 --lr 0.05 {OFTEN} --out runs/mode-collapse",
         {"diversity_real": "real images", "diversity": "samples"}, "mean distance between two",
         f"{NARROW} --steps 450 --lr 0.002 {OFTEN} --out runs/mode-collapse-cured", "--lr 0.002: it has begun"),
    Case("diverged", f"{CLASSIC} --steps 150 --lr 1 {OFTEN} --out runs/diverged",
         {"grad_D": "D's", "grad_G": "G's"}, "length of the gradients",
         f"{CLASSIC} --steps 150 --lr 0.002 {OFTEN} --out runs/diverged-cured", "--lr 0.002: it has begun", is_log=True),
    Case("stuck", small("--steps 500 --lr 1e-7", "stuck"), {"change": "grey levels, of 255"}, "how far the pictures move",
         HEALTHY),
    Case("noise", small('--steps 800 --lr 0.01 --set "train.betas=[0.99,0.999]"', "noise"),
         {"spectrum_excess_db": "dB"}, "fine detail above the reals'", HEALTHY),
    Case("copying", FEW, {"copies": "copies, share of samples", "copies_limit": "allowed"}, "copies"),
    Case("memorising discriminator", FEW,
         {"logit_train": "training images", "logit_samples": "samples", "logit_holdout": "held-out images"}, "D's mean logits"),
    Case("past its best",
         small("--steps 800 --lr 0.002 --holdout 95% --set train.r1_gamma=0", "past-its-best"), {"kid": "KID"}, "KID"),
)


# ---------------------------------------------------------------- runs


def train(command: str, folder: Path) -> RunFolder:
    """The run of a command of the page, trained in `folder`; one that is there already goes on, and is done at once."""
    from typer.testing import CliRunner

    from ganvas.cli.main import app

    words = shlex.split(command)
    out = words[words.index("--out") + 1]
    with contextlib.chdir(folder):
        for args in ([*words[1:], *ONE_CORE], ["report", out]):          # the rules of health may be newer than the run
            result = CliRunner().invoke(app, args, catch_exceptions=False)
            assert result.exit_code == 0, result.output
    return RunFolder(folder / out)


def findings(page: str) -> list[dict[str, str]]:
    """The diagnoses that a report.html shows, as text: name, severity, since, evidence, advice."""
    return [{key: _plain(text or "") for key, text in found.groupdict().items()} for found in FINDING.finditer(page)]


def _plain(text: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", text)).strip()


def block(case: Case, found: list[dict[str, str]], cured: list[dict[str, str]] | None) -> str:
    """What the page says of a case between its two comments."""
    lines = [f"![{case.name}: samples, and {case.of}](pictures/{case.picture})", "", "```", case.command, "```", ""]
    for each in found:
        if each["name"] == case.name:
            lines += [f"> **{each['name']}** ({each['severity']}, {each['since']})<br>", f"> {each['evidence']}<br>",
                      f"> What helps: {each['advice']}", ""]
    others = [f"**{each['name']}**" for each in found if each["name"] != case.name]
    if not found or others:
        lines += [f"Beside it the report finds {' and '.join(others)}." if others else "Its report finds nothing.", ""]
    if cured is not None and case.cure != HEALTHY:
        named = " and ".join(f"**{each['name']}**" for each in cured)
        lines += ["The same with the cure; its report finds " + (named or "nothing") + ":", "", "```", case.cure, "```", ""]
    return (f"<!-- {case.name}: made by docs/make_troubleshooting.py -->\n" + "\n".join(lines).rstrip()
            + f"\n<!-- end of {case.name} -->")


# ---------------------------------------------------------------- pictures


def samples(run: RunFolder, checkpoint: str) -> npt.NDArray[np.uint8]:
    """Samples of a checkpoint side by side, as `ganvas sample` makes them."""
    return tile(load(run.path, checkpoint).sample(COLUMNS * ROWS, seed=0).transpose(0, 3, 1, 2), COLUMNS)


def draw(case: Case, run: RunFolder, cured: RunFolder | None) -> Image.Image:
    """Samples of the run's last checkpoint; of the cure's, or of the run's best; and the curve."""
    stats, measured = read_rows(run.stats), read_rows(run.metrics)
    best = read_best(run)
    grids = [(samples(run, "last"), f"after {seen(stats[-1]['nimg'])}")]
    if cured is not None:
        grids.append((samples(cured, "last"), case.cured))
    elif case.name == "past its best" and best is not None:
        grids.insert(0, (samples(run, "best"), f"the best, after {seen(best.nimg)}"))
    elif case.name == "copying":
        with Image.open(run.neighbours) as sheet:
            grids.append((np.asarray(sheet.convert("RGB").crop(NEIGHBOURS)), "its neighbours.png"))
    wide = [1.0] * len(grids) + [1.55]
    figure = Figure(figsize=(2.35 * sum(wide), 2.5), dpi=110, layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(wide), width_ratios=wide)
    for axes, (grid, words) in zip(panels, grids, strict=False):
        axes.imshow(grid.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(words, fontsize=9, color=INK)
    of_stats = all(key in stats[0] for key in case.curve)
    _draw_curve(panels[-1], case, stats if of_stats else measured, best.nimg if best and case.name == "past its best" else None)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    return picture.quantize(64, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def _draw_curve(axes: Axes, case: Case, rows: Sequence[Mapping[str, Any]], best_nimg: int | None) -> None:
    for (key, words), colour in zip(case.curve.items(), COLOURS, strict=False):
        points = [(row["nimg"] / 1000, row[key]) for row in rows if row.get(key) is not None]
        axes.plot(*zip(*points, strict=True), color=colour, label=words, linewidth=1.6, marker=".", markersize=3)
    if best_nimg is not None:
        axes.axvline(best_nimg / 1000, color="#7a4fb5", linewidth=1.2, linestyle=(0, (4, 2)), label="best checkpoint")
    if case.is_log:
        axes.set_yscale("log")
    elif case.curve is OPINION:
        axes.set_ylim(-0.03, 1.03)
    else:
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.set_title(case.of, fontsize=9, color=INK)
    axes.set_xlabel("kimg", fontsize=8, color=QUIET)
    axes.tick_params(labelsize=8, labelcolor=QUIET, color=QUIET)
    axes.grid(True, color="0.92", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)


# ---------------------------------------------------------------- all of it


def with_blocks(page: str, blocks: Mapping[str, str]) -> str:
    """The page with what was found in place of the machine-made parts of these names."""
    return BLOCK.sub(lambda found: blocks.get(found["name"], found[0]), page)


def make(folder: Path) -> None:
    found: dict[str, str] = {}
    for case in CASES:
        run = train(case.command, folder)
        cured = train(case.cure, folder) if case.cure else None
        diagnosed = findings(run.report.read_text(encoding="utf-8"))
        rest = None if cured is None else findings(cured.report.read_text(encoding="utf-8"))
        named = [each["name"] for each in diagnosed]
        print(f"{case.name}: the report finds {named}" + ("" if rest is None else f", cured {[each['name'] for each in rest]}"))
        assert case.name in (named or ["healthy"]), f"{case.command} no longer provokes it"
        draw(case, run, cured).save(PICTURES / case.picture, optimize=True)
        found[case.name] = block(case, diagnosed, rest)
    PAGE.write_text(with_blocks(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    print(PAGE)


def main() -> None:
    if sys.argv[1:]:
        folder = Path(sys.argv[1])
        folder.mkdir(parents=True, exist_ok=True)
        return make(folder.resolve())
    with tempfile.TemporaryDirectory(prefix="ganvas-docs-") as temporary:
        make(Path(temporary))
    return None


if __name__ == "__main__":
    main()
