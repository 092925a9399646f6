"""What every feed gives: batches of an epoch, of which any can be the first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["Batch", "Feed", "moved"]

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes through the model at once, in this process.

    Attributes:
        inputs: a tensor; or a dict of tensors, given by name; or a tuple of them. None where the frozen part of
            the network has its outputs for these samples already.
        targets: as the task has them.
        whole: samples of this batch over all processes together, as planned: those that can't be read included.
            Thus the gradient of a batch is the sum over its samples by `whole`, on any number of processes.
        indices: which samples these are; empty where the feed does not know.
        count: how many of the samples here count: all of them, or 0 where this process has none of the batch and
            was lent some of the others', only because every process must run a pass. Left out, it is the length
            of `indices`, or `whole` where there are none.
        view: which variant of its samples it holds, from 0; always 0 where the plan asks for no views.
    """

    inputs: Any
    targets: Any
    whole: int
    indices: Sequence[int] = ()
    count: int = -1
    view: int = 0

    def __post_init__(self) -> None:
        if self.count < 0:
            object.__setattr__(self, "count", len(self.indices) or self.whole)

    @property
    def share(self) -> float:
        """The share of the whole batch that these samples are: what the mean of their losses counts."""
        return self.count / self.whole


class Feed(ABC):
    """Batches of an epoch, in an order that the seed and the number of the epoch determine.

    Attributes:
        skipped: what could not be read on the way, each as 'place: why'.
        fixed: whether a sample has the same inputs each time it comes, or one for each view: what is computed of
            them may be kept.
        uneven: whether samples are filled up to the longest of their batch, so that they have other inputs beside
            others.
        views: how many fixed variants each sample has.
        places: how many samples there are that go by a place, as `Batch.indices` has them; 0 where they have none.
    """

    skipped: Sequence[str] = ()
    fixed: bool = False
    uneven: bool = False
    views: int = 1
    places: int = 0

    @abstractmethod
    def sizes(self) -> list[int] | None:
        """Count the samples of each batch of an epoch, over all processes; None where nobody knows yet."""

    @abstractmethod
    def batches(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Give the batches of an epoch, from number `start` on; the same ones as if those before had been taken.

        The batches of one epoch are asked for at a time.

        Args:
            epoch: its number, from 1.
            start: how many batches are passed over.
        """

    def spare(self, held: Callable[[Sequence[int], int], bool]) -> None:  # noqa: B027 (most feeds can't)
        """Read nothing where `held`, asked as an epoch begins with places and view, says that nobody needs it."""

    def again(self, places: Sequence[int], view: int) -> Any:
        """Read the inputs of some samples outside of their turn; None where that can't be."""
        return None

    def state(self) -> dict[str, Any]:
        """Give what resuming in the middle of this epoch needs beside its number; tensors and plain data."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027 (most feeds have nothing to put back)
        """Put back what `state` gave, before `batches` is asked for the rest of that epoch."""


def moved(value: Value, device: torch.device, *, channels_last: bool = False) -> Value:
    """Bring tensors to a device, also those in dicts, tuples and lists; one that is there already stays.

    Args:
        value: a tensor, or what holds some.
        device: where they are wanted.
        channels_last: lay batches of images out with the channels last.
    """
    if isinstance(value, Tensor):
        if channels_last and value.dim() == 4:
            return value.to(device, non_blocking=True, memory_format=torch.channels_last)  # type: ignore[return-value]
        return value if value.device == device else value.to(device, non_blocking=True)  # type: ignore[return-value]
    if isinstance(value, Mapping):
        return {name: moved(one, device, channels_last=channels_last) for name, one in value.items()}  # type: ignore[return-value]
    if isinstance(value, (tuple, list)):
        return tuple(moved(one, device, channels_last=channels_last) for one in value)  # type: ignore[return-value]
    return value
