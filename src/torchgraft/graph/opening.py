"""Which boxes are shown open, and which part of a model is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from torchgraft.graph.drawing import Box, Edge

__all__ = ["deepest", "narrowed", "opened", "walk"]

_AT_A_GLANCE = 30
"""So many boxes are shown at first, about."""


def walk(box: Box) -> Iterator[Box]:
    """Go through a box and all that is in it, in the order of the pass."""
    yield box
    for child in box.boxes:
        yield from walk(child)


def deepest(root: Box, depth: int) -> frozenset[str]:
    """Open all boxes above a depth: the model's own modules are at depth 1."""
    found = {root.id}
    level = list(root.boxes)
    for _ in range(1, depth):
        found.update(box.id for box in level if box.boxes)
        level = [child for box in level for child in box.boxes]
    return frozenset(found)


def opened(root: Box, wanted: Iterable[str] = ()) -> frozenset[str]:
    """Open as much as can be taken in at a glance, and the way to what edits put in and where the pass breaks.

    Args:
        root: of the drawing.
        wanted: paths of modules that are opened in any case.
    """
    asked = set(wanted)
    found = {root.id}
    for way in _ways(root, (), asked):
        found.update(way)
    if asked:
        return frozenset(found)
    level = list(root.boxes)
    seen = sum(1 for box in walk(root) if box.id != root.id and _parent_open(root, box, found))
    while level:
        closed = [box for box in level if box.boxes and box.id not in found]
        more = sum(len(box.boxes) for box in closed)
        if seen + more > _AT_A_GLANCE and not (len(closed) == 1 and more <= _AT_A_GLANCE // 2):
            break
        found.update(box.id for box in closed)
        seen += more
        level = [child for box in level if box.id in found for child in box.boxes]
    return frozenset(found)


def _parent_open(root: Box, wanted: Box, found: set[str]) -> bool:
    return any(wanted is child for box in walk(root) if box.id in found for child in box.boxes)


def _ways(box: Box, above: tuple[str, ...], asked: set[str]) -> Iterator[tuple[str, ...]]:
    """Give the boxes to open to see what is marked, and what is asked for with its insides."""
    if (box.path in asked and box.role == "module") or not asked.isdisjoint(box.folded):
        yield (*above, box.id)
    for child in box.boxes:
        if child.mark and child.mark != box.mark:
            yield (*above, box.id)
        yield from _ways(child, (*above, box.id), asked)


def narrowed(root: Box, paths: Iterable[str]) -> Box:
    """Give the smallest box that holds all of some modules, with what goes in and comes out as boxes.

    Args:
        root: of the drawing.
        paths: of modules that are drawn.
    """
    wanted = set(paths)
    box = root
    while True:
        inside = [child for child in box.boxes if child.boxes and wanted & _paths(child)]
        if len(inside) != 1 or not wanted <= _paths(inside[0]) or box.path in wanted:
            break
        box = inside[0]
    return box if box is root else _with_ends(box)


def _paths(box: Box) -> set[str]:
    return {path for one in walk(box) for path in (one.path, *one.folded)}


def _with_ends(box: Box) -> Box:
    """Make boxes of what flows into a part and out of it, so that it stands by itself."""
    given = Box("in:", box.path, "input", role="input", gave=box.given)
    gave = Box("out:", box.path, "output", role="output", given=box.gave)
    edges = [Edge(e.source or given.id, e.target or gave.id, e.shape, e.times, e.mark) for e in box.edges]
    return replace(box, boxes=(given, *box.boxes, gave), edges=tuple(edges))
