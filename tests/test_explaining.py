"""--explain tells what a training would do, and does nothing of it."""

import copy
import re
from pathlib import Path

import pytest
import torch

import ganvas
from ganvas import explaining
from ganvas.budget import Budget
from ganvas.config import fields, make_config
from ganvas.explaining import Noise, explain
from ganvas.losses import loss_pair
from ganvas.networks.build import build_networks
from makers import Heard, image_folder

TINY = {"data.size": "16", "network.family": "residual", "network.g_channels": 4, "network.d_channels": 4, "train.batch": 8,
        "execution.threads": 1}
CLASSES = {"network.conditional": True, "data.class_names": ["a", "b"], "data.class_counts": [9, 9]}


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def speed(monkeypatch):
    """A thousand images a second, without a look at the clock."""
    monkeypatch.setattr(explaining, "measured_speed", lambda *args: 1000.0)


def page(*layers, why=None, images=18, budget=None):
    config = make_config(TINY, *layers)
    networks = build_networks(config.network, config.data, seed=0)
    return explain(config, why or {}, networks, loss_pair(config.train.loss, 1.0), images, budget)


def line(text, start):
    (found,) = [row for row in text.splitlines() if row.strip().startswith(start)]
    return found


def test_every_option_that_is_not_as_usual_is_told_with_its_value_and_reason(speed):
    text = page({"train.lr": 0.005, "augment.color": 0.5}, why={"train.lr": "a good rate", "data.mirror": "they look the same"})
    assert line(text, "train.lr").split(None, 2)[1:] == ["0.005", "a good rate"]
    assert line(text, "data.mirror").split(None, 2)[1:] == ["False", "they look the same"]       # as usual, but for a reason
    assert "0.5" in line(text, "augment.color")
    known = {name for name, _ in fields()}
    told = {row.split()[0] for row in text.splitlines() if "." in row.split(" " * 3)[0]} & known
    assert {"data.size", "network.family", "train.batch"} <= told
    assert not {"train.betas", "data.class_names", "network.kernel", "output.grid_n"} & told


def test_what_a_preset_says_is_told_as_its_own(speed):
    text = page({"preset": "digits-16", "network.family": "dcgan", "train.r1_gamma": 0.5})
    assert "preset digits-16" in text.splitlines()[0]
    assert "preset digits-16" in line(text, "train.r1_gamma")


def test_the_prediction_counts_weights_images_epochs_and_seconds(speed):
    config = make_config(TINY)
    G, D = build_networks(config.network, config.data, seed=0)
    text = page({"length": "36 kimg"})
    for network in (G, D):
        assert f"{sum(weight.numel() for weight in network.parameters()):,}" in line(text, "networks")
    assert "1,000 images a second" in line(text, "speed here")
    assert all(words in line(text.partition("prediction")[2], "length") for words in ("36.0 kimg", "2,000.0 epochs", "36 s"))
    assert re.search(r"about \d+\.\d GiB", line(text, "memory"))


def test_a_time_becomes_a_length_by_the_speed_here(speed):
    text = page({"length": "1 kimg"}, budget=Budget(100.0))
    (kimg,) = re.findall(r"([\d.]+) kimg", line(text.partition("prediction")[2], "length"))
    assert 80 < float(kimg) <= 100


def test_memory_that_is_not_there_is_said_with_the_remedy(speed, monkeypatch):
    monkeypatch.setattr(explaining, "free_memory", lambda: 1000)
    assert "pass a smaller --batch" in page()
    monkeypatch.setattr(explaining, "free_memory", lambda: 10**12)
    assert "pass a smaller" not in page()
    monkeypatch.setattr(explaining, "free_memory", lambda: None)     # a system that does not tell
    assert "pass a smaller" not in page()


@pytest.mark.parametrize("more", [
    {}, CLASSES, {"train.r1_gamma": 1.0, "train.ema_half_life_kimg": 1.0, "train.loss": "relativistic"},
    {"data.channels": 4, "data.transparency": "keep"}, {"network.family": "dcgan"}])
def test_the_speed_is_measured_on_networks_that_stay_as_they_were(more, monkeypatch):
    monkeypatch.setattr(explaining, "SPEED_SEC", 0.05)
    config = make_config(TINY, more)
    networks = build_networks(config.network, config.data, seed=0)
    before = [copy.deepcopy(network.state_dict()) for network in networks]
    text = explain(config, {}, networks, loss_pair(config.train.loss, 1.0), 18, None)
    speed = float(re.findall(r"([\d,]+) images a second", text)[0].replace(",", ""))
    assert speed > 0
    for network, state in zip(networks, before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_noise_is_as_many_images_as_there_will_be_with_a_class_each():
    noise = Noise(make_config(TINY, CLASSES), 1000)
    assert len(noise) == 1000
    assert noise.read(torch.arange(990, 1000).numpy()).shape == (10, 3, 16, 16)
    assert sorted(set(noise.labels.tolist())) == [0, 1]
    assert Noise(make_config(TINY), 3).labels is None


# ---------------------------------------------------------------- from the images on


def test_explaining_a_training_makes_nothing_and_says_every_reason(monkeypatch, speed):
    source, heard = image_folder(Path("images"), n=12), Heard()
    run = ganvas.train(source, explain=True, watch=heard, device="cpu", threads=1, size="16")
    text = "\n".join(heard.lines)
    assert run.end == "done"
    assert [path.name for path in Path().iterdir() if path.name != "ganvas-cache"] == ["images"]
    assert text.count("prediction") == 1
    for word in ("modern-28", "12 images", "batch 12"):
        assert word in text
    assert "train.batch" in text and "augment.color" in text


def test_a_run_that_goes_on_is_explained_with_what_was_chosen_for_it(speed):
    source, heard = image_folder(Path("images"), n=12), Heard()
    small = {"network.g_channels": 4, "network.d_channels": 4, "train.ema_half_life_kimg": 0.25, "output.grid_n": 4}
    ganvas.train(source, steps=1, watch=Heard(), device="cpu", threads=1, size="16", settings=small)
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")}
    ganvas.train(source, explain=True, watch=heard, device="cpu", threads=1, size="16")
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")} == before
    assert "0.25" in line(heard.lines[-1], "train.ema_half_life_kimg")
