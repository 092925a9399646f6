"""Prepared samples kept in memory while there is room: preparing gives the same each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from torchgraft.train.feeds.reading import Load

__all__ = ["Kept"]


class Kept:
    """Samples by their place: tensors of one shape as the rows of one tensor, anything else one by one.

    Args:
        count: places that there are.
        room: bytes that may be used.
    """

    def __init__(self, count: int, room: int) -> None:
        self._count = count
        self._room = room
        self._inputs: Tensor | None = None
        self._targets: Tensor | None = None
        self._rows = 0  # that are allocated
        self._used = 0
        self._row = [-1] * count
        self._loose: dict[int, tuple[Any, Any]] = {}

    def __contains__(self, place: int) -> bool:
        return self._row[place] >= 0 or place in self._loose

    @property
    def is_rows(self) -> bool:
        """Whether what is kept is stacked already."""
        return self._inputs is not None and not self._loose

    def holds(self, places: Sequence[int]) -> bool:
        """Tell whether all of these are kept."""
        return self._used == self._count or all(place in self for place in places)

    def put(self, places: Sequence[int], load: Load) -> None:
        """Keep what was read of these places, as far as there is room."""
        if isinstance(load.inputs, Tensor) and isinstance(load.targets, Tensor):
            self._put_rows(places, load.inputs, load.targets)
            return
        for place, value, target in zip(places, load.inputs, load.targets, strict=True):
            size = _bytes(value) + _bytes(target)
            if place not in self and size <= self._room:
                self._room -= size
                self._loose[place] = (value, target)

    def _put_rows(self, places: Sequence[int], inputs: Tensor, targets: Tensor) -> None:
        if self._inputs is None or self._targets is None:
            self._allocate(inputs, targets)
        assert self._inputs is not None
        assert self._targets is not None
        if not _fits(self._inputs, inputs) or not _fits(self._targets, targets):
            return
        fresh = [at for at, place in enumerate(places) if self._row[place] < 0][: self._rows - self._used]
        if not fresh:
            return
        for at in fresh:
            self._row[places[at]] = places[at] if self._rows == self._count else self._used
            self._used += 1
        rows, chosen = torch.tensor([self._row[places[at]] for at in fresh]), torch.tensor(fresh)
        self._inputs[rows] = inputs[chosen]
        self._targets[rows] = targets[chosen]

    def _allocate(self, inputs: Tensor, targets: Tensor) -> None:
        """Reserve room for every place, or for as many as fit; a system gives the pages as they are written."""
        size = inputs[0].nbytes + targets[0].nbytes
        self._rows = min(self._count, self._room // max(size, 1))
        self._room -= self._rows * size
        self._inputs = inputs.new_empty(self._rows, *inputs.shape[1:])
        self._targets = targets.new_empty(self._rows, *targets.shape[1:])

    def take(self, places: Sequence[int]) -> tuple[Any, Any]:
        """Give the inputs and targets of places that are kept: stacked where they are rows, else as two lists."""
        if self._inputs is None or self._targets is None or self._loose:  # lists, to be collated
            pairs = [self.one(place) for place in places]
            return [value for value, _ in pairs], [target for _, target in pairs]
        rows = places if self._rows == self._count else [self._row[place] for place in places]
        chosen = torch.tensor(rows)
        return self._inputs.index_select(0, chosen), self._targets.index_select(0, chosen)

    def one(self, place: int) -> tuple[Any, Any]:
        """Give one sample that is kept."""
        if place in self._loose:
            return self._loose[place]
        assert self._inputs is not None
        assert self._targets is not None
        return self._inputs[self._row[place]], self._targets[self._row[place]]


def _fits(rows: Tensor, more: Tensor) -> bool:
    return rows.shape[1:] == more.shape[1:] and rows.dtype == more.dtype


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(_bytes(one) for one in value.values())
    if isinstance(value, (list, tuple)):
        return sum(_bytes(one) for one in value)
    return len(value) if isinstance(value, (str, bytes)) else 8
