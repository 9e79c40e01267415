"""Adversarial losses and gradient penalties: tensors in, a scalar out.

A loss is the **sum** over the images of a batch; the step divides it as the plan and the number of processes ask.
Logits are (N,), positive = looks real; reals come before fakes, always.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ganvas.config import LossName
from ganvas.errors import ConfigError

Loss = Callable[[Tensor, Tensor], Tensor]


class LossPair(NamedTuple):
    """What D minimises and what G minimises; each (real_logits (N,), fake_logits (N,)) -> () summed over the batch.

    g_sees_reals: G's loss depends on the reals' logits; where it does not, D is not run on the reals in G's turn.
    separable: D's loss is a sum of one over the reals and one over the fakes, as plan.d_step 'real_then_fake' needs.
    """

    d: Loss
    g: Loss
    g_sees_reals: bool = False
    separable: bool = True


def nonsaturating_d(real_logits: Tensor, fake_logits: Tensor, real_label: float = 1.0) -> Tensor:
    """Binary cross-entropy, reals against `real_label`, fakes against 0 (Goodfellow et al. 2014, eq. 1).

    Computed from logits, so its gradient does not vanish where a float32 sigmoid is 0 or 1 (beyond about |12|).
    """
    return (F.softplus(real_logits) - real_label * real_logits).sum() + F.softplus(fake_logits).sum()


def nonsaturating_g(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log D(G(z)): the loss that every classic trains G on (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-fake_logits).sum()


def minimax_g(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """log(1 - D(G(z))): the game as Goodfellow et al. 2014, eq. 1, states it; flat where D is sure, so it learns slowly."""
    return -F.softplus(fake_logits).sum()


def hinge_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Hinge on both sides (Lim & Ye 2017, arXiv 1705.02894; Miyato et al. 2018, eq. 16)."""
    return F.relu(1 - real_logits).sum() + F.relu(1 + fake_logits).sum()


def hinge_g(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-logit of the fakes (Miyato et al. 2018, eq. 17)."""
    return -fake_logits.sum()


def least_squares_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Squared distance to 1 and 0 (Mao et al. 2017, arXiv 1611.04076, eq. 9)."""
    return ((real_logits - 1).square().sum() + fake_logits.square().sum()) / 2


def least_squares_g(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Squared distance of the fakes to 1 (Mao et al. 2017, eq. 9)."""
    return (fake_logits - 1).square().sum() / 2


def wasserstein_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Fakes' logits less reals': D estimates the earth mover's distance (Arjovsky et al. 2017, arXiv 1701.07875, section 3).

    Only with a bound on D's gradient, such as interpolation_penalty. G's loss is that of hinge, the fakes' logits negated.
    """
    return fake_logits.sum() - real_logits.sum()


def relativistic_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Each real should look more real than its fake (Jolicoeur-Martineau 2018, arXiv 1807.00734, eq. 10)."""
    return F.softplus(fake_logits - real_logits).sum()


def relativistic_g(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Each fake should look more real than its real (arXiv 1807.00734, eq. 11)."""
    return F.softplus(real_logits - fake_logits).sum()


LOSSES: dict[LossName, LossPair] = {
    "nonsaturating": LossPair(nonsaturating_d, nonsaturating_g),
    "minimax": LossPair(nonsaturating_d, minimax_g),
    "hinge": LossPair(hinge_d, hinge_g),
    "least_squares": LossPair(least_squares_d, least_squares_g),
    "wasserstein": LossPair(wasserstein_d, hinge_g),
    "relativistic": LossPair(relativistic_d, relativistic_g, g_sees_reals=True, separable=False),
}


def loss_pair(name: LossName, real_label: float) -> LossPair:
    """The named pair, with D's target for reals put in where the loss has one (cross-entropy only).

    Raises ConfigError for 'custom', whose functions only the caller has.
    """
    if name == "custom":
        raise ConfigError("this run was trained with its own loss: pass it from Python, loss=(d_loss, g_loss).")
    pair = LOSSES[name]
    return pair._replace(d=partial(nonsaturating_d, real_label=real_label)) if pair.d is nonsaturating_d else pair


def own_pair(d: Loss, g: Loss) -> LossPair:
    """A LossPair of a user's own functions, after a look at them.

    Raises ConfigError where one is not a sum over the images: the same batch twice must double it.
    """
    real, fake = torch.tensor([0.3, -1.2, 2.0]), torch.tensor([-0.4, 0.9, 0.1])
    for who, loss in (("D", d), ("G", g)):
        once, twice = loss(real, fake), loss(real.repeat(2), fake.repeat(2))
        if once.ndim or not torch.allclose(twice, 2 * once):
            raise ConfigError(f"loss: {who}'s function must give one number, the sum over the images of the batch "
                              f"(end it with .sum(), not .mean()); 3 images gave {once}, the same 3 twice gave {twice}")
    nothing = real.new_empty(0)
    try:
        separable = torch.allclose(d(real, nothing) + d(nothing, fake), d(real, fake))
    except RuntimeError:                             # (3,) and (0,) cannot be paired
        separable = False
    return LossPair(d, g, g_sees_reals=not torch.equal(g(real, fake), g(real + 1, fake)), separable=separable)


def r1_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Squared norm of D's gradient at each image, summed over the batch: on reals R1, on fakes R2.

    Mescheder et al. 2018 (arXiv 1801.04406), eq. 9, and section 4.1 for R2, both without gamma / 2.
    logits: (N,), computed from `images`. images: (N, C, H, W), requires grad. Returns (), differentiable again.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum()


def finite_difference_penalty(logits: Tensor, logits_nearby: Tensor, spread: float) -> Tensor:
    """An estimate of r1_penalty without second derivatives: the squared slope of D in one direction, summed over the batch.

    Nearby are images + spread * n, with n of independent numbers of mean 0 and variance 1, such as rng.signs: as the spread goes
    to 0, the mean over n goes to the squared norm of the gradient (Hutchinson 1990). The approximated R1 of Lin et al. 2025
    (arXiv 2501.08316) is this times spread^2. What differs is of the order of the spread: both logits must be float32.
    logits, logits_nearby: (N,). Returns ().
    """
    return ((logits_nearby - logits) / spread).square().sum()


def interpolation_penalty(D: Callable[[Tensor], Tensor], reals: Tensor, fakes: Tensor, shares: Tensor) -> Tensor:
    """(norm of D's gradient - 1)^2 at a point between each real and its fake, summed over the batch; without lambda.

    Gulrajani et al. 2017 (arXiv 1704.00028), eq. 3: WGAN-GP.
    D: images to logits (N,). reals, fakes: (N, C, H, W); no gradient flows to them. shares: (N,), of the reals, uniform between
    0 and 1. Returns (), differentiable again, also where the gradient is 0.
    """
    between = fakes.detach().lerp(reals.detach(), shares.view(-1, 1, 1, 1)).requires_grad_()
    (gradient,) = torch.autograd.grad(D(between).sum(), between, create_graph=True)
    norms: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return (norms - 1).square().sum()
