import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from ganvas import generator as generator_module
from ganvas.checkpoint import read_checkpoint, write_checkpoint
from ganvas.config import make_config, to_yaml
from ganvas.errors import ConfigError, RunError
from ganvas.files import write_whole
from ganvas.generator import (
    BATCH_NORM_BATCHES,
    CHUNK,
    ImageGenerator,
    Sampler,
    alpha_of,
    for_sampling,
    generator_file,
    load,
    load_discriminator,
    progress_grid,
    reestimate_batch_norm,
)
from ganvas.networks.build import build_networks
from ganvas.networks.latents import draw_latents
from ganvas.ops.pixels import to_uint8
from ganvas.presets import load_preset, preset_names
from ganvas.rng import Purpose, latents
from ganvas.run_folder import RunFolder
from ganvas.training.state import TrainState

TINY = {"network.g_channels": 4, "network.d_channels": 4, "network.z_dim": 5, "data.size": "12x20"}


def config_for(*layers):
    return make_config(TINY, *layers)


def preset_config(name):
    return config_for(load_preset(name).values, {**TINY, "data.size": "28" if "mnist" in name else "12x20"})


def sampler(config, seed=0):
    """A generator with batch-norm statistics of its own."""
    G, _ = build_networks(config.network, config.data, seed)
    for _ in range(3):
        with torch.no_grad():
            G(torch.from_numpy(draw_latents(config, 0, Purpose.Z, np.arange(16))))
    return ImageGenerator(G, config, nimg=0, averaged=False)


# ---------------------------------------------------------------- the same seed, the same picture


@pytest.mark.parametrize("name", preset_names())
def test_a_picture_of_a_seed_is_the_same_in_every_call(name):
    config = preset_config(name)
    generator = sampler(config)
    all_of_them = generator.sample(70, seed=3)
    assert all_of_them.shape == (70, config.data.size.height, config.data.size.width, config.data.channels)
    assert all_of_them.dtype == np.uint8
    for n, start in ((1, 0), (1, 69), (64, 0), (5, 60), (6, 64)):
        assert np.array_equal(generator.sample(n, seed=3, start=start), all_of_them[start : start + n])
    again = sampler(config)
    again.sample(7, seed=5)                                      # a history, which must not matter
    assert np.array_equal(again.sample(70, seed=3), all_of_them)


def test_pictures_differ_between_numbers_and_seeds():
    generator = sampler(config_for())
    first, other = generator.sample(4, seed=0), generator.sample(4, seed=1)
    assert len({picture.tobytes() for picture in (*first, *other)}) == 8


def test_no_pictures_are_an_empty_array():
    assert sampler(config_for()).sample(0).shape == (0, 20, 12, 3)


def test_sampling_is_eval_mode_and_leaves_the_network_alone():
    generator = sampler(config_for())
    before = [buffer.clone() for buffer in generator.network.buffers()]
    images = generator(torch.zeros(2, 5))
    assert torch.equal(images[0], images[1])
    assert not images.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(generator.network.buffers(), before, strict=True))


def test_pictures_are_the_networks_images_of_the_seeds_latents():
    generator = sampler(config_for())
    images = generator.network(torch.from_numpy(generator.z(CHUNK, seed=2)))
    assert_close(generator(torch.from_numpy(generator.z(CHUNK, seed=2))), images, rtol=0, atol=1e-5)
    away = generator.sample(CHUNK, seed=2).astype(int) - to_uint8(images).permute(0, 2, 3, 1).numpy()
    assert np.abs(away).max() <= 1 and (away != 0).mean() < 0.001                  # only what lay at a rounding's edge
    assert np.array_equal(generator.z(2, seed=2, start=5), generator.z(7, seed=2)[5:])


@pytest.mark.parametrize("name", preset_names())
def test_the_network_keeps_the_weights_it_was_given(name):
    config = preset_config(name)
    G, _ = build_networks(config.network, config.data, seed=0)
    before = copy.deepcopy(G.state_dict())
    generator = ImageGenerator(G, config, nimg=0, averaged=False)
    generator.sample(1)
    assert generator.network is G
    after = generator.network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(tensor, before[key]) and tensor.is_contiguous() for key, tensor in after.items())


def set_to_zero(network):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()


def load_zeros(network):
    network.load_state_dict({name: torch.zeros_like(tensor) for name, tensor in network.state_dict().items()}, assign=True)


def replace_a_layers_weight(network):
    network.to_image.weight = nn.Parameter(torch.zeros_like(network.to_image.weight))


def point_elsewhere(network):
    network.to_image.weight.data = torch.zeros_like(network.to_image.weight)


def change_a_statistic(network):
    network.stem_norm.running_mean.fill_(3)


@pytest.mark.parametrize("change", [set_to_zero, load_zeros, replace_a_layers_weight, point_elsewhere, change_a_statistic])
@pytest.mark.parametrize("sampled_before", [True, False])
def test_pictures_are_those_of_the_network_as_it_is_now(change, sampled_before):
    generator = sampler(config_for())
    z = torch.from_numpy(generator.z(4))
    before = generator(z) if sampled_before else None
    change(generator.network)
    assert_close(generator(z), generator.network(z).detach(), rtol=0, atol=1e-5)
    assert before is None or not torch.equal(generator(z), before)


def test_a_network_is_folded_once_as_long_as_it_stays_the_same(monkeypatch):
    folded, fold = [], generator_module.folded
    monkeypatch.setattr(generator_module, "folded", lambda *given: folded.append(1) or fold(*given))
    generator = sampler(config_for())
    assert folded == []                                        # whoever never samples need not wait
    for _ in range(3):
        generator.sample(2)
    assert folded == [1]


@torch.inference_mode()
def test_a_network_made_in_inference_mode_is_sampled_and_may_change():
    generator = sampler(config_for())
    before = generator.sample(2)
    set_to_zero(generator.network)
    assert not np.array_equal(generator.sample(2), before)


class OwnGenerator(nn.Module):
    """Its view() needs images that lie in memory as they are indexed."""

    def __init__(self):
        super().__init__()
        self.grow = nn.Sequential(nn.ConvTranspose2d(5, 3, (20, 12)), nn.BatchNorm2d(3))

    def forward(self, z):
        return self.grow(z[:, :, None, None]).view(len(z), -1).tanh().unflatten(1, (3, 20, 12))


def test_own_networks_are_sampled_as_they_are():
    own = OwnGenerator()
    generator = ImageGenerator(own, config_for(), nimg=0, averaged=False)
    images = own(torch.from_numpy(generator.z(CHUNK)))
    assert np.array_equal(generator.sample(2), to_uint8(images)[:2].permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_latents_come_from_the_prior_of_the_run(distribution):
    z = sampler(config_for({"network.z_distribution": distribution})).z(500)
    assert (np.abs(z).max() <= 1) == (distribution == "uniform")
    assert z.std() == pytest.approx(1.0 if distribution == "normal" else 3**-0.5, rel=0.05)


# ---------------------------------------------------------------- from a run folder


def make_run(path, config, nimgs=(8, 1234), networks=None):
    """A run folder with a checkpoint for each of `nimgs`, of networks seeded by it."""
    folder = RunFolder.create(path)
    write_whole(folder.config, to_yaml(config))
    for nimg in nimgs:
        state = TrainState.create(config, *(networks or build_networks(config.network, config.data, seed=nimg)))
        state.nimg = nimg
        write_checkpoint(folder.generator(nimg), *generator_file(state.G, config, nimg, averaged=False))
        meta = {"kind": "training state", **state.progress(), "config": config.model_dump(mode="json"), **alpha_of(config)}
        write_checkpoint(folder.checkpoint(nimg), state.tensors(), meta)
    return folder


def expected_sample(config, nimg):
    return ImageGenerator(build_networks(config.network, config.data, seed=nimg)[0], config, nimg, False).sample(2)


@pytest.mark.parametrize(("checkpoint", "nimg"), [("last", 1234), ("1234", 1234), ("1,234", 1234), ("1_234", 1234), ("8", 8)])
def test_a_run_gives_the_generator_of_the_checkpoint_asked_for(tmp_path, checkpoint, nimg):
    config = config_for({"plan.g_fakes": "fresh", "output.keep_every": "5 kimg"})
    make_run(tmp_path / "run", config)
    generator = load(tmp_path / "run", checkpoint)
    assert (generator.nimg, generator.averaged, generator.config) == (nimg, False, config)
    assert (generator.z_dim, generator.image_size, generator.image_channels) == (5, (20, 12), 3)
    assert np.array_equal(generator.sample(2), expected_sample(config, nimg))


def test_a_generators_own_file_is_enough(tmp_path):
    config = config_for()
    folder = make_run(tmp_path / "run", config)
    alone = folder.generator(8).rename(tmp_path / "sent by a friend.safetensors")
    assert np.array_equal(load(alone).sample(2), expected_sample(config, 8))


def test_the_discriminator_comes_from_the_training_state(tmp_path):
    config = config_for()
    folder = make_run(tmp_path / "run", config)
    D, found, nimg = load_discriminator(folder, "8")
    assert (found, nimg, D.training) == (config, 8, False)
    expected = build_networks(config.network, config.data, seed=8)[1].eval()
    images = torch.rand(3, 3, 20, 12)
    assert torch.equal(D(images), expected(images))


def test_an_unknown_checkpoint_is_told_the_known_ones(tmp_path):
    make_run(tmp_path / "run", config_for())
    for checkpoint in ("9", "first", ""):
        with pytest.raises(RunError, match=rf"no checkpoint '{checkpoint}'.*last, 8, 1234"):
            load(tmp_path / "run", checkpoint)


def test_a_run_without_a_checkpoint_says_so(tmp_path):
    make_run(tmp_path / "run", config_for(), nimgs=())
    with pytest.raises(RunError, match="no checkpoint yet"):
        load(tmp_path / "run")


def test_a_training_state_is_no_generator(tmp_path):
    folder = make_run(tmp_path / "run", config_for())
    with pytest.raises(RunError, match="generator-… file"):
        load(folder.checkpoint(8))


def test_what_is_no_run_is_refused_by_name(tmp_path):
    with pytest.raises(RunError, match="nowhere"):
        load(tmp_path / "nowhere")


def rewritten(path, **changed):
    """The checkpoint at `path` with other notes; None takes one away."""
    tensors, meta = read_checkpoint(path)
    write_checkpoint(path, tensors, {name: value for name, value in (meta | changed).items() if value is not None})


def test_networks_that_learnt_straight_alpha_are_refused_and_others_are_not(tmp_path):
    folder = make_run(tmp_path / "run", config_for({"data.channels": 4, "data.transparency": "keep"}))
    assert load(folder.path).image_channels == 4
    rewritten(folder.generator(1234), alpha=None)
    for where in (folder.path, folder.generator(1234)):
        with pytest.raises(RunError, match=rf"{where.name}: was made by an earlier Ganvas.* straight alpha.*Train it anew"):
            load(where)
    assert load_discriminator(folder)[1].data.channels == 4
    rewritten(folder.checkpoint(1234), alpha=None)
    with pytest.raises(RunError, match="run: was made by an earlier Ganvas"):
        load_discriminator(folder)


def test_images_without_alpha_need_no_word_on_it(tmp_path):
    folder = make_run(tmp_path / "run", config_for())
    assert "alpha" not in read_checkpoint(folder.generator(8))[1]


class MyGenerator(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.width, self.linear = width, nn.Linear(5, width * 20 * 12)

    def forward(self, z):
        return self.linear(z).unflatten(1, (self.width, 20, 12)).tanh()


def test_a_users_own_generator_is_loaded_into_the_module_given(tmp_path):
    config, trained = config_for({"network.family": "custom"}), MyGenerator()
    make_run(tmp_path / "run", config, nimgs=(8,), networks=(trained, nn.Sequential(nn.Flatten(), nn.Linear(720, 1))))
    generator = load(tmp_path / "run", generator=MyGenerator())
    z = torch.randn(2, 5)
    assert torch.equal(generator(z), trained(z))
    with pytest.raises(ConfigError, match="generator=MyGenerator"):
        load(tmp_path / "run")
    with pytest.raises(RunError, match=r"run.*do not fit this network"):
        load(tmp_path / "run", generator=MyGenerator(width=4))


# ---------------------------------------------------------------- statistics of the averaged generator


def test_reestimated_statistics_are_those_of_the_seeded_batches():
    config = config_for({"train.seed": 4})
    G, _ = build_networks(config.network, config.data, seed=0)
    measured, network = {}, copy.deepcopy(G).train()
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            def note(module, given, name=name):
                x = given[0].double()
                measured.setdefault(name, []).append((x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3))))
            module.register_forward_pre_hook(note)
    with torch.no_grad():
        for batch in range(BATCH_NORM_BATCHES):
            indices = np.arange(batch * CHUNK, (batch + 1) * CHUNK)
            network(torch.from_numpy(latents(4, Purpose.BATCH_NORM, indices, 5, "normal")))

    reestimate_batch_norm(G.eval(), config)
    assert len(measured) == 2
    for name, batches in measured.items():
        norm = G.get_submodule(name)
        assert_close(norm.running_mean.double(), torch.stack([mean for mean, _ in batches]).mean(dim=0), rtol=1e-4, atol=1e-6)
        assert_close(norm.running_var.double(), torch.stack([var for _, var in batches]).mean(dim=0), rtol=1e-4, atol=1e-8)
        assert (norm.momentum, norm.training) == (0.1, False)


def test_reestimating_forgets_what_was_there_and_is_repeatable():
    config = config_for()
    G, _ = build_networks(config.network, config.data, seed=0)
    other = copy.deepcopy(G)
    for buffer in other.buffers():
        buffer.fill_(100)
    for network in (G, G, other):
        reestimate_batch_norm(network, config)
    assert all(torch.equal(a, b) for a, b in zip(G.buffers(), other.buffers(), strict=True))


def test_only_an_averaged_generator_is_reestimated_and_always_in_a_copy(monkeypatch):
    config = config_for()
    G, _ = build_networks(config.network, config.data, seed=0)
    before = {name: tensor.clone() for name, tensor in G.state_dict().items()}
    averaged, plain = (for_sampling(G, config, averaged) for averaged in (True, False))
    assert all(torch.equal(tensor, before[name]) for name, tensor in G.state_dict().items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in plain.state_dict().items())
    assert not torch.equal(averaged.state_dict()["stem_norm.running_var"], before["stem_norm.running_var"])
    assert (averaged.training, plain.training, G.training) == (False, False, True)


def test_a_samplers_copy_is_that_of_its_moment_and_shared_by_all_who_ask_for_it():
    config = config_for()
    G, _ = build_networks(config.network, config.data, seed=0)
    sampler, other_runs = Sampler(G, config, averaged=True), Sampler(G, config, averaged=True)
    first = sampler.at(8)
    for_sampling_now = for_sampling(G, config, averaged=True).state_dict()
    assert all(torch.equal(tensor, for_sampling_now[name]) for name, tensor in first.state_dict().items())
    set_to_zero(G)
    assert sampler.at(8) is first
    assert first.stem.weight.any()
    for later in (sampler.at(16), other_runs.at(8)):           # the same module and number, but another run
        assert not later.stem.weight.any()


def test_a_generator_without_running_averages_needs_no_statistics(monkeypatch):
    monkeypatch.setattr(generator_module, "draw_latents", lambda *args: pytest.fail("drew z"))
    config = preset_config("radford-faces-64")
    reestimate_batch_norm(build_networks(config.network, config.data, seed=0)[0], config)


# ---------------------------------------------------------------- progress pictures


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("averaged", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_a_progress_grid_leaves_the_network_as_it_was(mode, averaged, training):
    config = config_for({"output.grid_mode": mode, "output.grid_n": 6})
    G, _ = build_networks(config.network, config.data, seed=0)
    G.train(training)
    before = {name: tensor.clone() for name, tensor in G.state_dict().items()}
    grid = progress_grid(Sampler(G, config, averaged), nimg=100)
    assert (grid.shape, grid.dtype) == ((6, 3, 20, 12), np.uint8)
    assert G.training == training
    assert all(torch.equal(tensor, before[name]) for name, tensor in G.state_dict().items())
    assert all(parameter.requires_grad for parameter in G.parameters())


def test_train_mode_pictures_are_normalised_by_their_own_batch():
    config = config_for({"output.grid_mode": "train", "output.grid_n": 6})
    G, _ = build_networks(config.network, config.data, seed=0)
    z = torch.from_numpy(latents(config.train.seed, Purpose.GRID, np.arange(6), 5, "normal"))
    assert np.array_equal(progress_grid(Sampler(G, config, False), 0), to_uint8(copy.deepcopy(G).train()(z)).numpy())
    in_eval = config_for({"output.grid_mode": "eval", "output.grid_n": 6})
    assert np.array_equal(progress_grid(Sampler(G, in_eval, False), 0), to_uint8(copy.deepcopy(G).eval()(z)).numpy())


def test_fixed_z_stay_and_fresh_z_change():
    def grids(grid_z):
        config = config_for({"output.grid_z": grid_z, "output.grid_n": 4})
        G, _ = build_networks(config.network, config.data, seed=0)
        return [progress_grid(Sampler(G, config, False), nimg) for nimg in (0, 100)]
    assert np.array_equal(*grids("fixed"))
    assert not np.array_equal(*grids("fresh"))


def test_a_failed_picture_leaves_the_buffers_too():
    config = config_for({"output.grid_mode": "train"})
    G, _ = build_networks(config.network, config.data, seed=0)
    before = [buffer.clone() for buffer in G.buffers()]
    G.to_image.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        progress_grid(Sampler(G.eval(), config, False), 0)
    assert all(torch.equal(a, b) for a, b in zip(G.buffers(), before, strict=True))
    assert not G.training


# ---------------------------------------------------------------- classes

CLASSES = {"network.family": "residual", "network.conditional": True, "data.class_names": ["cat", "dog", "owl"],
           "data.class_counts": [10, 30, 60]}


def knows_classes(*layers, seed=0):
    """A conditional generator of which a class can be seen in every picture."""
    generator = sampler(config_for(CLASSES, *layers), seed)
    with torch.no_grad():
        generator.network.stem.weight.normal_(0, 1, generator=torch.Generator().manual_seed(seed))
    return generator


def test_a_conditional_generator_carries_its_classes_and_any_other_none():
    assert knows_classes().class_names == ("cat", "dog", "owl")
    assert sampler(config_for(CLASSES | {"network.conditional": False})).class_names == ()


@pytest.mark.parametrize("label", [0, 2])
def test_pictures_of_a_class_are_the_same_in_every_call_and_unlike_those_of_others(label):
    generator = knows_classes()
    pictures = generator.sample(70, seed=3, label=label)
    for n, start in ((1, 69), (64, 0), (5, 60)):
        assert np.array_equal(generator.sample(n, seed=3, start=start, label=label), pictures[start : start + n])
    assert np.array_equal(knows_classes().sample(70, seed=3, label=label), pictures)
    other = generator.sample(70, seed=3, label=1)
    assert all((a != b).any() for a, b in zip(pictures, other, strict=True))
    z = generator.z(70, seed=3, label=label)
    assert np.array_equal(z[:, :5], generator.z(70, seed=3, label=1)[:, :5])
    assert (z[:, 5:] == np.eye(3)[label]).all()


def test_without_a_label_classes_come_as_often_as_in_the_images():
    generator = knows_classes()
    z = generator.z(1000, seed=1)
    assert np.abs(z[:, 5:].mean(0) - [0.1, 0.3, 0.6]).max() < 0.05
    pictures = generator.sample(8, seed=1)
    for k, number in enumerate(z[:8, 5:].argmax(1)):
        assert np.array_equal(pictures[k], generator.sample(1, seed=1, start=k, label=int(number))[0])


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_progress_grid_shows_the_classes_one_after_the_other(mode):
    config = config_for(CLASSES, {"output.grid_n": 7, "output.grid_mode": mode})
    given = []
    G, _ = build_networks(config.network, config.data, seed=0)
    G.register_forward_pre_hook(lambda module, z: given.append(z[0]))
    progress_grid(Sampler(G, config, averaged=False), 100)
    assert given[0][:, 5:].argmax(1).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert (given[0][:, 5:].sum(1) == 1).all()


def test_statistics_of_an_average_are_of_classes_as_the_images_have_them():
    config = config_for(CLASSES)
    given = []
    G, _ = build_networks(config.network, config.data, seed=0)
    G.register_forward_pre_hook(lambda module, z: given.append(z[0]))
    reestimate_batch_norm(G, config)
    drawn = torch.cat(given)
    assert drawn.shape == (BATCH_NORM_BATCHES * CHUNK, 8)
    assert (drawn[:, 5:].mean(0) - torch.tensor([0.1, 0.3, 0.6])).abs().max() < 0.05


def test_a_checkpoint_brings_the_classes_back(tmp_path):
    config = config_for(CLASSES)
    make_run(tmp_path / "run", config, nimgs=(8,))
    generator = load(tmp_path / "run")
    assert generator.class_names == ("cat", "dog", "owl")
    own = ImageGenerator(build_networks(config.network, config.data, seed=8)[0], config, 8, averaged=False)
    assert np.array_equal(generator.sample(2, label=1), own.sample(2, label=1))
    D, _, _ = load_discriminator(RunFolder(tmp_path / "run"))
    assert D(torch.zeros(2, 3, 20, 12)).shape == D(torch.zeros(2, 3, 20, 12), torch.tensor([0, 2])).shape == (2,)
