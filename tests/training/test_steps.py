import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from ganvas.config import UpdatePlan, make_config
from ganvas.losses import LOSSES, loss_pair
from ganvas.networks.build import build_networks
from ganvas.presets import load_preset, preset_names
from ganvas.training.loop import policy_of
from ganvas.training.penalties import NONE, Penalties, penalties_at
from ganvas.training.state import TrainState
from ganvas.training.steps import generator_step, train_step, turns_at
from tiny_steps import TINY, N, draws_at, inputs, make_state, values, watched


def step(state, plan=None, loss="nonsaturating", r1_gamma=0.0, turns="DG", seed=0):
    plan = plan or UpdatePlan()
    return train_step(state, plan, loss_pair(loss, plan.real_label), Penalties(r1=r1_gamma), turns, *inputs(seed))


def optimizer_steps(optimizer):
    done = []
    optimizer.register_step_post_hook(lambda *_: done.append(1))
    return done


def changed(network, before):
    return [name for name, tensor in network.named_parameters() if not torch.equal(tensor, before[name])]


# ---------------------------------------------------------------- whose turn


@pytest.mark.parametrize(("turns", "expected"), [
    ("both", ["DG", "DG", "DG", "DG"]), ("alternate_g_first", ["G", "D", "G", "D"]), ("alternate_d_first", ["D", "G", "D", "G"])])
def test_turns_go_as_the_plan_says(turns, expected):
    assert [turns_at(UpdatePlan(turns=turns), i) for i in range(4)] == expected


@pytest.mark.parametrize(("turns", "g_moves", "d_moves"), [("DG", True, True), ("D", False, True), ("G", True, False)])
def test_only_the_network_whose_turn_it_is_learns(turns, g_moves, d_moves):
    state = make_state()
    G_before, D_before = values(state.G), values(state.D)
    step(state, turns=turns)
    assert bool(changed(state.G, G_before)) == g_moves
    assert bool(changed(state.D, D_before)) == d_moves


def test_the_discriminators_weights_get_no_gradient_in_the_generators_turn():
    state = make_state()
    step(state, turns="G")
    assert all(parameter.grad is None for parameter in state.D.parameters())
    assert all(parameter.grad is not None for parameter in state.G.parameters())
    assert all(parameter.requires_grad for parameter in state.D.parameters())


def test_the_generator_gets_no_gradient_in_the_discriminators_turn():
    state = make_state()
    step(state, turns="D")
    assert all(parameter.grad is None for parameter in state.G.parameters())
    assert all(parameter.grad is not None for parameter in state.D.parameters())


def test_what_a_user_froze_in_the_discriminator_stays_frozen():
    state = make_state()
    frozen = state.D.blocks[0][0].weight.requires_grad_(False)
    before = frozen.clone()
    for seed in range(3):
        step(state, seed=seed)
    assert not frozen.requires_grad
    assert torch.equal(frozen, before)


def test_the_discriminator_learns_again_after_an_error_in_the_generators_turn():
    state = make_state()
    broken = LOSSES["hinge"]._replace(g=lambda real, fake: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generator_step(state, UpdatePlan(), broken, inputs()[0], inputs()[0])
    assert all(parameter.requires_grad for parameter in state.D.parameters())


# ---------------------------------------------------------------- passes through the networks


@pytest.mark.parametrize(("g_fakes", "given"), [("reuse", ["z"]), ("same_z", ["z", "z"]), ("fresh", ["z", "z_fresh"])])
@pytest.mark.parametrize("d_step", ["joint", "real_then_fake"])
def test_the_generator_runs_as_often_and_on_such_z_as_the_plan_says(g_fakes, given, d_step):
    state = make_state()
    seen_by_G, seen_by_D = watched(state.G), watched(state.D)
    step(state, UpdatePlan(g_fakes=g_fakes, d_step=d_step))
    named = dict(zip(("reals", "z", "z_fresh"), inputs(), strict=True))
    assert len(seen_by_G) == len(given)
    assert all(torch.equal(seen, named[name]) for seen, name in zip(seen_by_G, given, strict=True))
    assert len(seen_by_D) == 3
    assert torch.equal(seen_by_D[0], named["reals"])
    assert torch.equal(seen_by_D[1], seen_by_D[2]) == (g_fakes != "fresh")


@pytest.mark.parametrize(("turns", "d_passes"), [("D", 2), ("G", 1)])
@pytest.mark.parametrize("g_fakes", ["reuse", "same_z", "fresh"])
def test_alternating_turns_run_the_generator_once_on_z(turns, d_passes, g_fakes):
    state = make_state()
    seen_by_G, seen_by_D = watched(state.G), watched(state.D)
    step(state, UpdatePlan(g_fakes=g_fakes), turns=turns)
    assert [torch.equal(seen, inputs()[1]) for seen in seen_by_G] == [True]
    assert len(seen_by_D) == d_passes


def test_only_a_pairing_loss_shows_the_reals_to_d_in_gs_turn():
    for name, pair in LOSSES.items():
        state = make_state()
        seen = watched(state.D)
        step(state, loss=name, turns="G")
        assert len(seen) == 1 + pair.g_sees_reals, name


@pytest.mark.parametrize(("d_step", "d_steps"), [("joint", 1), ("real_then_fake", 2)])
def test_optimizers_step_as_often_as_the_plan_says(d_step, d_steps):
    state = make_state()
    D_done, G_done = optimizer_steps(state.D_opt), optimizer_steps(state.G_opt)
    step(state, UpdatePlan(d_step=d_step))
    assert (len(D_done), len(G_done)) == (d_steps, 1)


# preset: batch-norm updates of G and D in two steps
NORM_UPDATES = {
    "d2l-pokemon-64": (4, 6), "udacity-pokemon-32": (4, 6), "coursera-mnist-28": (4, 6), "pytorch-faces-64": (2, 6),
    "keras-pokemon-64": (4, 6)}


@pytest.mark.parametrize("name", NORM_UPDATES)
def test_batch_norm_sees_as_many_batches_as_in_the_original(name):
    config = make_config(load_preset(name).values, TINY, {"data.size": 28 if "mnist" in name else 16, "data.channels": 3})
    state = TrainState.create(config, *build_networks(config.network, config.data, seed=0))
    for i in range(2):
        reals = torch.rand(4, 3, config.data.size.height, config.data.size.width)
        train_step(state, config.plan, loss_pair("nonsaturating", config.plan.real_label), NONE, turns_at(config.plan, i), reals,
                   torch.randn(4, 5), torch.randn(4, 5))
    counts = [{int(b) for n, b in net.named_buffers() if n.endswith("num_batches_tracked")} for net in (state.G, state.D)]
    assert counts == [{updates} for updates in NORM_UPDATES[name]]


def test_reals_and_fakes_are_normalised_apart():
    state = make_state()
    D, (reals, z, _) = copy.deepcopy(state.D), inputs()
    stats = step(state, turns="D")
    fakes = copy.deepcopy(state.G)(z).detach()
    apart = D(reals).sigmoid().mean(), D(fakes).sigmoid().mean()
    together = D(torch.cat([reals, fakes])).sigmoid().chunk(2)
    assert_close(torch.stack([stats["D(x)"], stats["D(G(z))_before"]]), torch.stack(apart))
    assert not torch.allclose(stats["D(x)"], together[0].mean())


# ---------------------------------------------------------------- sizes of the updates


def gradients(plan, turns="D"):
    state = make_state()
    step(state, plan, turns=turns)
    network = state.D if turns == "D" else state.G
    return [parameter.grad for parameter in network.parameters()]


def test_half_ds_loss_is_half_of_both_separate_updates():
    plan = UpdatePlan(d_step="real_then_fake")
    seen = {}
    for scale in (1.0, 0.5):
        state = make_state(train__lr=1e-12)                      # so that the second update starts where the first did
        pulls = seen[scale] = []
        state.D_opt.register_step_pre_hook(
            lambda *_, D=state.D, pulls=pulls: pulls.append([p.grad.clone() for p in D.parameters()]))
        step(state, plan.model_copy(update={"d_scale": scale}), turns="D")
    for whole, half in zip(seen[1.0], seen[0.5], strict=True):
        for a, b in zip(whole, half, strict=True):
            assert_close(b, a / 2)


@pytest.mark.parametrize("turns", ["D", "G"])
def test_a_summed_loss_pulls_as_often_as_there_are_images(turns):
    mean, total = gradients(UpdatePlan(), turns), gradients(UpdatePlan(reduction="sum"), turns)
    for a, b in zip(mean, total, strict=True):
        assert_close(b, N * a, rtol=1e-4, atol=1e-5)


def test_half_ds_loss_pulls_half_as_much_and_is_told_as_half():
    for a, b in zip(gradients(UpdatePlan()), gradients(UpdatePlan(d_scale=0.5)), strict=True):
        assert_close(b, a / 2)
    assert_close(step(make_state(), UpdatePlan(d_scale=0.5))["Loss_D"], step(make_state())["Loss_D"] / 2)


def test_real_then_fake_is_two_plain_updates_one_after_the_other():
    state, twin = make_state(), make_state()
    step(state, UpdatePlan(d_step="real_then_fake"), turns="D")
    reals, z, _ = inputs()
    fakes = twin.G(z).detach()
    for images, target in ((reals, 1.0), (fakes, 0.0)):
        logits = twin.D(images)
        twin.D_opt.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target)).backward()
        twin.D_opt.step()
    for ours, theirs in zip(state.D.parameters(), twin.D.parameters(), strict=True):
        assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_r1_adds_half_gamma_times_the_squared_gradient_and_is_told_apart():
    state, twin = make_state(), make_state()
    stats = step(state, r1_gamma=2.0, turns="D")
    reals, z, _ = inputs()
    reals.requires_grad_()
    real_logits, fake_logits = twin.D(reals), twin.D(twin.G(z).detach())
    (slope,) = torch.autograd.grad(real_logits.sum(), reals, create_graph=True)
    squared = slope.square().sum(dim=(1, 2, 3)).mean()
    loss = nn.functional.softplus(-real_logits).mean() + nn.functional.softplus(fake_logits).mean()
    (loss + squared).backward()                                  # gamma / 2 = 1
    assert_close(stats["R1"], squared.detach())
    assert_close(stats["Loss_D"], loss.detach())
    for ours, theirs in zip(state.D.parameters(), twin.D.parameters(), strict=True):
        assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------- statistics


@pytest.mark.parametrize("g_fakes", ["reuse", "same_z", "fresh"])
def test_probabilities_are_of_the_discriminator_before_and_after_its_update(g_fakes):
    state = make_state()
    G, D, (reals, z, z_fresh) = copy.deepcopy(state.G), copy.deepcopy(state.D), inputs()
    stats = step(state, UpdatePlan(g_fakes=g_fakes))
    assert_close(stats["D(x)"], D(reals).sigmoid().mean().detach())
    assert_close(stats["D(G(z))_before"], D(G(z)).sigmoid().mean().detach())
    fakes = G(z_fresh if g_fakes == "fresh" else z)
    assert_close(stats["D(G(z))_after"], state.D(fakes).sigmoid().mean().detach())      # G's own turn left D as it was


def test_losses_are_told_for_each_image_whatever_the_reduction():
    mean, total = (step(make_state(), UpdatePlan(reduction=reduction), turns="D") for reduction in ("mean", "sum"))
    assert_close(mean["Loss_D"], total["Loss_D"])
    fresh = make_state()
    reals, z, _ = inputs()
    by_image = nn.functional.softplus(-fresh.D(reals)) + nn.functional.softplus(fresh.D(fresh.G(z)))
    assert_close(mean["Loss_D"], by_image.mean().detach())


OF_D = ["Loss_D", "D(x)", "D(G(z))_before", "logit_real", "logit_fake", "grad_D"]
OF_G = ["Loss_G", "D(G(z))_after", "grad_G"]


@pytest.mark.parametrize(("turns", "names"), [
    ("DG", [*OF_D, *OF_G]), ("D", OF_D), ("G", OF_G)])
def test_only_what_was_measured_is_told_and_holds_no_graph(turns, names):
    stats = step(make_state(), turns=turns)
    assert list(stats) == names
    assert not any(value.requires_grad for value in stats.values())
    assert all(value.shape == () for value in stats.values())


@pytest.mark.parametrize("d_step", ["joint", "real_then_fake"])
def test_logits_are_those_of_the_discriminators_turn(d_step):
    state = make_state(train__lr=1e-12)                      # so that D is the same for the second half
    G, D, (reals, z, _) = copy.deepcopy(state.G), copy.deepcopy(state.D), inputs()
    stats = step(state, UpdatePlan(d_step=d_step))
    assert_close(stats["logit_real"], D(reals).mean().detach())
    assert_close(stats["logit_fake"], D(G(z)).mean().detach())


def length_of(network):
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]).norm()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("r1_gamma", [0.0, 5.0])
def test_the_gradients_length_is_that_of_all_that_the_optimizer_goes_by(reduction, r1_gamma):
    state = make_state()
    stats = step(state, UpdatePlan(reduction=reduction), r1_gamma=r1_gamma)
    assert_close(stats["grad_D"], length_of(state.D), rtol=1e-5, atol=0)
    assert_close(stats["grad_G"], length_of(state.G), rtol=1e-5, atol=0)


def test_of_two_updates_of_d_the_mean_length_is_told():
    state = make_state()
    lengths = []
    state.D_opt.register_step_pre_hook(lambda *_: lengths.append(length_of(state.D)))
    stats = step(state, UpdatePlan(d_step="real_then_fake"), turns="D")
    assert len(lengths) == 2
    assert_close(stats["grad_D"], sum(lengths) / 2, rtol=1e-5, atol=0)
    assert not torch.isclose(lengths[0], lengths[1])


def test_what_is_frozen_has_no_gradient_to_measure():
    state = make_state()
    state.D.blocks[0][0].weight.requires_grad_(False)
    assert_close(step(state, turns="D")["grad_D"], length_of(state.D), rtol=1e-5, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_discriminator_learns_to_tell_fixed_fakes_from_fixed_reals(loss):
    state = make_state(train__lr=0.002)
    first = step(state, loss=loss, turns="D")["Loss_D"]
    for _ in range(15):
        last = step(state, loss=loss, turns="D")
    assert last["Loss_D"] < first
    assert last["D(x)"] > last["D(G(z))_before"]


# ---------------------------------------------------------------- the host never waits


@pytest.mark.parametrize("name", preset_names())
def test_a_step_never_asks_for_a_value(name):
    """On the meta device tensors have no values: reading one, as `.item()` or `if loss > 1` would, raises."""
    config = make_config(load_preset(name).values, {"network.g_channels": 4, "network.d_channels": 4})
    G, D = (network.to("meta") for network in build_networks(config.network, config.data, seed=0))
    adam = [torch.optim.Adam(network.parameters(), config.train.lr, foreach=True) for network in (G, D)]
    state = TrainState(G, D, None, *adam)
    reals = torch.empty(4, config.data.channels, config.data.size.height, config.data.size.width, device="meta")
    z = torch.empty(4, config.network.z_dim, device="meta")
    losses, policy = loss_pair(config.train.loss, config.plan.real_label), policy_of(config.augment)
    for i in range(2):
        stats = train_step(state, config.plan, losses, penalties_at(config.train, 0, 0), turns_at(config.plan, i), reals, z, z,
                           draws_at(4 * i, policy, 4))
        state.stats.add(stats)
    with pytest.raises(RuntimeError, match="meta"):
        state.stats.means()


# ---------------------------------------------------------------- in bfloat16


def test_in_bfloat16_only_the_layers_compute_in_it():
    state = make_state(execution__precision="bf16", execution__channels_last=True, network__conv_bias=True)
    seen = {network: [] for network in ("conv", "head", "images")}
    state.D.blocks[1][0].register_forward_hook(lambda layer, inputs, output: seen["conv"].append(output.dtype))
    state.D.head.register_forward_hook(lambda layer, inputs, output: seen["head"].append(output.dtype))
    state.G.register_forward_hook(lambda network, inputs, output: seen["images"].append(output.dtype))
    stats = step(state)
    assert set(seen["conv"]) == {torch.bfloat16} and set(seen["head"]) == set(seen["images"]) == {torch.float32}
    assert {tensor.dtype for tensor in stats.values()} == {torch.float32}
    assert {tensor.dtype for name, tensor in state.tensors().items() if "num_batches" not in name} == {torch.float32}


def test_a_step_in_bfloat16_moves_the_weights_nearly_as_one_in_float32():
    options = {"train__betas": [0.0, 0.0], "train__adam_eps": 1.0, "train__lr": 1.0}           # moves by the gradient itself
    moved = {}
    for precision in ("fp32", "bf16"):
        state = make_state(execution__precision=precision, execution__channels_last=precision == "bf16", **options)
        def weights(state=state):
            return torch.cat([value.detach().flatten() for value in (*state.D.parameters(), *state.G.parameters())])
        before = weights()
        step(state)
        moved[precision] = weights() - before
    assert 0.9 < torch.cosine_similarity(moved["bf16"], moved["fp32"], dim=0) < 0.9999


def test_where_a_penalty_is_computed_d_computes_in_float32():
    state, seen = make_state(execution__precision="bf16"), []
    state.D.blocks[1][0].register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
    step(state, r1_gamma=1.0)
    assert seen == [torch.float32, torch.float32, torch.bfloat16], "reals, fakes, and the fakes of G's turn"


def test_the_reals_are_done_with_before_the_fakes_are_made():
    state, order = make_state(), []
    state.D.register_forward_hook(lambda *_: order.append("D"))
    state.G.register_forward_hook(lambda *_: order.append("G"))
    state.D.head.register_full_backward_hook(lambda *_: order.append("back"))
    step(state)
    assert order == ["D", "back", "G", "D", "back", "D", "back"], "one graph of D in memory at a time"
    order.clear()
    step(state, loss="relativistic")
    assert order[:3] == ["D", "G", "D"], "a pairing loss needs both"


def test_reals_and_fakes_apart_give_the_gradients_of_both_together():
    moved = []
    for separable in (True, False):
        state = make_state(train__betas=[0.0, 0.0], train__adam_eps=1.0, train__lr=1.0)         # moves by the gradient itself
        before = values(state.D)
        plan = UpdatePlan(d_scale=0.5)
        train_step(state, plan, loss_pair("nonsaturating", 1.0)._replace(separable=separable), Penalties(r1=1.0), "D", *inputs())
        moved.append({name: tensor - before[name] for name, tensor in values(state.D).items()})
    assert_close(moved[0], moved[1])
