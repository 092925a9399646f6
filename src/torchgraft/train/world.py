"""The processes that train together: which one this is, which part of a batch is its own, sums over all."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

__all__ = ["ALONE", "World"]


@dataclass(frozen=True)
class World:
    """One process among those that train one model.

    Attributes:
        rank: the number of this process, from 0.
        size: how many there are.
        local: its number among those of its machine, from 0.
        device: what it computes on; None where the plan alone says it.
        mesh: all processes in a row, as `fully_shard` wants them; None for one that is alone.
        side: the same processes once more, for a thread that saves: its messages must not mix with the steps'.
        store: a table of words that every process can read and write, also while another does not answer.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    device: torch.device | None = None
    mesh: DeviceMesh | None = field(default=None, compare=False, repr=False)
    side: ProcessGroup | None = field(default=None, compare=False, repr=False)
    store: Any = field(default=None, compare=False, repr=False)

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Give which of `count` samples are this process's own: parts that differ by one at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def seed(self, seed: int) -> int:
        """Give the seed of this process's own generators, so that two processes drop different units."""
        return (seed + self.rank * 0x9E3779B1) % 2**32 if self.rank else seed  # steps of the golden ratio

    def total(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place."""
        if self.size > 1:
            torch.distributed.all_reduce(values)
        return values

    def mean(self, value: Tensor, count: int) -> float:
        """Give the mean of what every process has, each counted as often as it says; nan where nobody counts."""
        part = value.new_empty(2, dtype=torch.float32 if value.device.type == "mps" else torch.float64)
        part[0], part[1] = value * count if count else 0, count
        total, counted = self.total(part).tolist()
        return total / counted if counted else math.nan

    def any(self, *wishes: bool) -> tuple[bool, ...]:
        """Tell of each wish whether any process has it: clocks and signals differ, what follows must not."""
        if self.size == 1:
            return wishes
        asked = self.total(torch.tensor(wishes, dtype=torch.int32))
        return tuple(bool(one) for one in asked.tolist())

    def all(self, value: Any) -> list[Any]:
        """Give what every process hands over, in the order of their numbers: plain data and small tensors."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, value)
        return found

    def meet(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            torch.distributed.barrier()


ALONE = World()
"""The only process."""
