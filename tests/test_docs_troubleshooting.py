"""docs/troubleshooting.md covers every diagnosis with a run, a picture and words, and its commands, options and links exist."""

import importlib.util
import inspect
import re
import shlex
from pathlib import Path
from types import ModuleType

import click
import pytest
import typer
from PIL import Image

from ganvas.cli.main import app as cli
from ganvas.config import fields, make_config, parse_setting
from ganvas.metrics import health_rules
from ganvas.presets import load_preset
from ganvas.report.run_page import write_report
from ganvas.run_folder import RunFolder
from ganvas.watcher import seen

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^(ganvas .*)$", PAGE, flags=re.MULTILINE)
INLINE = re.findall(r"`(ganvas [^`]*)`", PAGE)
HEADINGS = [re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            for text in re.findall(r"^#+ (.+)$", PAGE, flags=re.MULTILINE)]


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_troubleshooting", ROOT / "docs" / "make_troubleshooting.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_script()


def section(name: str) -> str:
    """The text under the heading of this name, whatever its case."""
    found = re.search(rf"^## {re.escape(name)}$(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE | re.IGNORECASE)
    assert found is not None, f"no section '{name}'"
    return found[1]


def names_of_diagnoses() -> set[str]:
    """Every name that a rule of health can give."""
    return set(re.findall(r'Diagnosis\(\s*"([^"]+)"', inspect.getsource(health_rules)))


def test_there_is_a_name_for_almost_every_rule():
    assert len(names_of_diagnoses()) == len(health_rules.RULES) - 1        # two rules find a run that diverged


@pytest.mark.parametrize("name", sorted(names_of_diagnoses()))
def test_every_diagnosis_has_its_section_its_run_and_its_line_in_the_table(name):
    text = section(name)
    quoted = rf"^> \*\*{name}\*\* \((problem|warning), since .+\)<br>\n> .+<br>\n> What helps: .+$"
    assert re.search(quoted, text, flags=re.MULTILINE)
    assert f"](pictures/trouble-{name.lower().replace(' ', '-')}.png)" in text
    assert f"| [{name}](#{name.lower().replace(' ', '-')}) |" in PAGE


def test_the_advice_on_the_page_is_still_what_the_rules_say():
    source = re.sub(r'"\s+f?"', "", inspect.getsource(health_rules)).lower()       # literals in a row are one
    advice = re.findall(r"^> What helps: (.+)$", PAGE, flags=re.MULTILINE)
    assert len(advice) == len(names_of_diagnoses())
    for text in advice:
        for piece in re.split(r"[\d;:]+|\.\s|\.$", text.lower()):       # between the run's own figures
            assert piece.strip() in source, piece


def test_the_page_shows_the_runs_of_the_script_and_only_those():
    blocks = {found["name"]: found[0] for found in script.BLOCK.finditer(PAGE)}
    assert list(blocks) == sorted(blocks, key=[case.name for case in script.CASES].index)
    assert blocks.keys() == {case.name for case in script.CASES} == names_of_diagnoses() | {"healthy"}
    for case in script.CASES:
        assert case.command in blocks[case.name].splitlines()
        assert not case.cure or case.cure == script.HEALTHY or case.cure in blocks[case.name].splitlines()
    assert script.with_blocks(PAGE, blocks) == PAGE
    assert script.with_blocks(PAGE, {"D wins": "x"}) == PAGE.replace(blocks["D wins"], "x")


def test_pictures_are_small_and_each_is_shown():
    shown = set(re.findall(r"!\[[^\]]+\]\(pictures/([^)]+)\)", PAGE))
    assert shown == {case.picture for case in script.CASES}
    files = [ROOT / "docs" / "pictures" / name for name in shown]
    assert max(file.stat().st_size for file in files) < 60_000
    assert sum(file.stat().st_size for file in files) < 450_000
    for file in files:
        with Image.open(file) as image:
            assert image.width <= 1000, "wider than a page is read"


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that these words call, and its arguments."""
    command: click.Command = typer.main.get_command(cli)
    while hasattr(command, "commands") and words:
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("line", sorted({*COMMANDS, *INLINE}))
def test_every_command_parses_and_its_settings_make_a_run(line):
    command, words = command_of(shlex.split(line)[1:])
    if not words:
        return                                         # only named
    with command.make_context("ganvas", words) as context:
        values = dict(map(parse_setting, context.params.get("set") or context.params.get("settings") or []))
        preset = context.params.get("preset") or "digits-16"
    assert ("--set" in words) == bool(values)
    make_config(load_preset(preset).values, values)


def test_every_option_that_is_named_exists():
    known = {option for option, _ in fields()}
    named = set(re.findall(r"\b((?:data|network|plan|train|output|measure)\.[a-z0-9_]+)\b", PAGE)) - {"data.md"}
    assert named <= known
    for text in re.findall(r"`--set \"?([^`\"]+)\"?`", PAGE):
        make_config(dict([parse_setting(text)]))
    commands = [command_of([name])[0] for name in ("train", "sample", "evaluate")]
    flags = {flag for command in commands for option in command.params for flag in option.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]+", PAGE)) <= flags


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        if not target.startswith("http"):
            file, _, heading = target.partition("#")
            assert (ROOT / "docs" / file).exists() if file else heading in HEADINGS, target


def test_the_script_reads_what_a_report_shows(tmp_path):
    folder = RunFolder(tmp_path)
    told = {"name": "D wins", "severity": "problem", "since": 6400, "evidence": "D(x) < 1 & so on.", "advice": "Use --lr 0.0001."}
    write_report(folder, diagnoses=[told, told | {"name": "noise", "severity": "warning"}])
    found = script.findings(folder.report.read_text(encoding="utf-8"))
    assert found[0] == told | {"since": f"since {seen(6400)}"}
    assert (found[1]["name"], found[1]["severity"]) == ("noise", "warning")
