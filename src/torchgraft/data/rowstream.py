"""A Hugging Face set that is read one row after the other: it need not fit, nor have a known end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from torchgraft.data.base import DataSet, Fetch, ListSamples, Stream, Task, VAL_SHARE, usual_size
from torchgraft.data.rows import Reader, bytes_of, roles
from torchgraft.data.rowsets import undecoded
from torchgraft.data.words import several
from torchgraft.errors import DataError

__all__ = ["VALIDATION", "RowStream", "open_stream"]

VALIDATION = 1000
"""So many samples of a stream are kept in memory, undecoded, to validate on."""
SHARDS = 64
"""A set on this disk is streamed as so many pieces, whose order is shuffled."""


class RowStream(Stream):
    """Rows in an order that seed and epoch determine: the pieces shuffled, then so many rows at a time.

    `held` are digests of what is kept to validate on; such rows are passed over wherever they come up.
    """

    def __init__(
        self, rows: Any, reader: Reader, *, buffer: int, held: frozenset[bytes] = frozenset(), length: int | None = None
    ) -> None:
        self.rows = rows
        self.reader = reader
        self.buffer = buffer
        self.held = held
        self.length = length

    def pending(self, epoch: int, seed: int, *, start: int = 0) -> Iterator[Fetch]:
        """Give the samples of an epoch, none decoded yet."""
        # a seed of its own for each epoch: the library's set_epoch is lost on a copy sent to another process
        rows = self.rows.shuffle(seed=_drawn(seed, epoch), buffer_size=self.buffer)
        passed = 0
        for row in rows:
            if self.held and _digest(row, self.reader) in self.held:
                continue
            passed += 1
            if passed > start:
                yield _fetch(row, self.reader)


class _HeldSamples(ListSamples):
    """Rows in memory, decoded when asked for."""


def _fetch(row: Mapping[str, Any], reader: Reader) -> Fetch:
    return lambda: (reader.given(row), reader.target(row))


def _drawn(seed: int, epoch: int) -> int:
    return int.from_bytes(blake2b(f"{seed}\0{epoch}".encode(), digest_size=4).digest(), "big")
