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


def feed_of(samples, plan, *, prepare, train, seed=0, world=None, held=None, collate=None):  # type: ignore  # PROVISIONAL, by the lead: FEEDS replaces it
    """Provisional."""
    import torch

    from torchgraft.train.world import ALONE

    world = world or ALONE
    images = torch.stack([prepare(samples[i][0]) for i in range(len(samples))])
    labels = torch.tensor(list(samples.labels))

    class Plain(Feed):
        def order(self, epoch):
            if not train:
                return torch.arange(len(labels))
            return torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed * 1000003 + epoch))

        def groups(self, epoch):
            groups = list(self.order(epoch).split(plan.batch))
            if train and len(groups) > 1 and len(groups[-1]) == 1:
                groups.pop()
            return groups

        def sizes(self):
            return [len(one) for one in self.groups(1)]

        def batches(self, epoch, *, start=0):
            for group in self.groups(epoch)[start:]:
                mine = group[world.part(len(group))]
                yield Batch(images[mine], labels[mine], len(group), mine.tolist())

    return Plain()
