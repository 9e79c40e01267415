import json
import subprocess
import sys

import pytest
import typer.main

from ganvas import __version__
from ganvas.cli.main import app
from ganvas.config import LENGTHS, SHORT, describe

COMMANDS = typer.main.get_command(app).commands
HEAVY = {"torch", "numpy", "PIL", "sklearn", "scipy", "matplotlib", "imageio", "av", "tensorboard"}
LOOK = """
import contextlib, io, json, sys
from ganvas.cli.main import main
found = {}
for args in ([], ["--help"], ["train", "--help"], ["sample", "-h"], ["--version"], ["train", "--nonsense"]):
    sys.argv = ["ganvas", *args]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        main()
    found[" ".join(args)] = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps(found))
"""


def test_help_and_the_bare_command_import_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    for args, modules in json.loads(done.stdout).items():
        assert not HEAVY & set(modules), f"ganvas {args}"


def test_the_bare_command_prints_three_next_steps_whose_commands_exist(cli):
    done = cli()
    steps = [line.split() for line in done.out.splitlines() if line.startswith("  ganvas ")]
    assert done.code == 0
    assert len(steps) == 3
    assert all(step[1] in (*COMMANDS, "--help") for step in steps)


def test_the_version_is_printed(cli):
    import ganvas

    assert cli("--version").out == f"ganvas {ganvas.__version__}\n"


def test_help_lists_every_command_with_a_sentence(cli):
    text = cli("--help").out
    assert all(name in text and command.help for name, command in COMMANDS.items())


@pytest.mark.parametrize("name", COMMANDS)
def test_each_flag_and_argument_says_what_it_means(name, cli):
    assert cli(name, "--help").code == 0
    assert [param.name for param in COMMANDS[name].params if not param.help] == []


def test_every_short_option_and_length_is_a_flag_of_train_with_the_configs_own_description():
    helps = {param.name: param.help for param in COMMANDS["train"].params}
    assert set(LENGTHS) < set(helps)
    for short, dotted in SHORT.items():
        if short != "device":                  # the flag takes 'auto' too, which no config holds
            assert helps[short].startswith(describe(dotted))


@pytest.mark.parametrize(("args", "named"), [
    (("--nonsense",), "--nonsense"), (("train", "--nonsense"), "--nonsense"), (("trian",), "train"),
    (("train", "--batch", "many"), "--batch"), (("train", "--lr", "abc"), "--lr"), (("train", "--steps", "1.5"), "--steps"),
    (("train", "a", "b"), "b"), (("sample", "--n", "0"), "--n"), (("sample", "--scale", "100"), "--scale"),
    (("sample", "--seed", "-1"), "--seed"), (("score",), "IMAGES"),
])
def test_wrong_usage_exits_2_and_names_the_word(cli, args, named):
    done = cli(*args)
    assert done.code == 2
    assert named in done.err
    assert done.out == ""


def test_the_module_runs_as_the_command_does():
    done = subprocess.run([sys.executable, "-m", "ganvas", "--version"], capture_output=True, text=True, check=True)
    assert __version__ in done.stdout
