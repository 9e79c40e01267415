"""One turn of D and one turn of G, as the update plan says."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd.profiler import record_function
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from ganvas.config import UpdatePlan
from ganvas.losses import LossPair, finite_difference_penalty, interpolation_penalty, r1_penalty
from ganvas.ops.precision import widen
from ganvas.rng import Purpose
from ganvas.training.draws import NOTHING, Draws
from ganvas.training.penalties import Penalties
from ganvas.training.state import TrainState

Stats = dict[str, Tensor]
Turns = Literal["DG", "D", "G"]

SPREAD = 0.1                   # of finite differences, in images of [-1, 1]: less is rounding, more is no gradient any longer


def turns_at(plan: UpdatePlan, step: int) -> Turns:
    """Whose turn it is in this step, counted from 0 at the start of the run."""
    if plan.turns == "both":
        return "DG"
    return "G" if (step % 2 == 0) == (plan.turns == "alternate_g_first") else "D"


def train_step(
    state: TrainState, plan: UpdatePlan, losses: LossPair, penalties: Penalties,
    turns: Turns, reals: Tensor, z: Tensor, z_fresh: Tensor, draws: Draws = NOTHING,
    labels: Tensor | None = None,
) -> Stats:
    """Updates the networks whose turn it is, D before G. Returns detached scalars for the log.

    reals: (N, C, H, W) in [-1, 1]. z: (N, latents), what the step's first fakes are made from; z_fresh: the same, for G's
    turn after D's, read under plan.g_fakes 'fresh' only. labels: (N,) int64, the reals' classes, which are the fakes' too;
    -1 = none, None where the networks know of no classes.
    """
    reuse = turns == "DG" and plan.g_fakes == "reuse"
    stats: Stats = {}

    def first_fakes() -> Tensor:
        with torch.set_grad_enabled(turns == "G" or reuse):   # under 'reuse' one pass of G serves both turns
            return _generate(state, z)

    fakes = None
    if "D" in turns:
        stats, fakes = discriminator_step(state, plan, losses, penalties, reals, first_fakes, draws, labels)
    if "G" in turns:
        if fakes is None:
            fakes = first_fakes()
        elif not reuse:
            fakes = _generate(state, z_fresh if plan.g_fakes == "fresh" else z)
        stats |= generator_step(state, plan, losses, reals, fakes, draws, labels)
    return stats


def discriminator_step(
    state: TrainState, plan: UpdatePlan, losses: LossPair, penalties: Penalties, reals: Tensor, make_fakes: Callable[[], Tensor],
    draws: Draws = NOTHING, labels: Tensor | None = None,
) -> tuple[Stats, Tensor]:
    """One update of D on reals and fakes (both (N, C, H, W), no gradient to G), or two: reals, then fakes. Gives the fakes, too.

    Reals and fakes go through D apart: with batch norm, each is normalised by its own statistics. Where the loss lets them, the
    reals' gradients are taken before the fakes are made (`make_fakes`): one graph of D and none of G is in memory meanwhile, as
    in the tutorials.
    """
    stats: Stats = {}
    n, nothing = len(reals), reals.new_empty(0)                             # the loss's sum over no images is 0
    twice = plan.d_step == "real_then_fake"
    judge = partial(_judge, state, labels=labels, exactly=penalties.precise, differentiable_twice=not penalties.differences)
    state.D_opt.zero_grad(set_to_none=True)
    seen_reals = _seen(draws.augmented(reals, Purpose.AUGMENT_D_REAL), penalties.r1 > 0 and not penalties.differences)
    real_logits = judge(seen_reals)
    penalty = _penalty(penalties.r1, penalties, judge, real_logits, seen_reals, draws, Purpose.PENALTY, stats, "R1")
    if losses.separable:
        real_loss = plan.d_scale * losses.d(real_logits, nothing)
        _backward(_sum(real_loss, penalty), plan, n)
        real_gradient = _step(state.D_opt) if twice else None
        if twice:
            state.D_opt.zero_grad(set_to_none=True)
    fakes = make_fakes()
    seen_fakes = _seen(draws.augmented(fakes.detach(), Purpose.AUGMENT_D_FAKE), penalties.r2 > 0 and not penalties.differences)
    fake_logits = judge(seen_fakes)                                         # of two updates: by the D that has learnt the reals
    fake_penalty = _penalty(penalties.r2, penalties, judge, fake_logits, seen_fakes, draws, Purpose.PENALTY_FAKE, stats, "R2")
    if penalties.gp:
        between = partial(_judge, state, labels=labels, exactly=True, differentiable_twice=True)
        found = interpolation_penalty(between, seen_reals.detach(), seen_fakes.detach(), draws.shares(reals))
        stats["GP"] = found.detach() / n
        fake_penalty = _sum(penalties.gp * found, fake_penalty)
    if losses.separable:
        fake_loss = plan.d_scale * losses.d(nothing, fake_logits)
        _backward(_sum(fake_loss, fake_penalty), plan, n)
        loss = real_loss.detach() + fake_loss.detach()
    else:
        real_gradient = None
        loss = plan.d_scale * losses.d(real_logits, fake_logits)
        _backward(_sum(_sum(loss, penalty), fake_penalty), plan, n)
    gradient = _step(state.D_opt)
    if real_gradient is not None:
        gradient = (real_gradient + gradient) / 2
    real_logits, fake_logits = real_logits.detach(), fake_logits.detach()
    return stats | {
        "Loss_D": loss.detach() / n,
        "D(x)": real_logits.sigmoid().mean(),
        "D(G(z))_before": fake_logits.sigmoid().mean(),
        "logit_real": real_logits.mean(),
        "logit_fake": fake_logits.mean(),
        "grad_D": gradient,
    }, fakes


def generator_step(
    state: TrainState, plan: UpdatePlan, losses: LossPair, reals: Tensor, fakes: Tensor, draws: Draws = NOTHING,
    labels: Tensor | None = None,
) -> Stats:
    """One update of G through `fakes` (N, C, H, W), which carry its graph; D's weights get no gradient."""
    with _without_weight_gradients(state.D):
        fake_logits = _judge(state, draws.augmented(fakes, Purpose.AUGMENT_G_FAKE), labels)     # (N,)
        # Only a pairing loss looks at the reals: any other must not show them to D's batch norm a second time.
        real_logits = (_judge(state, draws.augmented(reals, Purpose.AUGMENT_G_REAL), labels) if losses.g_sees_reals
                       else fake_logits.detach())
        loss = losses.g(real_logits, fake_logits)
        state.G_opt.zero_grad(set_to_none=True)
        _backward(loss, plan, len(reals))
        gradient = _step(state.G_opt)
    return {"Loss_G": loss.detach() / len(reals), "D(G(z))_after": fake_logits.detach().sigmoid().mean(), "grad_G": gradient}


def _seen(images: Tensor, penalised: bool) -> Tensor:
    """The images as the start of D's graph."""
    return images.detach().requires_grad_(penalised)


def _penalty(
    gamma: float, penalties: Penalties, judge: Callable[[Tensor], Tensor], logits: Tensor, images: Tensor, draws: Draws,
    purpose: Purpose, stats: Stats, name: str,
) -> Tensor | None:
    """gamma / 2 times the squared gradient of `logits` in `images`, summed over them; None where it is not due."""
    if not gamma:
        return None
    if penalties.differences:
        images = images.detach()
        found = finite_difference_penalty(logits, judge(images + SPREAD * draws.signs(images, purpose)), SPREAD)
    else:
        found = r1_penalty(logits, images)
    stats[name] = found.detach() / len(images)
    return gamma / 2 * found


def _sum(loss: Tensor, penalty: Tensor | None) -> Tensor:
    return loss if penalty is None else loss + penalty


def _generate(state: TrainState, z: Tensor) -> Tensor:
    """G's images, (N, C, H, W) in float32 whatever it computes in."""
    with record_function("ganvas.G"), state.computing():
        images = state.in_steps("G", len(z))(z)
    return widen(images)


def _judge(
    state: TrainState, images: Tensor, labels: Tensor | None = None, exactly: bool = False, differentiable_twice: bool = True,
) -> Tensor:
    """D's logits, (N,) in float32; an own D may give (N, 1). exactly: computed in float32 too, for a penalty."""
    D = state.D if exactly and differentiable_twice else state.in_steps("D", len(images))      # compiled: once only
    with record_function("ganvas.D"), state.computing(exactly):
        logits = D(images) if labels is None else D(images, labels)
    return widen(logits).flatten()


def _backward(loss: Tensor, plan: UpdatePlan, batch: int) -> None:
    """Adds the gradients of a loss summed over `batch` images to those that the weights have."""
    with record_function("ganvas.backward"):
        (loss / batch if plan.reduction == "mean" else loss).backward()     # type: ignore[no-untyped-call]


def _step(optimizer: Optimizer) -> Tensor:
    """One step of the optimizer. Returns (), the length of the gradient it went by.

    The length is the L2 norm over all parameters together, of what the optimizer is given: with reduction 'sum' it grows
    with the batch, weight decay is not in it. It costs half a percent of a step (pytorch-faces-64, batch 16, one thread).
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    gradient = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    with record_function("ganvas.optimizer"):
        optimizer.step()
    return gradient


@contextmanager
def _without_weight_gradients(network: nn.Module) -> Iterator[None]:
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]      # a user's D may freeze some
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
