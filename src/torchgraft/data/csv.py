"""`csv:FILE`: a table of images or texts with their labels, a row for each sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torchgraft.data.base import (
    DataSet,
    DataSource,
    ListSamples,
    Progress,
    Samples,
    Task,
    made_split,
    usual_size,
)
from torchgraft.data.columns import PARTS, Columns, choose, located
from torchgraft.data.copies import apart, copies
from torchgraft.data.folder import FileSamples
from torchgraft.data.images import Look, read_all
from torchgraft.data.options import options, task_of
from torchgraft.data.table import Table, read_table
from torchgraft.data.targets import SWITCHES, Cells, Targets, read_targets
from torchgraft.data.words import several
from torchgraft.errors import DataError

__all__ = ["Csv"]

SETTINGS = ("path", "text", "label", "split", "root", "task", "sep")


@dataclass(frozen=True)
class _Read:
    """What is left of a table: the rows that are samples, what they give, and what was left out of them.

    `rows` are places in the table; `looks` has one of each for images, and is empty for texts.
    """

    table: Table
    columns: Columns
    rows: tuple[int, ...]
    looks: Mapping[Path, Look]
    paths: Mapping[int, Path]
    targets: Targets
    skipped: tuple[str, ...]
    unseen: int = 0

    def cells(self, name: str) -> list[str]:
        """List the cells of a column in the rows that are left."""
        column = self.table.column(name)
        return [column[row] for row in self.rows]

    def contents(self) -> list[bytes | str]:
        """Give what tells the inputs of the rows apart: digests of images, or the texts."""
        if self.columns.kind == "text":
            return [*self.cells(self.columns.given)]
        return [self.looks[self.paths[row]].digest for row in self.rows]


class Csv(DataSource):
    """A table of paths and labels, or of texts and labels: `csv:labels.csv`, or a TSV.

    Paths are relative to the file. Columns are found by their names (path, image, file; label, class, target;
    text; split) or by what stands in them, or are said: `csv:FILE?path=img&label=kind&split=part`; `root=FOLDER`
    is where paths begin, `sep=;` what parts the columns. Labels are words, `a|b` for several, one column of 0 and
    1 for each, or numbers: `task=classes`, `labels` or `regression` says what they are.
    """

    def open(self, *, seed: int = 0, strict: bool = False, progress: Progress | None = None) -> DataSet:
        """Read the table, then every image once; rows without a label or with an unreadable image are left out."""
        where = str(self)
        name, asked = options(self.rest, SETTINGS, where)
        file = Path(name).expanduser()
        root = Path(asked["root"]).expanduser() if "root" in asked else file.parent
        task = task_of(asked, where, ("classes", "labels", "regression"))
        table = read_table(file, delimiter=asked.get("sep"), root=root, where=where)
        columns = choose(table, asked, root=root, task=task, where=where)
        read = _read(table, columns, task, root, progress, where)
        if strict and read.skipped:
            raise DataError(several("rows that are no samples", read.skipped), where, "mend or remove them")
        return _data_set(read, seed, where)


# what is there


def _read(
    table: Table, columns: Columns, task: Task | None, root: Path, progress: Progress | None, where: str
) -> _Read:
    """Leave out the rows that are of no use, and make targets of the others."""
    rows = [number for number, part in enumerate(_parts(table, columns, where)) if part != "test"]
    unseen = len(table.rows) - len(rows)
    if not rows or "train" not in set(_parts(table, columns, where)):
        raise DataError(f"{table.path.name} has no row to train on", where, f"write train in '{columns.split}'")
    targets = read_targets(_cells(table, columns, rows, where), task)
    why = {row: "no label" for row, value in zip(rows, targets.values, strict=True) if value is None}
    given = table.column(columns.given)
    why.update({row: f"no {columns.given}" for row in rows if not given[row]})
    paths: dict[int, Path] = {}
    looks: dict[Path, Look] = {}
    if columns.kind == "image":
        paths = {row: located(given[row], root) or root / given[row] for row in rows if row not in why}
        files = list(dict.fromkeys(paths.values()))
        looks = dict(zip(files, read_all(files, progress), strict=True))
        why.update({row: f"{given[row]}: {looks[path].why}" for row, path in paths.items() if looks[path].why})
    good = tuple(row for row in rows if row not in why)
    skipped = tuple(f"line {table.rows[row].line}: {why[row]}" for row in sorted(why))
    if not good:
        raise DataError(
            several(f"no row of {table.path.name} is a sample", skipped),
            where,
            f"paths begin at {root.absolute()}: ?root=FOLDER names another folder" if paths else "mend the table",
        )
    left = read_targets(_cells(table, columns, good, where), targets.task)
    found = (columns.note,) if columns.note else ()
    notes = (*found, *targets.notes, *_twice(paths, good))
    final = Targets(left.task, left.classes, left.values, notes)
    return _Read(table, columns, good, looks, paths, final, skipped, unseen)


def _cells(table: Table, columns: Columns, rows: Sequence[int], where: str) -> Cells:
    """Take the labels of some rows, each called by its line."""
    taken = {}
    for name in columns.labels:
        column = table.column(name)
        taken[name] = [column[row] for row in rows]
    lines = [table.rows[row].line for row in rows]
    return Cells(taken, lambda number: f"line {lines[number]} of {table.path.name}", where)


def _twice(paths: Mapping[int, Path], good: Sequence[int]) -> tuple[str, ...]:
    """Tell of files that come up in several rows, as tables with a row for each label have them."""
    named = [paths[row] for row in good if row in paths]
    extra = len(named) - len(set(named))
    if not extra:
        return ()
    said = f"{extra} rows name files" if extra > 1 else "a row names a file"
    return (f"{said} that an earlier one names; several labels are written a|b in one row",)


# the halves


def _parts(table: Table, columns: Columns, where: str) -> list[str]:
    """Say for each row which part of the set it is in; all are in `train` where nothing is stated."""
    if columns.split is None:
        return ["train"] * len(table.rows)
    words: Mapping[str, str] = PARTS
    if columns.split.casefold().startswith("is_"):
        words = {word: "val" if on else "train" for word, on in SWITCHES.items()}
    cells = table.column(columns.split)
    for row, cell in zip(table.rows, cells, strict=True):
        if cell.casefold() not in words:
            raise DataError(
                f"line {row.line} of {table.path.name} is in '{cell}', which is no part of a set",
                where,
                "write train, val or test",
            )
    parts = [words[cell.casefold()] for cell in cells]
    return parts if "val" in parts else ["val" if part == "test" else part for part in parts]


def _halved(read: _Read, seed: int, where: str) -> tuple[list[int], list[int], str]:
    """Give the places of both halves among the rows that are left, and say where they come from."""
    stated = _parts(read.table, read.columns, where)
    parts = [stated[row] for row in read.rows]
    if "val" not in set(stated):
        keys = read.cells(read.columns.given)
        values, task = read.targets.values, read.targets.task
        train, val = apart(values, read.contents(), task=task, seed=seed, where=where, keys=keys)
        return train, val, made_split(seed, read.targets.task)
    train = [place for place, part in enumerate(parts) if part == "train"]
    val = [place for place, part in enumerate(parts) if part == "val"]
    if not train or not val:
        half = "to validate on" if train else "to train on"
        raise DataError(f"no row {half} can be read", where, several("left out", read.skipped))
    unseen = f"; {read.unseen} rows of test are left unseen" if read.unseen else ""
    said = f"stated: column '{read.columns.split}'{unseen}{_judged(read.targets, train, val, where)}"
    return train, val, said


def _judged(targets: Targets, train: Sequence[int], val: Sequence[int], where: str) -> str:
    """Refuse a class that only the validation half has, and name those that it lacks."""
    if targets.task != "classes":
        return ""
    trained, judged = ({targets.values[place] for place in half} for half in (train, val))
    foreign = [targets.classes[label] for label in sorted(judged - trained)]
    if foreign:
        raise DataError(
            several("classes that no training row has", foreign), where, "correct the split or the labels"
        )
    missing = [targets.classes[label] for label in sorted(trained - judged)]
    return f"; {several('never validated', missing)}" if missing else ""


def _data_set(read: _Read, seed: int, where: str) -> DataSet:
    train, val, split = _halved(read, seed, where)
    contents = read.contents()
    looks = [read.looks[read.paths[row]] for row in read.rows] if read.columns.kind == "image" else []
    grey = bool(looks) and all(look.grey for look in looks)
    return DataSet(
        train=_samples(read, train, grey=grey),
        val=_samples(read, val, grey=grey),
        classes=read.targets.classes,
        channels=0 if not looks else 1 if grey else 3,
        size=usual_size([look.size for look in looks]) if looks else (0, 0),
        split=split,
        skipped=read.skipped,
        task=read.targets.task,
        kind=read.columns.kind,
        notes=read.targets.notes,
        shared=copies((contents[place] for place in train), (contents[place] for place in val)),
    )


def _samples(read: _Read, places: Sequence[int], *, grey: bool) -> Samples:
    labels = [read.targets.values[place] for place in places]
    if read.columns.kind == "text":
        texts = read.cells(read.columns.given)
        return ListSamples([texts[place] for place in places], labels)
    paths = [read.paths[read.rows[place]] for place in places]
    images = [read.looks[path].image for path in paths]
    return FileSamples(paths, labels, mode="L" if grey else "RGB", images=images)
