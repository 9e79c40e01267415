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


def r1_penalty(real_logits: Tensor, reals: Tensor) -> Tensor:
    """Squared gradient norm of D at real images, summed over the batch (Mescheder et al. 2018, eq. 9, without gamma / 2).

    real_logits: (N,), computed from `reals`. reals: (N, C, H, W), requires grad. Returns (), differentiable again.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), reals, create_graph=True)
    return gradient.square().sum()
