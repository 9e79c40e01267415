from pathlib import Path

import pytest

from ganvas.config import fields, make_config
from ganvas.presets import load_preset, preset_names


def test_every_preset_is_listed_with_its_title(cli):
    done = cli("presets")
    text = " ".join(done.out.split())
    assert done.code == 0
    for name in preset_names():
        assert name in text
        assert load_preset(name).title.split()[0] in text


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_shown_with_its_header_and_every_option(cli, name):
    done = cli("presets", name)
    assert done.code == 0
    assert " ".join(load_preset(name).header.split()) in " ".join(done.out.split())
    # The user's images and machine are no part of a preset.
    users = ["data.source", *(option for option, _ in fields() if option.startswith("execution."))]
    assert [option for option, _ in fields() if option not in done.out] == users


@pytest.mark.parametrize("name", preset_names())
def test_only_a_script_that_there_is_is_named_as_a_presets_own(cli, name):
    said = "".join(cli("presets", name).out.split())
    assert (f"{name}.py" in said) == (Path(__file__).parents[2] / "examples" / "plain" / f"{name}.py").is_file()


@pytest.mark.parametrize("name", ["conditional", "sprites"])
def test_of_a_preset_that_leaves_options_to_the_images_no_value_of_theirs_is_shown(cli, name):
    said = {row.split()[0]: row.split()[1] for row in cli("presets", name).out.splitlines() if len(row.split()) > 1}
    for option in ("network.g_channels", "train.batch", "train.lr", "train.loss", "length"):
        assert said.get(option, "") not in {str(make_config().train.lr), "64", "128", "nonsaturating", "20"}
    assert said.get("network.family") != "dcgan"


def test_an_unknown_preset_lists_the_known_ones(cli):
    done = cli("presets", "d2l-pokemon")
    assert (done.code, done.out) == (1, "")
    assert "'d2l-pokemon-64'" in done.err
    assert all(name in done.err for name in preset_names())
