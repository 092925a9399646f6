"""Several batches for one optimizer step: how much each counts, and where a step begins and ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchgraft.train.feed import Batch

__all__ = ["Turn", "grouped", "turns"]


@dataclass(frozen=True)
class Turn:
    """What one batch is to the optimizer step that it belongs to.

    Attributes:
        share: of the samples of that step; the loss of the batch is weighed by it.
        opens: the step begins with this batch, so old gradients go.
        closes: the step ends with this batch, so the optimizer moves.
    """

    share: float
    opens: bool
    closes: bool


def turns(sizes: Sequence[int], together: int) -> list[Turn]:
    """Group the batches of one epoch, so that the gradients of a group are those of one batch of all its samples.

    The last group holds what is left, and counts its own samples only.

    Args:
        sizes: samples of each batch.
        together: batches of one optimizer step.
    """
    found: list[Turn] = []
    for start in range(0, len(sizes), together):
        group = sizes[start : start + together]
        whole = sum(group)
        last = len(group) - 1
        found += [Turn(size / whole, place == 0, place == last) for place, size in enumerate(group)]
    return found


def grouped(batches: Iterable[Batch], together: int, group: list[Turn]) -> Iterator[Batch]:
    """Read the batches of one optimizer step ahead, where nobody knows how many there will be.

    Args:
        batches: of an epoch.
        together: batches of one optimizer step.
        group: gets what each batch of that step is to it, before the first of them is given.
    """
    left = iter(batches)
    while ahead := list(islice(left, together)):
        group[:] = turns([one.whole for one in ahead], together)
        yield from ahead
