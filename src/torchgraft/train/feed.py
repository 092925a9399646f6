"""What trains a model, batch by batch: where every epoch begins again, and any batch of it can be the first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Batch", "Feed"]


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes through the model at once, in this process.

    Attributes:
        inputs: a tensor; or a dict of tensors, given by name; or a tuple of them. None where the frozen part of the
            network has its outputs for these samples already.
        targets: as the task has them.
        whole: samples of this batch over all processes together.
        indices: which samples they are; empty where the feed does not know.
    """

    inputs: Any
    targets: Any
    whole: int
    indices: Sequence[int] = ()


class Feed(ABC):
    """Batches of an epoch, in an order that the seed and the number of the epoch determine."""

    @abstractmethod
    def sizes(self) -> list[int] | None:
        """Count the samples of each batch of an epoch, over all processes; None where nobody knows before the end."""

    @abstractmethod
    def batches(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Give the batches of an epoch, from number `start` on; the same ones as if those before had been taken.

        Args:
            epoch: its number, from 1.
            start: how many batches are passed over.
        """
