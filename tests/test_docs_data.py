"""docs/data.md says what the code does: its example, pictures, commands and snippets are run and compared."""

import gzip
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
from ganvas.cli.main import app as cli
from ganvas.data.decode import MAX_PIXELS, image_extensions
from ganvas.data.pixel_art import upscale_factor
from ganvas.data.public_sets import DATASETS
from ganvas.data.source_listing import MAX_FILE_BYTES
from ganvas.data.source_matching import MAX_CLASSES
from ganvas.data.source_tables import TABLE_ENDINGS
from ganvas.data.source_tar import TAR_ENDINGS
from ganvas.data.source_zip import MAX_COMPRESSION_RATIO
from ganvas.data.twins import EXHAUSTIVE, Kind
from ganvas.recipe_images import BOTH_WAYS, CLEAR_AREA, ENLARGED, FEWEST_TO_HOLD, HOLDOUT, MOST_AUTO_PX, MOST_HELD, MOSTLY
from makers import image_folder

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
PYTHON = [text for language, text in BLOCKS if language == "python"]
COMMANDS = [line for language, text in BLOCKS if not language for line in text.splitlines() if line.startswith("ganvas ")]
INLINE = re.findall(r"`(ganvas [^`]*)`", PAGE)
TINY = ["--dry-run", "--batch", "4", "--threads", "1", "--device", "cpu",
        "--set", "network.g_channels=2", "--set", "network.d_channels=2"]


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_data_pictures", ROOT / "docs" / "make_data_pictures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_script()


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that these words call, and its arguments."""
    command: click.Command = typer.main.get_command(cli)
    while hasattr(command, "commands") and words:
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that holds what the page's commands name; inspected as the example says."""
    place = tmp_path_factory.mktemp("page")
    said, html = script.inspected(place)
    assert html.is_file()
    (place / "said.txt").write_text(said, encoding="utf-8")
    names = sorted((place / "sprites").rglob("*.png"))
    rows = [f"{path.relative_to(place / 'sprites').as_posix()},{index % 3},{'sad' if index % 2 else 'merry'}\n"
            for index, path in enumerate(names)]
    (place / "kinds.csv").write_text("file_name,label,mood\n" + "".join(rows), encoding="utf-8")
    (place / "sheets").mkdir()
    script.sheet_of_sprites().save(place / "sheets" / "sheet.png")
    (place / "walks").mkdir()
    frames = [script.sprite(f"cats/{number:02d}.png").convert("RGB") for number in range(4)]
    frames[0].save(place / "walks" / "walk.gif", save_all=True, append_images=frames[1:])
    return place


# The example and the pictures.


def test_the_example_is_what_the_command_says(folder):
    said = (folder / "said.txt").read_text(encoding="utf-8")
    assert script.with_example(PAGE, said) == PAGE, "run `python docs/make_data_pictures.py`"


@pytest.mark.parametrize("name", script.DRAWN)
def test_drawing_a_picture_again_gives_the_committed_one(name):
    with Image.open(ROOT / "docs" / "pictures" / name) as committed:
        drawn = script.DRAWN[name]()
        assert np.array_equal(np.asarray(committed.convert("RGB")), np.asarray(drawn)), "run `python docs/make_data_pictures.py`"


def test_every_picture_is_linked_small_and_there():
    linked = set(re.findall(r"!\[[^\]]+\]\(pictures/([^)]+)\)", PAGE))
    assert linked == {*script.DRAWN, script.PAGE_PICTURE}
    for name in linked:
        file = ROOT / "docs" / "pictures" / name
        assert file.stat().st_size < (120_000 if name == script.PAGE_PICTURE else 60_000)
        with Image.open(file) as image:
            assert image.width <= 1000, "wider than a page is read"


def test_the_pairs_in_the_picture_of_twins_are_found_and_named_so(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GANVAS_CACHE", str(folder / "cache"))
    found = {tuple(sorted(group.names)): group.kind for group in ganvas.inspect("sprites").twin_groups}
    for kind, twin, original in script.TWINS:
        assert found[tuple(sorted((f"sprites/{original}", f"sprites/{twin}")))] == kind
    assert {kind for kind, _, _ in script.TWINS} == {kind.name.lower() for kind in Kind}


def test_the_art_in_the_picture_of_native_sizes_is_recognised():
    assert upscale_factor(script.enlarged(script.sprite("cats/06.png").crop((4, 6, 28, 30)), 5)) == 5


# Commands, options, links, numbers.


@pytest.mark.parametrize("line", [*COMMANDS, *INLINE])
def test_every_command_parses(line):
    command, words = command_of(shlex.split(line)[1:])
    if hasattr(command, "commands") or (line in INLINE and not words):
        return                                         # only named
    with command.make_context("ganvas", words) as context:
        assert context.command is command


def test_the_page_names_options_that_exist_and_every_option_of_inspect():
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", PAGE))
    commands = [command_of(words)[0] for words in (["data", "inspect"], ["train"], ["data", "fetch"], ["data", "cache", "clean"])]
    flags = [{flag for option in command.params for flag in option.opts if flag.startswith("--")} for command in commands]
    assert named <= set().union(*flags)
    assert flags[0] - {"--help"} <= named
    assert {flag for flag in flags[1] & named if flag not in flags[0]} == {"--skip-bad", "--out", "--time"}


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_that_needs_no_network_runs(folder, monkeypatch, line):
    words = shlex.split(line)[1:]
    if words[:2] == ["data", "fetch"] and "--list" not in words:
        pytest.skip("it would download")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GANVAS_CACHE", str(folder / "cache" if words[1] == "inspect" else folder / "another cache"))
    result = CliRunner().invoke(cli, words, env={"COLUMNS": "130"})
    assert result.exit_code == 0, result.output


def test_training_refuses_the_half_file_as_the_page_says_and_takes_its_options(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GANVAS_CACHE", str(folder / "cache"))
    stated = re.search(r"^ganvas: (sprites: 1 of .*?leave them out\.)$", PAGE, flags=re.DOTALL | re.MULTILINE)
    refused = CliRunner().invoke(cli, ["train", "sprites", *TINY])
    assert refused.exit_code == 1 and stated is not None
    assert str(refused.exception) == stated[1]
    trained = CliRunner().invoke(cli, ["train", "sprites", "--skip-bad", "--holdout", "20%", "--group-by", r"(\w+)/\d",
                                       "--drop-duplicates", "--mirror", "on", *TINY])
    assert trained.exit_code == 0, trained.output


def test_every_link_leads_somewhere():
    headings = {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
                for text in re.findall(r"^#+ (.+)$", PAGE, flags=re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert target[1:] in headings if target.startswith("#") else (ROOT / "docs" / target).exists(), target


def test_the_numbers_of_the_page_are_those_of_the_code():
    shares = [f"{most} {share * 100:.0f} %" for most, share in (
        ("at most", BOTH_WAYS), ("at least", CLEAR_AREA), ("at least", ENLARGED))]
    for stated in (*shares, f"at most {MOST_AUTO_PX} pixels", f"at most {MOST_HELD:,}", f"fewer than {FEWEST_TO_HOLD} images",
                   f"{EXHAUSTIVE:,} different", f"{MAX_PIXELS // 10**6} million pixels", f"{MAX_FILE_BYTES // 2**20} MB",
                   f"{MAX_COMPRESSION_RATIO} times", f"{MAX_CLASSES:,} classes"):
        assert stated.lower() in PAGE.lower(), stated
    assert (HOLDOUT, MOSTLY) == (0.1, 0.5), "the page says a tenth, and more than half"
    for name, dataset in DATASETS.items():
        assert re.search(rf"^\| `{name}` \| {dataset.title[:5]}.* \|$", PAGE, flags=re.MULTILINE), name
    assert all(ending in PAGE for ending in (*TABLE_ENDINGS, ".tar.gz", ".tar.bz2", ".tar.xz", ".tgz"))
    assert {".tar.gz", ".tar.bz2", ".tar.xz", ".tgz"} <= set(TAR_ENDINGS)
    assert ".heic" not in image_extensions()


# Python.


def test_the_python_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    image_folder(tmp_path / "sprites", n=24, size=16)
    names: dict[str, object] = {"__name__": "docs"}
    for block in PYTHON:
        short = block.replace("steps=200", "steps=1, batch=4, threads=1, device='cpu', size='12', settings="
                                           "{'network.g_channels': 2, 'network.d_channels': 2}")
        assert ("ganvas.train" in block) == (short != block), "a run too long for a test"
        exec(compile(short, "docs/data.md", "exec"), names)
    said = capsys.readouterr().out
    assert "60 images, {'0': 30, '1': 30}" in said
    assert "6 held out, such as list[" in said
    assert (tmp_path / "sprites.html").is_file()
    columns = re.search(r"`images\.csv\.gz`, a row for each image: (.*)\.", PAGE)
    assert columns is not None
    with gzip.open("runs/rings/images.csv.gz", "rt", encoding="utf-8") as file:
        assert file.readline().strip().split(",") == ["image", "label", "part", "group", "content"]
    assert all(f"`{column}`" in columns[1] for column in ("image", "label", "part", "group", "content"))


def test_a_changed_folder_is_told_as_the_page_says(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for number in range(24):
        path = tmp_path / "sprites" / "cats" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        script.sprite(f"cats/{number:02d}.png").save(path)
    options = ["--size", "12", *TINY[1:]]
    first = CliRunner().invoke(cli, ["train", "sprites", "--steps", "1", *options])
    assert first.exit_code == 0, first.output
    (tmp_path / "sprites" / "cats" / "05.png").unlink()
    second = CliRunner().invoke(cli, ["train", "sprites", "--steps", "2", *options])
    stated = re.search(r"^ganvas: (sprites: is not what .*)$", PAGE, flags=re.MULTILINE)
    assert stated is not None
    assert str(second.exception) == stated[1].replace("runs/sprites-2", str(Path("runs/sprites-2")))
