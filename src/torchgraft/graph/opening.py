"""Which boxes are shown open, and which part of a model is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from torchgraft.graph.drawing import Box, Edge

__all__ = ["deepest", "narrowed", "opened", "walk"]

_AT_A_GLANCE = 30
"""So many boxes are shown at first, about."""

_TOO_MANY = 80
"""Where all that edits put in would take more boxes, such as adapters everywhere, it is not searched out."""

_EXAMPLE = 10
"""And as many more in one block, to show what all of its kind hold."""


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
    found = {root.id, *(id for way in _ways(root, (), asked) for id in way)}
    if not asked and _seen(root, found) > _TOO_MANY:
        found = {root.id}
    return frozenset(found if asked else _at_a_glance(root, found))


def _seen(root: Box, found: set[str]) -> int:
    return sum(len(box.boxes) for box in walk(root) if box.id in found)


def _at_a_glance(root: Box, found: set[str]) -> set[str]:
    """Open more, level by level; where a level is too much, one example of the most frequent kind."""
    seen = _seen(root, found)
    level, whole, plain = list(root.boxes), True, len(found) == 1
    while level and whole:
        closed = [box for box in level if box.boxes and box.id not in found]
        whole = seen + sum(len(box.boxes) for box in closed) <= _AT_A_GLANCE
        closed = closed if whole else _example(closed) if plain else []
        found.update(box.id for box in closed)
        seen += sum(len(box.boxes) for box in closed)
        level = [child for box in level if box.id in found for child in box.boxes]
        while not whole and closed:
            closed = _example(closed[0].boxes)
            found.update(box.id for box in closed)
    return found


def _example(boxes: Sequence[Box]) -> list[Box]:
    """Give the box in which most is computed, if it is small enough to be shown."""
    small = [box for box in boxes if box.boxes and len(box.boxes) <= _EXAMPLE]
    return [max(small, key=lambda box: (box.macs * box.times, box.parameters * box.times))] if small else []


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
    asked = [child.id for child in box.boxes if wanted & _paths(child)]
    if box.path in wanted or not asked:
        return box if box is root else _alone(box, [child.id for child in box.boxes])
    return _alone(box, asked)


def _paths(box: Box) -> set[str]:
    return {path for one in walk(box) for path in (one.path, *one.folded)}


_FIGURES = ("parameters", "trainable", "macs", "bytes")


def _alone(box: Box, kept: Sequence[str]) -> Box:
    """Leave some of the boxes of a part, with a box for what flows into them and one for what flows out."""
    edges: dict[tuple[str, str], Edge] = {}
    for edge in box.edges:
        ends = (edge.source if edge.source in kept else "in:", edge.target if edge.target in kept else "out:")
        if ends != ("in:", "out:"):
            edges.setdefault(ends, replace(edge, source=ends[0], target=ends[1]))
    into = tuple(dict.fromkeys(edge.shape for edge in edges.values() if edge.source == "in:"))
    out = tuple(dict.fromkeys(edge.shape for edge in edges.values() if edge.target == "out:"))
    given = Box("in:", "", "input", role="input", gave=into)
    gave = Box("out:", "", "output", role="output", given=out)
    inner = [child for child in box.boxes if child.id in kept]
    boxes = (*([given] if into else []), *inner, *([gave] if out else []))
    some = replace(box, boxes=boxes, edges=tuple(edges.values()), given=into, gave=out)
    if len(inner) == len(box.boxes):
        return some
    figures = {name: sum(getattr(one, name) * one.times for one in inner) for name in _FIGURES}
    return replace(some, **figures)
