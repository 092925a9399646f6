"""Batches of a stream: read one sample after the other, decoded by the process that trains on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from torchgraft.data.base import Fetch, Stream
from torchgraft.errors import DataError
from torchgraft.train.feeds.base import Batch, Feed
from torchgraft.train.feeds.finish import Finish
from torchgraft.train.feeds.reading import Collate, Load, Readers, Skipping, Work, keys_of, together
from torchgraft.train.feeds.samples import LENT, sizes_of
from torchgraft.train.world import World

__all__ = ["StreamFeed"]


@dataclass(frozen=True, slots=True)
class _Part:
    """What this process has to do with one batch; `places` are those of its samples in the batch."""

    number: int
    whole: int
    places: range
    lent: bool


class StreamFeed(Feed):
    """Batches of a stream, in the order that it gives.

    Every process goes through the whole stream and decodes its own part of each batch alone, so that a batch is
    the same on any number of processes. Passing over batches decodes nothing.

    Args:
        stream: what is read.
        readers: who decodes and prepares it.
        size: samples of a batch over all processes.
        train: leave out a last batch of one.
        seed: of the order.
        world: which part is this process's own.
        collate: makes a batch of prepared inputs; tensors are stacked without it.
        finish: brings batches to the device and varies them.
        strict: refuse a sample that can't be read.
    """

    def __init__(
        self,
        stream: Stream,
        readers: Readers,
        *,
        size: int,
        train: bool,
        seed: int,
        world: World,
        collate: Collate | None,
        finish: Finish,
        strict: bool,
    ) -> None:
        self._stream, self._readers, self._size, self._train = stream, readers, size, train
        self._seed, self._world, self._collate, self._finish = seed, world, collate, finish
        self._skipping = Skipping(strict=strict)

    @property
    def skipped(self) -> list[str]:  # type: ignore[override]
        """What could not be read so far."""
        return self._skipping.named

    def sizes(self) -> list[int] | None:
        """Count the samples of each batch of an epoch, where the stream knows its length."""
        if self._stream.length is None:
            return None
        return sizes_of(self._stream.length, self._size, train=self._train)

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Give the batches of an epoch, from number `start` on."""
        parts: deque[_Part] = deque()
        for load in self._readers.run(self._works(epoch, start, parts)):
            self._skipping.note(load)
            yield self._made(parts.popleft(), load, epoch)

    def _works(self, epoch: int, start: int, parts: deque[_Part]) -> Iterator[Work]:
        """Say what is to be read, batch by batch; `parts` gets what each is for."""
        for number, block in enumerate(self._blocks(epoch, start), start):
            whole = len(block)
            places = range(whole)[self._world.part(whole)]
            part = _Part(number, whole, places or range(min(whole, LENT)), lent=not places)
            parts.append(part)
            ordinals = [number * self._size + place for place in part.places]
            yield Work([block[place] for place in part.places], keys_of(epoch, ordinals))

    def _blocks(self, epoch: int, start: int) -> Iterator[list[Fetch]]:
        """Cut the stream into batches; in training a last one of one sample is left out, if there are others."""
        fetches = self._stream.pending(epoch, self._seed, start=start * self._size)
        number = start
        while block := list(islice(fetches, self._size)):
            if self._train and number and len(block) == 1 and self._size > 1:
                return
            yield block
            number += 1

    def _made(self, part: _Part, load: Load, epoch: int) -> Batch:
        places, lent = [part.places[row] for row in load.good], part.lent
        if not places:
            load, places, lent = self._lend(part, epoch), [0], True
        inputs, targets = together(load.inputs, load.targets, self._collate)
        chance = (epoch << 32) + part.number
        inputs, targets = self._finish.placed(inputs, targets, places, self._size, chance, (epoch, part.number))
        ordinals = [part.number * self._size + place for place in places]
        return Batch(inputs, targets, part.whole, ordinals, 0 if lent else len(places))

    def _lend(self, part: _Part, epoch: int) -> Load:
        """Find a sample that can be read, for a process that has none of a batch: the next one of the epoch."""
        first = part.number * self._size
        for start in (first, 0):
            for place, fetch in enumerate(self._stream.pending(epoch, self._seed, start=start), start):
                load = self._readers.reader[Work([fetch], keys_of(epoch, [place]))]
                if load.good:
                    return load
                self._skipping.note(load)
        raise DataError("no sample of the stream can be read", "train.data", f"the first: {self.skipped[0]}")
