"""Which rows of a summary are shown: as deep as is well read, with equal neighbours folded to one line."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from torchgraft.view.summary_rows import JOINS, Row

__all__ = ["FOLDED", "Line", "lines_of"]

FOLDED = 40
"""A table of more lines is shown less deep, and what repeats is folded."""

_SMALL = 100
"""An operation without products that takes less than one part in so many of its module's memory is left out."""

_LEAVES = 3
"""So many equal leaves in a row are folded; of modules that hold others, two."""


@dataclass(frozen=True)
class Line:
    """One line: a row, or several equal ones that follow each other.

    Attributes:
        rows: what it stands for.
        name: how it is called here.
        guide: what draws the tree in front of it.
        like: the name of the equal one that is shown in full.
        top: the row that holds these; None at the top.
    """

    rows: tuple[Row, ...]
    name: str
    guide: str = ""
    like: str = ""
    top: Row | None = None


@dataclass(slots=True)
class _Node:
    row: Row
    below: list[_Node] = field(default_factory=list)

    def lines(self, depth: int) -> int:
        """Count the lines that this takes without folding."""
        return 1 + (sum(one.lines(depth - 1) for one in self.below) if depth else 0)


def lines_of(rows: Sequence[Row], depth: int | None = None, *, limit: int = FOLDED) -> list[Line]:
    """Lay out rows as lines.

    Args:
        rows: each module before what is in it.
        depth: how deep below the first rows; None for as deep as `limit` lines allow, at least one step.
        limit: more lines than these are folded where neighbours are equal.
    """
    tops = _nodes(rows)
    deepest = max((row.depth for row in rows), default=0) - min((row.depth for row in rows), default=0)
    if sum(top.lines(deepest if depth is None else depth) for top in tops) <= limit:
        return _all(tops, deepest if depth is None else depth, folded=False)
    if depth is not None:
        return _all(tops, depth, folded=True)
    for steps in range(deepest, 0, -1):
        lines = _all(tops, steps, folded=True)
        if len(lines) <= limit:
            break
    return lines


def _nodes(rows: Sequence[Row]) -> list[_Node]:
    tops: list[_Node] = []
    stack: list[_Node] = []
    for row in rows:
        while stack and stack[-1].row.depth >= row.depth:
            stack.pop()
        if stack and _is_small(row, stack[-1].row):
            continue
        node = _Node(row)
        (stack[-1].below if stack else tops).append(node)
        stack.append(node)
    return tops


def _is_small(row: Row, home: Row) -> bool:
    small = row.sort == "operation" and not row.macs and row.name not in JOINS
    return small and row.activations * _SMALL < home.activations


def _all(tops: Sequence[_Node], depth: int, *, folded: bool) -> list[Line]:
    return [
        line
        for top in tops
        for line in (
            Line((top.row,), top.row.path or top.row.name),
            *(_below(top, depth, "", folded=folded)),
        )
    ]


def _below(node: _Node, depth: int, guide: str, *, folded: bool) -> list[Line]:
    """Lay out what is in a module."""
    if not depth:
        return []
    runs = _runs(node.below) if folded else [[one] for one in node.below]
    found: list[Line] = []
    for number, run in enumerate(runs):
        last = number == len(runs) - 1
        found += _run(run, node.row, depth, guide, last=last, folded=folded)
    return found


def _run(run: list[_Node], top: Row, depth: int, guide: str, *, last: bool, folded: bool) -> list[Line]:
    """Lay out equal neighbours: the first in full, where there is something in it, and the others as one."""
    first, *others = run
    opened = bool(first.below) and depth > 1 and bool(others)
    shown = [first] if opened or not others else run
    ends = last and not opened
    lines = [Line(tuple([one.row for one in shown]), _name(shown), guide + ("└ " if ends else "├ "), top=top)]
    if len(shown) == 1:
        lines += _below(first, depth - 1, guide + ("  " if ends else "│ "), folded=folded)
    if opened:
        rows = tuple([one.row for one in others])
        lines.append(Line(rows, _name(others), guide + ("└ " if last else "├ "), like=first.row.name, top=top))
    return lines


def _name(run: Sequence[_Node]) -> str:
    first, last = run[0].row.name, run[-1].row.name
    return first if len(run) == 1 else f"{first}–{last}"


def _runs(nodes: Sequence[_Node]) -> list[list[_Node]]:
    """Put equal neighbours together, where they are enough to be worth it."""
    runs: list[list[_Node]] = []
    for node in nodes:
        if runs and node.row.sort == "module" and _equal(runs[-1][0], node):
            runs[-1].append(node)
        else:
            runs.append([node])
    return list(
        itertools.chain.from_iterable(
            [run] if run[0].below or len(run) >= _LEAVES else [[one] for one in run] for run in runs
        )
    )


def _equal(one: _Node, other: _Node) -> bool:
    """Tell whether two modules take, give and hold the same, and so does all that is in them."""
    a, b = one.row, other.row
    if a.depth != b.depth or a[2:4] != b[2:4] or a[5:17] != b[5:17] or a[18:] != b[18:] or a.tied or b.tied:
        return False
    pairs = itertools.zip_longest(one.below, other.below)
    return all(x is not None and y is not None and x.row.name == y.row.name and _equal(x, y) for x, y in pairs)
