"""The processes that train together: which one this is, which part of a batch is its own, sums over all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ALONE", "World"]


@dataclass(frozen=True)
class World:
    """One process among those that train one model.

    Attributes:
        rank: the number of this process, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Give which of `count` samples are this process's own: parts that differ by one at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def total(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place."""
        if self.size > 1:
            torch.distributed.all_reduce(values)
        return values

    def meet(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            torch.distributed.barrier()


ALONE = World()
"""The only process."""
