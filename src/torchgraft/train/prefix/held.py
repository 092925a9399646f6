"""Rows that are kept of each sample: in memory, or in files that are gone when the process ends."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["Held", "NoRoom"]

_CPU = torch.device("cpu")

Kind = tuple[tuple[int, ...], torch.dtype]
"""The shape and type of one row."""


class NoRoom(Exception):  # noqa: N818
    """What is to be kept does not fit; the words say why."""


class Held:
    """Rows by sample and view.

    Args:
        kinds: of the rows of each piece.
        count: samples that there are.
        views: variants of each.
        folder: where files are mapped into memory; in memory alone without one.

    Raises:
        NoRoom: neither memory nor the disk has so much room.
    """

    def __init__(self, kinds: Sequence[Kind], count: int, *, views: int = 1, folder: Path | None = None) -> None:
        self.kinds, self.count, self.views, self.folder = tuple(kinds), count, views, folder
        places = count * views
        self._there, self._lacking = np.zeros(places, dtype=bool), places
        if folder is None:
            self._rows = [_reserved(shape, dtype, places) for shape, dtype in kinds]
        else:
            self._rows = [_mapped(folder, shape, dtype, places) for shape, dtype in kinds]

    @property
    def bytes(self) -> int:
        """What it takes when every sample is there."""
        return sum(one.nbytes for one in self._rows)

    def _places(self, indices: Sequence[int], view: int) -> Tensor:
        places = torch.tensor(indices, dtype=torch.long)
        return places + view * self.count if view else places

    def holds(self, indices: Sequence[int], view: int = 0) -> bool:
        """Tell whether the rows of all these samples are there."""
        if self._lacking == 0:
            return True
        return bool(self._there[np.asarray(indices, dtype=np.int64) + view * self.count].all())

    def put(self, indices: Sequence[int], view: int, rows: Sequence[Tensor]) -> None:
        """Keep the rows `[N, …]` of each piece."""
        places = self._places(indices, view)
        for kept, one in zip(self._rows, rows, strict=True):
            kept.index_copy_(0, places, one.detach().to(kept.device))
        there = np.unique(places.numpy())
        self._lacking -= int((~self._there[there]).sum())
        self._there[there] = True

    def get(self, indices: Sequence[int], view: int, device: torch.device = _CPU) -> list[Tensor]:
        """Give the rows `[N, …]` of each piece, in memory of their own."""
        places = self._places(indices, view)
        found = [kept.index_select(0, places) for kept in self._rows]
        return found if device == _CPU else [one.to(device, non_blocking=True) for one in found]


def _reserved(shape: tuple[int, ...], dtype: torch.dtype, places: int) -> Tensor:
    try:
        return torch.empty((places, *shape), dtype=dtype)
    except RuntimeError as error:
        raise NoRoom("the memory does not have so much room") from error


def _mapped(folder: Path, shape: tuple[int, ...], dtype: torch.dtype, places: int) -> Tensor:
    """Map a file into memory. Its name goes at once, so nothing is left however the run ends."""
    size = places * math.prod(shape) * dtype.itemsize
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".prefix-{os.getpid()}-{np.random.SeedSequence().entropy:x}"
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a page without room would end the process later
        whole = torch.from_file(str(path), shared=True, size=places * math.prod(shape), dtype=dtype)
    except OSError as error:
        raise NoRoom(f"{folder} does not have so much room: {error.strerror}") from error
    finally:
        path.unlink(missing_ok=True)
    return whole.view(places, *shape)
