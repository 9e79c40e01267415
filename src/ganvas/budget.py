"""What --time is: a length made of it at the start, looked at again on the way, and the clock that ends the run."""

import copy
import time as clock
from collections.abc import Callable

from torch import nn

from ganvas.config import RunConfig
from ganvas.data.batches import LabelledImages
from ganvas.losses import LossPair
from ganvas.measuring import time_for
from ganvas.training import loop
from ganvas.training.state import TrainState
from ganvas.values import Amount

TIME_SHARE = 0.93              # of --time for training; the rest draws pictures and is the clock guard's margin
EVALUATION_SHARE = 0.4         # of the time for measuring that is kept for the evaluation at the end
MEASURE_SEC = 4.0              # at most; a tenth of a short --time
LOOKS = (0.25, 0.5, 0.75, 0.875)       # of the time that was left when training began: late ones see less ahead, so err by less
LEAST_CHANGE = 0.02            # of the length; a smaller one is the clock's noise


class Budget:
    """The seconds of --time, which run from here on.

    The length has no part in any number of the training, only in when it ends, so that it may change on the way.
    """

    def __init__(self, total_sec: float):
        self.total_sec, self.began_at = total_sec, clock.monotonic()
        self.spent_sec = self.measure_sec = 0.0
        self.looks_at: list[float] = []                        # elapsed seconds, those still to come
        self.looked = (0.0, 0)                                 # elapsed seconds and images seen, when it was looked last

    def open(self, spent_sec: float, measure_share: float) -> None:
        """What the run folder tells: the seconds that earlier sessions trained, and the run's measure.share."""
        self.spent_sec = spent_sec
        self.measure_sec = time_for(measure_share, self.total_sec)             # the evaluation at the end included

    @property
    def elapsed_sec(self) -> float:
        """Seconds of earlier sessions in training, and of all of this one."""
        return self.spent_sec + clock.monotonic() - self.began_at

    @property
    def is_over(self) -> bool:
        return self.elapsed_sec > self.total_sec

    def first_goal(self, nimg: int, speed: Callable[[float], float], tell: Callable[[float, int], None]) -> int:
        """The images that the time is enough for, after `nimg`. Where none is left it is `nimg`, and nothing is measured.

        speed: images a second, measured for about so many seconds; told with the goal that it makes.
        """
        measure_sec = min(MEASURE_SEC, self.total_sec / 10)
        if self._left_sec(self.measure_sec) <= measure_sec:
            return nimg
        measured = speed(measure_sec)
        goal = nimg + max(0, int(measured * self._left_sec(self.measure_sec)))
        tell(measured, goal)
        return goal

    def start(self, nimg: int) -> None:
        """Training begins: from here on the speed is that of the run itself."""
        self.looked = (self.elapsed_sec, nimg)
        self.looks_at = [self.elapsed_sec + share * self._left_sec(EVALUATION_SHARE * self.measure_sec) for share in LOOKS]

    def look(self, nimg: int, goal: int, batch: int) -> int:
        """The goal that suits the speed since the last look, where it is time for one and it is another; otherwise `goal`.

        It is time at each of LOOKS, and where the next batch would reach the goal, which is then only ever put off.
        That speed has all in it that the run does: measuring, pictures, checkpoints, and whatever else keeps the machine busy.
        """
        now, (then, before) = self.elapsed_sec, self.looked
        is_near = nimg + batch >= goal
        is_time = is_near or (self.looks_at and now >= self.looks_at[0])
        if not is_time or now == then:                         # some systems' clocks move in steps of 16 ms
            return goal
        self.looked, self.looks_at = (now, nimg), [at for at in self.looks_at if at > now]
        left_sec = self._left_sec(EVALUATION_SHARE * self.measure_sec)
        suits = nimg + max(0, int((nimg - before) / (now - then) * left_sec))
        return goal if abs(suits - goal) <= LEAST_CHANGE * goal or (is_near and suits < goal) else suits

    def _left_sec(self, kept_sec: float) -> float:
        """Seconds left to train in, where `kept_sec` are kept for measuring that the speed does not know of."""
        return self.total_sec * TIME_SHARE - kept_sec - self.elapsed_sec


def measured_speed(
    config: RunConfig, networks: tuple[nn.Module, nn.Module], images: LabelledImages, losses: LossPair, measure_sec: float,
) -> float:
    """Images a second of the training loop, on a throwaway copy of the networks; takes `measure_sec` and two steps."""
    state = TrainState.create(config, *copy.deepcopy(networks))
    ticks = loop.train(state, config.model_copy(update={"length": Amount(1e9, "kimg")}), images, losses)
    for _ in range(2):                                         # the first steps warm up
        next(ticks)
    started_at, nimg = clock.monotonic(), state.nimg
    while clock.monotonic() - started_at < measure_sec:
        next(ticks)
    ticks.close()                                              # type: ignore[attr-defined]
    return (state.nimg - nimg) / (clock.monotonic() - started_at)
