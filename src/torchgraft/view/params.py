"""What a graft holds, to look at: a selection with its sizes, and a table of parameters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from torchgraft.params.table import FOLDED, Parameters, parameter_table
from torchgraft.select import Selection, described

if TYPE_CHECKING:
    from rich.table import Table

    from torchgraft.graft import Graft

__all__ = ["as_data", "params", "select", "table", "too_much"]

_WORDS = ("parameter", "shape", "dtype", "trained", "group", "")
_DISPENSABLE = ("zeros", "min", "max", "dtype", "mean", "std", "numbers", "trained", "")
"""What a narrow terminal does without, in this order."""


def params(
    graft: Graft, at: str | Iterable[str] | None = None, *, groups: Any = None, statistics: bool = True
) -> Parameters:
    """Write down a graft's parameters: `print(g.params("layer3", groups=optimizer))`.

    Args:
        graft: whose parameters they are.
        at: selectors of those that are wanted; all where none are given.
        groups: an optimizer, or what `g.groups(…)` gives: each parameter's group, rate and decay.
        statistics: read their values: mean, std, min, max, zeros.

    Raises:
        SelectionError: a selector matches nothing.
    """
    return parameter_table(
        graft.module, at, roles=graft.roles, groups=groups, added=graft.added, statistics=statistics
    )


def select(graft: Graft, at: str | Iterable[str]) -> Selection:
    """Say what selectors mean in a graft's model: `print(g.select("layer[34].**"))`.

    Raises:
        SelectionError: a selector matches nothing.
    """
    return described(graft.module, at, roles=graft.roles)


def table(parameters: Parameters, limit: int = FOLDED, *, without: Iterable[str] = ()) -> Table:
    """Draw a table of parameters, folded by module where it would be longer than `limit` lines."""
    from rich.table import Table

    head, *rows = _without(parameters.cells(limit), without)
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for name in head:
        drawn.add_column(name, justify="left" if name in _WORDS else "right", no_wrap=name == "parameter")
    for row in rows:
        drawn.add_row(*row)
    return drawn


def too_much(parameters: Parameters, width: int, limit: int = FOLDED) -> list[str]:
    """Name the columns without which no line of the table has more than `width` characters."""
    cells, left = parameters.cells(limit), list[str]()
    for name in _DISPENSABLE:
        if _wide(_without(cells, left)) <= width:
            break
        left += [name] if name in cells[0] else []
    return left


def _without(cells: list[tuple[str, ...]], left: Iterable[str]) -> list[tuple[str, ...]]:
    kept = [number for number, name in enumerate(cells[0]) if name not in left]
    return [tuple(row[number] for number in kept) for row in cells]


def _wide(cells: list[tuple[str, ...]]) -> int:
    """Measure the longest line, with two spaces between columns."""
    return sum(max(map(len, column)) + 2 for column in zip(*cells, strict=True)) - 2


def as_data(parameters: Parameters) -> dict[str, Any]:
    """Give a table of parameters as plain data."""
    totals = {name: getattr(parameters, name) for name in ("total", "trainable", "frozen", "new")}
    return {"parameters": [asdict(row) for row in parameters], **totals}
