"""A Hugging Face set that is read one row after the other: it need not fit, nor have a known end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice
from math import ceil
from typing import Any

from torchgraft.data.base import NOT_JUDGED, VAL_SHARE, DataSet, Fetch, Stream, Task, halves, usual_size
from torchgraft.data.images import Look, read_all
from torchgraft.data.maskfiles import Coding
from torchgraft.data.rows import Reader, Roles, RowSamples, bytes_of, roles
from torchgraft.data.rowsets import targets_of, undecoded
from torchgraft.errors import DataError

__all__ = ["VALIDATION", "RowStream", "open_stream"]

VALIDATION = 1000
"""So many samples of a stream are kept in memory, undecoded, to validate on."""
SHARDS = 64
"""A set on this disk is streamed as so many pieces, whose order is shuffled."""
LOOKED = 64
"""So many kept samples are decoded when a stream is opened, for their size and colours."""


class RowStream(Stream):
    """Rows in an order that seed and epoch determine: the pieces shuffled, then so many rows at a time.

    `held` are digests of what is kept to validate on; such rows are passed over wherever they come up.
    """

    def __init__(
        self,
        rows: Any,
        reader: Reader,
        *,
        buffer: int,
        held: frozenset[bytes] = frozenset(),
        length: int | None = None,
    ) -> None:
        self.rows = rows
        self.reader = reader
        self.buffer = buffer
        self.held = held
        self.length = length

    def pending(self, epoch: int, seed: int, *, start: int = 0) -> Iterator[Fetch]:
        """Give the samples of an epoch, none decoded yet."""
        # not the library's set_epoch, which stays on the object: this depends on what is asked alone
        rows = self.rows.shuffle(seed=_drawn(seed, epoch), buffer_size=self.buffer)
        fresh = (row for row in rows if not self.held or _digest(row, self.reader.roles) not in self.held)
        return (_Fetch(row, self.reader) for row in islice(fresh, start, None))


@dataclass(frozen=True)
class _Fetch:
    """A row that is decoded when it is called; it can be sent to another process."""

    row: Mapping[str, Any]
    reader: Reader

    def __call__(self) -> tuple[Any, Any]:
        return self.reader.given(self.row), self.reader.target(self.row)


def _drawn(seed: int, epoch: int) -> int:
    return int.from_bytes(blake2b(f"{seed}\0{epoch}".encode(), digest_size=4).digest(), "big")


def _digest(row: Mapping[str, Any], found: Roles) -> bytes:
    """Tell a row by its input, so that a second copy of it is on the same side."""
    value = row[found.given]
    try:
        whole = bytes_of(value) if found.kind == "image" else value
    except DataError:
        whole = ""
    return blake2b(whole if isinstance(whole, bytes) else str(whole).encode(), digest_size=16).digest()


def open_stream(
    train: Any,
    val: Any | None,
    asked: Mapping[str, str],
    *,
    task: Task | None,
    said: str,
    held: int,
    buffer: int,
    seed: int,
    where: str,
) -> DataSet:
    """Open a split as a stream, and keep some samples to validate on: of the other split, or of its own.

    Raises:
        DataError: the columns can't be told, the classes have no names, or no sample can be read.
    """
    train, val = _typed(train), None if val is None else _typed(val)
    found = roles(train.features, asked, task, where)
    rows = undecoded(train, found, where)
    reader = _reader(rows, found, asked, where)
    known = hasattr(rows, "select")
    if val is not None:
        kept = list(_heads(_pieces(undecoded(val, found, where)), held))
        stream = RowStream(_pieces(rows), reader, buffer=buffer, length=len(rows) if known else _count(train))
        split = f"{said}, of which {len(kept):,} samples are kept to validate on"
    elif known:
        stream, kept = _parted(rows, reader, held, buffer, seed, where)
        split = f"made: {len(kept):,} samples are kept to validate on, seed {seed}"
    else:
        kept = _sifted(rows, found, held, seed)
        digests = frozenset(_digest(row, found) for row in kept)
        stream = RowStream(rows, reader, buffer=buffer, held=digests)
        split = (
            f"made: {len(kept):,} samples are kept to validate on, and their like is never trained on, seed {seed}"
        )
    return _data_set(stream, kept, reader, split, where)


# the stream


def _typed(rows: Any) -> Any:
    """Give a stream the types of its columns, where its files do not say them: those of its first rows."""
    if rows.features is not None:
        return rows
    from datasets import Dataset

    return rows.cast(Dataset.from_list(list(rows.take(LOOKED))).features)


def _pieces(rows: Any) -> Any:
    """Make a stream of what may be a set on this disk."""
    return rows.to_iterable_dataset(num_shards=max(1, min(SHARDS, len(rows)))) if hasattr(rows, "select") else rows


def _count(rows: Any) -> int | None:
    """Say how many rows a split has, where its maker wrote it down."""
    splits = rows.info.splits or {}
    found = splits.get(str(rows.split)) if rows.split is not None else None
    return found.num_examples if found is not None and found.num_examples else None


def _reader(rows: Any, found: Roles, asked: Mapping[str, str], where: str) -> Reader:
    """Settle task and classes; a stream can't be searched for the names of its classes."""
    named = tuple(name.strip() for name in asked.get("classes", "").split(",") if name.strip()) or found.names
    if found.names is not None and named is not None and len(named) != len(found.names):
        raise DataError(f"the set has {len(found.names)} classes, not {len(named)}", where, "correct classes=")
    if found.task == "regression":
        return Reader(found, "regression", named or found.labels)
    if named is None and hasattr(rows, "select") and found.task != "mask":
        made = targets_of([rows], found, where)
        return _of(found, made.task, made.classes)
    if named is None:
        raise DataError(
            f"'{found.labels[0]}' does not name its classes, and a stream can't be searched for them",
            where,
            "name them in order: classes=cat,dog; or say task=regression",
        )
    return _of(found, found.task or "classes", named)


def _of(found: Roles, task: Task, classes: tuple[str, ...]) -> Reader:
    coding = Coding(classes, {**{place: place for place in range(len(classes))}, NOT_JUDGED: NOT_JUDGED})
    places = {name: place for place, name in enumerate(classes)}
    return Reader(found, task, classes, coding=coding if task == "mask" else None, places=places)


# what is kept to validate on


def _heads(rows: Any, count: int) -> Iterator[Mapping[str, Any]]:
    """Read the beginnings of all pieces, so many rows together: sets are often sorted by class."""
    pieces = rows.num_shards
    for piece in range(min(pieces, count)):
        yield from islice(rows.shard(pieces, piece), ceil(count / pieces))


def _parted(
    rows: Any, reader: Reader, held: int, buffer: int, seed: int, where: str
) -> tuple[RowStream, list[Any]]:
    """Draw the validation half of a set on this disk by number, as that of any set; no more than may be held."""
    column = rows[reader.roles.labels[0]][:] if reader.task == "classes" else [0] * len(rows)
    labels = [str(label) for label in column]
    names = sorted(set(labels))
    numbers = [names.index(label) for label in labels]
    keys = [str(number) for number in range(len(rows))]
    _, val = halves(numbers, task=reader.task, seed=seed, where=where, keys=keys)
    val = val[:: ceil(len(val) / held)]
    chosen = set(val)
    left = [number for number in range(len(rows)) if number not in chosen]
    stream = RowStream(_pieces(rows.select(left)), reader, buffer=buffer, length=len(left))
    return stream, [rows[number] for number in val]


def _sifted(rows: Any, found: Roles, held: int, seed: int) -> list[Mapping[str, Any]]:
    """Keep a fifth of the rows at the beginnings of all pieces, by what their inputs hash to."""
    kept: dict[bytes, Mapping[str, Any]] = {}
    least: tuple[bytes, Mapping[str, Any]] | None = None
    for row in _heads(rows, ceil(held / VAL_SHARE)):
        digest = _digest(row, found)
        drawn = blake2b(digest, key=str(seed).encode(), digest_size=4).digest()
        least = min(least or (drawn, row), (drawn, row), key=lambda pair: pair[0])
        if int.from_bytes(drawn, "big") < VAL_SHARE * 2**32 and len(kept) < held:
            kept[digest] = row
    return list(kept.values()) or ([least[1]] if least else [])


def _data_set(stream: RowStream, kept: Sequence[Any], reader: Reader, split: str, where: str) -> DataSet:
    """Decode a few of the kept samples for what the set looks like, and leave out those without a label."""
    labels: list[Any] = []
    skipped: list[str] = []
    good: list[int] = []
    for number, row in enumerate(kept):
        try:
            labels.append(() if reader.task == "mask" else reader.target(row))
            good.append(number)
        except DataError as error:
            skipped.append(f"validation row {number}: {error.what}")
    looks = _looks([kept[number] for number in good], reader)
    skipped += [f"validation row {good[place]}: {look.why}" for place, look in looks.items() if look.why]
    fine = [place for place in range(len(good)) if not (place in looks and looks[place].why)]
    if not fine:
        raise DataError("no sample of the stream can be read", where, skipped[0] if skipped else "it is empty")
    seen = [look for look in looks.values() if not look.why]
    image = reader.roles.kind == "image"
    grey = image and all(look.grey for look in seen)
    ready = replace(reader, mode="L" if grey else "RGB")
    stream.reader = ready
    chosen = () if reader.task == "mask" else [labels[place] for place in fine]
    return DataSet(
        train=stream,
        val=RowSamples(list(kept), [good[place] for place in fine], ready, chosen),
        classes=reader.classes,
        channels=0 if not image else 1 if grey else 3,
        size=usual_size([look.size for look in seen]) if seen else (0, 0),
        split=split,
        skipped=tuple(skipped),
        task=reader.task,
        kind=reader.roles.kind,
        notes=("samples of a stream that can't be read are found while it is read",),
    )


def _looks(rows: Sequence[Mapping[str, Any]], reader: Reader) -> dict[int, Look]:
    """Decode images from all over the kept rows."""
    if reader.roles.kind != "image":
        return {}
    places = range(0, len(rows), max(1, len(rows) // LOOKED))
    return dict(zip(places, read_all([_encoded(rows[place], reader) for place in places]), strict=True))


def _encoded(row: Mapping[str, Any], reader: Reader) -> Any:
    return lambda: bytes_of(row[reader.roles.given])
