import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ganvas
from ganvas import app
from ganvas.checkpoint import read_checkpoint, write_checkpoint
from ganvas.errors import ConfigError, DataError, RunError
from ganvas.report.log import read_rows
from ganvas.run_folder import RunFolder
from ganvas.watcher import Watcher, seen
from makers import image_folder

SETTINGS = {"network.g_channels": 4, "network.d_channels": 4, "output.log_every": "2 steps", "output.grid_every": "3 steps",
            "output.checkpoint_every": "5 steps", "output.grid_n": 4, "data.holdout": 0, "data.mirror": False}


class Heard(Watcher):
    def __init__(self):
        self.lines, self.packed, self.steps = [], [], []

    def tell(self, text):
        self.lines.append(text)

    def packing(self, done, total):
        self.packed.append((done, total))

    def training(self, nimg, goal, epoch, row):
        self.steps.append((nimg, goal))


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ganvas.report.animation.write_mp4", lambda path, frames: 0)      # encoding takes longer than the rest


@pytest.fixture
def source():
    return image_folder(Path("images"), n=20)


def options(**more):
    return {"size": "16", "batch": 8, "threads": 1, "device": "cpu", "settings": SETTINGS, "watch": Heard(), **more}


def state_of(run):
    return read_checkpoint(RunFolder(Path(run)).list_checkpoints()[-1][1])


# ---------------------------------------------------------------- a loop of one's own


def test_ticks_carry_the_rows_and_pictures_that_go_to_the_run_folder(source):
    given = options(steps=6)
    ticks = list(ganvas.iterate(source, **given))
    folder = RunFolder(Path("runs/images"))
    assert [tick.step for tick in ticks] == [0, 1, 2, 3, 4, 6]
    assert [tick.stats for tick in ticks if tick.stats] == read_rows(folder.stats)
    grids = [tick for tick in ticks if tick.grid is not None]
    assert [tick.step for tick in grids] == [0, 3, 6]
    for tick in grids:
        enlarged = np.asarray(Image.open(folder.grid(tick.nimg)))                  # 34 pixels wide: 15 for each
        assert np.array_equal(tick.grid, enlarged[::15, ::15])
    assert [tick.end for tick in ticks] == [None] * 5 + ["done"]
    assert (ticks[-1].nimg, ticks[-1].epoch) == (40, 2.0)
    assert given["watch"].packed[-1] == (20, 20)
    assert given["watch"].steps == [(nimg, 40) for nimg in (8, 16, 20, 28, 36, 40)]


def test_leaving_the_loop_early_keeps_a_checkpoint_and_the_rest_equals_an_unbroken_run(source):
    for tick in ganvas.iterate(source, steps=9, **options()):
        if tick.step == 4:
            break
    folder = RunFolder(Path("runs/images"))
    assert [nimg for nimg, _ in folder.list_checkpoints()] == [tick.nimg]
    assert not folder.lock.exists()

    again = options()
    ganvas.train(source, steps=9, **again)
    assert any("goes on from 28 images (bit-exact)" in line for line in again["watch"].lines)
    ganvas.train(source, steps=9, out="runs/unbroken", **options())
    (broken, _), (unbroken, _) = state_of("runs/images"), state_of("runs/unbroken")
    assert broken.keys() == unbroken.keys()
    assert all(torch.equal(broken[name], unbroken[name]) for name in unbroken)


def test_a_mistake_in_the_callers_loop_keeps_a_checkpoint_too(source):
    def look_at_it():
        for tick in ganvas.iterate(source, steps=9, **options()):
            if tick.step == 2:
                raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        look_at_it()
    assert state_of("runs/images")[1]["nimg"] == 16
    assert not RunFolder(Path("runs/images")).lock.exists()


# ---------------------------------------------------------------- train, load, score


def test_train_gives_a_run_whose_generator_is_the_one_that_load_finds(source):
    run = ganvas.train(str(source), epochs=1, out="mine", **options())
    assert (run.path, run.nimg, run.end) == (Path("mine"), 20, "done")
    images = run.generator().sample(3, seed=5)
    assert images.shape == (3, 16, 16, 3) and images.dtype == np.uint8
    assert np.array_equal(images, ganvas.load("mine").sample(70, seed=5)[:3])
    assert run.generator().averaged                                # as chosen where no preset is named


@pytest.mark.parametrize("loss", ["nonsaturating", "hinge"])
def test_score_gives_each_image_its_logit_and_a_probability_where_the_loss_makes_it_one(source, loss):
    run = ganvas.train(source, steps=1, **options(settings=SETTINGS | {"train.loss": loss}))
    scores = ganvas.score(run.path, [source / "000.png", source])
    assert [score.image for score in scores] == ["images/000.png"] + [f"images/{i:03d}.png" for i in range(20)]
    assert scores[0].logit == pytest.approx(scores[1].logit, abs=1e-6)
    for _, logit, probability in scores:
        assert probability == (None if loss == "hinge" else pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6))
    with pytest.raises(DataError, match="no images"):
        ganvas.score(run.path, [])


def test_an_array_is_a_source():
    images = np.random.default_rng(0).integers(0, 256, (20, 12, 16), dtype=np.uint8)
    run = ganvas.train(images, steps=1, **options(size="16x12"))
    assert run.path == Path("runs/array")
    assert run.generator().sample(2).shape == (2, 12, 16, 1)


def test_without_a_source_the_digits_are_trained_on():
    run = ganvas.train(steps=1, **options())
    assert run.path == Path("runs/digits")
    assert run.generator().config.preset == "digits-16"


def test_a_run_without_a_watcher_prints_its_lines(source, capsys):
    ganvas.train(source, steps=1, **options(watch=None))
    assert "runs/images: done, 8 images = 0.4 epochs." in capsys.readouterr().out


def test_another_machine_goes_on_and_says_what_is_not_bit_exact(source):
    ganvas.train(source, steps=1, **options())
    (_, path), = RunFolder(Path("runs/images")).list_checkpoints()
    tensors, meta = read_checkpoint(path)
    meta["environment"]["torch"] = "1.0"
    write_checkpoint(path, tensors, meta)
    again = options()
    assert ganvas.train(source, steps=2, **again).nimg == 16
    assert any(f"(not bit-exact: torch 1.0 -> {torch.__version__})" in line for line in again["watch"].lines)


@pytest.mark.parametrize(("more", "words"), [
    ({"learning_rate": 1}, ["learning_rate", "lr"]),
    ({"kimg": 1, "time": "1min"}, ["--time 1min", "1 kimg"]),
    ({"settings": {"train.betas": [0.5, 2]}}, ["betas"]),
    ({"settings": {"data.source": "other"}}, ["data.source other"]),
    ({"out": "images/run"}, ["images/run", "--out"]),
])
def test_faults_are_told_at_the_call_not_at_the_first_step(source, more, words):
    with pytest.raises(ConfigError) as fault:
        ganvas.iterate(source, **options(**more))
    assert all(word in str(fault.value) for word in words)
    assert not Path("runs").exists()


# ---------------------------------------------------------------- own networks and losses


class MyG(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.layer, self.width = nn.Linear(10, 3 * 16 * width), width

    def forward(self, z):
        return self.layer(z).tanh().reshape(-1, 3, 16, self.width)


class MyD(nn.Module):
    def __init__(self, outputs=1):
        super().__init__()
        self.layer = nn.Linear(3 * 16 * 16, outputs)

    def forward(self, images):
        return self.layer(images.flatten(1)).squeeze(1)


def wasserstein_d(real_logits, fake_logits):
    return (fake_logits.tanh() - real_logits.tanh()).sum()


def wasserstein_g(real_logits, fake_logits):
    return -fake_logits.sum()


def own(**more):
    return options(generator=MyG, discriminator=MyD, loss=(wasserstein_d, wasserstein_g),
                   settings=SETTINGS | {"network.z_dim": 10}) | more


def test_own_networks_and_losses_train_go_on_and_load(source):
    ganvas.train(source, steps=3, **own())
    again = own()
    ganvas.train(source, steps=6, **again)
    assert any("goes on from 20 images (bit-exact)" in line for line in again["watch"].lines)
    ganvas.train(source, steps=6, out="runs/unbroken", **own())
    (broken, _), (unbroken, _) = state_of("runs/images"), state_of("runs/unbroken")
    assert all(torch.equal(broken[name], unbroken[name]) for name in unbroken)

    generator = ganvas.load("runs/images", generator=MyG())
    assert np.array_equal(generator.sample(2), ganvas.load("runs/unbroken", generator=MyG()).sample(2))
    assert generator.sample(2).shape == (2, 16, 16, 3)
    assert len(ganvas.score("runs/images", [source], discriminator=MyD())) == 20


def test_an_own_loss_decides_what_is_learnt(source):
    def indifferent(real_logits, fake_logits):
        return 0 * (real_logits.sum() + fake_logits.sum())
    G, D = MyG(), MyD()
    before = [parameter.clone() for parameter in (*G.parameters(), *D.parameters())]
    ganvas.train(source, steps=3, **own(generator=G, discriminator=D, loss=(indifferent, indifferent)))
    assert all(torch.equal(old, new) for old, new in zip(before, (*G.parameters(), *D.parameters()), strict=True))


def test_a_run_with_own_networks_asks_for_them(source):
    ganvas.train(source, steps=1, **own())
    with pytest.raises(ConfigError, match="generator="):
        ganvas.load("runs/images")
    with pytest.raises(ConfigError, match="discriminator="):
        ganvas.score("runs/images", [source])
    with pytest.raises(RunError, match="do not fit"):
        ganvas.load("runs/images", generator=MyG(width=8))


@pytest.mark.parametrize(("more", "words"), [
    ({"generator": lambda: MyG(width=8)}, ["generator MyG", "(2, 3, 16, 8)", "(2, 3, 16, 16)", "size="]),
    ({"settings": SETTINGS}, ["generator MyG", "z of shape (N, 100)", "network.z_dim"]),
    ({"discriminator": lambda: MyD(outputs=2)}, ["discriminator MyD", "(2, 2)", "a logit for each"]),
    ({"discriminator": lambda: nn.Linear(3, 1)}, ["discriminator Linear", "3, 16, 16"]),
    ({"discriminator": None}, ["both generator= and discriminator="]),
    ({"loss": (lambda real, fake: wasserstein_d(real, fake) / len(fake), wasserstein_g)}, ["D's", "sum over", ".mean()"]),
    ({"loss": (wasserstein_d, lambda real, fake: -fake)}, ["G's", "one number"]),
    ({"loss": (lambda real, fake: (fake - real).tanh().sum(), wasserstein_g),
      "settings": SETTINGS | {"network.z_dim": 10, "plan.d_step": "real_then_fake"}}, ["pairs reals with fakes", "'joint'"]),
])
def test_own_parts_that_cannot_work_are_named_before_anything_is_made(source, more, words):
    with pytest.raises(ConfigError) as fault:
        ganvas.iterate(source, **own(**more))
    assert all(word in str(fault.value) for word in words), fault.value
    assert not Path("runs").exists()


# ---------------------------------------------------------------- interruptions


def test_an_interruption_while_images_are_decoded_stops_and_leaves_nothing():
    class Interrupting(Heard):
        def packing(self, done, total):
            super().packing(done, total)
            signal.raise_signal(signal.SIGINT)

    image_folder(Path("many"), n=64)
    watch = Interrupting()
    run = ganvas.train("many", steps=1, **options(watch=watch))
    assert (run.end, run.nimg) == ("SIGINT", 0)
    assert watch.packed == [(16, 64)]
    assert not Path("runs").exists()
    assert ganvas.train("many", steps=1, **options()).end == "done"


def test_an_interruption_in_training_ends_it_after_a_checkpoint_and_says_so(source):
    class Interrupting(Heard):
        def training(self, nimg, goal, epoch, row):
            if nimg == 16:
                signal.raise_signal(signal.SIGINT)

    watch = Interrupting()
    run = ganvas.train(source, steps=9, **options(watch=watch))
    assert (run.end, run.nimg) == ("SIGINT", 20)
    assert state_of(run.path)[1]["nimg"] == 20
    assert watch.lines.count("SIGINT: writing a checkpoint; a second one stops at once") == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_stops_at_once():
    with app.stop_on_signals() as reason:
        assert reason() is None
        signal.raise_signal(signal.SIGINT)
        assert reason() == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_training_outside_the_main_thread_leaves_the_signals_alone(source):
    ends = []
    before = signal.getsignal(signal.SIGINT)
    worker = threading.Thread(target=lambda: ends.append(ganvas.train(source, steps=1, **options()).end))
    worker.start()
    worker.join()
    assert ends == ["done"]
    assert signal.getsignal(signal.SIGINT) is before


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(("nimg", "text"), [(0, "0 images"), (1, "1 image"), (999, "999 images"), (1000, "1.0 kimg"),
                                            (1_234_560, "1,234.6 kimg")])
def test_progress_is_told_in_images_then_in_thousands(nimg, text):
    assert seen(nimg) == text
