"""docs/evaluation.md says what the code does: its commands, figures, numbers, tables and snippets are run and compared."""

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import click
import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

import ganvas
from ganvas.best import METRIC
from ganvas.cli.evaluate import EXIT_GATE
from ganvas.cli.main import app as cli
from ganvas.config import MeasureConfig
from ganvas.evaluation import MOST_COPY_SAMPLES, VERSION, Options
from ganvas.gates import Gate
from ganvas.measuring import COMPARED, FEWEST_REALS, LEAST_N
from ganvas.metrics import copies, data_copying
from ganvas.metrics.extractor_classifier import LEAST_ACCURACY
from ganvas.metrics.extractor_inception import WEIGHTS
from ganvas.metrics.extractor_random import RandomExtractor
from ganvas.metrics.extractors import NAMES
from ganvas.metrics.fid import fid
from ganvas.metrics.figures import LABELS, NEIGHBOURS
from ganvas.metrics.interval import ENOUGH_FOR_QUANTILES
from ganvas.metrics.modes import mode_coverage
from makers import image_folder

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAINING = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
MEASURED = (ROOT / "benchmarks" / "results" / "2026-11-22-floors.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [line for language, text in BLOCKS if not language for line in text.splitlines() if line.startswith("ganvas ")]
INLINE = re.findall(r"`(ganvas [^`]*)`", PAGE)
OF_README = re.findall(r"^(?:\$ )?(ganvas (?:evaluate|compare|report)[^#\n]*)", README, flags=re.MULTILINE)
FETCHED = ("inception", "stacked-mnist", "--n 50000")       # commands that need a download, or minutes
RUN = ["train", "sprites", "--preset", "digits-16", "--steps", "2", "--batch", "8", "--threads", "1", "--device", "cpu",
       "--channels", "3", "--set", "network.g_channels=2", "--set", "network.d_channels=2"]
QUICK = ["--n", "12", "--repeats", "2"]


def section(heading: str, page: str = PAGE) -> str:
    return page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that these words call, and its arguments."""
    command: click.Command = typer.main.get_command(cli)
    while hasattr(command, "commands") and words:
        command, words = command.commands[words[0]], words[1:]
    return command, words


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("floors", ROOT / "benchmarks" / "floors.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


floors = load_script()


def invoked(*words: str) -> str:
    result = CliRunner().invoke(cli, list(words), env={"COLUMNS": "130"})
    may_end = (0, EXIT_GATE) if "--fail-if" in words else (0,)
    assert result.exit_code in may_end, (words, result.output, result.exception)
    return result.output


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with everything that the page's commands name: sprites/, two runs on them, theirs/, features.py."""
    home = tmp_path_factory.mktemp("evaluation")
    image_folder(home / "sprites", n=30, size=16)
    source = next(text for language, text in BLOCKS if language == "python" and text.startswith("# features.py"))
    (home / "features.py").write_text(source, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("GANVAS_CACHE", str(home / "cache"))
        patch.setattr("ganvas.report.animation.write_mp4", lambda path, frames: 0)     # encoding takes longer than all else
        for seed, name in enumerate(("sprites", "sprites-2")):
            invoked(*RUN, "--seed", str(seed), "--out", f"runs/{name}")
        invoked("sample", "runs/sprites", "--n", "30", "--dir", "theirs")
        # What one command of the page makes for another: tests may run in any order.
        invoked("evaluate", "--samples", "theirs", "sprites", "--extractor", "random", "--save-features", "sprites.npz", *QUICK)
    return home


# Commands, figures, numbers, links.


@pytest.mark.parametrize("line", [*COMMANDS, *INLINE, *OF_README])
def test_every_command_parses(line):
    command, words = command_of(shlex.split(line)[1:])
    if hasattr(command, "commands") or line in ("ganvas sample --dir", f"ganvas {command.name}"):
        return                                         # only named
    with command.make_context("ganvas", words) as context:
        assert context.command is command


@pytest.mark.parametrize("line", [line for line in COMMANDS if not any(word in line for word in FETCHED)])
def test_every_command_that_needs_no_download_runs(place, monkeypatch, line):
    monkeypatch.chdir(place)
    monkeypatch.setenv("GANVAS_CACHE", str(place / "cache"))
    words = shlex.split(line)[1:]
    assert invoked(*words, *(QUICK if words[0] in ("evaluate", "compare") else []))


def test_every_option_that_the_page_names_exists():
    commands = [command_of(words)[0] for words in (["evaluate"], ["compare"], ["report"], ["sample"], ["train"])]
    flags = {flag for command in commands for option in command.params for flag in option.opts if flag.startswith("--")}
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", PAGE)) <= flags
    wanted = {flag for option in commands[0].params for flag in option.opts if flag.startswith("--")}
    assert wanted - {"--help"} <= set(re.findall(r"--[a-z][\w-]*", PAGE)), "an option without a word"


def test_the_table_of_figures_is_that_of_the_code():
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section("The figures"), flags=re.MULTILINE)
    assert dict(rows) == {name: label for name, (label, _) in LABELS.items()} | {"copies": "copies"}
    gates = [Gate.parse(text) for text in re.findall(r'--fail-if "([^"]+)"', PAGE)]
    assert gates and {gate.metric for gate in gates} <= {*LABELS, "copies"}
    table = section("What sees the images")
    assert {name for name in NAMES if f"| `{name}` |" in table} == set(NAMES)


def test_the_numbers_of_the_page_are_those_of_the_code():
    options, extractor = Options(), RandomExtractor()
    for stated in (f"`--n` ({options.n:,})", f"{ENOUGH_FOR_QUANTILES} repetitions",
                   f"fewer than {copies.LEAST_REALS} different training images",
                   f"fewer than {copies.FEW_TRAIN} training images", f"fewer than {copies.FEW_HOLDOUT} held out",
                   f"1 in {round(1 / copies.SURPRISE):,}", f"{copies.LIMIT:.0%}".replace("%", " %"),
                   f"at most {MOST_COPY_SAMPLES:,} samples", f"ends with {EXIT_GATE}", f'"version": {VERSION}',
                   f"{extractor.dim} numbers", f"less than {LEAST_ACCURACY:.0%}".replace("%", " %"),
                   f"{WEIGHTS.bytes / 1e6:.1f} MB", f"{data_copying.CELL} samples",
                   "more than four times the number behind its ±"):
        assert stated.lower() in PAGE.lower(), stated
    assert data_copying.FAR == 4
    assert (options.repeats, NEIGHBOURS, copies.NEXT, copies.LEAST_ALARMS, copies.COPIER, copies.FALSE_ALARMS, METRIC) == \
        (5, 5, 8, 3, 0.25, 0.01, "kid"), "the page says five, fifth, eight, three, a quarter, 1 % and KID"


def test_the_floor_of_even_stacked_digits_is_that_of_the_page():
    floor = mode_coverage(np.arange(26_000) % 1000, np.ones(1000)).kl_floor
    assert f"KL of {floor:.4f}".replace(" 0.", " .") in section("Counting modes: Stacked MNIST")


def test_every_row_of_a_measured_table_stands_in_the_results():
    rows = [line for line in PAGE.splitlines() if re.match(r"\| [^`|]+ \|(?: [*−-]?[\d*][^|]*\|){3,}", line)
            or line.startswith(("| new reals", "| 10 %"))]
    assert len(rows) >= 15
    for row in rows:
        assert row in MEASURED, row


def test_the_training_page_says_what_the_options_of_measuring_are():
    table = section("What is measured on the way", TRAINING)
    stated = dict(re.findall(r"^\| `measure\.(\w+)` \| ([^|]+) \|", table, flags=re.MULTILINE))
    assert stated == {name: str(field.default).lower() for name, field in MeasureConfig.model_fields.items()}
    for number in (f"under {LEAST_N}", f"Under {FEWEST_REALS} training images", f"at most {COMPARED:,} of the training images"):
        assert number in table, number


@pytest.mark.parametrize("file", ["docs/evaluation.md", "README.md"])
def test_every_link_leads_somewhere(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        name, _, anchor = target.partition("#")
        if target.startswith("http"):
            continue
        page = (ROOT / file).parent / name if name else ROOT / file
        assert page.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


def test_every_picture_is_linked_and_small():
    pictures = set(re.findall(r"!\[[^\]]+\]\(pictures/([^)]+)\)", PAGE))
    assert pictures == {path.name for path in (ROOT / "docs" / "pictures").glob("evaluation-*.png")}
    for name in pictures:
        file = ROOT / "docs" / "pictures" / name
        assert file.stat().st_size < 100_000
        with Image.open(file) as image:
            assert image.width <= 1000


# What the page claims of the figures.


def test_fid_of_fewer_images_than_features_is_defined_and_biased_upwards():
    draw = np.random.default_rng(0).standard_normal((2000, 200))
    few, many = fid(draw[:50], draw[50:100]), fid(draw[:1000], draw[1000:])
    assert np.isfinite(few) and few > 5 * many > 0


def test_the_gate_of_the_page_shuts_and_ends_with_three(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("GANVAS_CACHE", str(place / "cache"))
    result = CliRunner().invoke(cli, ["evaluate", "runs/sprites", *QUICK, "--fail-if", "kid>-9"])
    assert result.exit_code == EXIT_GATE


def test_the_python_of_the_page_runs(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.setenv("GANVAS_CACHE", str(place / "cache"))
    for language, text in BLOCKS:
        if language == "python":
            exec(compile(text.replace("n=1000", "n=12, repeats=2"), "docs/evaluation.md", "exec"), {"__name__": "docs"})
    assert "KID" in capsys.readouterr().out
    for name in re.findall(r"`(ganvas\.metrics\.\w+\.\w+)\(", PAGE):
        module, _, function = name.rpartition(".")
        assert callable(getattr(importlib.import_module(module), function))
    for name in re.findall(r"`(ganvas\.\w+)\(", PAGE):
        assert callable(getattr(ganvas, name.partition(".")[2]))


# The benchmark behind it.


def test_floors_measures_a_small_set_and_draws_it(tmp_path, monkeypatch, capsys):
    image_folder(tmp_path / "few", n=70, size=16)
    monkeypatch.setitem(floors.SETS, "few", floors.Set("few", "few", {"data.size": "16"}, (10, 14)))
    floors.main(["few", "mnist", "--data", str(tmp_path), "--sizes", "10", "30", "50", "--plot", str(tmp_path / "floors.png")])
    said, complaint = capsys.readouterr()
    assert "mnist is left out" in complaint
    assert re.findall(r"^\| (\d+) \|", said, flags=re.MULTILINE) == ["10", "30"], "half of 70 is less than 50"
    for fault in floors.FAULTS:
        assert said.count(f"| {fault} |") == 2
    with Image.open(tmp_path / "floors.png") as picture:
        assert picture.width > 500


def test_the_faults_of_the_benchmark_do_what_they_say():
    chance = np.random.default_rng(0)
    images = chance.integers(0, 256, (40, 3, 16, 16), dtype=np.uint8)
    classes = np.repeat(np.arange(4), [4, 8, 12, 16])
    half = floors.Half(images[30:], images, classes, 10, chance)
    made = {name: fault(half) for name, fault in floors.FAULTS.items()}
    assert all(found.dtype == np.uint8 and found.shape[1:] == (3, 16, 16) for found in made.values())
    assert all(len(found) == 10 for found in made.values())
    assert np.array_equal(made["10 % replayed from A"][0], half.a[0])
    assert np.array_equal(made["one class missing"], images[classes != 2][:10])
    assert np.array_equal(made["half of the classes missing"], images[classes >= 2][:10])
    shuffled = made["4×4 parts shuffled"]
    assert np.array_equal(np.sort(shuffled.reshape(10, 3, -1)), np.sort(images[:10].reshape(10, 3, -1)))
    assert not np.array_equal(shuffled, images[:10])
    light = made["noise, σ 4 of 255"].astype(int) - images[:10]
    assert 3 < light.std() < 4.5
    assert made["blur, σ 1 pixel"].std() < images.std() / 2
