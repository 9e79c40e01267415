"""Whole runs of the modern recipe, as short as can be: each kind of images trains, or is refused with a reason."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import ganvas
from ganvas.checkpoint import read_checkpoint
from ganvas.config import flatten, make_config
from ganvas.errors import ConfigError, DataError
from ganvas.generator import config_of
from ganvas.report.log import read_rows
from ganvas.run_folder import RunFolder
from makers import Heard, image_folder

SMALL = {"network.g_channels": 4, "network.d_channels": 4, "output.grid_n": 6, "output.log_every": "1 steps", "measure.share": 0,
         "data.holdout": 0}


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ganvas.report.animation.write_mp4", lambda path, frames: 0)


def options(settings=None, **more):
    return {"device": "cpu", "threads": 1, "steps": 3, "settings": SMALL | (settings or {}), "watch": Heard(), **more}


def trained(source, settings=None, **more):
    """(the run's config, its rows, its generator), after a look that all numbers are finite."""
    run = ganvas.train(source, **options(settings, **more))
    folder = RunFolder(run.path)
    tensors, meta = read_checkpoint(folder.list_checkpoints()[-1][1])
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    rows = read_rows(folder.stats)
    assert len(rows) == more.get("steps", 3)
    assert all(np.isfinite(row[name]) for row in rows for name in ("Loss_D", "Loss_G"))
    return config_of(meta, str(run.path)), rows, run.generator()


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


# ---------------------------------------------------------------- kinds of images


@pytest.mark.parametrize(("array", "more", "size", "channels"), [
    (noise(24, 16, 16), {}, "16x16", 1),
    (noise(24, 16, 16, 3), {}, "16x16", 3),
    (noise(24, 16, 16, 4), {"channels": "4"}, "16x16", 4),
    (noise(24, 64, 48, 3), {}, "48x64", 3),
    (noise(3, 16, 16, 3), {}, "16x16", 3),
    (noise(1, 16, 16, 3), {}, "16x16", 3),
])
def test_images_of_any_kind_and_number_are_trained_on(array, more, size, channels):
    config, _, generator = trained(array, **more)
    assert (config.network.family, str(config.data.size), config.data.channels) == ("residual", size, channels)
    assert config.train.batch <= len(array)
    pictures = generator.sample(2)
    assert pictures.shape == (2, config.data.size.height, config.data.size.width, channels)


@pytest.mark.parametrize("settings", [
    {"train.r1_gamma": 0, "train.r2_gamma": 0},
    {"train.r1_gamma": 0, "train.r2_gamma": 1.0, "train.penalty_every": 1},
    {"train.penalty": "differences", "train.penalty_every": 1},
    {"train.loss": "wasserstein", "train.r1_gamma": 0, "train.r2_gamma": 0, "train.gp_weight": 10, "train.penalty_every": 1},
    {"train.loss": "hinge", "network.d_spectral_norm": True, "network.d_depth": 1},
    {"network.g_depth": 2, "network.d_depth": 1, "network.g_norm": "none"},
    {"train.ema_half_life_kimg": 0}, {"execution.precision": "bf16"},
])
def test_penalties_losses_and_networks_of_any_kind_train(settings):
    config, rows, generator = trained(noise(24, 16, 16, 3), settings)
    train = config.train
    for name, on in (("R1", train.r1_gamma > 0), ("R2", train.r2_gamma > 0), ("GP", train.gp_weight > 0)):
        assert all((name in row) == on for row in rows if row["step"] == 1)
    assert generator.averaged == (train.ema_half_life_kimg > 0)


@pytest.mark.parametrize("size", ["8x64", "9x200"])
def test_a_size_that_no_network_can_make_is_refused_by_name(size):
    with pytest.raises(ConfigError, match=size):
        ganvas.train(noise(6, 16, 16, 3), **options(size=size))
    assert not Path("runs").exists()


# ---------------------------------------------------------------- classes


def test_the_digits_are_learnt_by_class_sampled_by_class_and_remember_their_names():
    config, _, generator = trained("digits", preset="conditional", batch=16, steps=2)
    assert (config.preset, config.data.class_names, config.num_classes) == ("conditional", tuple("0123456789"), 10)
    assert sum(config.data.class_counts) == 1797
    again = ganvas.load("runs/digits")
    assert again.class_names == generator.class_names == config.data.class_names
    assert np.array_equal(again.sample(4, seed=1, label=3), generator.sample(4, seed=1, label=3))
    with torch.no_grad():
        again.network.stem.weight.mul_(50)                       # two steps hardly tell classes apart
    threes, fours = (again.sample(4, seed=1, label=label) for label in (3, 4))
    assert (threes != fours).any(axis=(1, 2, 3)).all()


def test_one_class_is_trained_without_it_or_with_it_where_that_is_asked_for():
    np.savez("one.npz", images=noise(12, 16, 16, 3), labels=np.zeros(12, np.int64))
    config, _, generator = trained("one.npz", out="without")
    assert (config.num_classes, generator.class_names) == (0, ())
    config, _, generator = trained("one.npz", preset="conditional", out="with")
    assert (config.num_classes, generator.class_names) == (1, ("0",))
    assert generator.sample(2, label=0).shape == (2, 16, 16, 3)


def test_a_single_class_folder_is_no_classes_and_refused_with_the_remedy():
    image_folder(Path("kinds/only"), n=12, size=16)
    with pytest.raises(DataError, match=r"kinds: only one class folder, 'only'.*--labels none"):
        ganvas.train("kinds", **options(labels="folder"))
    assert not Path("runs").exists()


def test_images_without_a_class_among_others_are_named_and_left_out_on_request():
    image_folder(Path("images"), n=14, size=16)
    rows = [f"{i:03d}.png,{'ab'[i % 2]}" for i in range(12)]      # the last two have none
    Path("kinds.csv").write_text("\n".join(["file,kind", *rows]), encoding="utf-8")
    with pytest.raises(DataError, match=r"013\.png: it has no label"):
        ganvas.train("images", **options(labels="kinds.csv:kind"))
    config, _, _ = trained("images", labels="kinds.csv:kind", skip_bad=True, batch=12)
    assert (config.data.class_names, config.data.class_counts) == (("a", "b"), (6, 6))


def test_a_conditional_run_goes_on_with_the_classes_it_began_with():
    for number in range(2):
        image_folder(Path(f"kinds/kind {number}"), n=8, size=16, seed=number)
    first, _, _ = trained("kinds", labels="folder")
    second, rows, _ = trained("kinds", labels="folder", steps=5)
    assert first.num_classes == 2
    assert first.model_copy(update={"length": second.length}) == second
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]


def test_own_networks_are_told_no_classes_and_a_wish_for_it_is_refused():
    image_folder(Path("kinds/a"), n=8, size=16)
    image_folder(Path("kinds/b"), n=8, size=16, seed=1)
    own = {"generator": lambda: nn.Sequential(nn.Linear(8, 3 * 16 * 16), nn.Tanh(), nn.Unflatten(1, (3, 16, 16))),
           "discriminator": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 1))}
    settings = {"network.z_dim": 8, "train.ema_half_life_kimg": 0}
    ganvas.train("kinds", **options(settings, labels="folder", size="16", out="plain", **own))
    with pytest.raises(ConfigError, match=r"network\.conditional"):
        ganvas.train("kinds", **options(settings | {"network.conditional": True}, labels="folder", size="16", out="told", **own))


def test_what_a_run_has_chosen_is_all_in_its_config():
    config, _, _ = trained(noise(24, 16, 16, 3), {"augment.color": 0.5}, steps=1)
    written = json.loads(json.dumps(config.model_dump(mode="json")))
    assert config.augment.color == 0.5
    assert make_config(flatten(written)) == config
