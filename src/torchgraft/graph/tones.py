"""How boxes and edges are coloured in pictures: a stripe says what training changes, a tint what an edit did."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from torchgraft.graph.colours import LIGHT
from torchgraft.graph.drawing import Box

__all__ = ["Tone", "line_of", "lines", "names", "tone"]

_MARKS = {
    "new": ("new, by an edit", LIGHT.new),
    "repaired": ("put in by a repair", LIGHT.repaired),
    "added": ("added", LIGHT.added),
    "removed": ("removed", LIGHT.removed),
    "changed": ("changed", LIGHT.changed),
    "broken": ("the pass breaks off", LIGHT.removed),
}
_STATES = {
    "trainable": ("trainable", (LIGHT.trainable,)),
    "frozen": ("frozen", (LIGHT.frozen,)),
    "partly": ("partly frozen", (LIGHT.frozen, LIGHT.trainable)),
}


class Tone(NamedTuple):
    """The colours of a box: `stripe` from top to bottom, one or two, or none."""

    fill: str
    line: str
    stripe: tuple[str, ...]


def tone(box: Box, *, open: bool) -> Tone:
    """Give the colours of a box; what lies behind others is paler."""
    _, stripe = _STATES.get(box.state, ("", ()))
    if box.mark:
        colour = _MARKS[box.mark][1]
        return Tone(_mixed(colour, 0.06 if open else 0.16), colour, stripe)
    if not stripe:
        return Tone(LIGHT.page if open else LIGHT.cell, LIGHT.line if open else LIGHT.edge, ())
    share = 0.04 if open else 0.11
    fill = _mixed(stripe[0], share) if len(stripe) == 1 else LIGHT.page if open else LIGHT.paper
    return Tone(fill, _mixed(stripe[-1], 0.45 if open else 0.7), stripe)


def line_of(mark: str, *, skip: bool) -> str:
    """Give the colour of an edge; a skip goes beside a longer way."""
    return _MARKS[mark][1] if mark else LIGHT.accent if skip else LIGHT.edge


def names(boxes: Iterable[Box]) -> Iterator[tuple[str, Tone]]:
    """Give what the colours of boxes say, each once, with an example."""
    held = list(boxes)
    for state, (name, _) in _STATES.items():
        if any(box.state == state for box in held):
            yield name, tone(Box("", "", "", state=state), open=False)  # type: ignore[arg-type]
    for mark, (name, colour) in _MARKS.items():
        if any(box.mark == mark for box in held):
            yield name, Tone(_mixed(colour, 0.16), colour, ())


def lines(marks: Collection[str]) -> Iterator[tuple[str, str]]:
    """Give what the colours of edges say that no box says, each once."""
    yield from ((name, colour) for mark, (name, colour) in _MARKS.items() if mark in marks)


def _mixed(colour: str, share: float) -> str:
    """Mix a colour into white."""
    parts = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - (255 - one) * share):02x}" for one in parts)
