"""What a start looks at before it writes anything into a run folder, and what going on promises."""

import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import ganvas
from ganvas import generator, run_writer
from ganvas.best import read_best
from ganvas.checkpoint import read_checkpoint
from ganvas.errors import ConfigError, RunError
from ganvas.run_folder import RunFolder
from makers import Heard, image_folder


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ganvas.report.animation.write_mp4", lambda path, frames: 0)


@pytest.fixture
def source():
    return image_folder(Path("images"), n=20)


def options(more_settings=None, **more):
    settings = {"network.g_channels": 4, "network.d_channels": 4, "output.checkpoint_every": "2 steps", "output.grid_n": 4,
                "data.holdout": 0, "data.mirror": False, "plan.tail": "ragged"}
    return {"size": "16", "batch": 8, "threads": 1, "device": "cpu", "settings": settings | (more_settings or {}),
            "watch": Heard(), **more}


def newest(run):
    return read_checkpoint(RunFolder(Path(run)).list_checkpoints()[-1][1])


def test_an_edited_or_missing_config_file_does_not_let_other_options_in(source):
    ganvas.train(source, **options(steps=2, lr=2e-4))
    config = Path("runs/images/config.yaml")
    config.write_text(config.read_text(encoding="utf-8").replace("lr: 0.0002", "lr: 0.1"), encoding="utf-8")
    with pytest.raises(RunError, match=r"train\.lr: 0\.0002 -> 0\.1"):
        ganvas.train(source, **options(steps=4, lr=0.1))
    config.unlink()
    with pytest.raises(RunError, match=r"train\.lr: 0\.0002 -> 0\.1"):
        ganvas.train(source, **options(steps=4, lr=0.1))


def test_files_of_somebody_else_are_not_overwritten(source):
    Path("mine/tensorboard").mkdir(parents=True)
    (Path("mine/tensorboard") / "events").write_text("precious", encoding="utf-8")
    with pytest.raises(RunError, match="tensorboard"):
        ganvas.train(source, **options(steps=2, out="mine"))
    assert (Path("mine/tensorboard") / "events").read_text(encoding="utf-8") == "precious"


def test_a_torn_newest_checkpoint_neither_stops_sampling_nor_counts_as_kept(source):
    ganvas.train(source, **options(steps=6))
    folder = RunFolder(Path("runs/images"))
    (_, good), (torn_nimg, torn) = folder.list_checkpoints()
    whole = ganvas.load("runs/images").nimg
    for path in (torn, folder.generator(torn_nimg)):
        path.write_bytes(path.read_bytes()[:-9])
    assert ganvas.load("runs/images").nimg == int(good.stem) < whole
    ganvas.train(source, **options({"output.keep_last": 1}, steps=8))
    assert [nimg for nimg, _ in folder.list_checkpoints()] == [56]
    assert not torn.exists() or torn_nimg == 56
    assert ganvas.load("runs/images").nimg == 56


def test_bit_exact_is_said_of_the_machine_that_the_checkpoint_was_made_on(source):
    ganvas.train(source, **options(steps=2))
    ganvas.train(source, **options(steps=2, threads=2))             # done already: makes no checkpoint of its own
    for threads, words in ((2, "threads 1 -> 2"), (1, "threads 2 -> 1")):
        again = options(steps=4 if threads == 2 else 6, threads=threads)
        ganvas.train(source, **again)
        assert any(words in line for line in again["watch"].lines)


class NoisyD(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 16 * 16, 1))

    def forward(self, images):
        return self.layers(images)


class SmallG(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3 * 16 * 16), nn.Tanh())

    def forward(self, z):
        return self.layers(z).unflatten(1, (3, 16, 16))


def test_own_networks_that_draw_random_numbers_go_on_bit_for_bit(source):
    own = {"generator": SmallG, "discriminator": NoisyD}
    size = {"network.z_dim": 8}
    ganvas.train(source, **options(size, steps=6, out="straight", **own))
    before = torch.random.get_rng_state()
    ganvas.train(source, **options(size, steps=3, out="broken", **own))
    assert torch.equal(torch.random.get_rng_state(), before)        # the caller's own random numbers are left alone
    torch.rand(7)
    ganvas.train(source, **options(size, steps=6, out="broken", **own))
    expected, found = newest("straight")[0], newest("broken")[0]
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_own_networks_with_batch_norm_never_meet_a_single_image():
    source = image_folder(Path("seventeen"), n=17)                  # batches of 8, 8 and 1
    run = ganvas.train(source, **options({"network.z_dim": 8}, epochs=2, generator=SmallG, discriminator=NoisyD))
    assert run.nimg == 32


def test_options_that_contradict_each_other_are_named(source):
    with pytest.raises(ConfigError, match=r"train\.lr: given both"):
        ganvas.train(source, **options({"train.lr": 0.1}, lr=0.2))
    with pytest.raises(ConfigError, match="--preset radford-faces-64"):
        ganvas.train(source, **options({"preset": "radford-faces-64"}))
    ganvas.train(source, **options(steps=1))
    with pytest.raises(ConfigError, match="--preset d2l-pokemon-64"):
        ganvas.train(source, **options(preset="d2l-pokemon-64", config="runs/images", out="other"))


def test_a_short_run_with_an_averaged_generator_shows_what_it_has_learnt(source):
    ganvas.train(source, **options({"train.ema_half_life_kimg": 1000}, steps=40, lr=2e-4))
    tensors, _ = newest("runs/images")
    name = next(name for name in tensors if name.startswith("G/") and name.endswith("weight"))
    first = ganvas.load("runs/images")                               # averaged over the last few steps, not over the start
    averaged = dict(first.network.named_parameters())[name.removeprefix("G/")]
    assert first.averaged
    assert not torch.equal(averaged, tensors[name])
    assert torch.dist(averaged, tensors[name]) < 0.1 * torch.dist(tensors[name], torch.zeros_like(averaged))


def test_values_that_no_run_could_have_are_told_together_before_the_images_are_looked_at():
    wrong = options({"network.kernel": 3, "train.lrr": 0.1}, batch=0, steps=2)
    with pytest.raises(ConfigError) as told:
        ganvas.train("no-such-folder", **wrong)
    assert all(words in str(told.value) for words in ("train.batch = 0", "network.kernel = 3", "train.lrr", "did you mean"))
    assert wrong["watch"].lines == []


def test_values_that_only_the_images_can_settle_are_no_faults_by_themselves(source):
    auto = {"data.size": "auto", "data.channels": "auto", "data.holdout": "auto", "data.native": "auto"}
    ganvas.train(source, **(options(steps=1) | {"size": None, "settings": auto | {"network.g_channels": 4}}))
    with pytest.raises(ConfigError, match=r"data\.channels = 2"):
        ganvas.train(source, **options(steps=1, channels="2"))


# ---------------------------------------------------------------- own loops, own modules


def test_a_tick_comes_before_its_checkpoint_is_written_and_settle_waits_for_it(source, monkeypatch):
    may_write, write, looked = threading.Event(), run_writer.write_checkpoint, []
    def slow(path, *content):
        assert may_write.wait(20)
        write(path, *content)
    monkeypatch.setattr(run_writer, "write_checkpoint", slow)
    cadence = {"output.checkpoint_every": "1 steps", "output.log_every": "1 steps", "measure.share": 0}
    for tick in ganvas.iterate(source, **options(cadence, steps=3)):
        if not may_write.is_set() and tick.nimg:
            assert not RunFolder(Path("runs/images")).checkpoint(tick.nimg).exists()
            threading.Timer(0.05, may_write.set).start()
        tick.settle()
        if tick.nimg:
            assert ganvas.load("runs/images", "last").nimg == tick.nimg
            looked.append(tick.nimg)
        if tick.nimg < 16:                                     # the last tick comes settled
            may_write.clear()
    assert looked == [8, 16, 20]                               # two batches of 8, and one of 4
    tick.settle()                                              # of a run that has ended


def test_a_settled_tick_has_its_best_checkpoint_and_all_of_a_moment_come_from_one_sampler(source, monkeypatch):
    sampled, reestimate = [], generator.reestimate_batch_norm
    monkeypatch.setattr(generator, "reestimate_batch_norm", lambda *given: sampled.append(1) or reestimate(*given))
    every = {f"output.{what}_every": "2 steps" for what in ("checkpoint", "grid", "log")} | {"measure.every": "2 steps"}
    shown = {"output.grid_mode": "eval", "train.ema_half_life_kimg": 0.05, "measure.n": 16, "measure.share": 0}
    moments, bests = 0, 0
    for tick in ganvas.iterate(source, **options(every | shown, steps=6)):
        moments += tick.grid is not None
        tick.settle()
        if tick.measured and tick.measured["best"]:
            bests += 1
            assert ganvas.load("runs/images", "best").nimg == read_best(RunFolder(Path("runs/images"))).nimg == tick.nimg
    assert (len(sampled), bests >= 1) == (moments, True)


def test_two_runs_with_the_same_modules_write_each_its_own_weights(source):
    own = {"generator": SmallG(), "discriminator": NoisyD()}
    size = {"network.z_dim": 8, "output.grid_mode": "eval", "measure.share": 0, "train.ema_half_life_kimg": 0}
    for out in ("first", "second"):
        ganvas.train(source, **options(size, steps=2, out=out, **own))
        with torch.no_grad():
            for parameter in own["generator"].parameters():
                parameter.normal_(0, 0.02)
    for out in ("first", "second"):
        written = ganvas.load(out, generator=SmallG()).network.state_dict()
        state, _ = newest(out)
        assert all(torch.equal(tensor, state[f"G/{name}"]) for name, tensor in written.items())
