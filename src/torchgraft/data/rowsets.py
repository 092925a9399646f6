"""A Hugging Face set whose rows can be had by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torchgraft.data.base import DataSet, Progress, Task, made_split, usual_size
from torchgraft.data.copies import apart, copies
from torchgraft.data.images import Look, read_all, reason
from torchgraft.data.maskfiles import Coding, MaskLook, code, counts_of, raw_of
from torchgraft.data.rows import Reader, Roles, RowSamples, bytes_of, opened, roles
from torchgraft.data.targets import Cells, Targets, read_targets
from torchgraft.data.words import several
from torchgraft.errors import DataError

__all__ = ["open_rows", "targets_of", "undecoded"]

LOOKED = 20_000
"""A set with more images than this is not decoded when it is opened, but for so many, spread over it."""
UNLABELLED = -1
"""What stands in a column of ClassLabel where nobody said, as in the test splits of GLUE."""


@dataclass(frozen=True)
class _Half:
    """One split: its rows that are samples, what they were found to be, and what is wrong with others."""

    table: Any
    rows: tuple[int, ...]
    looks: tuple[Look, ...]
    masks: tuple[MaskLook, ...]
    skipped: tuple[str, ...]


def open_rows(
    train: Any,
    val: Any | None,
    asked: Mapping[str, str],
    *,
    task: Task | None,
    said: str,
    seed: int,
    strict: bool,
    progress: Progress | None,
    where: str,
) -> DataSet:
    """Look at every sample of one or two splits, leave out what can't be read, and make both halves.

    Raises:
        DataError: the columns can't be told, or nothing is left.
    """
    found = roles(train.features, asked, task, where)
    tables = [undecoded(one, found, where) for one in (train, val) if one is not None]
    targets = targets_of(tables, found, where)
    looked = [_look(table, found, values, progress) for table, values in zip(tables, targets.values, strict=True)]
    skipped = tuple(line for half in looked for line in half.skipped)
    if strict and skipped:
        raise DataError(several("rows that are no samples", skipped), where, "leave them out of the set")
    if not all(half.rows for half in looked):
        raise DataError(several("no row is a sample", skipped), where, "name other columns, or mend the set")
    reader, notes = _reader(found, targets, looked, where)
    return _data_set(looked, reader, targets, said=said, seed=seed, skipped=skipped, where=where, notes=notes)


def undecoded(table: Any, found: Roles, where: str) -> Any:
    """Give a split whose images stay bytes: the library's own decoder ends a stream at a broken one."""
    from datasets import Image

    images = [name for name in (found.given, *found.labels) if type(table.features.get(name)).__name__ == "Image"]
    missing = [name for name in (found.given, *found.labels) if name not in table.features]
    if missing:
        raise DataError(f"one of the splits has no column '{missing[0]}'", where, "its splits differ")
    table = table.with_format(None)  # a format or transform of the user's own would come in between
    for name in images:
        table = table.cast_column(name, Image(decode=False))
    return table.select_columns([found.given, *found.labels])


# targets


def targets_of(tables: Sequence[Any], found: Roles, where: str) -> Targets:
    """Read the targets of all splits; `values` has a list for each, None where a row does not say."""
    if found.task == "mask":
        return Targets("mask", (), tuple([()] * len(table) for table in tables))
    if found.names is not None:
        values = tuple(_numbered(table[found.labels[0]][:], found) for table in tables)
        return Targets(found.task or "classes", found.names, values)
    if type(tables[0].features[found.labels[0]]).__name__ in ("List", "LargeList", "Sequence"):
        return _of_lists([table[found.labels[0]][:] for table in tables], found, where)
    columns = {name: [_cell(one) for table in tables for one in table[name][:]] for name in found.labels}
    made = read_targets(Cells(columns, lambda number: f"row {number}", where), found.task)
    counts = [len(table) for table in tables]
    parts = [made.values[sum(counts[:place]) : sum(counts[: place + 1])] for place in range(len(counts))]
    return replace(made, values=tuple(parts))


def _numbered(column: Sequence[Any], found: Roles) -> list[Any]:
    """Read a column of ClassLabel, or of lists of them."""
    if found.task != "labels":
        return [None if one in (None, UNLABELLED) else int(one) for one in column]
    count = len(found.names or ())
    return [None if one is None else tuple(int(place in one) for place in range(count)) for one in column]


def _of_lists(columns: Sequence[Sequence[Any]], found: Roles, where: str) -> Targets:
    """Read lists of numbers: of fractions, quantities; of 0 and 1, labels."""
    widths = {len(one) for column in columns for one in column if one is not None}
    if len(widths) != 1:
        raise DataError(
            f"the lists of '{found.labels[0]}' have several lengths", where, "name another: label=COLUMN"
        )
    switches = all(number in (0, 1) for column in columns for one in column if one for number in one)
    task: Task = found.task or ("labels" if switches else "regression")
    as_number = int if task == "labels" else float
    names = tuple(f"{found.labels[0]} {place}" for place in range(widths.pop()))
    values = tuple(
        [None if one is None else tuple(as_number(number) for number in one) for one in column]
        for column in columns
    )
    return Targets(task, names, values)


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


# what is there


def _look(table: Any, found: Roles, values: Sequence[Any], progress: Progress | None) -> _Half:
    """Decode every image of a split, or some of very many, and see that there is a label and a text."""
    why = {number: "no label" for number, value in enumerate(values) if value is None}
    if found.kind == "text":
        texts = table[found.given][:]
        why.update({number: "no text" for number, text in enumerate(texts) if not (text or "").strip()})
    rows = [number for number in range(len(table)) if number not in why]
    looked: dict[int, Look] = {}
    if found.kind == "image":
        places = rows if len(rows) <= LOOKED else rows[:: max(1, len(rows) * 10 // LOOKED)]
        encoded = [_encoded(table, number, found.given) for number in places]
        looked = dict(zip(places, read_all(encoded, progress), strict=True))
        why.update({number: look.why for number, look in looked.items() if look.why})
    masks = {
        number: _mask_look(table, number, found) for number in rows if found.task == "mask" and number not in why
    }
    why.update({number: _misfit(look, looked.get(number)) for number, look in masks.items()})
    good = tuple(number for number in range(len(table)) if not why.get(number))
    name = f"{table.split} " if getattr(table, "split", None) is not None else ""
    skipped = tuple(f"{name}row {number}: {why[number]}" for number in sorted(why) if why[number])
    looks = tuple(looked.get(number, Look()) for number in good)
    return _Half(table, good, looks, tuple(masks[number] for number in good) if masks else (), skipped)


def _encoded(table: Any, number: int, column: str) -> Any:
    return lambda: bytes_of(table[number][column])


def _mask_look(table: Any, number: int, found: Roles) -> MaskLook:
    try:
        raw = raw_of(opened(bytes_of(table[number][found.labels[0]])))
        return MaskLook((raw.shape[0], raw.shape[1]), counts_of(raw))
    except Exception as error:  # Pillow's decoders raise nearly anything on broken bytes
        return MaskLook(why=reason(error))


def _misfit(mask: MaskLook, image: Look | None) -> str:
    """Say what is wrong with a mask; nothing where it fits its image."""
    if mask.why:
        return f"its mask: {mask.why}"
    if image is not None and image.size != mask.size:
        return f"its mask is {mask.size[0]}×{mask.size[1]}, the image {image.size[0]}×{image.size[1]}"
    return ""


def _reader(found: Roles, targets: Targets, looked: Sequence[_Half], where: str) -> tuple[Reader, tuple[str, ...]]:
    """Settle what all rows have in common: the mode of images, the coding of masks, the numbers of classes."""
    seen = [look for half in looked for look in half.looks if look.size != (0, 0)]
    mode = "L" if seen and all(look.grey for look in seen) else "RGB"
    coding: Coding | None = None
    if targets.task == "mask":
        coding = code([look for half in looked for look in half.masks], None, where)
    classes = coding.classes if coding is not None else targets.classes
    count = sum(len(half.rows) for half in looked)
    notes = [*targets.notes, *(coding.notes if coding is not None else ())]
    if found.kind == "image" and len(seen) < count:
        notes.append(
            f"{len(seen):,} of {count:,} images were looked at; others that can't be read are found later"
        )
    places = {name: place for place, name in enumerate(classes)}
    return Reader(found, targets.task, classes, mode, coding, places), tuple(notes)


# the halves


def _data_set(
    looked: Sequence[_Half],
    reader: Reader,
    targets: Targets,
    *,
    said: str,
    seed: int,
    skipped: tuple[str, ...],
    where: str,
    notes: tuple[str, ...],
) -> DataSet:
    every = [list(range(len(half.rows))) for half in looked]
    labels = [[targets.values[at][row] for row in half.rows] for at, half in enumerate(looked)]
    if len(looked) == 1:
        keys = [str(row) for row in looked[0].rows]
        contents = _contents(looked[0], reader)
        every = list(apart(labels[0], contents, task=targets.task, seed=seed, where=where, keys=keys))
        looked, labels = [looked[0], looked[0]], [labels[0], labels[0]]
        said = made_split(seed, targets.task)
    train, val = (_samples(*one, reader) for one in zip(looked, every, labels, strict=True))
    sizes = [look.size for half in looked for look in half.looks if look.size != (0, 0)]
    known = [_contents(half, reader) for half in looked]
    halved = [[one[place] for place in places] for one, places in zip(known, every, strict=True)]
    image = reader.roles.kind == "image"
    return DataSet(
        train=train,
        val=val,
        classes=reader.classes,
        channels=0 if not image else 1 if reader.mode == "L" else 3,
        size=usual_size(sizes) if sizes else (0, 0),
        split=said,
        skipped=skipped,
        task=targets.task,
        kind=reader.roles.kind,
        notes=notes,
        shared=copies(*halved),
    )


def _contents(half: _Half, reader: Reader) -> list[bytes | str]:
    """Give what tells the inputs of a split apart: digests of images, or the texts."""
    if reader.roles.kind == "image":
        return [look.digest for look in half.looks]
    texts = half.table[reader.roles.given][:]
    return [texts[row] for row in half.rows]


def _samples(half: _Half, places: Sequence[int], labels: Sequence[Any], reader: Reader) -> RowSamples:
    mask = reader.task == "mask"
    images = [half.looks[place].image for place in places]
    samples = RowSamples(
        half.table,
        [half.rows[place] for place in places],
        reader,
        () if mask else [labels[place] for place in places],
        images if any(image is not None for image in images) else (),
    )
    if mask and reader.coding is not None:
        samples.pixels = reader.coding.pixels([half.masks[place] for place in places])
    return samples
