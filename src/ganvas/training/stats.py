"""Statistics between two rows of the log: summed on the device, read by the host once a row."""

import torch
from torch import Tensor


class OpenStats:
    """Running sums of each statistic since the last row. Part of a checkpoint: a resumed run writes the same rows."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}       # () float64 (float32 where the device has no float64)
        self.counts: dict[str, int] = {}

    def add(self, stats: dict[str, Tensor]) -> None:
        """Adds one step's scalars; stays on the device, so that the host need not wait for it."""
        for name, value in stats.items():
            wide = value.detach().to(torch.float32 if value.device.type == "mps" else torch.float64, copy=True)
            self.sums[name] = self.sums[name] + wide if name in self.sums else wide
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """The mean of each statistic over the steps that had it, in the order of their names' first appearance."""
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}

    def clear(self) -> None:
        self.sums, self.counts = {}, {}
