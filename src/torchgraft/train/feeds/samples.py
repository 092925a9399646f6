"""Batches of a set whose samples have places: shuffled, shared out, read ahead, kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch

from torchgraft.errors import DataError
from torchgraft.train.draws import generator
from torchgraft.train.feeds.base import Batch, Feed
from torchgraft.train.feeds.finish import Finish
from torchgraft.train.feeds.kept import Kept
from torchgraft.train.feeds.reading import (
    Collate,
    Load,
    Readers,
    Skipping,
    Work,
    keys_of,
    targets_of,
    together,
)
from torchgraft.train.world import World

__all__ = ["LENT", "Held", "SampleFeed", "sizes_of"]

MEMORY = 512 * 2**20
"""So many bytes of prepared samples are kept in memory, in each process."""

LENT = 2
"""So many samples are lent to a process that has none of a batch: BatchNorm can't take one alone."""

Held = Callable[[Sequence[int], int], bool]
"""Asked with the places of samples and their view as an epoch begins: are their inputs needed by nobody?"""


class Samples(Protocol):
    """What has samples by their place: (input, target)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Any, Any]: ...


@dataclass(frozen=True, slots=True)
class _Round:
    """One epoch: its order, the variant that its samples come in, and what their random numbers are drawn for."""

    epoch: int
    view: int
    chance: int
    order: list[int]


@dataclass(frozen=True, slots=True)
class _Part:
    """What this process has to do with one batch."""

    number: int
    whole: int
    own: list[int]
    lent: bool


def sizes_of(count: int, size: int, *, train: bool) -> list[int]:
    """Count the samples of each batch; in training a last one of one sample is left out, if there are others."""
    whole, rest = divmod(count, size)
    alone = train and rest == 1 and whole > 0
    return [size] * whole + [rest] * (rest > 0 and not alone)


class SampleFeed(Feed):
    """Batches of samples that have places.

    The order of a training epoch is drawn from the seed and the number of the epoch; validation goes in the order
    of the set. A last training batch of one sample is left out, where there are others: BatchNorm can't take it.
    Each process has its part of every batch. Where a last batch has fewer samples than there are processes,
    some get two of the others' samples, which count for nothing (`Batch.count` is 0).

    A sample that can't be read is left out, and named in `skipped`. Where a process has none left of a batch, it
    is lent the next one of the epoch that can be read.

    Args:
        samples: what is read.
        readers: who reads it.
        size: samples of a batch over all processes.
        train: shuffle, and leave out a batch of one.
        seed: of the order.
        world: which part is this process's own.
        views: so many fixed variants of each sample, one after the other, epoch by epoch; 0 for none.
        held: samples whose inputs nobody needs.
        collate: makes a batch of prepared inputs; tensors are stacked without it.
        finish: brings batches to the device and varies them.
        strict: refuse a sample that can't be read.
        paired: targets are prepared with their inputs.
    """

    def __init__(
        self,
        samples: Samples,
        readers: Readers,
        *,
        size: int,
        train: bool,
        seed: int,
        world: World,
        views: int,
        held: Held | None,
        collate: Collate | None,
        finish: Finish,
        strict: bool,
        paired: bool,
    ) -> None:
        self._samples, self._readers, self._held = samples, readers, held
        self._count, self._size, self._train, self._seed = len(samples), size, train, seed
        self._world, self._collate, self._finish = world, collate, finish
        self.views = max(views, 1)
        self._asked_views = views
        self._skipping = Skipping(strict=strict)
        self._bad: set[int] = set()
        labels = () if paired else getattr(samples, "labels", ())
        self._labels = labels if len(labels) == self._count else None
        self._targets: dict[int, Any] = {}
        self._kept = [self._empty() for _ in range(self.views)]

    @property
    def skipped(self) -> list[str]:  # type: ignore[override]
        """What could not be read so far."""
        return self._skipping.named

    @property
    def places(self) -> int:  # type: ignore[override]
        """How many samples there are."""
        return self._count

    def spare(self, held: Held) -> None:
        """Read nothing of batches that nobody needs the inputs of."""
        self._held = held

    def again(self, places: Sequence[int], view: int) -> Any:
        """Read the inputs of some samples outside of their turn."""
        own = list(places)
        load = self._readers.reader[Work(own, keys_of(view, own))]
        inputs, targets = together(load.inputs, load.targets, self._collate)
        return self._finish.placed(inputs, targets, own, self._count, view, (1, 0))[0]

    @cached_property
    def fixed(self) -> bool:  # type: ignore[override]
        """Whether a sample has the same inputs each time it comes, or the same for each view."""
        return self._same and not self._finish.varies(self._asked_views)

    @cached_property
    def _same(self) -> bool:
        """Whether reading and preparing gives the same each time; the first sample shows it."""
        return self._asked_views > 0 or not self._readers.reader.draws(range(self._count))

    def sizes(self) -> list[int]:
        """Count the samples of each batch of an epoch, over all processes."""
        return sizes_of(self._count, self._size, train=self._train)

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Give the batches of an epoch, from number `start` on."""
        view = (epoch - 1) % self.views
        now = _Round(epoch, view, view if self._asked_views else epoch, self._order(epoch))
        parts = [self._part(now.order, number, whole) for number, whole in enumerate(self.sizes())][start:]
        held = [self._is_held(part, view) for part in parts]
        if start == 0 and all(held):  # what was kept for another pass is needed by nobody
            self._kept[view] = self._empty()
        kept = self._kept[view]
        lacking = [
            [] if is_held or kept.holds(part.own) else [place for place in part.own if place not in kept]
            for part, is_held in zip(parts, held, strict=True)
        ]
        loads = self._loads([Work(places, keys_of(now.chance, places)) for places in lacking if places])
        plain = self._finish.idle and kept.is_rows
        for part, is_held, places in zip(parts, held, lacking, strict=True):
            if is_held:
                yield self._known(part, view)
            elif places or not (plain and part.own):
                yield self._made(part, next(loads) if places else None, places, now)
            else:  # what every step of a small network waits for
                inputs, targets = kept.take(part.own)
                yield Batch(inputs, targets, part.whole, part.own, 0 if part.lent else len(part.own), view)

    def _empty(self) -> Kept:
        return Kept(self._count, MEMORY // self.views)

    def _loads(self, works: list[Work]) -> Iterator[Load]:
        if works:
            return self._readers.run(works)
        self._readers.rest()
        return iter(())

    def _order(self, epoch: int) -> list[int]:
        if not self._train:
            return list(range(self._count))
        return torch.randperm(self._count, generator=generator("order", self._seed, epoch)).tolist()

    def _part(self, order: list[int], number: int, whole: int) -> _Part:
        first = number * self._size
        own = order[first : first + whole][self._world.part(whole)]
        if not own:
            return _Part(number, whole, order[first : first + min(whole, LENT)], lent=True)
        good = [place for place in own if place not in self._bad] if self._bad else own
        return _Part(number, whole, good, lent=False)

    def _is_held(self, part: _Part, view: int) -> bool:
        if self._held is None or not part.own:
            return False
        known = self._labels is not None or all(place in self._targets for place in part.own)
        return known and self._held(part.own, view)

    def _known(self, part: _Part, view: int) -> Batch:
        """Give a batch without its inputs."""
        known: Any = self._labels if self._labels is not None else self._targets
        targets = targets_of([known[place] for place in part.own])
        count = 0 if part.lent else len(part.own)
        return Batch(None, self._finish.targets(targets), part.whole, part.own, count, view)

    def _made(self, part: _Part, load: Load | None, places: list[int], now: _Round) -> Batch:
        own, lent = part.own, part.lent
        if load is not None:
            self._take_up(load, places, now.view)
            if load.bad:
                own = [place for place in own if place not in self._bad]
        if not own:
            place, load = self._lend(part, now)
            own, places, lent = [place], [place], True
        inputs, targets = self._together(own, load, places, self._kept[now.view])
        moment = (now.epoch, part.number)
        inputs, targets = self._finish.placed(inputs, targets, own, self._count, now.chance, moment)
        return Batch(inputs, targets, part.whole, own, 0 if lent else len(own), now.view)

    def _take_up(self, load: Load, places: list[int], view: int) -> None:
        """Note what could not be read, and keep what gives the same next time."""
        self._skipping.note(load)
        self._bad.update(places[row] for row in load.bad)
        good = [places[row] for row in load.good]
        if good and self._held is not None and self._labels is None:
            self._targets.update(zip(good, load.targets, strict=True))
        if good and self._same:
            self._kept[view].put(good, load)

    def _lend(self, part: _Part, now: _Round) -> tuple[int, Load]:
        """Find a sample that can be read, for a process that has none left of a batch: the next of the epoch."""
        first = part.number * self._size
        for place in (*now.order[first:], *now.order[:first]):
            if place in self._bad:
                continue
            load = self._readers.reader[Work([place], keys_of(now.chance, [place]))]
            self._take_up(load, [place], now.view)
            if load.good:
                return place, load
        what = f"none of {self._count} samples can be read"
        raise DataError(what, where="train.data", hint=f"the first: {self.skipped[0]}")

    def _together(self, own: list[int], load: Load | None, places: list[int], kept: Kept) -> tuple[Any, Any]:
        """Put a batch together of what is kept and what was read."""
        if load is None:
            inputs, targets = kept.take(own)
        elif len(load.good) == len(own):
            inputs, targets = load.inputs, load.targets
        else:
            read = {places[row]: at for at, row in enumerate(load.good)}
            pairs = [
                (load.inputs[read[place]], load.targets[read[place]]) if place in read else kept.one(place)
                for place in own
            ]
            inputs, targets = [value for value, _ in pairs], [target for _, target in pairs]
        return together(inputs, targets, self._collate)
