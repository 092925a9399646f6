"""Which column of a table is what: told by the user, by its name, or by what stands in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Literal

from torchgraft.data.base import Task
from torchgraft.data.images import SUFFIXES
from torchgraft.data.table import Table
from torchgraft.data.targets import SWITCHES
from torchgraft.data.words import listing
from torchgraft.errors import DataError

__all__ = ["LABEL", "PARTS", "TEXT", "Columns", "choose"]

PATH = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "img", "image_path", "img_path",
        "image_file", "image_name", "image_id", "images", "id_code", "id")  # fmt: skip
LABEL = ("label", "labels", "class", "classes", "target", "targets", "category", "categories", "class_name",
         "label_name", "kind", "tags", "y", "sentiment", "species", "breed", "score", "rating")  # fmt: skip
TEXT = ("text", "sentence", "sentences", "content", "document", "review", "review_text", "comment", "comment_text",
        "message", "tweet", "body", "description", "question", "title")  # fmt: skip
SPLIT = ("split", "set", "subset", "part", "partition", "dataset", "fold", "is_valid", "is_val", "is_test")
INDEX = ("index", "idx", "id", "unnamed: 0")
PARTS: dict[str, Literal["train", "val", "test"]] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "eval": "val", "test": "test", "testing": "test",
}  # fmt: skip
"""Words for the parts of a set."""
LOOKED = 50
"""So many cells of a column are looked at for what it is."""


@dataclass(frozen=True)
class Columns:
    """What is read: paths of images or texts, the labels beside them, and the part of the set that a row is in.

    `note` says so, where it was not told by the user and is not plain.
    """

    kind: Literal["image", "text"]
    given: str
    labels: tuple[str, ...]
    split: str | None = None
    note: str = ""


def choose(table: Table, asked: Mapping[str, str], *, root: Path, task: Task | None, where: str) -> Columns:
    """Find the columns; what is asked for by `path`, `text`, `label` or `split` is taken as it is.

    Raises:
        DataError: a column that is asked for is not there, or it can't be told which is meant.
    """
    labels = tuple(table.named(name.strip(), where) for name in asked.get("label", "").split(",") if name.strip())
    split = table.named(asked["split"], where) if "split" in asked else _split(table, labels)
    free = [name for name in table.columns if name not in labels and name != split]
    kind, given = _given(table, asked, free, root, where)
    if given in labels:
        raise DataError(f"column '{given}' is asked for twice", where, "name another column for the labels")
    left = [name for name in free if name != given]
    found = labels or _labels(table, left, task, where)
    return Columns(kind, given, found, split, "" if labels else _note(kind, given, found, left))


def _note(kind: str, given: str, labels: Sequence[str], left: Sequence[str]) -> str:
    """Say what was found, where a column is left over or has another name than the usual ones."""
    unread = [name for name in left if name not in labels and name.casefold() not in INDEX and not name.isdigit()]
    usual = given.casefold() in (PATH if kind == "image" else TEXT) or given.isdigit()
    if usual and not unread:
        return ""
    role = "path" if kind == "image" else "text"
    over = f", {listing(unread)} {'is' if len(unread) == 1 else 'are'} not read" if unread else ""
    return (
        f"column '{given}' is taken as {role}, '{listing(labels)}' as label{over}: {role}= and label= say others"
    )


def _split(table: Table, taken: Sequence[str]) -> str | None:
    """Find a column of the usual names that holds nothing but words for the parts of a set."""
    for name in table.columns:
        words = {cell.casefold() for cell in table.column(name)} if name.casefold() in SPLIT else set()
        switch = name.casefold().startswith("is_") and words <= SWITCHES.keys()
        if name not in taken and words and (switch or words <= PARTS.keys()):
            return name
    return None


def _given(
    table: Table, asked: Mapping[str, str], free: Sequence[str], root: Path, where: str
) -> tuple[Literal["image", "text"], str]:
    """Find the column of paths or else of texts."""
    if "path" in asked and "text" in asked:
        raise DataError("both path= and text= are asked for", where, "leave one of them out")
    if "path" in asked:
        return "image", table.named(asked["path"], where)
    if "text" in asked:
        return "text", table.named(asked["text"], where)
    path = _first(free, PATH, lambda name: _are_files(table, name, root)) or _first(
        free, free, lambda name: _are_files(table, name, root)
    )
    if path is not None:
        return "image", path
    text = _first(free, TEXT, lambda name: True) or _longest(table, free)
    if text is not None:
        return "text", text
    raise DataError(
        f"no column of {table.path.name} names images that are there, or holds texts: {listing(free)}",
        where,
        "say which: ?path=COLUMN, with root=FOLDER where the paths begin elsewhere, or ?text=COLUMN",
    )


def _first(free: Sequence[str], known: Sequence[str], fits: Callable[[str], bool]) -> str | None:
    """Give the first column with one of the known names, in their order, that fits."""
    folded = {name.casefold(): name for name in reversed(free)}
    return next(
        (folded[one.casefold()] for one in known if one.casefold() in folded and fits(folded[one.casefold()])),
        None,
    )


def _are_files(table: Table, name: str, root: Path) -> bool:
    """Whether most cells end as images do, or name files."""
    cells = [cell for cell in table.column(name)[:LOOKED] if cell]
    files = [cell for cell in cells if Path(cell).suffix.lower() in SUFFIXES or located(cell, root) is not None]
    return 2 * len(files) > len(cells)


def located(cell: str, root: Path) -> Path | None:
    """Find the file that a cell names, which may leave its ending out; None where there is none."""
    try:
        path = root / cell.replace("\\", "/")
        if path.is_file():
            return path
        if path.suffix.lower() in SUFFIXES or not path.parent.is_dir():
            return None
        ended = (path.with_name(path.name + suffix) for suffix in sorted(SUFFIXES))
        return next((one for one in ended if one.is_file()), None)
    except (OSError, ValueError):  # a text is too long for a name, or holds what none may hold
        return None


def _longest(table: Table, free: Sequence[str]) -> str | None:
    """Give the column with the longest cells, if they are sentences: three words on average at least."""
    texts = {name: [cell for cell in table.column(name)[:LOOKED] if cell] for name in free}
    words = {name: mean(len(cell.split()) for cell in cells) for name, cells in texts.items() if cells}
    longest = max(words, key=lambda name: words[name], default=None)
    return longest if longest is not None and words[longest] >= 3 else None


def _labels(table: Table, left: Sequence[str], task: Task | None, where: str) -> tuple[str, ...]:
    """Find the columns of labels among those that are left."""
    named = _first(left, LABEL, lambda name: True)
    if named is not None:
        return (named,)
    others = [name for name in left if name.casefold() not in INDEX] or list(left)
    if len(others) == 1:
        return tuple(others)
    switches = [name for name in others if _are_switches(table, name)]
    if task == "regression":
        switches = [name for name in others if _are_numbers(table, name)]
    if switches and (task is not None or len(switches) == len(others)):
        return tuple(switches)
    if not others:
        raise DataError(f"{table.path.name} has no column of labels", where, "add one: label")
    raise DataError(
        f"any of the columns {listing(others)} may be the label",
        where,
        "say which: ?label=COLUMN, or several: ?label=A,B",
    )


def _are_switches(table: Table, name: str) -> bool:
    return all(cell.casefold() in SWITCHES for cell in table.column(name) if cell)


def _are_numbers(table: Table, name: str) -> bool:
    try:
        return bool([float(cell) for cell in table.column(name) if cell])
    except ValueError:
        return False
