"""The gradient penalties of a step of D: which are due, and how heavy."""

import math
from typing import NamedTuple

from ganvas.config import TrainConfig


class Penalties(NamedTuple):
    """The weights of one step's penalties; all 0 where none is due."""

    r1: float = 0.0                # of half the squared gradient at reals
    r2: float = 0.0                # of half the squared gradient at fakes
    gp: float = 0.0                # of WGAN-GP's, between them
    differences: bool = False      # R1 and R2 by finite differences

    @property
    def precise(self) -> bool:
        """Whether D's passes over reals and fakes must be in float32: in bfloat16 what differences leave is rounding."""
        return self.r1 > 0 or self.r2 > 0


NONE = Penalties()


def penalties_at(train: TrainConfig, turn: int, nimg: int) -> Penalties:
    """What is due in this turn of D, counted from 0: lazy penalties are rarer, and as much heavier (arXiv 1912.04958, 3.1).

    R1's and R2's weights start at gamma_start times their own and come to these along half a cosine.
    """
    if turn % train.penalty_every:
        return NONE
    left = (1 + math.cos(math.pi * min(1.0, nimg / (1000 * train.gamma_ramp_kimg)))) / 2 if train.gamma_ramp_kimg else 0.0
    times = train.penalty_every * (1 + (train.gamma_start - 1) * left)
    return Penalties(times * train.r1_gamma, times * train.r2_gamma, train.penalty_every * train.gp_weight,
                     train.penalty == "differences")
