import dataclasses
from statistics import mean

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ganvas.checkpoint import read_checkpoint, write_checkpoint
from ganvas.config import make_config
from ganvas.data.batches import Schedule
from ganvas.errors import DivergedError
from ganvas.losses import LOSSES, loss_pair
from ganvas.networks.build import build_networks
from ganvas.ops.diff_augment import Policy
from ganvas.presets import load_preset, preset_names
from ganvas.rng import Purpose
from ganvas.training import loop
from ganvas.training.loop import draw_z, nimg_of, passed, policy_of, train
from ganvas.training.penalties import penalties_at
from ganvas.training.state import TrainState
from ganvas.values import Amount

TINY = {"network.g_channels": 4, "network.d_channels": 4, "network.z_dim": 5, "train.batch": 8, "data.size": "12"}
OFTEN = {"output.log_every": "3 steps", "output.grid_every": "2 steps", "output.checkpoint_every": "4 steps"}
SELDOM = {f"output.{name}": "1000 steps" for name in ("log_every", "grid_every", "checkpoint_every")}


class Noise:
    """Images of random bytes."""

    def __init__(self, count, channels, height, width):
        self.array = np.random.default_rng(0).integers(0, 256, (count, channels, height, width), dtype=np.uint8)
        self.labels = np.arange(count) % 4 - 1                   # every fourth has none

    def __len__(self):
        return len(self.array)

    def read(self, indices):
        return self.array[indices]


def prepare(*layers, count=20):
    config = make_config(TINY, *layers)
    images = Noise(count, config.data.channels, config.data.size.height, config.data.size.width)
    return config, images, loss_pair(config.train.loss, config.plan.real_label)


def fresh(config):
    return TrainState.create(config, *build_networks(config.network, config.data, config.train.seed))


def ticks_of(config, images, losses, state, **more):
    return list(train(state, config, images, losses, **more))


# ---------------------------------------------------------------- going on is going through


CLASSES = {"network.conditional": True, "data.class_names": ["a", "b", "c"], "data.class_counts": [5, 5, 5]}
AUGMENTED = {"augment.color": 1.0, "augment.translation": 0.125, "augment.cutout": 0.5, "augment.probability": 0.7}
EVERYTHING = CLASSES | AUGMENTED | {
    "network.family": "residual", "network.g_depth": 1, "network.d_depth": 1, "plan.g_fakes": "fresh",
    "train.loss": "relativistic", "train.r1_gamma": 1.0, "train.r2_gamma": 2.0, "train.gamma_start": 10.0,
    "train.gamma_ramp_kimg": 0.05, "train.penalty_every": 2, "train.ema_half_life_kimg": 0.1}
BIG = ("modern-128", "modern-256")                               # which differ from the smaller ones in numbers alone
ALL = {
    **{name: load_preset(name).values for name in preset_names() if load_preset(name).is_complete and name not in BIG},
    "everything": EVERYTHING, "differences": EVERYTHING | {"train.penalty": "differences"},
    "spectral norm": EVERYTHING | {"network.d_spectral_norm": True, "train.gp_weight": 10.0, "train.loss": "wasserstein"}}


@pytest.mark.parametrize("stop_at", [4, 5])                      # step 5 is in the middle of a row, and of lazy penalties
@pytest.mark.parametrize("name", ALL)
def test_a_run_saved_in_the_middle_and_loaded_elsewhere_is_bit_for_bit_the_unbroken_one(name, stop_at, tmp_path):
    size = {"data.size": "28" if "mnist" in name else "16", "data.mirror": True}
    config, images, losses = prepare(ALL[name], TINY, size, OFTEN, {"length": "9 steps"})
    straight = fresh(config)
    expected = ticks_of(config, images, losses, straight)

    before, broken = [], fresh(config)
    for tick in train(broken, config, images, losses):
        before.append(tick)
        if tick.step == stop_at:
            write_checkpoint(tmp_path / "state", broken.tensors(), broken.progress())
            break
    resumed = TrainState.create(config, *build_networks(config.network, config.data, seed=99))
    resumed.load(*read_checkpoint(tmp_path / "state"))
    found = before + ticks_of(config, images, losses, resumed)

    assert found == expected
    assert [tick.step for tick in found if tick.row] == [1, 3, 6, 9]
    assert [tick.step for tick in found if tick.grid_due] == [2, 4, 6, 8, 9]
    assert [tick.step for tick in found if tick.checkpoint_due] == [4, 8, 9]
    ours, theirs = resumed.tensors(), straight.tensors()
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


def test_a_longer_length_goes_on_as_if_it_had_been_given_at_first():
    config, images, losses = prepare(OFTEN, {"length": "8 steps"})
    short = fresh(config)
    first = ticks_of(config.model_copy(update={"length": Amount(5, "steps")}), images, losses, short)
    assert [tick.end for tick in first] == [None] * 4 + ["done"]
    ticks_of(config, images, losses, short)
    long = fresh(config)
    ticks_of(config, images, losses, long)
    assert all(torch.equal(a, b) for a, b in zip(short.tensors().values(), long.tensors().values(), strict=True))


def test_a_finished_run_has_no_more_ticks():
    config, images, losses = prepare({"length": "2 steps"})
    state = fresh(config)
    ticks_of(config, images, losses, state)
    assert ticks_of(config, images, losses, state) == []


def test_another_seed_is_another_run():
    runs = []
    for seed in (0, 1):
        config, images, losses = prepare({"length": "2 steps", "train.seed": seed})
        state = TrainState.create(config, *build_networks(config.network, config.data, seed=0))
        ticks_of(config, images, losses, state)
        runs.append(state)
    assert not all(torch.equal(a, b) for a, b in zip(runs[0].G.parameters(), runs[1].G.parameters(), strict=True))


# ---------------------------------------------------------------- ticks


def test_there_is_a_tick_for_each_step_and_the_state_is_whole_while_it_is_held():
    config, images, losses = prepare({"length": "2 epochs"})     # batches of 8, 8 and 4
    state, held = fresh(config), []
    for tick in train(state, config, images, losses):
        assert state.nimg == tick.nimg
        assert {float(slots["step"]) for slots in state.G_opt.state.values()} == {tick.step}
        held.append((tick.nimg, tick.step, tick.epoch))
    assert held == [(8, 1, 0.4), (16, 2, 0.8), (20, 3, 1.0), (28, 4, 1.4), (36, 5, 1.8), (40, 6, 2.0)]


def test_the_end_is_done_with_a_checkpoint_and_a_last_picture():
    config, images, losses = prepare(SELDOM, {"length": "0.03 kimg"})
    ticks = ticks_of(config, images, losses, fresh(config))
    assert [tick.nimg for tick in ticks] == [8, 16, 20, 28, 36]  # the first whole batch at or beyond 30
    assert [dataclasses.astuple(tick)[4:] for tick in ticks[:-1]] == [(False, False, None)] * 4
    assert dataclasses.astuple(ticks[-1])[4:] == (True, True, "done")


def test_a_reason_to_stop_ends_the_run_after_the_step_with_a_checkpoint():
    config, images, losses = prepare(SELDOM, {"length": "9 steps"})
    reasons = iter([None, None, "time"])
    ticks = ticks_of(config, images, losses, fresh(config), should_stop=lambda: next(reasons))
    assert [tick.end for tick in ticks] == [None, None, "time"]
    assert [tick.checkpoint_due for tick in ticks] == [False, False, True]
    assert ticks[-1].grid_due                                     # the last picture is of the last generator


def test_a_signal_waits_for_no_picture():
    config, images, losses = prepare(SELDOM, {"length": "9 steps"})
    reasons = iter([None, "SIGTERM"])
    assert not ticks_of(config, images, losses, fresh(config), should_stop=lambda: next(reasons))[-1].grid_due


def test_rows_hold_the_means_since_the_last_row():
    every, third = (prepare({"output.log_every": f"{n} steps", "length": "6 steps"}) for n in (1, 3))
    ones = [tick.row for tick in ticks_of(*every, fresh(every[0]))]
    threes = [tick.row for tick in ticks_of(*third, fresh(third[0])) if tick.row]
    assert list(threes[0]) == [
        "nimg", "epoch", "step", "Loss_D", "D(x)", "D(G(z))_before", "logit_real", "logit_fake", "grad_D", "Loss_G",
        "D(G(z))_after", "grad_G"]
    assert [row["step"] for row in threes] == [1, 3, 6]           # the first step has a row of its own
    for start, row in zip((0, 1, 3), threes, strict=True):
        for name in ("Loss_D", "Loss_G", "D(x)"):
            assert row[name] == pytest.approx(mean(one[name] for one in ones[start : row["step"]]), rel=1e-12)


def test_alternating_turns_update_one_network_a_step():
    config, images, losses = prepare({"plan.turns": "alternate_g_first", "length": "3 steps"})
    state = fresh(config)
    steps = []
    for _ in train(state, config, images, losses):
        steps.append([int(next(iter(opt.state.values()))["step"]) if opt.state else 0 for opt in (state.G_opt, state.D_opt)])
    assert steps == [[1, 0], [1, 1], [2, 1]]


def test_the_average_follows_by_images_not_by_steps():
    config, images, losses = prepare({"train.ema_half_life_kimg": 0.02, "length": "1 epochs"})      # 20 images
    state = fresh(config)
    expected = [parameter.detach().clone() for parameter in state.G_ema.parameters()]
    seen = 0
    for size, _ in zip((8, 8, 4), train(state, config, images, losses), strict=True):
        seen += size
        keep = 0.5 ** (size / min(20, 0.05 * seen))               # short at first
        expected = [keep * old + (1 - keep) * new.detach() for old, new in zip(expected, state.G.parameters(), strict=True)]
    for ours, theirs in zip(state.G_ema.parameters(), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_z_of_d_and_fresh_z_of_g_are_drawn_apart_and_for_each_image():
    config, images, losses = prepare({"plan.g_fakes": "fresh", "length": "2 steps"})
    state, seen = fresh(config), []
    state.G.register_forward_pre_hook(lambda module, given: seen.append(given[0].clone()))
    ticks_of(config, images, losses, state)
    expected = [draw_z(config, purpose, np.arange(first, first + 8)) for first in (0, 8) for purpose in (Purpose.Z, Purpose.Z_G)]
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))


def test_each_step_sees_the_images_of_its_turn_augmented_and_in_range():
    config, images, losses = prepare({"data.rotation_degrees": 20, "length": "1 epochs"})
    state, seen = fresh(config), []
    state.D.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach().clone()))
    ticks_of(config, images, losses, state)
    reals = seen[0::3]
    assert [len(batch) for batch in reals] == [8, 8, 4]
    assert all(batch.min() >= -1 and batch.max() <= 1 for batch in reals)
    assert all((batch[:, :, 0, 0] == -1).any() for batch in reals)          # a corner that was turned out of sight is black


# ---------------------------------------------------------------- what a step is given


def steps_given(monkeypatch, *layers, count=20):
    """What train_step is given in each step of a run, by name."""
    given, step = [], loop.train_step
    names = ("state", "plan", "losses", "penalties", "turns", "reals", "z", "z_fresh", "draws", "labels")
    monkeypatch.setattr(loop, "train_step", lambda *args: given.append(dict(zip(names, args, strict=True))) or step(*args))
    config, images, losses = prepare(*layers, count=count)
    ticks_of(config, images, losses, fresh(config))
    return config, images, given


def test_lazy_penalties_are_due_by_the_step_and_their_weight_by_the_images(monkeypatch):
    ramp = {"train.r1_gamma": 1.0, "train.gamma_start": 3.0, "train.gamma_ramp_kimg": 0.04}
    config, _, given = steps_given(monkeypatch, ramp, {"train.penalty_every": 2, "length": "7 steps"})
    expected = [penalties_at(config.train, step, nimg) for step, nimg in enumerate((0, 8, 16, 20, 28, 36, 40))]
    assert [step["penalties"] for step in given] == expected
    assert [penalties.r1 > 0 for penalties in expected] == [True, False, True, False, True, False, True]
    assert expected[0].r1 == 6 and expected[-1].r1 == 2


@pytest.mark.parametrize("turns", ["alternate_g_first", "alternate_d_first"])
def test_lazy_penalties_are_due_in_every_second_of_ds_own_turns(monkeypatch, turns):
    lazy = {"train.r1_gamma": 1.0, "train.penalty_every": 2, "plan.turns": turns, "length": "8 steps"}
    _, _, given = steps_given(monkeypatch, lazy)
    assert [step["penalties"].r1 for step in given if "D" in step["turns"]] == [2, 0, 2, 0]


def test_each_real_comes_with_its_own_class_which_its_fake_is_made_of(monkeypatch):
    _, images, given = steps_given(monkeypatch, EVERYTHING, {"length": "4 steps", "augment.translation": 0})
    for step in given:
        pixels = ((step["reals"] + 1) * 127.5).round().byte().numpy()
        for real, label, *latents in zip(pixels, step["labels"], step["z"], step["z_fresh"], strict=True):
            (which,) = [i for i, image in enumerate(images.array) if np.array_equal(image, real)]
            assert label == images.labels[which]
            for z in latents:
                assert z[5:].tolist() == [float(label == number) for number in range(3)]
        assert not torch.equal(step["z"][:, :5], step["z_fresh"][:, :5])
    assert {int(label) for step in given for label in step["labels"]} == {-1, 0, 1, 2}


def test_networks_without_classes_are_told_none(monkeypatch):
    _, _, given = steps_given(monkeypatch, {"length": "2 steps"})
    assert [step["labels"] for step in given] == [None, None]


def test_augmentation_draws_by_the_images_running_numbers(monkeypatch):
    config, _, given = steps_given(monkeypatch, AUGMENTED, {"length": "4 steps", "train.seed": 3})
    assert [step["draws"].indices.tolist() for step in given] == [
        list(range(8)), list(range(8, 16)), list(range(16, 20)), list(range(20, 28))]
    assert {step["draws"].seed for step in given} == {3}
    assert given[0]["draws"].policy == policy_of(config.augment) == Policy(1.0, 0.125, 0.5, 0.7)


@pytest.mark.parametrize("off", [{}, AUGMENTED | {"augment.probability": 0.0}, {"augment.probability": 0.5}])
def test_without_augmentation_there_is_no_policy(monkeypatch, off):
    _, _, given = steps_given(monkeypatch, off, {"length": "1 steps"})
    assert given[0]["draws"].policy is None


# ---------------------------------------------------------------- divergence


def diverging(at_call):
    calls = []
    def d_loss(real_logits, fake_logits):
        calls.append(1)
        return LOSSES["nonsaturating"].d(real_logits, fake_logits) * (float("nan") if len(calls) == at_call else 1)
    return LOSSES["nonsaturating"]._replace(d=d_loss, separable=False)      # called once in a step


@pytest.mark.parametrize("due", ["log_every", "grid_every", "checkpoint_every", "keep_every"])
def test_nan_is_an_error_before_anything_is_due(due):
    config, images, _ = prepare(SELDOM, {f"output.{due}": "4 steps", "length": "100 steps"})
    reached = []
    with pytest.raises(DivergedError, match=r"NaN or infinite near image 28.*--lr"):
        for tick in train(fresh(config), config, images, diverging(at_call=2)):
            reached.append(tick.step)
    assert reached == [1, 2, 3]


def test_nan_is_an_error_at_the_end_too():
    config, images, _ = prepare(SELDOM, {"length": "3 steps"})
    with pytest.raises(DivergedError):
        ticks_of(config, images, diverging(at_call=3), fresh(config))
    with pytest.raises(DivergedError):
        ticks_of(config, images, diverging(at_call=1), fresh(config), should_stop=lambda: "SIGINT")


def test_a_weight_that_diverged_without_a_trace_in_the_statistics_keeps_no_checkpoint():
    config, images, losses = prepare(SELDOM, {"output.checkpoint_every": "2 steps", "length": "4 steps"})
    state = fresh(config)
    state.stats.add = lambda stats: None                         # as if the statistics had been finite
    with pytest.raises(DivergedError, match="a weight"):
        for _ in train(state, config, images, losses):
            with torch.no_grad():
                state.D.head.weight.fill_(float("inf"))


# ---------------------------------------------------------------- arithmetic of lengths and cadences


@pytest.mark.parametrize(("length", "nimg"), [
    ("2 epochs", 40), ("0.5 epochs", 10), ("0.1 epochs", 2), ("3 steps", 20), ("4 steps", 28), ("1 kimg", 1000),
    ("0.0201 kimg", 21)])
def test_lengths_are_counted_in_images(length, nimg):
    assert nimg_of(Amount.parse(length), Schedule(20, 8, "ragged")) == nimg


every = st.one_of(
    st.builds(Amount, st.integers(1, 50).map(float), st.just("steps")),
    st.builds(Amount, st.floats(0.01, 5), st.just("epochs")), st.builds(Amount, st.floats(0.001, 1), st.just("kimg")))


@given(every, st.integers(1, 60), st.integers(1, 20), st.sampled_from(["ragged", "replacement"]), st.data())
def test_what_is_due_between_two_moments_is_due_in_one_of_the_halves(every, count, batch, tail, data):
    schedule = Schedule(count, batch, tail)
    a, b, c = sorted(schedule.nimg_at(data.draw(st.integers(0, 200))) for _ in range(3))
    assert passed(schedule, a, c, every) == (passed(schedule, a, b, every) or passed(schedule, b, c, every))


@pytest.mark.parametrize(("every", "steps"), [
    ("2 steps", [2, 4, 6, 8]), ("1 epochs", [3, 6, 9]), ("0.5 epochs", [2, 3, 5, 6, 8, 9]), ("0.02 kimg", [3, 6, 9]),
    ("0.001 kimg", [1, 2, 3, 4, 5, 6, 7, 8, 9]), ("5 epochs", [])])
def test_cadences_fall_on_the_first_step_at_or_after_their_moment(every, steps):
    schedule = Schedule(20, 8, "ragged")
    moments = [schedule.nimg_at(step) for step in range(10)]
    assert [step for step in range(1, 10) if passed(schedule, moments[step - 1], moments[step], Amount.parse(every))] == steps


def test_never_is_never():
    assert not passed(Schedule(20, 8, "ragged"), 0, 20_000, None)


@pytest.mark.parametrize(("distribution", "bound"), [("normal", 7.0), ("uniform", 1.0)])
def test_each_images_z_is_its_own_whatever_the_batch(distribution, bound):
    config = make_config({"network.z_distribution": distribution})
    together = draw_z(config, Purpose.Z, np.arange(64))
    apart = torch.cat([draw_z(config, Purpose.Z, np.arange(i, i + 16)) for i in range(0, 64, 16)])
    assert torch.equal(together, apart)
    assert together.shape == (64, 100)
    assert together.abs().max() <= bound
    assert not torch.equal(together, draw_z(config, Purpose.Z_G, np.arange(64)))
    spread = 1.0 if distribution == "normal" else 1 / 3**0.5
    assert float(together.std()) == pytest.approx(spread, rel=0.05)
