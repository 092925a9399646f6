"""What the words beside samples mean: a class, several labels, or quantities."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torchgraft.data.base import Task
from torchgraft.data.words import listing, natural
from torchgraft.errors import DataError

__all__ = ["Cells", "Targets", "read_targets"]

JOIN = "|"
"""What parts the labels of one cell: `red|round`."""
MARKS = (JOIN, ";", ",")
"""What parts them where it is said that there are several; the first that comes up."""
NO_NUMBER = frozenset({"", "na", "n/a", "nan", "null", "none"})
"""What stands in a column of numbers where there is none, as pandas and R write it."""
MEANT = re.compile(r"[+-]?[0-9]+([.,][0-9]+)*([eE][+-]?[0-9]+)?")
"""What is meant as a number, with commas too, which no number is read with."""
NOTES = 3
"""So many doubts about names are told."""
SWITCHES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1, "no": 0, "yes": 1}


@dataclass(frozen=True)
class Cells:
    """What stands beside the samples: columns of equal length, and how row number n is called in an error."""

    columns: Mapping[str, Sequence[str]]
    place: Callable[[int], str]
    where: str


@dataclass(frozen=True)
class Targets:
    """What each sample is to give: None where the row does not say. `notes` tell what was taken for granted."""

    task: Task
    classes: tuple[str, ...]
    values: tuple[Any, ...]
    notes: tuple[str, ...] = ()


def read_targets(cells: Cells, task: Task | None = None) -> Targets:
    """Make targets of one or more columns.

    What is not said is told by the cells: `a|b` is several labels; columns of 0 and 1 are labels too, one each.
    Words are classes. Numbers are quantities if one has a fraction. Whole numbers of one column are classes where
    each comes up twice or more on average, and quantities otherwise: a note says which, unless they are just
    0 … k - 1.

    Raises:
        DataError: a cell does not fit the task, with its line.
    """
    if task is None:
        task, notes = _told(cells)
    else:
        notes = ()
    made = _READERS[task](cells)
    return Targets(made.task, made.classes, made.values, (*notes, *made.notes))


def _told(cells: Cells) -> tuple[Task, tuple[str, ...]]:
    """Tell the task by the cells."""
    if len(cells.columns) > 1:
        return _told_of_several(cells)
    ((name, column),) = cells.columns.items()
    given = [cell for cell in column if cell]
    if any(JOIN in cell for cell in given):
        return "labels", ()
    numbers = _numbers([cell for cell in given if cell.casefold() not in NO_NUMBER])
    if not numbers:
        return "regression" if _were_meant_as_numbers(given) else "classes", ()
    if any(number != int(number) for number in numbers):
        return "regression", ()
    distinct = len(set(numbers))
    if set(numbers) == set(range(distinct)) and len(numbers) >= 2 * distinct:
        return "classes", ()
    if len(numbers) >= 2 * distinct:
        said = f"the {distinct} whole numbers of column '{name}' are taken as classes: task=regression takes them"
        return "classes", (f"{said} as quantities",)
    said = f"the whole numbers of column '{name}' hardly come up twice and are taken as quantities"
    return "regression", (f"{said}: task=classes takes them as classes",)


def _told_of_several(cells: Cells) -> tuple[Task, tuple[str, ...]]:
    names = list(cells.columns)
    given = [cell.casefold() for column in cells.columns.values() for cell in column if cell]
    if all(cell in SWITCHES for cell in given):
        rows = zip(*cells.columns.values(), strict=True)
        if all(sum(SWITCHES.get(cell.casefold(), 0) for cell in row) == 1 for row in rows):
            said = "each row has exactly one of its labels: task=classes makes classes of them"
            return "labels", (said,)
        return "labels", ()
    if _numbers([cell for cell in given if cell not in NO_NUMBER]):
        return "regression", ()
    word = next(name for name, column in cells.columns.items() if not _numbers([cell for cell in column if cell]))
    raise DataError(
        f"the columns {listing(names)} are no labels (0 and 1) and no quantities: '{word}' has other words",
        cells.where,
        f"name the label: label={word}",
    )


def _were_meant_as_numbers(given: Sequence[str]) -> bool:
    """Tell cells that hardly come up twice and are numbers but for some from words: an error then names those."""
    numbers = sum(MEANT.fullmatch(cell) is not None for cell in given)
    return 2 * numbers > len(given) and 2 * len(set(given)) > len(given)


def _numbers(given: Sequence[str]) -> list[float]:
    """Read every cell as a number, or give nothing where one is none."""
    try:
        numbers = [float(cell) for cell in given]
    except ValueError:
        return []
    return numbers if all(math.isfinite(number) for number in numbers) else []


def _one(cells: Cells, task: Task) -> tuple[str, Sequence[str]]:
    if len(cells.columns) > 1:
        raise DataError(f"{task} stand in one column, not in {listing(list(cells.columns))}", cells.where)
    return next(iter(cells.columns.items()))


def _classes(cells: Cells) -> Targets:
    """Number the words in their natural order; columns of 0 and 1 with exactly one 1 in a row are classes too."""
    if len(cells.columns) > 1:
        return _of_one_hot(cells)
    _, column = _one(cells, "classes")
    missing = NO_NUMBER if _numbers([cell for cell in column if cell.casefold() not in NO_NUMBER]) else {""}
    words = ["" if cell.casefold() in missing else _whole(cell) for cell in column]
    classes = tuple(sorted({word for word in words if word}, key=_order))
    places = {name: place for place, name in enumerate(classes)}
    if len(classes) < 2:
        only = f"one class only, '{classes[0]}'" if classes else "no class at all"
        raise DataError(f"there is {only}", cells.where, "add samples of another class")
    return Targets(
        "classes", classes, tuple(places.get(word) for word in words), tuple(islice(_doubts(classes), NOTES))
    )


def _doubts(classes: Sequence[str]) -> Iterator[str]:
    """Tell of names that may not be meant as classes of their own."""
    known = set(classes)
    for name in classes:
        if name.casefold() in NO_NUMBER:
            yield f"'{name}' is taken as a class: where there is no label, leave the cell empty"
        if any(mark in name and {part.strip() for part in name.split(mark)} & known for mark in MARKS):
            yield f"'{name}' is taken as one class: task=labels takes its parts as several labels"
    folded = dict[str, str]()
    for name in classes:
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            yield f"'{other}' and '{name}' are two classes: upper and lower case tell them apart"


def _of_one_hot(cells: Cells) -> Targets:
    several = _labels(cells)
    odd = next((number for number, row in enumerate(several.values) if row is not None and sum(row) != 1), None)
    if odd is not None:
        raise DataError(
            f"{cells.place(odd)} has {sum(several.values[odd])} classes, not one",
            cells.where,
            "task=labels takes any number of them",
        )
    values = tuple(None if row is None else row.index(1) for row in several.values)
    return Targets("classes", several.classes, values)


def _whole(cell: str) -> str:
    """Write '3.0' as '3': whole numbers that went through a table with gaps."""
    return cell[:-2] if re.fullmatch(r"-?[0-9]+\.0", cell) else cell


def _order(name: str) -> tuple[float, tuple[list[str | int], str]]:
    """Sort numbers by their value, before words in natural order."""
    numbers = _numbers([name])
    return (numbers[0] if numbers else math.inf), natural(name)


def _labels(cells: Cells) -> Targets:
    """Read `a|b` cells of one column, or a column of 0 and 1 for each label."""
    if len(cells.columns) == 1:
        _, column = _one(cells, "labels")
        return _joined(column)
    rows = []
    for number, row in enumerate(zip(*cells.columns.values(), strict=True)):
        odd = next((cell for cell in row if cell and cell.casefold() not in SWITCHES), None)
        if odd is not None:
            name = list(cells.columns)[row.index(odd)]
            raise DataError(f"{cells.place(number)} has '{odd}' for '{name}', not 0 or 1", cells.where)
        rows.append(None if "" in row else tuple(SWITCHES[cell.casefold()] for cell in row))
    return Targets("labels", tuple(cells.columns), tuple(rows))


def _joined(column: Sequence[str]) -> Targets:
    """Read cells such as `red|round`; an empty one has none of the labels."""
    mark = next((one for one in MARKS if any(one in cell for cell in column)), JOIN)
    named = [{word.strip() for word in cell.split(mark)} - {""} for cell in column]
    classes = tuple(sorted(set().union(*named), key=natural))
    without = sum(not words for words in named)
    said = f"{without} samples have" if without > 1 else "a sample has"
    notes = (f"{said} none of the labels",) if without else ()
    values = tuple(tuple(int(name in words) for name in classes) for words in named)
    if mark != JOIN:
        notes = (*notes, f"the labels of a cell are parted by '{mark}'")
    return Targets("labels", classes, values, notes)


def _regression(cells: Cells) -> Targets:
    """Read a number from each column; a row that lacks one has no target."""
    rows = []
    for number, row in enumerate(zip(*cells.columns.values(), strict=True)):
        lacks = any(cell.casefold() in NO_NUMBER for cell in row)
        rows.append(None if lacks else tuple(_number(cell, number, cells) for cell in row))
    return Targets("regression", tuple(cells.columns), tuple(rows))


def _number(cell: str, row: int, cells: Cells) -> float:
    found = _numbers([cell])
    if not found:
        how = "write it with a point, and thousands with nothing" if "," in cell else "mend the cell"
        hint = f"{how}; task=classes takes words"
        raise DataError(f"{cells.place(row)} has '{cell}', which is no quantity", cells.where, hint)
    return found[0]


def _no_mask(cells: Cells) -> Targets:
    raise DataError("no column of words is a mask", cells.where, "keep masks as images: masks:FOLDER")


_READERS: dict[Task, Callable[[Cells], Targets]] = {
    "classes": _classes,
    "labels": _labels,
    "regression": _regression,
    "mask": _no_mask,
}
