"""A training is made to fit into the memory that is free, where nobody asked for what does not."""

import copy
import re
from pathlib import Path

import pytest
import torch

import ganvas
from ganvas import explaining, job, recipe_memory
from ganvas.config import differences, from_yaml, make_config
from ganvas.networks.build import build_networks
from ganvas.networks.cost import cost, state_bytes, step_memory
from ganvas.networks.latents import latent_size
from ganvas.presets import load_preset, preset_names
from ganvas.recipe_memory import LEAST, MUCH, SIZES, fitting, free_on, needed
from ganvas.run_folder import RunFolder
from makers import Heard, image_folder

MODERN = load_preset("modern-64").values
G_CHANNELS, D_CHANNELS = SIZES[1:]


def need(config):
    """Of this config, by its own networks."""
    networks = build_networks(config.network, config.data, config.train.seed)
    found = cost(*networks, latent_size(config), (config.data.channels, config.data.size.height, config.data.size.width))
    return needed(config, found, pairing=config.train.loss == "relativistic")


def free_for(values):
    """(the config, as many free bytes as it needs to the last one)."""
    config = make_config(values)
    return config, -int(-need(config) // MUCH)


def sizes(config):
    return config.train.batch, config.network.g_channels, config.network.d_channels


def test_what_fits_stays_as_it_is_and_nothing_is_said():
    config, free = free_for(MODERN)
    assert fitting(config, free, SIZES) == (config, {})
    assert fitting(config, None, SIZES) == (config, {})              # a system that does not tell


def test_the_batch_is_halved_first_until_it_fits_and_the_line_says_why():
    config = make_config(MODERN, {"train.batch": 1024})
    _, free = free_for(MODERN | {"train.batch": 256})
    made, why = fitting(config, free, SIZES)
    assert sizes(made) == (256, 48, 24)
    assert differences(config, made) == ["train.batch: 1024 -> 256"]
    assert re.fullmatch(rf"batch 256: 1024 would need about {need(config) / 2**30:.1f} GiB, more than 80% of the "
                        rf"{free / 2**30:.1f} that are free", why["train.batch"])
    assert list(why) == ["train.batch"]
    assert sizes(fitting(config, free - 10**6, SIZES)[0]) == (128, 48, 24)


def test_then_the_widths_are_with_a_reason_each():
    _, free = free_for(MODERN | {"train.batch": LEAST, G_CHANNELS: 24, D_CHANNELS: 12})
    made, why = fitting(make_config(MODERN), free, SIZES)
    assert sizes(made) == (LEAST, 24, 12)
    assert set(why) == set(SIZES)
    assert why[G_CHANNELS].startswith("width 24: 48 would") and why[D_CHANNELS].startswith("width 12: 24 would")


@pytest.mark.parametrize(("given", "least"), [({}, (8, 8, 8)), ({"train.batch": 12}, (8, 8, 8)), ({"train.batch": 3}, (3, 8, 8)),
                                              ({D_CHANNELS: 4}, (8, 8, 4))])
def test_nothing_is_halved_below_eight_and_what_is_still_too_much_is_said(given, least):
    made, why = fitting(make_config(MODERN, given), 1000, SIZES)
    assert sizes(made) == least
    assert sum("pass a smaller --batch" in line for line in why.values()) == 1


@pytest.mark.parametrize(("may_change", "expected"), [
    ((), (32, 48, 24)), (("train.batch",), (8, 48, 24)), ((G_CHANNELS, D_CHANNELS), (32, 8, 8)), ((D_CHANNELS,), (32, 48, 8))])
def test_what_was_asked_for_stays_and_is_only_said_to_be_too_much(may_change, expected):
    config = make_config(MODERN)
    made, why = fitting(config, 1000, may_change)
    assert sizes(made) == expected
    (said,) = [line for line in why.values() if "pass a smaller --batch" in line]
    assert f"about {need(made) / 2**30:.1f} GiB" in said
    assert ("80%" in said) and said.count("80%") == 1
    if not may_change:
        assert made == config and list(why) == ["train.batch"]


def test_a_users_own_networks_and_loss_are_no_obstacle():
    own = make_config({"network.family": "custom", "train.loss": "custom"})
    assert fitting(own, 1000, SIZES) == (own, {})
    own_loss = make_config(MODERN, {"train.loss": "custom"})
    assert need(make_config(MODERN)) > need(own_loss)                # not paired, as far as is known here
    _, why = fitting(own_loss, 1000, ())
    assert f"about {need(make_config(MODERN)) / 2**30:.1f} GiB" in why["train.batch"]


def test_what_is_needed_counts_a_checkpoint_in_writing_where_its_copy_lies():
    config = make_config(MODERN)
    networks = build_networks(config.network, config.data, 0)
    found = cost(*networks, latent_size(config), (3, 64, 64))
    step = step_memory(found, 32, "fp32", averaged=True, penalty=True, pairing=True)
    assert needed(config, found, pairing=True) == step + state_bytes(found, averaged=True)
    on_card = config.model_copy(update={"execution": config.execution.model_copy(update={"device": "cuda:1"})})
    assert needed(on_card, found, pairing=True) == step


def test_free_memory_is_that_of_the_device_with_what_the_process_has_already(monkeypatch):
    monkeypatch.setattr(recipe_memory, "free_memory", lambda: 500)
    monkeypatch.setattr(recipe_memory, "own_memory", lambda: 30)
    assert free_on("cpu") == 530
    monkeypatch.setattr(recipe_memory, "own_memory", lambda: None)
    assert free_on("cpu") == 500
    monkeypatch.setattr(recipe_memory, "free_memory", lambda: None)
    assert free_on("cpu") is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: {"cuda:1": (7, 9)}[device])
    assert free_on("cuda:1") == 7


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_can_be_looked_at_and_leaves_torchs_generator_alone(name):
    config = make_config({"network.family": "residual"}, load_preset(name).values | {"data.class_names": ["a", "b"],
                                                                                    "data.class_counts": [5, 5]})
    before, state = copy.deepcopy(config), torch.get_rng_state()
    assert fitting(config, 10**13, SIZES) == (before, {})
    assert torch.equal(torch.get_rng_state(), state)


# ---------------------------------------------------------------- in a training


@pytest.fixture
def little(tmp_path, monkeypatch):
    """A folder of images on a machine with so little memory that all is halved; a list whose first item says how little."""
    monkeypatch.chdir(tmp_path)
    free = [1000]
    monkeypatch.setattr(job, "free_on", lambda device: free[0])
    monkeypatch.setattr(explaining, "SPEED_SEC", 0.05)
    image_folder(tmp_path / "images", n=12)
    return free


def test_a_run_is_made_to_fit_at_its_start_and_stays_so_when_it_goes_on(little):
    asked = {"device": "cpu", "threads": 1, "size": "16", "settings": {"output.grid_n": 4}}
    heard = Heard()
    ganvas.train("images", steps=1, watch=heard, **asked)
    assert [line for line in heard.lines if "width 8: 32 would" in line]
    began = from_yaml((RunFolder(Path("runs/images")).config).read_text(encoding="utf-8"), "")
    assert [began[option] for option in SIZES] == [LEAST] * 3
    little[0], later = 10**13, Heard()
    ganvas.train("images", steps=2, watch=later, **asked)
    assert not [line for line in later.lines if "would need" in line]
    assert from_yaml((RunFolder(Path("runs/images")).config).read_text(encoding="utf-8"), "")["network.g_channels"] == LEAST


@pytest.mark.parametrize("asked", [
    {"batch": 11, "settings": {G_CHANNELS: 12, D_CHANNELS: 12}}, {"preset": "modern-28", "size": "16"},
    {"settings": {"network.family": "dcgan"}, "size": "16"}])
def test_what_the_user_or_a_preset_named_stays_and_is_said_to_be_too_much(little, asked):
    heard, given = Heard(), {"size": "16"} | asked
    ganvas.train("images", explain=True, watch=heard, device="cpu", threads=1, **given)
    values = {words[0]: words[1] for line in heard.lines[-1].splitlines() if len(words := line.split()) > 1}
    assert LEAST not in [int(values[option]) for option in SIZES if option in values]
    assert "are needed, more than 80%" in heard.lines[-1]
