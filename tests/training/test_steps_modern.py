"""What a step has besides the classics': penalties, classes, and augmentation of what D sees."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from ganvas.config import TrainConfig, UpdatePlan, make_config
from ganvas.losses import loss_pair
from ganvas.ops.diff_augment import Policy
from ganvas.rng import Purpose
from ganvas.training.draws import NOTHING
from ganvas.training.penalties import NONE, Penalties, penalties_at
from ganvas.training.state import TrainState
from ganvas.training.steps import SPREAD, train_step
from tiny_steps import TINY, N, draws_at, inputs, make_state, values, watched

# ---------------------------------------------------------------- penalties


def d_gradient(state, penalties=NONE, loss="nonsaturating", plan=None, draws=None, labels=None, given=None):
    """(D's gradient in its turn, the step's statistics), at weights that stay (almost) where they are."""
    stats = train_step(state, plan or UpdatePlan(), loss_pair(loss, 1.0), penalties, "D", *(given or inputs()),
                       draws or draws_at(0), labels)
    return torch.cat([parameter.grad.flatten() for parameter in state.D.parameters()]), stats


def still(**options):
    """A state that learns next to nothing, so that several steps have the same weights, and has no statistics of batches."""
    return make_state(network__family="residual", network__g_norm="none", train__lr=1e-12, **options)


@pytest.mark.parametrize("loss", ["nonsaturating", "relativistic"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_r1_and_r2_add_half_gamma_times_the_squared_gradients_at_reals_and_at_fakes(loss, reduction):
    state, twin = make_state(), make_state()
    found, stats = d_gradient(state, Penalties(r1=2.0, r2=6.0), loss, UpdatePlan(reduction=reduction))
    reals, z, _ = inputs()
    reals.requires_grad_()
    fakes = twin.G(z).detach().requires_grad_()
    real_logits, fake_logits = twin.D(reals), twin.D(fakes)
    slopes = [torch.autograd.grad(logits.sum(), images, create_graph=True)[0].square().sum(dim=(1, 2, 3))
              for logits, images in ((real_logits, reals), (fake_logits, fakes))]
    softplus = nn.functional.softplus
    by_image = softplus(fake_logits - real_logits) if loss == "relativistic" else softplus(-real_logits) + softplus(fake_logits)
    total = by_image + slopes[0] + 3 * slopes[1]
    (total.mean() if reduction == "mean" else total.sum()).backward()
    assert_close(stats["R1"], slopes[0].mean().detach())
    assert_close(stats["R2"], slopes[1].mean().detach())
    assert_close(stats["Loss_D"], by_image.mean().detach())      # told apart
    assert_close(found, torch.cat([parameter.grad.flatten() for parameter in twin.D.parameters()]), rtol=1e-4, atol=1e-6)


def test_lazy_penalties_pull_on_average_as_eager_ones_do():
    gradients = {}
    for every in (1, 4):
        state, train = still(), TrainConfig(r1_gamma=20, r2_gamma=5, penalty_every=every)
        gradients[every] = [d_gradient(state, penalties_at(train, step, 0))[0] for step in range(4)]
    eager, lazy = (torch.stack(gradients[every]).mean(0) for every in (1, 4))
    assert_close(lazy, eager, rtol=1e-3, atol=1e-6)
    assert not torch.allclose(gradients[4][0], gradients[4][1], rtol=1e-2)       # the first is all the penalty there is
    assert torch.allclose(gradients[4][1], d_gradient(still())[0], rtol=1e-3, atol=1e-6)


class Smooth(nn.Module):
    """A discriminator that is nearly straight over the spread of the differences."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(3 * 12 * 12, 3), nn.Linear(3, 1)

    def forward(self, images):
        return self.outer(self.inner(images.flatten(1)).tanh()).flatten()


def test_differences_pull_on_average_as_exact_penalties_do():
    G, given = still().G.double(), [tensor.double() for tensor in inputs()]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = TrainState.create(make_config(TINY, {"train.lr": 1e-12}), G, Smooth().double())
    penalties = Penalties(r1=200.0, r2=200.0)
    plain, (exact, told) = d_gradient(state, given=given)[0], d_gradient(state, penalties, given=given)
    draws = [d_gradient(state, penalties._replace(differences=True), draws=draws_at(N * k), given=given) for k in range(200)]
    found, wanted = torch.stack([gradient for gradient, _ in draws]) - plain, exact - plain
    by_chance = (found.var(0).sum() / len(draws)).sqrt()         # the expected length of the mean's error
    assert (found.mean(0) - wanted).norm() < 1.5 * by_chance < 0.6 * wanted.norm()
    along = found @ wanted / wanted.square().sum()
    assert abs(along.mean() - 1) < 4 * along.std() / len(draws) ** 0.5 < 0.2
    for name in ("R1", "R2"):
        told_by_differences = torch.stack([stats[name] for _, stats in draws])
        error = told_by_differences.std() / len(draws) ** 0.5
        assert abs(told_by_differences.mean() - told[name]) < 4 * error < 0.3 * told[name]


def test_differences_of_one_step_are_those_of_its_draws_at_reals_and_fakes():
    state, twin, draws = still(), still(), draws_at(12)
    _, stats = d_gradient(state, Penalties(r1=1.0, r2=1.0, differences=True), draws=draws)
    reals, z, _ = inputs()
    for name, images, purpose in (("R1", reals, Purpose.PENALTY), ("R2", twin.G(z), Purpose.PENALTY_FAKE)):
        nearby = images + SPREAD * draws.signs(images, purpose)
        slope = (twin.D(nearby) - twin.D(images)) / SPREAD
        assert_close(stats[name], slope.square().mean().detach(), rtol=1e-4, atol=0)


def test_wgan_gp_looks_between_each_real_and_its_fake():
    state, twin, draws = make_state(), make_state(), draws_at(12)
    found, stats = d_gradient(state, Penalties(gp=10.0), "wasserstein", draws=draws)
    reals, z, _ = inputs()
    fakes = twin.G(z).detach()
    shares = draws.shares(reals).view(-1, 1, 1, 1)
    real_logits, fake_logits = twin.D(reals), twin.D(fakes)
    between = (shares * reals + (1 - shares) * fakes).requires_grad_()
    (slope,) = torch.autograd.grad(twin.D(between).sum(), between, create_graph=True)
    penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    (fake_logits.mean() - real_logits.mean() + 10 * penalty).backward()
    assert_close(stats["GP"], penalty.detach())
    assert_close(found, torch.cat([parameter.grad.flatten() for parameter in twin.D.parameters()]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("penalties", [Penalties(r1=1.0), Penalties(r1=1.0, r2=1.0), Penalties(r1=1.0, r2=1.0, differences=True),
                                       Penalties(gp=10.0)])
def test_with_spectral_norm_penalties_and_weights_stay_finite(penalties):
    state = make_state(network__family="residual", network__d_depth=1, network__d_spectral_norm=True, train__lr=0.002)
    for seed in range(10):
        stats = train_step(state, UpdatePlan(), loss_pair("hinge", 1.0), penalties, "DG", *inputs(seed), draws_at(6 * seed))
        assert all(value.isfinite() for value in stats.values())
    assert state.all_finite()


# ---------------------------------------------------------------- classes


def conditional(**options):
    return make_state(network__family="residual", network__conditional=True, data__class_names=["a", "b"],
                      data__class_counts=[3, 3], **options)


def labelled(seed=0):
    reals, z, z_fresh = inputs(seed)
    labels = torch.tensor([0, 1, -1, 1, 0, 0])
    row = torch.nn.functional.one_hot(labels.clamp_min(0), 2) * (labels >= 0)[:, None]
    return (reals, *(torch.cat([latents, row.float()], 1) for latents in (z, z_fresh))), labels


@pytest.mark.parametrize("penalties", [
    NONE, Penalties(r1=1.0, r2=1.0), Penalties(r1=1.0, r2=1.0, differences=True), Penalties(gp=1.0)])
def test_d_is_told_the_classes_wherever_it_looks(penalties):
    state, told = conditional(), []
    state.D.register_forward_pre_hook(lambda module, given: told.append(given[1:]))
    given, labels = labelled()
    train_step(state, UpdatePlan(), loss_pair("relativistic", 1.0), penalties, "DG", *given, draws_at(0), labels)
    looks = 4 + 2 * penalties.differences + bool(penalties.gp)
    assert len(told) == looks
    assert all(len(more) == 1 and torch.equal(more[0], labels) for more in told)


def test_wrong_classes_pull_otherwise_than_right_ones():
    given, labels = labelled()
    state = conditional(train__lr=1e-12)
    for module in (state.D.classes, state.D.head):
        module.weight.data.normal_(0, 1, generator=torch.Generator().manual_seed(0))
    right, wrong = (d_gradient(state, given=given, labels=which)[0] for which in (labels, 1 - labels.clamp_min(0)))
    assert torch.dist(right, wrong) > 0.01 * right.norm()


# ---------------------------------------------------------------- augmentation

POLICY = Policy(1.0, 0.25, 0.5, 1.0)


@pytest.mark.parametrize(("loss", "places"), [
    ("nonsaturating", [Purpose.AUGMENT_D_REAL, Purpose.AUGMENT_D_FAKE, Purpose.AUGMENT_G_FAKE]),
    ("relativistic", [Purpose.AUGMENT_D_REAL, Purpose.AUGMENT_D_FAKE, Purpose.AUGMENT_G_FAKE, Purpose.AUGMENT_G_REAL])])
def test_d_sees_changed_images_in_every_place_with_draws_of_its_own(loss, places):
    state, twin, draws = make_state(), make_state(), draws_at(12, POLICY)
    seen = watched(state.D)
    reals, z, z_fresh = inputs()
    train_step(state, UpdatePlan(), loss_pair(loss, 1.0), NONE, "DG", reals, z, z_fresh, draws)
    fakes = twin.G(z).detach()
    expected = [draws.augmented(reals if "REAL" in purpose.name else fakes, purpose) for purpose in places]
    assert len(seen) == len(places)
    for found, wanted in zip(seen, expected, strict=True):
        assert_close(found, wanted)
    changes = [found - (reals if "REAL" in purpose.name else fakes) for found, purpose in zip(seen, places, strict=True)]
    assert all(change.abs().amax(dim=(1, 2, 3)).min() > 0.01 for change in changes)
    assert all(not torch.allclose(a, b) for i, a in enumerate(changes) for b in changes[:i])


def test_penalties_look_at_the_images_that_d_sees():
    state, draws = make_state(), draws_at(12, POLICY)
    seen = watched(state.D)
    train_step(state, UpdatePlan(), loss_pair("wasserstein", 1.0), Penalties(gp=1.0), "D", *inputs(), draws)
    shares = draws.shares(seen[0]).view(-1, 1, 1, 1)
    assert_close(seen[2], shares * seen[0] + (1 - shares) * seen[1])
    seen.clear()
    train_step(state, UpdatePlan(), loss_pair("hinge", 1.0), Penalties(r1=1.0, r2=1.0, differences=True), "D", *inputs(), draws)
    assert_close(seen[1] - seen[0], SPREAD * draws.signs(seen[0], Purpose.PENALTY), rtol=0, atol=1e-6)
    assert_close(seen[3] - seen[2], SPREAD * draws.signs(seen[0], Purpose.PENALTY_FAKE), rtol=0, atol=1e-6)


@pytest.mark.parametrize("policy", [None, Policy(0.0, 0.0, 0.0, 1.0), Policy(1.0, 0.25, 0.5, 0.0)])
def test_without_augmentation_a_step_is_bit_for_bit_the_plain_one(policy):
    weights = []
    for draws in (NOTHING, draws_at(0, policy)):
        state = make_state()
        for seed in range(2):
            train_step(state, UpdatePlan(), loss_pair("relativistic", 1.0), Penalties(r1=1.0), "DG", *inputs(seed), draws)
        weights.append(values(state.G) | {f"D/{name}": tensor for name, tensor in values(state.D).items()})
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


@pytest.mark.parametrize("loss", ["nonsaturating", "relativistic"])
def test_the_generator_learns_through_the_augmentation(loss):
    pulls = []
    for policy in (POLICY, None):
        state, twin, draws = make_state(), make_state(), draws_at(12, policy)
        reals, z, _ = inputs()
        train_step(state, UpdatePlan(), loss_pair(loss, 1.0), NONE, "G", reals, z, z, draws)
        fake_logits = twin.D(draws.augmented(twin.G(z), Purpose.AUGMENT_G_FAKE))
        real_logits = twin.D(draws.augmented(reals, Purpose.AUGMENT_G_REAL))
        loss_pair(loss, 1.0).g(real_logits, fake_logits).div(N).backward()
        for ours, theirs in zip(state.G.parameters(), twin.G.parameters(), strict=True):
            assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-7)
        pulls.append(torch.cat([parameter.grad.flatten() for parameter in state.G.parameters()]))
    assert pulls[0].any() and torch.dist(*pulls) > 0.05 * pulls[1].norm()
