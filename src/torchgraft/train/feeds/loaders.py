"""Batches of a DataLoader of the user's own, taken as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from torchgraft.data.loaders import halves_of
from torchgraft.errors import TrainError
from torchgraft.train.feeds.base import Batch, Feed, moved
from torchgraft.train.feeds.samples import sizes_of
from torchgraft.train.random import random_state, set_random_state
from torchgraft.train.world import World

__all__ = ["LoaderFeed"]

_CPU = torch.device("cpu")


class LoaderFeed(Feed):
    """Batches of a user's DataLoader: (inputs, targets), (input, input, …, targets), or a dict with `labels`.

    Its order and its random numbers are the loader's own, drawn from the global generators. They are noted as an
    epoch begins: to go on within it, they are put back, the batches before are read and passed over, and the
    generators are left as they were found. So resuming is exact as long as the loader's own dataset and sampler
    draw from nothing but these and the loader's own generators.

    Args:
        loader: as the user made it.
        world: the processes that train together; the loader has to share its samples out among them.
        train: it is trained on. What is judged on may come to every process whole: figures are the same then.
        device: where batches are wanted.

    Raises:
        TrainError: several processes would train on the same batches.
    """

    def __init__(self, loader: DataLoader[Any], *, world: World, train: bool, device: torch.device) -> None:
        self._loader, self._device = loader, device
        self._sampler = _distributed(loader)
        shared = self._sampler is not None and self._sampler.num_replicas == world.size
        self._times = world.size if shared else 1
        if train and world.size > 1 and not shared:
            raise TrainError(
                f"each of {world.size} processes would train on every batch of the loader",
                where="train.data",
                hint="give it sampler=DistributedSampler(dataset), or hand over the dataset instead",
            )
        self._began: tuple[int, dict[str, Tensor], dict[str, Any]] | None = None
        self.skipped = []

    def sizes(self) -> list[int] | None:
        """Count the samples of each batch of an epoch, where the loader cuts them evenly."""
        size, sampler = self._loader.batch_size, self._loader.sampler
        if size is None or isinstance(self._loader.dataset, torch.utils.data.IterableDataset):
            return None
        try:
            count = len(sampler)  # type: ignore[arg-type]
        except TypeError:
            return None
        sizes = [one * self._times for one in sizes_of(count, size, train=False)]
        return sizes[: count // size] if self._loader.drop_last else sizes

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Give the batches of an epoch, from number `start` on; those before are read too."""
        if self._sampler is not None:
            self._sampler.set_epoch(epoch)
        now = self._random()
        if start and self._began is not None and self._began[0] == epoch:
            self._set_random(*self._began[1:])
        self._began = (epoch, *self._random())
        given = iter(self._loader)
        for _ in range(start):
            next(given, None)
        if start:
            self._set_random(now[0], now[1], own=False)
        for value in given:
            yield self._batch(value)

    def _batch(self, value: Any) -> Batch:
        inputs, targets = halves_of(value)
        count = _count(targets if isinstance(targets, Tensor) else inputs)
        return Batch(moved(inputs, self._device), moved(targets, self._device), count * self._times, count=count)

    # what it draws from

    def state(self) -> dict[str, Any]:
        """Give the random numbers as they were when the epoch began, and those of the loader as they are now."""
        if self._began is None:
            return {}
        epoch, tensors, notes = self._began
        plain = torch.tensor(list(json.dumps(notes).encode()), dtype=torch.uint8)  # each process has its own
        return {"epoch": epoch, "tensors": {**tensors, "notes": plain}, "now": self._own()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Let `batches` begin the same epoch with the same random numbers again, or the next one."""
        if state:
            tensors = dict(state["tensors"])
            notes = json.loads(bytes(tensors.pop("notes").tolist()))
            self._began = state["epoch"], tensors, notes
            self._set_own(state["now"])

    def _random(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, notes = random_state(_CPU)
        return tensors | self._own(), notes

    def _set_random(self, tensors: Mapping[str, Tensor], notes: Mapping[str, Any], *, own: bool = True) -> None:
        set_random_state(tensors, notes, _CPU)
        if own:
            self._set_own(tensors)

    def _own(self) -> dict[str, Tensor]:
        return {f"own/{place}": one.get_state() for place, one in enumerate(self._generators())}

    def _set_own(self, tensors: Mapping[str, Tensor]) -> None:
        for place, one in enumerate(self._generators()):
            one.set_state(tensors[f"own/{place}"].clone())

    def _generators(self) -> list[torch.Generator]:
        """Find the generators of the loader and its samplers, each once."""
        batch = self._loader.batch_sampler
        holders = (self._loader, self._loader.sampler, batch, getattr(batch, "sampler", None))
        found = [getattr(one, "generator", None) for one in holders]
        return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())


def _distributed(loader: DataLoader[Any]) -> DistributedSampler[Any] | None:
    samplers = (loader.sampler, getattr(loader.batch_sampler, "sampler", None))
    return next((one for one in samplers if isinstance(one, DistributedSampler)), None)


def _count(value: Any) -> int:
    """Count the samples of a batch by its first tensor."""
    while not isinstance(value, Tensor):
        value = next(iter(value.values() if isinstance(value, Mapping) else value))
    return len(value)
