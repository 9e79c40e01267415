"""What a new run takes from other networks, what it says of that, and what it refuses."""

import copy
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import ganvas
from ganvas.checkpoint import read_checkpoint, write_checkpoint
from ganvas.config import make_config, to_yaml
from ganvas.errors import ConfigError, RunError
from ganvas.files import write_whole
from ganvas.generator import generator_file
from ganvas.networks.build import build_networks
from ganvas.presets import load_preset
from ganvas.rng import Purpose, latents
from ganvas.run_folder import RunFolder
from ganvas.starting import check_start, start_from
from ganvas.training.ema import update_ema
from ganvas.training.state import TrainState
from makers import Heard, image_folder
from plain import load_plain

TINY = {"data.size": "16", "network.g_channels": 8, "network.d_channels": 8, "network.z_dim": 6, "train.ema_half_life_kimg": 1}


def fresh(seed=0, options=TINY, **more):
    config = make_config(options, {name.replace("__", "."): value for name, value in more.items()})
    return config, TrainState.create(config, *build_networks(config.network, config.data, seed))


def trained(seed=1, **more):
    """A state whose tensors all differ from those of a new one, and G_ema from G."""
    config, state = fresh(seed, **more)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in state.tensors().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + (2 if name.startswith("G_ema") else 0.5))
            else:
                tensor.fill_(7)
    state.nimg = 4000
    return config, state


def write_state(path, config, state):
    write_checkpoint(path, state.tensors(), {
        "kind": "training state", **state.progress(), "config": config.model_dump(mode="json"), "elapsed_sec": 9.0})


def write_run(path, config, *states):
    """A run folder with these states' checkpoints."""
    folder = RunFolder.create(path)
    write_whole(folder.config, to_yaml(config))
    for state in states:
        write_state(folder.checkpoint(state.nimg), config, state)
        tensors, meta = generator_file(state.shown_generator, config, state.nimg, state.G_ema is not None)
        write_checkpoint(folder.generator(state.nimg), tensors, meta)
    return folder


def weights(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def start(where, config, state):
    heard = Heard()
    start_from(str(where), state, config, heard.tell)
    return "\n".join(heard.lines)


def refused(error, match, where, config, state):
    """That it is refused in these words, with nothing taken."""
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    with pytest.raises(error, match=match):
        start(where, config, state)
    assert same(state.tensors(), before)


# ---------------------------------------------------------------- from a run


@pytest.mark.parametrize("what", ["run", "checkpoint"])
def test_networks_and_average_are_taken_with_batch_norms_buffers_and_all_else_is_new(tmp_path, what):
    config, old = trained()
    folder = write_run(tmp_path / "old", config, old)
    new_config, state = fresh(seed=5, train__lr=0.5, train__batch=2)
    said = start(folder.path if what == "run" else folder.checkpoint(4000), new_config, state)
    for mine, its in ((state.G, old.G), (state.D, old.D), (state.G_ema, old.G_ema)):
        assert same(weights(mine), weights(its))
    assert state.nimg == 0
    assert not state.G_opt.state and not state.D_opt.state and not state.stats.counts
    n_G, n_D = len(old.G.state_dict()), len(old.D.state_dict())
    assert f": {n_G} of {n_G} tensors of G, {n_D} of {n_D} of D, as many of G_ema. A new run: " in said
    assert "not" not in said


def test_what_is_taken_trains_and_is_averaged_as_any(tmp_path):
    config, old = trained()
    folder = write_run(tmp_path / "old", config, old)
    config, state = fresh(seed=5)
    start(folder.path, config, state)
    for network, optimizer in ((state.G, state.G_opt), (state.D, state.D_opt)):
        before = weights(network)
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        assert all(not torch.equal(parameter, before[name]) for name, parameter in network.named_parameters())
    update_ema(state.G_ema, state.G, 0.0, 4)
    assert same(weights(state.G_ema), weights(state.G))


def test_the_best_checkpoint_of_a_run_is_taken_and_the_last_where_none_was_measured(tmp_path):
    config, first = trained(seed=1)
    _, last = trained(seed=2)
    last.nimg = 8000
    folder = write_run(tmp_path / "old", config, first, last)
    _, state = fresh()
    assert "its last checkpoint at 8.0 kimg" in start(folder.path, config, state)
    assert same(weights(state.G), weights(last.G))
    write_whole(folder.best, '{"version": 1, "nimg": 4000, "metric": "kid", "value": 0.1, "extractor": "random"}')
    assert "its best checkpoint at 4.0 kimg" in start(folder.path, config, state)
    assert same(weights(state.G), weights(first.G))
    folder.checkpoint(4000).unlink()
    assert "its last checkpoint (of its best one only the generator is left) at 8.0 kimg" in start(folder.path, config, state)
    assert same(weights(state.G), weights(last.G))


def test_a_torn_last_checkpoint_is_passed_over_and_said(tmp_path):
    config, first = trained(seed=1)
    _, last = trained(seed=2)
    last.nimg = 8000
    folder = write_run(tmp_path / "old", config, first, last)
    folder.checkpoint(8000).write_bytes(folder.checkpoint(8000).read_bytes()[:-9])
    _, state = fresh()
    said = start(folder.path, config, state)
    assert "passed over: " in said and f"{8000:012d}.safetensors" in said and "at 4.0 kimg" in said
    assert same(weights(state.G), weights(first.G))


def test_a_generators_own_file_gives_generator_and_average_and_the_discriminator_starts_anew(tmp_path):
    config, old = trained()
    folder = write_run(tmp_path / "old", config, old)
    _, state = fresh()
    D = weights(state.D)
    said = start(folder.generator(4000), config, state)
    assert same(weights(state.G), weights(old.G_ema)) and same(weights(state.G_ema), weights(old.G_ema))
    assert same(weights(state.D), D)
    assert "D starts anew, for there is none in it" in said


def test_an_average_that_the_old_run_lacked_starts_from_its_generator(tmp_path):
    config, old = trained(train__ema_half_life_kimg=0)
    folder = write_run(tmp_path / "old", config, old)
    config, state = fresh()
    start(folder.path, config, state)
    assert same(weights(state.G_ema), weights(old.G))


def test_an_average_that_the_new_run_lacks_is_left(tmp_path):
    config, old = trained()
    folder = write_run(tmp_path / "old", config, old)
    config, state = fresh(train__ema_half_life_kimg=0)
    assert "G_ema" not in start(folder.path, config, state)
    assert state.G_ema is None
    assert same(weights(state.G), weights(old.G))


def test_weights_are_taken_into_the_memory_format_that_the_new_run_has(tmp_path):
    config, old = trained()
    folder = write_run(tmp_path / "old", config, old)
    config, state = fresh(execution__channels_last=True)
    start(folder.path, config, state)
    assert same(weights(state.G), weights(old.G))
    assert state.G.to_image.weight.is_contiguous(memory_format=torch.channels_last)


# ---------------------------------------------------------------- what does not fit


def test_with_another_number_of_channels_only_first_and_last_layers_start_anew(tmp_path):
    config, old = trained(data__channels=4, data__transparency="keep")
    folder = write_run(tmp_path / "old", config, old)
    config, state = fresh()
    before = {"G": weights(state.G), "D": weights(state.D)}
    said = start(folder.path, config, state)
    for which, layer in (("G", "to_image.weight"), ("D", "blocks.0.0.weight")):
        its = getattr(old, which).state_dict()
        for name, tensor in getattr(state, which).state_dict().items():
            assert torch.equal(tensor, before[which][name] if name == layer else its[name]), name
    n_G, n_D = len(before["G"]), len(before["D"])
    assert f"{n_G - 1} of {n_G} tensors of G (not to_image.weight (8, 4, 4, 4) -> (8, 3, 4, 4))" in said
    assert f"{n_D - 1} of {n_D} of D (not blocks.0.0.weight (8, 4, 4, 4) -> (8, 3, 4, 4))" in said


def test_what_an_average_lacks_it_has_from_the_generator_so_that_both_begin_alike(tmp_path):
    config, old = trained(data__channels=4, data__transparency="keep")
    folder = write_run(tmp_path / "old", config, old)
    config, state = fresh(seed=3)
    with torch.no_grad():
        for tensor in state.G_ema.state_dict().values():
            tensor.fill_(9)                                    # whatever it held
    start(folder.path, config, state)
    assert torch.equal(state.G_ema.to_image.weight, state.G.to_image.weight)
    assert torch.equal(state.G_ema.stem.weight, old.G_ema.stem.weight)


def test_with_another_head_the_tensors_of_the_old_one_are_counted_as_without_a_place(tmp_path):
    config, old = trained(network__d_head="linear")
    folder = write_run(tmp_path / "old", config, old)
    config, state = fresh()
    said = start(folder.path, config, state)
    assert "(not head.weight (1, 16, 4, 4); 2 more of its tensors have no place here)" in said


def test_a_deeper_generator_makes_the_images_of_the_one_it_starts_from(tmp_path):
    """Its new blocks begin as nothing, and the old ones lie where they lay, though later layers have other names."""
    residual = {"network__family": "residual", "network__g_channels": 4, "network__d_channels": 4, "network__g_norm": "none"}
    config, old = fresh(1, network__g_depth=1, **residual)
    with torch.no_grad():
        for parameter in old.G.parameters():
            parameter.normal_(0, 0.3)
    write_state(tmp_path / "old.safetensors", config, old)
    config, state = fresh(2, network__g_depth=2, **residual)
    start(tmp_path / "old.safetensors", config, state)
    z = torch.randn(3, 6)
    with torch.no_grad():
        assert_close(state.G(z), old.G(z), rtol=0, atol=1e-6)


def test_for_larger_images_the_layers_of_equal_width_are_taken(tmp_path):
    config, old = trained()
    write_state(tmp_path / "old.safetensors", config, old)
    config, state = fresh(data__size="32")
    with pytest.raises(ConfigError, match=r"data\.size 16x16 there and 32x32 here"):
        start(tmp_path / "old.safetensors", config, state)              # most parameters lie in the new stage
    config, old = trained(data__size="128")
    write_state(tmp_path / "old.safetensors", config, old)
    config, state = fresh(data__size="256")
    start(tmp_path / "old.safetensors", config, state)
    assert torch.equal(state.G.to_image.weight, old.G.to_image.weight)
    assert torch.equal(state.G.stem.weight, old.G.stem.weight)
    assert torch.equal(state.D.blocks[0][0].weight, old.D.blocks[0][0].weight)


def test_many_tensors_that_start_anew_are_named_in_part(tmp_path):
    config, old = trained()
    folder = write_run(tmp_path / "old", config, old)
    config, state = fresh(network__d_channels=6)
    assert " and 3 more)" in start(folder.path, config, state)


@pytest.mark.parametrize(("more", "why"), [
    ({"network__g_channels": 6}, r"network\.g_channels 8 there and 6 here"),
    ({"network__z_dim": 3, "network__g_channels": 4},
     r"network\.z_dim 6 there and 3 here; network\.g_channels 8 there and 4 here"),
    ({"data__size": "28", "network__family": "mnist28"},
     r"data\.size 16x16 there and 28x28 here; network\.family dcgan there and mnist28 here"),
])
def test_where_hardly_anything_of_the_generator_fits_the_run_is_refused_with_the_options_that_differ(tmp_path, more, why):
    config, old = trained()
    folder = write_run(tmp_path / "old", config, old)
    config, state = fresh(**more)
    refused(ConfigError, rf"--init-from .*old: only \d+ % of G's parameters fit \({why}.*--config .*old.*leave --init-from out",
            folder.path, config, state)


def test_the_limit_is_a_third_of_the_generators_parameters(tmp_path):
    config, state = fresh()
    numbers = {name: p.numel() for name, p in state.G.named_parameters()}
    def share_without(names):
        return 1 - sum(numbers[name] for name in names) / sum(numbers.values())
    _, old = trained()
    enough, too_few = ["blocks.0.0.weight"], ["blocks.0.0.weight", "stem.weight"]
    assert share_without(too_few) < 1 / 3 <= share_without(enough)
    for left_out in (enough, too_few):
        torch.save({name: tensor for name, tensor in old.G.state_dict().items() if name not in left_out}, tmp_path / "netG.pth")
        if left_out is enough:
            start(tmp_path / "netG.pth", config, copy.deepcopy(state))
        else:
            refused(ConfigError, f"only {int(100 * share_without(too_few))} % of G", tmp_path / "netG.pth", config, state)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("which", ["G", "D", "G_ema"])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, which, bad):
    config, old = trained()
    with torch.no_grad():
        list(getattr(old, which).state_dict().values())[1].view(-1)[-1] = bad
    name = list(old.G.state_dict() if which != "D" else old.D.state_dict())[1]
    folder = write_run(tmp_path / "old", config, old)
    refused(RunError, rf"--init-from .*old: {which}'s {name} would hold NaN or infinite", folder.path, *fresh())


def test_numbers_too_large_for_float32_are_refused(tmp_path):
    config, state = fresh()
    _, old = trained()
    torch.save({name: tensor.double() * 1e300 if tensor.is_floating_point() else tensor
                for name, tensor in old.G.state_dict().items()}, tmp_path / "netG.pth")
    refused(RunError, r"G's stem\.weight would hold NaN or infinite", tmp_path / "netG.pth", config, state)


def test_weights_that_are_not_finite_and_do_not_fit_are_nobodys_concern(tmp_path):
    config, old = trained(data__channels=4, data__transparency="keep")
    with torch.no_grad():
        old.D.blocks[0][0].weight.fill_(float("nan"))
    folder = write_run(tmp_path / "old", config, old)
    config, state = fresh()
    start(folder.path, config, state)
    assert state.all_finite()


# ---------------------------------------------------------------- classes


def conditional(*names, **more):
    return {"network__family": "residual", "network__g_channels": 4, "network__d_channels": 4, "network__conditional": True,
            "data__class_names": list(names), "data__class_counts": [5] * len(names)} | more


PLAIN = {"network__family": "residual", "network__g_channels": 4, "network__d_channels": 4}
Z = TINY["network.z_dim"]


def started(tmp_path, before, now):
    """(the old state, the new one, the new one before it started, what was said)"""
    config, old = trained(**before)
    folder = write_run(tmp_path / "old", config, old)
    config, state = fresh(5, **now)
    first = copy.deepcopy(state)
    return old, state, first, start(folder.path, config, state)


def test_classes_are_taken_by_their_names_wherever_they_stand_and_new_ones_start_anew(tmp_path):
    old, state, first, said = started(tmp_path, conditional("cat", "dog"), conditional("bird", "cat"))
    for mine, its in ((state.G, old.G), (state.G_ema, old.G_ema)):
        assert torch.equal(mine.stem.weight[:, :Z], its.stem.weight[:, :Z])
        assert torch.equal(mine.stem.weight[:, Z + 1], its.stem.weight[:, Z])            # cat
        assert torch.equal(mine.stem.weight[:, Z], first.G.stem.weight[:, Z])            # bird
    assert torch.equal(state.D.classes.weight[1], old.D.classes.weight[0])
    assert torch.equal(state.D.classes.weight[0], first.D.classes.weight[0])
    assert "Classes: by name cat; anew bird; without a place here dog. A new run" in said


def test_the_same_classes_in_another_order_keep_their_own_weights(tmp_path):
    old, state, _, said = started(tmp_path, conditional("cat", "dog", "owl"), conditional("dog", "owl", "cat"))
    assert torch.equal(state.G.stem.weight[:, Z:], old.G.stem.weight[:, [Z + 1, Z + 2, Z]])
    assert torch.equal(state.D.classes.weight, old.D.classes.weight[[1, 2, 0]])
    assert "Classes" not in said


def test_more_or_fewer_classes_keep_what_z_has_learnt(tmp_path):
    for before, now, said_of_them in (
            (PLAIN, conditional("cat", "dog"), "Classes: anew cat, dog. "),
            (conditional("cat", "dog"), PLAIN, "Classes: without a place here cat, dog. "),
            (conditional("cat"), conditional("cat", "dog", "owl"), "Classes: by name cat; anew dog, owl. ")):
        old, state, first, said = started(tmp_path / said_of_them[:14], before, now)
        assert torch.equal(state.G.stem.weight[:, :Z], old.G.stem.weight[:, :Z])
        if now is not PLAIN:
            assert torch.equal(state.G.stem.weight[:, -1], first.G.stem.weight[:, -1])
        assert said_of_them in said


def test_another_z_with_as_many_more_classes_is_not_taken_for_the_same_stem(tmp_path):
    _, state, first, said = started(
        tmp_path, conditional("cat", "dog", network__z_dim=7), conditional("cat", "dog", "owl", network__z_dim=6))
    assert torch.equal(state.G.stem.weight, first.G.stem.weight)
    assert "not stem.weight" in said


def test_classes_of_a_file_that_does_not_name_them_start_anew(tmp_path):
    _, old = trained(**conditional("cat", "dog"))
    torch.save({"netG": old.G.state_dict(), "netD": old.D.state_dict()}, tmp_path / "both.pth")
    config, state = fresh(5, **conditional("cat", "dog"))
    first = copy.deepcopy(state)
    said = start(tmp_path / "both.pth", config, state)
    assert torch.equal(state.G.stem.weight[:, :Z], old.G.stem.weight[:, :Z])
    assert torch.equal(state.G.stem.weight[:, Z:], first.G.stem.weight[:, Z:])
    assert torch.equal(state.D.classes.weight, first.D.classes.weight)
    assert "(not classes.weight (2, " in said and "Classes: anew cat, dog. " in said
    config, state = fresh(5, **conditional("cat", "dog", network__z_dim=5))               # the file is of 6 and two classes
    first = copy.deepcopy(state)
    assert "not stem.weight" in start(tmp_path / "both.pth", config, state)
    assert torch.equal(state.G.stem.weight, first.G.stem.weight)


def test_spectral_norm_s_vectors_are_taken_by_class_too(tmp_path):
    more = {"network__d_spectral_norm": True}
    old, state, first, _ = started(tmp_path, conditional("cat", "dog", **more), conditional("dog", "owl", **more))
    name = "classes.parametrizations.weight.original"
    mine, its, new = (network.state_dict()[name] for network in (state.D, old.D, first.D))
    assert torch.equal(mine[0], its[1]) and torch.equal(mine[1], new[1])


# ---------------------------------------------------------------- from a tutorial


@pytest.fixture(scope="module")
def tutorial():
    """The tutorial's networks after some batches, so that batch norm has statistics."""
    pytest.importorskip("torchvision", reason="the plain scripts import torchvision: pip install ganvas[examples]")
    torch.manual_seed(0)
    G, D = load_plain("pytorch-faces-64").make_networks()
    with torch.no_grad():
        for _ in range(2):
            D(G(torch.randn(8, 100)))
    return G.eval(), D.eval()


def faces(**more):
    return fresh(3, load_preset("pytorch-faces-64").values, **more)


@pytest.mark.parametrize("wrap", [
    lambda weights: weights,
    lambda weights: {"netG": weights, "epoch": 5},
    lambda weights: {"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}},
])
def test_the_tutorials_generator_makes_the_same_images_here(tmp_path, tutorial, wrap):
    theirs, _ = tutorial
    torch.save(wrap(theirs.state_dict()), tmp_path / "netG.pth")
    config, state = faces(train__ema_half_life_kimg=1)
    said = start(tmp_path / "netG.pth", config, state)
    z = torch.from_numpy(latents(0, Purpose.SAMPLE, np.arange(4), 100, "normal"))
    with torch.no_grad():
        assert_close(state.G.eval()(z), theirs(z), rtol=0, atol=1e-6)
    assert same(weights(state.G_ema), weights(state.G))
    n = len(theirs.state_dict())
    assert f"netG.pth: {n} of {n} tensors of G, as many of G_ema, D starts anew" in said


def test_the_tutorials_discriminator_is_known_by_its_first_convolution(tmp_path, tutorial):
    _, theirs = tutorial
    torch.save(theirs.state_dict(), tmp_path / "netD.pth")
    config, state = faces()
    G, images = weights(state.G), torch.rand(4, 3, 64, 64) * 2 - 1
    said = start(tmp_path / "netD.pth", config, state)
    with torch.no_grad():
        assert_close(torch.sigmoid(state.D.eval()(images)), theirs(images), rtol=0, atol=1e-6)
    assert same(weights(state.G), G)
    n = len(theirs.state_dict())
    assert f"netD.pth: {n} of {n} tensors of D, G starts anew" in said


def test_both_of_a_tutorials_networks_come_from_one_file(tmp_path, tutorial):
    theirs_G, theirs_D = tutorial
    torch.save({"generator_state_dict": theirs_G.state_dict(), "discriminator_state_dict": theirs_D.state_dict(),
                "optimizer_state_dict": {"state": {}, "param_groups": []}, "epoch": 3}, tmp_path / "checkpoint.pt")
    config, state = faces()
    assert "anew" not in start(tmp_path / "checkpoint.pt", config, state)
    for mine, its in ((state.G, theirs_G), (state.D, theirs_D)):
        assert all(torch.equal(a, b) for a, b in zip(mine.state_dict().values(), its.state_dict().values(), strict=True))


def test_a_tutorials_generator_of_other_channels_gives_all_but_its_last_layer(tmp_path, tutorial):
    theirs, _ = tutorial
    torch.save(theirs.state_dict(), tmp_path / "netG.pth")
    config, state = faces(data__channels=1)
    last = weights(state.G)["to_image.weight"]
    n = len(theirs.state_dict())
    assert (f"{n - 1} of {n} tensors of G (not to_image.weight (64, 1, 4, 4); 1 more of its tensors have no place here)"
            in start(tmp_path / "netG.pth", config, state))
    assert torch.equal(state.G.to_image.weight, last)
    assert torch.equal(state.G.stem.weight, theirs.main[0].weight)


def test_a_tutorials_generator_that_is_another_network_is_refused(tmp_path, tutorial):
    path = tmp_path / "netG.pth"
    torch.save(tutorial[0].state_dict(), path)
    refused(ConfigError, r"netG\.pth: only 0 % of G's parameters fit \(not stem\.weight.*--preset", path, *fresh())


def test_batch_norms_vectors_of_one_length_do_not_take_each_others_place(tmp_path):
    """Without running averages in the file, the mean must not be its weight."""
    config, state = fresh(network__bn_running=True)
    _, old = trained(network__bn_running=False)
    torch.save({f"net.{name}": tensor for name, tensor in old.G.state_dict().items()}, tmp_path / "netG.pth")
    start(tmp_path / "netG.pth", config, state)
    for name, tensor in state.G.state_dict().items():
        if name in old.G.state_dict():
            assert torch.equal(tensor, old.G.state_dict()[name]), name
        else:
            assert float(tensor.float().mean()) in (0.0, 1.0), name           # as batch norm begins


def test_layers_of_other_networks_are_paired_in_order_where_some_are_missing(tmp_path):
    config, old = trained()
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in old.G.state_dict()))
    theirs = {f"main.{layers.index(name.rpartition('.')[0])}.{name.rpartition('.')[2]}": tensor
              for name, tensor in old.G.state_dict().items() if not name.startswith("stem_norm.")}
    torch.save(theirs, tmp_path / "netG.pth")
    config, state = fresh()
    before = weights(state.G)
    start(tmp_path / "netG.pth", config, state)
    for name, tensor in state.G.state_dict().items():
        assert torch.equal(tensor, before[name] if name.startswith("stem_norm.") else old.G.state_dict()[name]), name


def test_our_own_networks_saved_by_torch_are_taken_by_name_whatever_their_order(tmp_path):
    config, old = trained()
    torch.save(dict(reversed(old.G.state_dict().items())), tmp_path / "mine.bin")
    _, state = fresh()
    start(tmp_path / "mine.bin", config, state)
    assert same(weights(state.G), weights(old.G))


def test_half_precision_is_taken_as_float32(tmp_path):
    config, old = trained()
    torch.save({name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in old.G.state_dict().items()},
               tmp_path / "netG.pth")
    _, state = fresh()
    start(tmp_path / "netG.pth", config, state)
    assert {p.dtype for p in state.G.parameters()} == {torch.float32}
    assert_close(weights(state.G), weights(old.G), rtol=1e-3, atol=1e-3)


def test_a_narrow_generator_that_begins_as_ours_does_is_no_discriminator(tmp_path):
    options = {"network__g_channels": 4, "data__size": "6"}
    config, old = trained(**options)
    assert old.G.stem.weight.shape[1] == 4, "as many maps as a transparent image has channels"
    torch.save(old.G.state_dict(), tmp_path / "netG.pth")
    _, state = fresh(**options)
    assert "of G, " in start(tmp_path / "netG.pth", config, state)
    assert same(weights(state.G), weights(old.G))


class _Evil:
    def __reduce__(self):
        return os.mkdir, ("ran-code",)


def test_a_file_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"netG": nn.Linear(2, 2).state_dict(), "extra": _Evil()}, "netG.pth")
    refused(RunError, r"netG\.pth: holds more than tensors.*could run code", "netG.pth", *fresh())
    assert not Path("ran-code").exists()


def test_checkpoint_files_of_something_else_are_refused(tmp_path):
    write_checkpoint(tmp_path / "features.safetensors", {"mean": torch.ones(3)}, {"kind": "features"})
    refused(RunError, r"features\.safetensors: holds no networks", tmp_path / "features.safetensors", *fresh())


# ---------------------------------------------------------------- before anything slow


def checked(**more):
    """Networks of a new run and its options, as `check_start` takes them."""
    config, state = fresh(**more)
    return (state.G, state.D), config


@pytest.mark.parametrize("where", ["run", "run/", "run/checkpoints/000000004000.safetensors", "../{name}/run"])
@pytest.mark.parametrize("has_checkpoints", [True, False])
def test_the_run_itself_is_refused_with_how_to_continue_it(tmp_path, monkeypatch, where, has_checkpoints):
    monkeypatch.chdir(tmp_path)
    folder = write_run(Path("run"), *trained()) if has_checkpoints else RunFolder(Path("run"))
    with pytest.raises(RunError, match=r"that is the same run: leave --init-from out to continue it, or .*--out"):
        check_start(where.format(name=tmp_path.name), folder, *checked())


def test_what_is_not_there_is_refused_and_near_runs_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(Path("runs/characters"), *trained())
    for where, said in (
            ("runs/charakters", "Did you mean runs.characters"), ("netG.pth", "no such file"), (".", "not a run folder")):
        with pytest.raises(RunError, match=said):
            check_start(where, RunFolder(Path("elsewhere") / "new"), *checked())
    check_start("runs/characters", RunFolder(Path("new")), *checked())


def test_a_run_that_goes_on_no_longer_needs_what_it_started_from(tmp_path):
    config, state = trained()
    folder = write_run(tmp_path / "new", config, state)
    check_start(str(tmp_path / "gone"), folder, *checked())


def test_what_cannot_be_started_from_is_said_before_anything_slow(tmp_path):
    config, old = trained()
    torn, pickled = write_run(tmp_path / "torn", config, old), tmp_path / "refused.pth"
    torn.checkpoint(4000).write_bytes(torn.checkpoint(4000).read_bytes()[:-9])
    torch.save({"netG": nn.Linear(2, 2)}, pickled)
    bad = trained()[1]
    with torch.no_grad():
        bad.G_ema.stem.weight[0, 0] = float("nan")
    whole, failed = write_run(tmp_path / "whole", config, old), write_run(tmp_path / "failed", config, bad)
    new = RunFolder(tmp_path / "new")
    for where, error, said in (
            (torn.path, RunError, "no checkpoint can be read"), (torn.checkpoint(4000), RunError, "torn"),
            (pickled, RunError, "more than tensors"), (failed.path, RunError, "G_ema's stem.weight would hold NaN")):
        with pytest.raises(error, match=re.escape(said)):
            check_start(str(where), new, *checked())
    with pytest.raises(ConfigError, match=r"only 0 % of G.*network\.g_channels 8 there and 6 here"):
        check_start(str(whole.path), new, *checked(network__g_channels=6, network__z_dim=5))
    networks, config = checked()
    before = [weights(network) for network in networks]
    check_start(str(whole.path), new, networks, config)
    assert all(same(weights(network), its) for network, its in zip(networks, before, strict=True))


def test_a_run_without_a_checkpoint_is_nothing_to_start_from(tmp_path):
    config, _ = fresh()
    folder = write_run(tmp_path / "old", config)
    refused(RunError, r"old: has no checkpoint yet", folder.path, *fresh())


# ---------------------------------------------------------------- in a training


@pytest.fixture
def characters(tmp_path, monkeypatch):
    """A folder to work in with a run, runs/characters, whose only checkpoint is at 4,000 images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ganvas.job.draw_end", lambda folder, tell: None)      # takes longer than the training
    monkeypatch.setattr("ganvas.job.report", lambda folder: [])
    image_folder(Path("sprites"), n=16)
    config, state = fresh(1, load_preset("pytorch-faces-64").values, data__size="16", **{
        name.replace(".", "__"): value for name, value in SETTINGS.items()})
    state.nimg = 4000
    return write_run(Path("runs/characters"), config, state)


SETTINGS = {"network.g_channels": 4, "network.d_channels": 4, "output.checkpoint_every": "2 steps", "output.grid_n": 4,
            "measure.share": 0, "train.ema_half_life_kimg": 1}


def train(**more):
    """What `ganvas train sprites` says, with runs/characters to start from."""
    heard = Heard()
    ganvas.train(**{"source": "sprites", "init_from": "runs/characters", "preset": "pytorch-faces-64", "size": "16", "batch": 8,
                    "threads": 1, "device": "cpu", "precision": "fp32", "holdout": 0, "mirror": False, "settings": SETTINGS,
                    "watch": heard, **more})
    return "\n".join(heard.lines)


def state_at(run, nimg):
    return read_checkpoint(RunFolder(Path(run)).checkpoint(nimg))[0]


def test_a_new_run_counts_from_zero_and_goes_on_bit_for_bit_without_what_it_started_from(characters):
    train(steps=4, out="once")
    said = train(steps=2, out="twice")
    assert "init-from runs/characters (its last checkpoint at 4.0 kimg): " in said and "A new run: " in said
    begun, origin = state_at("twice", 16), state_at(characters.path, 4000)
    assert float(begun["G_opt/step/stem.weight"]) == 2.0
    assert 0 < float((begun["G/stem.weight"] - origin["G/stem.weight"]).abs().max()) < 0.01, "two steps away from its start"
    with pytest.raises(RunError, match=r"train\.init_from: runs/characters -> "):
        train(init_from="", steps=4, out="twice")

    shutil.rmtree(characters.path)
    said = train(steps=4, out="twice")
    assert "init-from" not in said and "goes on from 16 images (bit-exact)" in said
    assert same(state_at("twice", 32), state_at("once", 32))


def test_continuing_a_run_from_itself_is_refused_and_leaves_it_as_it_was(characters):
    before = characters.checkpoint(4000).read_bytes()
    with pytest.raises(RunError, match="that is the same run: leave --init-from out to continue it"):
        train(out="runs/characters", steps=4)
    assert [path.read_bytes() for _, path in characters.list_checkpoints()] == [before]


def test_a_start_that_is_refused_leaves_no_run_behind(characters):
    for where, match in (("runs/nothing", "no such run folder"), ("netG.pth", "no such file")):
        with pytest.raises(RunError, match=match):
            train(init_from=where, steps=2)
    with pytest.raises(ConfigError, match=r"network\.g_channels 4 there and 3 here"):
        train(steps=2, settings=SETTINGS | {"network.g_channels": 3})
    assert not Path("runs/sprites").exists()
