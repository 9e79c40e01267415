"""--explain tells what a training would do, and does nothing of it."""

import copy
import re
from pathlib import Path

import pytest
import torch

import ganvas
from ganvas import explaining
from ganvas.budget import Budget
from ganvas.config import fields, flatten, make_config
from ganvas.errors import DataError, RunError
from ganvas.explaining import Begun, Noise, explain
from ganvas.losses import loss_pair, own_pair, relativistic_d, relativistic_g
from ganvas.networks.build import build_networks
from ganvas.presets import load_preset
from ganvas.recipe_modern import augmentation, modern
from ganvas.values import Amount, ImageSize
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


def page(*layers, why=None, images=18, budget=None, begun=None, losses=None):
    """losses: None = those of the config's name."""
    config = make_config(TINY, *layers)
    networks = build_networks(config.network, config.data, seed=0)
    return explain(config, why or {}, networks, losses or loss_pair(config.train.loss, 1.0), images, budget, begun)


def recipes_own(side, images=10**4, device="cpu"):
    """What the recipe says where nobody asks for anything else, but for the width, which would take long."""
    return modern(images, ImageSize(side, side), device)[0] | augmentation(images)[0] | {"execution.device": device}


def line(text, start):
    (found,) = [row for row in text.splitlines() if row.strip().startswith(start)]
    return found


def test_every_option_that_is_not_as_usual_is_told_with_its_value_and_reason(speed):
    text = page(recipes_own(28, 18), TINY, {"train.lr": 0.005, "augment.color": 0.5}, images=18,
                why={"train.lr": "a good rate", "data.mirror": "they look the same"})
    assert line(text, "train.lr").split(None, 2)[1:] == ["0.005", "a good rate"]
    assert line(text, "data.mirror").split(None, 2)[1:] == ["False", "they look the same"]       # as usual, but for a reason
    assert "0.5" in line(text, "augment.color")
    known = {name for name, _ in fields()}
    told = {row.split()[0] for row in text.splitlines() if "." in row.split(" " * 3)[0]} & known
    assert {"data.size", "network.family", "train.batch", "train.betas"} <= told
    assert not {"train.seed", "data.class_names", "network.kernel", "output.grid_n"} & told


def test_what_a_preset_says_is_told_as_its_own_and_what_it_does_not_say_as_asked_for(speed):
    text = page(load_preset("digits-16").values, {"train.batch": 8, "train.lr": 0.0002})
    assert "preset digits-16" in text.splitlines()[0]
    for option in ("data.size", "train.r1_gamma", "train.betas", "network.family"):
        assert line(text, option).endswith("  preset digits-16")
    assert line(text, "train.batch").split(None, 2) == ["train.batch", "8", "as you asked"]
    assert line(text, "train.lr").split(None, 2) == ["train.lr", "0.0002", "as you asked"]       # though it is the usual one


def test_a_thin_preset_leaves_the_recipes_reasons_to_what_it_does_not_say(speed):
    config = recipes_own(28) | load_preset("conditional").values | CLASSES | {"train.batch": 8}
    text = page(config, TINY, images=10**4)
    assert line(text, "network.conditional").endswith("preset conditional")
    assert "momentum" in line(text, "train.betas")
    assert line(text, "train.batch").endswith("as you asked")


@pytest.mark.parametrize(("side", "narrower", "rate"), [(28, False, False), (64, True, True), (128, False, False)])
def test_the_recipes_reasons_are_told_where_they_are_true_of_the_values(speed, monkeypatch, side, narrower, rate):
    monkeypatch.setattr(explaining, "_prediction", lambda *args: [])
    text = page(recipes_own(side), {"data.size": str(side)}, images=10**4)
    assert "more updates for the same work" in line(text, "train.batch")
    assert ("narrower than G" in line(text, "network.d_channels")) == narrower
    assert ("at 64 pixels" in line(text, "train.lr")) == rate
    assert "as you asked" not in text


@pytest.mark.parametrize(("option", "value"), [
    ("train.batch", 512), ("train.loss", "hinge"), ("train.lr", 0.0001), ("network.g_channels", 4), ("plan.tail", "ragged"),
    ("train.r1_gamma", 0.0), ("augment.color", 0.5), ("train.gamma_start", 3.0), ("network.family", "dcgan")])
def test_what_was_asked_for_has_no_reason_of_the_recipe(speed, monkeypatch, option, value):
    monkeypatch.setattr(explaining, "_prediction", lambda *args: [])
    settled = {"network.d_channels": 24} if option == "network.family" else {}
    text = page(recipes_own(28), {option: value} | settled, images=10**4)
    assert line(text, option).split(None, 2) == [option, str(value), "as you asked"]
    began = Begun(5, 1.0, flatten(make_config({option: value}).model_dump(mode="json")), None, False)
    went_on = page(recipes_own(28), {option: value} | settled, images=10**4, begun=began)
    assert line(went_on, option).endswith("as the run began")


def test_a_cards_numbers_have_a_cards_reasons():
    values, why = modern(10**4, ImageSize(64, 64), "cuda")
    assert str(values["train.batch"]) in why["train.batch"]
    assert explaining.reasons(values, ImageSize(64, 64))["network.d_channels"] == "as wide as G"


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
    (kimg,) = re.findall(r"([\d.]+) kimg", line(text, "length"))       # the only line of a length: its choice says nothing
    assert 80 < float(kimg) <= 100


def test_a_run_that_goes_on_has_what_is_left_of_its_time_and_its_length(speed):
    def length(config, begun, budget=None):
        return line(page(config, budget=budget, begun=begun).partition("prediction")[2], "length")
    begun = Begun(6000, 40.0, {}, None, False)
    (goal,) = re.findall(r"^([\d.]+) kimg", length({}, begun, Budget(100.0)).split(None, 1)[1])
    assert 6 + 40 < float(goal) <= 6 + 60                            # of 100 seconds 40 are spent
    assert "after the 6.0 kimg that are done" in length({"length": "36 kimg"}, begun)
    assert "about 30 s" in length({"length": "36 kimg"}, begun)
    assert "6.0 kimg are done already" in length({"length": "6 kimg"}, begun)
    assert "6.0 kimg are done already" in length({}, begun._replace(spent_sec=99.0), Budget(100.0))
    assert "for --patience" in length({"length": "36 kimg"}, begun._replace(is_past_its_best=True))
    assert "10.0 kimg, " in length({}, begun._replace(length=Amount(10.0, "kimg")), Budget(100.0))


def test_of_a_compiled_run_it_is_said_that_the_speed_is_that_of_another(speed):
    assert "torch.compile" in line(page({"execution.compile": True}), "speed here")
    assert "torch.compile" not in line(page(), "speed here")


def test_memory_that_is_not_there_is_said_with_a_remedy_that_can_be_taken(speed, monkeypatch):
    monkeypatch.setattr(explaining, "free_on", lambda device: 1000)
    assert "pass a smaller --batch" in page()
    went_on = page(begun=Begun(5, 1.0, {}, None, False))
    assert "pass a smaller" not in went_on and "end other programs" in went_on
    for enough in (10**12, None):                                    # None: a system that does not tell
        monkeypatch.setattr(explaining, "free_on", lambda device, enough=enough: enough)
        assert "pass a smaller" not in page()


def test_memory_counts_both_passes_of_d_for_whatever_loss_pairs_reals_with_fakes(speed):
    def gib(losses):
        return float(re.findall(r"about ([\d.]+) GiB", page({"train.batch": 2**16}, losses=losses))[0])
    assert gib(own_pair(relativistic_d, relativistic_g)) == gib(loss_pair("relativistic", 1.0)) > gib(None)


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
    small = {"network.g_channels": 4, "network.d_channels": 4, "output.grid_n": 4}
    ganvas.train(source, steps=1, watch=Heard(), device="cpu", threads=1, size="16", settings=small)
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")}
    ganvas.train(source, explain=True, watch=heard, device="cpu", threads=1, size="16")
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")} == before
    text = heard.lines[-1]
    (nimg,) = {int(path.stem.rpartition("-")[2]) for path in Path("runs/images/checkpoints").glob("*.safetensors")
               if path.stem.rpartition("-")[2].isdigit()}
    assert line(text, "network.g_channels").endswith("as the run began")
    assert f"after the {nimg} images that are done" in line(text.partition("prediction")[2], "length")


def test_what_a_training_would_refuse_is_refused(speed):
    source = image_folder(Path("images"), n=12)
    small = {"network.g_channels": 4, "network.d_channels": 4, "output.grid_n": 4}
    ganvas.train(source, steps=1, watch=Heard(), device="cpu", threads=1, size="16", settings=small)
    with pytest.raises(RunError, match=r"train\.lr"):
        ganvas.train(source, explain=True, watch=Heard(), device="cpu", threads=1, size="16", settings=small, lr=0.5)
    with pytest.raises(RunError, match=r"--init-from .*same run"):
        ganvas.train(source, explain=True, watch=Heard(), device="cpu", size="16", init_from="runs/images")
    with pytest.raises(RunError, match=r"--init-from nothing\.pth"):
        ganvas.train(source, explain=True, watch=Heard(), device="cpu", size="16", out="other", init_from="nothing.pth")


class Counting(torch.nn.Module):
    """A network that looks at its numbers, which those without any do not have."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        assert float(x.detach().abs().max()) < 100
        return self.inner(x)


def own_networks():
    """(G, D) for 16x16 images."""
    G = torch.nn.Sequential(torch.nn.Linear(100, 3 * 16 * 16), torch.nn.Unflatten(1, (3, 16, 16)), torch.nn.Tanh())
    return Counting(G), Counting(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 1)))


def test_own_networks_that_need_numbers_are_explained_without_their_cost(speed):
    (G, D), heard = own_networks(), Heard()
    ganvas.train(image_folder(Path("images"), n=12), generator=G, discriminator=D, explain=True, watch=heard, device="cpu",
                 threads=1, size="16", kimg=3)
    text = heard.lines[-1].partition("prediction")[2]
    assert "1,000 images a second" in line(text, "speed here") and "3.0 kimg" in line(text, "length")
    assert "networks" not in text and "memory" not in text


def test_a_batch_that_is_too_small_is_refused_in_a_trainings_words():
    source, (G, D), said = image_folder(Path("images"), n=12), own_networks(), []
    for explained in (True, False):
        with pytest.raises(DataError) as caught:
            ganvas.train(source, generator=G, discriminator=D, explain=explained, watch=Heard(), device="cpu", threads=1,
                         size="16", batch=1)
        said.append(str(caught.value))
    assert said[0] == said[1] and said[0].startswith("images: --batch 1")
