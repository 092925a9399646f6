"""A table in a text file: its columns by name, its rows with the lines they begin at."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torchgraft.data.images import SUFFIXES
from torchgraft.errors import DataError, nearest

__all__ = ["Row", "Table", "read_table"]

DELIMITERS = {"tab": "\t", "comma": ",", "semicolon": ";", "bar": "|"}
_LONGEST = 2**24
"""So many characters one cell may have: the csv module's own limit is below that of a long text."""


@dataclass(frozen=True)
class Row:
    """One row: the line of the file that it begins at, from 1, and its cells without the blanks around them."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Names of columns, and rows that have a cell for each; columns are '1', '2', … where the file names none."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def column(self, name: str) -> list[str]:
        """List the cells of a column."""
        place = self.columns.index(name)
        return [row.cells[place] for row in self.rows]

    def named(self, asked: str, where: str) -> str:
        """Give the name of a column as the file writes it; upper and lower case are alike.

        Raises:
            DataError: there is no such column.
        """
        folded = {name.casefold(): name for name in reversed(self.columns)}
        if asked in self.columns:
            return asked
        if asked.casefold() in folded:
            return folded[asked.casefold()]
        hint = nearest(asked, self.columns) or f"it has {', '.join(self.columns)}"
        raise DataError(f"{self.path.name} has no column '{asked}'", where, hint)


def read_table(path: Path, *, delimiter: str | None, root: Path, where: str) -> Table:
    """Read a table in UTF-8, with a header or, where its first row names a file that is there, without one.

    Args:
        path: the file.
        delimiter: `tab`, `comma`, `semicolon`, `bar` or a character; where it is None, what a first line such as
            `sep=;` says, a tab in a .tsv, else whichever cuts the first line into the most columns.
        root: the folder that file names are relative to.
        where: what the user called it.

    Raises:
        DataError: no such file, no text, no rows, or rows of different lengths; says the line.
    """
    text = _text(path, where)
    said = re.match(r"sep=([^\r\n])(?=\r?\n)", text, re.IGNORECASE)
    if said is not None:  # Excel's own first line; the lines after it keep their numbers
        text, delimiter = text[said.end() :], delimiter or said[1]
    csv.field_size_limit(_LONGEST)
    mark = DELIMITERS.get(delimiter or "", delimiter) or _delimiter(path, text)
    if len(mark) != 1:
        raise DataError(f"'{mark}' parts no columns", where, f"one character, or one of {', '.join(DELIMITERS)}")
    rows = list(_rows(text, mark, path, where))
    if not rows:
        raise DataError(f"{path} is empty", where, "write a header and a row for each sample")
    if _is_sample(rows[0], root):
        return Table(path, tuple(str(number) for number in range(1, len(rows[0].cells) + 1)), tuple(rows))
    columns = _columns(rows[0], path, where)
    if len(rows) == 1:
        raise DataError(f"{path} has a header and no rows", where, "write a row for each sample")
    return Table(path, columns, tuple(rows[1:]))


def _text(path: Path, where: str) -> str:
    """Read a file whole, with what its lines end in."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return file.read()
    except FileNotFoundError as error:
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = nearest(path.name, beside) or f"you are in {Path.cwd()}"
        raise DataError(f"there is no file {path}", where, hint) from error
    except IsADirectoryError as error:
        raise DataError(
            f"{path} is a folder, not a table", where, f"name a file, or write folder:{path}"
        ) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path} is not in UTF-8: line {line}", where, "save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}", where, "check its permissions") from error


def _delimiter(path: Path, text: str) -> str:
    """Take what cuts the first line into the most columns; a comma where nothing does."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    first = next((line for line in text.splitlines() if line.strip()), "")
    widths = {mark: len(next(csv.reader([first], delimiter=mark), [])) for mark in (",", "\t", ";", "|")}
    return max(widths, key=lambda mark: widths[mark])


def _rows(text: str, delimiter: str, path: Path, where: str) -> Iterator[Row]:
    """Read the rows, passing over blank lines."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    width, line = 0, 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                width = width or len(cells)
                if len(cells) != width:
                    raise DataError(
                        f"line {line} of {path.name} has {_counted(len(cells))}, the first one {width}",
                        where,
                        f'put "…" around a cell that holds {delimiter!r}, or mend the line',
                    )
                yield Row(line, tuple(cell.strip() for cell in cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"line {line} of {path.name} can't be read: {error}", where, "mend the line") from error


def _counted(count: int) -> str:
    return f"{count} column" + ("s" if count != 1 else "")


def _is_sample(row: Row, root: Path) -> bool:
    """Tell a sample from a header: one of its cells names an image that is there."""
    named = [cell for cell in row.cells if Path(cell).suffix.lower() in SUFFIXES]
    return any((root / cell).is_file() for cell in named)


def _columns(row: Row, path: Path, where: str) -> tuple[str, ...]:
    """Name the columns; one without a name is called by its number, as the index that pandas writes."""
    columns = tuple(cell or str(number) for number, cell in enumerate(row.cells, 1))
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"line {row.line} of {path.name} names '{twice}' twice", where, "rename a column")
    return columns
