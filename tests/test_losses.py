import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from ganvas import rng
from ganvas.errors import ConfigError
from ganvas.losses import LOSSES, finite_difference_penalty, interpolation_penalty, loss_pair, own_pair, r1_penalty
from ganvas.rng import Purpose

torch.manual_seed(0)
REAL, FAKE = torch.randn(7, dtype=torch.float64) * 4, torch.randn(7, dtype=torch.float64) * 4
NONE = REAL.new_empty(0)
ONES, ZEROS = torch.ones_like(REAL), torch.zeros_like(REAL)
SEPARABLE = [name for name, pair in LOSSES.items() if not pair.g_sees_reals]


def bce(logits, target):
    return F.binary_cross_entropy_with_logits(logits, target, reduction="sum")


def test_nonsaturating_loss_is_binary_cross_entropy_on_logits():
    pair = loss_pair("nonsaturating", 1.0)
    assert_close(pair.d(REAL, FAKE), bce(REAL, ONES) + bce(FAKE, ZEROS))
    assert_close(pair.g(REAL, FAKE), bce(FAKE, ONES))


def test_it_is_the_sigmoid_and_cross_entropy_of_the_originals_up_to_logits_of_12():
    real, fake = torch.linspace(-12, 12, 49), torch.linspace(12, -12, 49)
    pair = loss_pair("nonsaturating", 1.0)
    on_probabilities = [F.binary_cross_entropy(logits.sigmoid(), target, reduction="none") for logits, target in
                        ((real, torch.ones(49)), (fake, torch.zeros(49)))]
    for i in range(49):
        ours = pair.d(real[i : i + 1], fake[i : i + 1])
        assert_close(ours, on_probabilities[0][i] + on_probabilities[1][i], rtol=1e-2, atol=1e-5)


def test_its_gradient_does_not_vanish_where_a_sigmoid_is_exactly_1():
    fake = torch.tensor([40.0], requires_grad=True)
    loss_pair("nonsaturating", 1.0).d(torch.empty(0), fake).backward()
    assert_close(fake.grad, torch.ones(1))


@pytest.mark.parametrize("label", [1.0, 0.9, 0.7])
def test_label_smoothing_is_one_sided(label):
    pair = loss_pair("nonsaturating", label)
    assert_close(pair.d(REAL, FAKE), bce(REAL, label * ONES) + bce(FAKE, ZEROS))
    assert_close(pair.g(REAL, FAKE), bce(FAKE, ONES))


def test_a_smoothed_discriminator_is_content_with_the_labels_own_logit():
    real = torch.tensor([0.9], dtype=torch.float64).logit().requires_grad_()
    loss_pair("nonsaturating", 0.9).d(real, NONE).backward()
    assert_close(real.grad, torch.zeros(1, dtype=torch.float64), atol=1e-12, rtol=0)


def test_minimax_is_the_value_of_the_game():
    pair = loss_pair("minimax", 1.0)
    value = REAL.sigmoid().log().sum() + (1 - FAKE.sigmoid()).log().sum()
    assert_close(pair.d(REAL, FAKE), -value)
    assert_close(pair.g(REAL, FAKE), (1 - FAKE.sigmoid()).log().sum())


def test_minimax_is_flat_where_the_discriminator_is_sure_and_nonsaturating_is_steep():
    slopes = {}
    for name in ("minimax", "nonsaturating"):
        fake = torch.tensor([-15.0], requires_grad=True)
        loss_pair(name, 1.0).g(torch.zeros(1), fake).backward()
        slopes[name] = float(fake.grad)
    assert -1e-6 < slopes["minimax"] < 0
    assert slopes["nonsaturating"] == pytest.approx(-1)


def test_hinge_stops_at_the_margin():
    pair = LOSSES["hinge"]
    assert_close(pair.d(REAL, FAKE), (1 - REAL).clamp(min=0).sum() + (1 + FAKE).clamp(min=0).sum())
    assert pair.d(torch.tensor([1.0, 5.0]), torch.tensor([-1.0, -9.0])) == 0
    assert_close(pair.g(REAL, FAKE), -FAKE.sum())


def test_wasserstein_is_the_difference_of_the_sums():
    pair = LOSSES["wasserstein"]
    assert_close(pair.d(REAL, FAKE), FAKE.sum() - REAL.sum())
    assert_close(pair.g(REAL, FAKE), -FAKE.sum())
    assert_close(pair.d(REAL + 3, FAKE + 3), pair.d(REAL, FAKE))


def test_least_squares_is_half_the_squared_distance_to_the_targets():
    pair = LOSSES["least_squares"]
    assert_close(pair.d(REAL, FAKE), F.mse_loss(REAL, ONES, reduction="sum") / 2 + F.mse_loss(FAKE, ZEROS, reduction="sum") / 2)
    assert_close(pair.g(REAL, FAKE), F.mse_loss(FAKE, ONES, reduction="sum") / 2)


def test_relativistic_is_cross_entropy_on_the_difference_and_symmetric():
    pair = LOSSES["relativistic"]
    assert_close(pair.d(REAL, FAKE), bce(REAL - FAKE, ONES))
    assert_close(pair.g(REAL, FAKE), bce(FAKE - REAL, ONES))
    assert_close(pair.d(REAL, FAKE), pair.g(FAKE, REAL))
    assert_close(pair.d(REAL + 3, FAKE + 3), pair.d(REAL, FAKE))


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_in_two_halves_has_the_same_loss(name):
    for loss in LOSSES[name][:2]:
        assert_close(loss(REAL[:3], FAKE[:3]) + loss(REAL[3:], FAKE[3:]), loss(REAL, FAKE))


@pytest.mark.parametrize("name", SEPARABLE)
def test_reals_and_fakes_apart_have_the_same_loss_and_no_images_none(name):
    pair = loss_pair(name, 1.0)
    assert_close(pair.d(REAL, NONE) + pair.d(NONE, FAKE), pair.d(REAL, FAKE))
    assert pair.d(NONE, NONE) == 0
    assert_close(pair.g(NONE, FAKE), pair.g(REAL, FAKE))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_fall_for_d_as_reals_look_more_real_and_for_g_as_fakes_do(name):
    pair, middling = loss_pair(name, 1.0), torch.linspace(-0.9, 0.9, 7)
    assert pair.d(middling + 0.05, middling) < pair.d(middling, middling) < pair.d(middling, middling + 0.05)
    assert pair.g(middling, middling + 0.05) < pair.g(middling, middling)


@pytest.mark.parametrize("name", LOSSES)
def test_the_pairs_say_truly_whether_g_sees_the_reals(name):
    pair = LOSSES[name]
    assert pair.g_sees_reals == (pair.g(REAL, FAKE) != pair.g(REAL + 1, FAKE))


# ---------------------------------------------------------------- own losses


@pytest.mark.parametrize("name", LOSSES)
def test_a_users_copy_of_each_pair_is_taken_for_what_it_is(name):
    assert own_pair(*LOSSES[name][:2]) == LOSSES[name]


def test_a_g_that_sees_the_reals_by_an_even_function_is_noticed():
    assert own_pair(LOSSES["hinge"].d, lambda real, fake: (fake.square() - real.square()).sum()).g_sees_reals


@pytest.mark.parametrize("bad", [lambda real, fake: (fake - real).mean(), lambda real, fake: fake - real,
                                 lambda real, fake: F.softplus(-fake).mean()])
def test_a_loss_that_is_no_sum_over_the_images_is_refused_with_the_remedy(bad):
    good = LOSSES["nonsaturating"]
    with pytest.raises(ConfigError, match=r"(?s)D's function.*\.sum\(\)"):
        own_pair(bad, good.g)
    with pytest.raises(ConfigError, match=r"(?s)G's function.*\.sum\(\)"):
        own_pair(good.d, bad)


# ---------------------------------------------------------------- penalties


W = torch.randn(3, 8, 8)


def linear(images):
    return (images * W).sum(dim=(1, 2, 3))


def test_r1_of_a_linear_discriminator_is_its_squared_weight_norm_for_each_image():
    reals = torch.randn(5, 3, 8, 8, requires_grad=True)
    assert_close(r1_penalty(linear(reals), reals), 5 * W.square().sum())


def test_r1_of_a_quadratic_discriminator_is_known_and_can_be_trained_through():
    scale, reals = torch.tensor(2.0, requires_grad=True), torch.randn(5, 3, 4, 4, requires_grad=True)
    penalty = r1_penalty(scale * reals.square().sum(dim=(1, 2, 3)) / 2, reals)       # gradient: scale * reals
    assert_close(penalty, scale.detach() ** 2 * reals.square().sum())
    penalty.backward()
    assert_close(scale.grad, 2 * scale.detach() * reals.detach().square().sum())


def test_finite_differences_of_a_linear_discriminator_are_its_squared_slope_at_any_spread():
    images, noise = torch.randn(5, 3, 8, 8, dtype=torch.float64), torch.randn(5, 3, 8, 8, dtype=torch.float64)
    for spread in (0.01, 1.0):
        found = finite_difference_penalty(linear(images), linear(images + spread * noise), spread)
        assert_close(found, linear(noise).square().sum())


def test_finite_differences_by_signs_are_r1_on_average():
    images = torch.randn(5, 3, 8, 8, requires_grad=True, generator=torch.Generator().manual_seed(1))
    signs = torch.from_numpy(rng.signs(0, Purpose.PENALTY, np.arange(5 * 2000), 3 * 8 * 8)).view(2000, 5, 3, 8, 8)

    def curved(images):
        return linear(images).div(10).sin() + 0.5 * linear(images.square())

    exact = r1_penalty(curved(images), images).detach()
    with torch.no_grad():
        found = torch.stack([finite_difference_penalty(curved(images), curved(images + 0.01 * n), 0.01) for n in signs])
    assert (found.mean() - exact).abs() < 4 * found.std() / 2000**0.5 < 0.1 * exact


def test_finite_differences_can_be_trained_through():
    scale, images, noise = torch.tensor(2.0, requires_grad=True), torch.randn(5, 3, 8, 8), torch.ones(5, 3, 8, 8)
    finite_difference_penalty(scale * linear(images), scale * linear(images + 0.1 * noise), 0.1).backward()
    assert_close(scale.grad, 2 * scale.detach() * 5 * W.sum() ** 2, rtol=1e-4, atol=0)


def test_wgan_gp_of_a_linear_discriminator_is_how_far_its_slope_is_from_1():
    reals, fakes, shares = torch.randn(5, 3, 8, 8), torch.randn(5, 3, 8, 8), torch.rand(5)
    assert_close(interpolation_penalty(linear, reals, fakes, shares), 5 * (W.norm() - 1).square())
    assert interpolation_penalty(lambda x: linear(x) / W.norm(), reals, fakes, shares) < 1e-9


def test_wgan_gp_looks_at_the_share_of_each_real_and_can_be_trained_through():
    scale, shares = torch.tensor(2.0, requires_grad=True), torch.tensor([0.0, 1.0, 0.25])
    reals, fakes = torch.randn(3, 3, 4, 4, requires_grad=True), torch.randn(3, 3, 4, 4, requires_grad=True)
    penalty = interpolation_penalty(lambda x: scale * x.square().sum(dim=(1, 2, 3)) / 2, reals, fakes, shares)
    norms = torch.stack([fakes[0], reals[1], 0.25 * reals[2] + 0.75 * fakes[2]]).detach().flatten(1).norm(dim=1)
    assert_close(penalty, (2 * norms - 1).square().sum())                             # gradient: scale * image
    penalty.backward()
    assert_close(scale.grad, (2 * (2 * norms - 1) * norms).sum())
    assert reals.grad is None and fakes.grad is None


def test_wgan_gp_of_a_flat_discriminator_is_1_for_each_image_and_its_gradient_is_finite():
    scale = torch.tensor(0.0, requires_grad=True)
    penalty = interpolation_penalty(lambda x: scale * linear(x), torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8), torch.rand(4))
    penalty.backward()
    assert penalty == 4 and scale.grad.isfinite()
