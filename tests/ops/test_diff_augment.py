import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ganvas import rng
from ganvas.ops.diff_augment import DRAWS, Policy, diff_augment
from ganvas.rng import Purpose

PUBLISHED = Policy(color=1.0, translation=1 / 8, cutout=1 / 2, probability=1.0)
OFF = Policy(0.0, 0.0, 0.0, 1.0)
FORMATS = (torch.contiguous_format, torch.channels_last)
SHAPES = [(6, 1, 9, 12), (6, 3, 16, 16), (6, 3, 7, 10), (6, 4, 8, 12)]
POLICIES = [PUBLISHED, PUBLISHED._replace(probability=0.6), Policy(0.5, 0.0, 0.0, 1.0), Policy(0.0, 0.3, 0.0, 1.0),
            Policy(0.0, 0.0, 0.4, 1.0)]


def some_images(shape: tuple[int, ...] = (6, 3, 16, 16), dtype: torch.dtype = torch.float32) -> Tensor:
    """Noise in [-1, 1]; with 4 channels, colours no greater than alpha, as premultiplied ones are."""
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    if shape[1] == 4:
        images[:, :3] *= images[:, 3:]
    return images * 2 - 1


def some_draws(n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.from_numpy(rng.uniforms(0, Purpose.AUGMENT_D_REAL, np.arange(n, dtype=np.int64), DRAWS)).to(dtype)


def in_plain_steps(image: Tensor, draw: list[float], policy: Policy) -> Tensor:
    """What diff_augment is to do to one image (C, H, W), in straight colours."""
    channels, height, width = image.shape
    fill = -1.0 if channels == 4 else 0.0
    if policy.color and draw[0] < policy.probability:
        b, s, c = (policy.color * (2 * u - 1) for u in draw[3:6])
        area = (image[3:] + 1) / 2 if channels == 4 else torch.ones(1, height, width, dtype=torch.float64)
        colours = (image[:3] + 1) / area - 1 + b / 2
        grey = colours.mean(0)
        colours = (colours - grey) * (1 + s) + grey if channels > 1 else colours
        mean = (colours * area).mean() / area.mean()
        colours = (colours - mean) * (1 + c / 2) + mean
        image = torch.cat([(colours + 1) * area - 1, image[3:]])
    if policy.translation and draw[1] < policy.probability:
        moved = torch.full_like(image, fill)
        most_y, most_x = int(height * policy.translation + 0.5), int(width * policy.translation + 0.5)
        down, right = int(draw[6] * (2 * most_y + 1)) - most_y, int(draw[7] * (2 * most_x + 1)) - most_x
        for y in range(max(0, -down), min(height, height - down)):
            for x in range(max(0, -right), min(width, width - right)):
                moved[:, y + down, x + right] = image[:, y, x]
        image = moved
    if policy.cutout and draw[2] < policy.probability:
        tall, wide = (int(side * policy.cutout + 0.5) for side in (height, width))
        top = int(draw[8] * (height + 1 - tall % 2)) - tall // 2
        left = int(draw[9] * (width + 1 - wide % 2)) - wide // 2
        image = image.clone()
        image[:, max(top, 0): top + tall, max(left, 0): left + wide] = fill
    return image


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", FORMATS)
def test_it_is_what_plain_steps_do_to_one_image_after_the_other(policy, shape, layout):
    images, draws = some_images(shape).contiguous(memory_format=layout), some_draws(6)
    changed = diff_augment(images, draws, policy)
    assert changed.dtype == torch.float32 and changed.is_contiguous(memory_format=layout)
    expected = [in_plain_steps(*one, policy) for one in zip(images.double(), draws.double().tolist(), strict=True)]
    assert_close(changed.double(), torch.stack(expected), rtol=0, atol=3e-6)
    assert not torch.equal(changed, images)


@pytest.mark.parametrize("layout", FORMATS)
def test_an_image_becomes_the_same_in_any_batch(layout):
    images, draws = some_images((32, 3, 16, 16)).contiguous(memory_format=layout), some_draws(32)
    together = diff_augment(images, draws, PUBLISHED)
    alone = torch.cat([diff_augment(images[i: i + 1], draws[i: i + 1], PUBLISHED) for i in range(32)])
    assert_close(alone, together, rtol=0, atol=1e-6)                    # sums over an image may be added up in another order
    reversed_ = diff_augment(images.flip(0), draws.flip(0), PUBLISHED).flip(0)
    assert_close(reversed_, together, rtol=0, atol=0)


@pytest.mark.parametrize("policy", [OFF, PUBLISHED._replace(probability=0.0)])
def test_where_nothing_can_change_the_images_are_given_back_themselves(policy):
    images = some_images()
    assert diff_augment(images, some_draws(6), policy) is images


@pytest.mark.parametrize("shape", SHAPES)
def test_images_that_no_draw_chose_and_draws_of_no_change_leave_every_bit(shape):
    images, draws = some_images(shape), some_draws(6)
    draws[:, :3] = 0.9
    assert torch.equal(diff_augment(images, draws, PUBLISHED._replace(probability=0.8)), images)
    draws[:, 3:] = 0.5
    assert torch.equal(diff_augment(images, draws, PUBLISHED._replace(cutout=0.0)), images)


def test_colour_place_and_cutout_are_chosen_independently_with_the_policys_probability():
    n = 4000
    images, draws = torch.ones(n, 3, 4, 4), some_draws(n)
    changed = [diff_augment(images, draws, policy).ne(images).flatten(1).any(1) for policy in (
        Policy(1.0, 0.0, 0.0, 0.3), Policy(0.0, 0.0, 0.5, 0.3))]
    for one in changed:
        assert abs(float(one.float().mean()) - 0.3) < 4 * (0.3 * 0.7 / n) ** 0.5
    assert abs(float((changed[0] & changed[1]).float().mean()) - 0.09) < 4 * (0.09 * 0.91 / n) ** 0.5


def test_every_shift_and_every_place_of_the_cutout_is_equally_frequent():
    n, side = 9000, 8
    images = torch.zeros(n, 1, side, side)
    images[:, :, 4, 4] = 1.0
    places = diff_augment(images, some_draws(n), Policy(0.0, 1 / 8, 0.0, 1.0)).flatten(1).argmax(1)
    counts = torch.bincount(places, minlength=side * side).view(side, side)[3:6, 3:6]
    assert counts.sum() == n and (counts - n / 9).abs().max() < 5 * (n / 9) ** 0.5
    left = diff_augment(torch.ones(n, 1, side, side), some_draws(n), Policy(0.0, 0.0, 1 / 2, 1.0)).flatten(1).sum(1)
    seen = {int(area): int((left == area).sum()) for area in left.unique()}
    spans = [min(side, centre + 2) - max(0, centre - 2) for centre in range(side + 1)]       # rows that go, for each centre
    for area in {side * side - a * b for a in spans for b in spans}:
        expected = n * sum(side * side - a * b == area for a in spans for b in spans) / 81
        assert abs(seen.pop(area) - expected) < 5 * expected**0.5
    assert not seen


@pytest.mark.parametrize("shape", SHAPES)
def test_a_draw_that_float32_rounds_to_1_is_the_last_place_not_one_beyond(shape):
    images, policy = some_images(shape), Policy(0.0, 1 / 4, 1 / 2, 1.0)
    assert torch.equal(diff_augment(images, torch.ones(6, DRAWS), policy),
                       diff_augment(images, torch.full((6, DRAWS), 1 - 1e-6), policy))


# ---------------------------------------------------------------- transparency


def test_opaque_images_are_changed_as_those_without_alpha():
    images, draws = some_images(), some_draws(6)
    opaque = torch.cat([images, torch.ones(6, 1, 16, 16)], 1)
    colour = Policy(1.0, 0.0, 0.0, 1.0)
    changed = diff_augment(opaque, draws, colour)
    assert_close(changed[:, :3], diff_augment(images, draws, colour), rtol=0, atol=1e-6)
    assert torch.equal(changed[:, 3], opaque[:, 3])


def test_colour_leaves_alpha_and_nothing_stays_nothing():
    images, draws = some_images((6, 4, 8, 12)), some_draws(6)
    images[:, :, :3] = -1.0
    changed = diff_augment(images, draws, Policy(1.0, 0.0, 0.0, 1.0))
    assert torch.equal(changed[:, 3], images[:, 3])
    assert_close(changed[:, :, :3], images[:, :, :3], rtol=0, atol=1e-6)
    empty = torch.full((6, 4, 8, 12), -1.0)
    assert_close(diff_augment(empty, draws, PUBLISHED), empty, rtol=0, atol=1e-6)


def test_an_almost_empty_image_has_finite_gradients():
    empty = torch.full((6, 4, 8, 12), -1.0).requires_grad_()
    diff_augment(empty, some_draws(6), PUBLISHED).square().sum().backward()
    assert empty.grad is not None and empty.grad.isfinite().all() and empty.grad.abs().max() < 100


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("layout", FORMATS)
def test_gradients_and_their_gradients_are_those_of_finite_differences(channels, layout):
    images = some_images((2, channels, 3, 4), torch.float64).contiguous(memory_format=layout).requires_grad_()
    draws, policy = some_draws(2, torch.float64), Policy(1.0, 1 / 3, 1 / 3, 1.0)

    def curved(x):                                                       # else the second derivatives of most would be 0
        return diff_augment(x, draws, policy).sin()

    assert torch.autograd.gradcheck(curved, [images])
    assert torch.autograd.gradgradcheck(curved, [images], fast_mode=True)


@pytest.mark.parametrize("layout", FORMATS)
def test_a_penalty_on_the_gradient_goes_through_in_the_layout_of_the_images(layout):
    images = some_images().contiguous(memory_format=layout).requires_grad_()
    (gradient,) = torch.autograd.grad(diff_augment(images, some_draws(6), PUBLISHED).pow(3).sum(), images, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), images)
    assert gradient.is_contiguous(memory_format=layout) and second.is_contiguous(memory_format=layout)
    assert second.abs().sum() > 0


def test_bfloat16_around_it_changes_nothing():
    images, draws = some_images(), some_draws(6)
    with torch.autocast("cpu", torch.bfloat16):
        changed = diff_augment(images, draws, PUBLISHED)
    assert changed.dtype == torch.float32 and torch.equal(changed, diff_augment(images, draws, PUBLISHED))
