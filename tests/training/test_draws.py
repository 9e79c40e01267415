import numpy as np
import torch
from torch.testing import assert_close

from ganvas import rng
from ganvas.ops.diff_augment import DRAWS, Policy, diff_augment
from ganvas.rng import Purpose
from ganvas.training.draws import NOTHING, Draws

POLICY = Policy(1.0, 0.25, 0.5, 1.0)
WHERE = np.arange(40, 46)
IMAGES = torch.rand(6, 3, 8, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
OF_D_AND_G = (Purpose.AUGMENT_D_REAL, Purpose.AUGMENT_D_FAKE, Purpose.AUGMENT_G_REAL, Purpose.AUGMENT_G_FAKE)


def test_without_a_policy_images_are_the_very_same():
    assert NOTHING.augmented(IMAGES, Purpose.AUGMENT_D_REAL) is IMAGES
    assert Draws(3, WHERE, None).augmented(IMAGES, Purpose.AUGMENT_D_REAL) is IMAGES


def test_images_are_changed_by_the_draws_of_seed_purpose_and_index():
    drawn = torch.from_numpy(rng.uniforms(3, Purpose.AUGMENT_D_FAKE, WHERE, DRAWS).astype(np.float32))
    assert torch.equal(Draws(3, WHERE, POLICY).augmented(IMAGES, Purpose.AUGMENT_D_FAKE), diff_augment(IMAGES, drawn, POLICY))


def test_each_of_the_four_places_has_draws_of_its_own():
    seen = [Draws(3, WHERE, POLICY).augmented(IMAGES, purpose) for purpose in OF_D_AND_G]
    seen += [draws.augmented(IMAGES, OF_D_AND_G[0]) for draws in (Draws(4, WHERE, POLICY), Draws(3, WHERE + 6, POLICY))]
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_what_becomes_of_an_image_is_its_own_whatever_the_batch():
    for draw in (lambda draws, images: draws.augmented(images, Purpose.AUGMENT_D_REAL),
                 lambda draws, images: draws.signs(images, Purpose.PENALTY), Draws.shares):
        apart = [draw(Draws(3, WHERE[part], POLICY), IMAGES[part]) for part in (slice(0, 2), slice(2, 6))]
        assert_close(torch.cat(apart), draw(Draws(3, WHERE, POLICY), IMAGES))


def test_gradients_flow_through():
    images = IMAGES.clone().requires_grad_()
    Draws(3, WHERE, POLICY).augmented(images, Purpose.AUGMENT_G_FAKE).square().sum().backward()
    assert all(gradient.any() for gradient in images.grad)


def test_signs_lie_as_the_images_do_and_differ_between_reals_and_fakes():
    images = IMAGES.double()
    of_reals, of_fakes = (Draws(3, WHERE, None).signs(images, purpose) for purpose in (Purpose.PENALTY, Purpose.PENALTY_FAKE))
    assert (of_reals.shape, of_reals.dtype) == (images.shape, torch.float64)
    assert of_reals.unique().tolist() == [-1, 1]
    assert not torch.equal(of_reals, of_fakes)


def test_shares_lie_between_0_and_1_one_for_each_image():
    shares = Draws(0, np.arange(3000), None).shares(IMAGES)
    assert (shares.shape, shares.dtype) == ((3000,), torch.float32)
    assert shares.min() > 0 and shares.max() < 1
    assert abs(float(shares.mean()) - 0.5) < 4 * 12**-0.5 / 3000**0.5
