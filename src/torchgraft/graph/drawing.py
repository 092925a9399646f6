"""What is drawn, as data: nested boxes, and edges between neighbours inside of a box."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["BREAK", "ROOT", "Box", "Drawing", "Edge", "Mark", "Role", "State"]

Role = Literal["module", "operation", "input", "output", "constant"]
"""What a box stands for; a constant is a parameter or buffer that an operation reads by itself."""

State = Literal["none", "trainable", "frozen", "partly"]
"""Whether training changes what is inside; `none`: it holds no parameters."""

Mark = Literal["", "new", "repaired", "added", "removed", "changed", "broken"]
"""What an edit put in, what a repair put in; in a difference, what one side has; where the pass breaks off."""


ROOT = "(model)"
"""The id of the box that is the whole model."""

BREAK = "breaks off at"
"""The name of the fact that says where the pass breaks off, and why."""


@dataclass(frozen=True)
class Edge:
    """A tensor on its way between two boxes of the same parent.

    Attributes:
        source: the id of a box, or "" for what goes into the parent.
        target: the id of a box, or "" for what comes out of the parent.
        shape: of the tensor as its source gave it, such as `[N, 64, 56, 56]`; of several, all, with commas.
        times: how many tensors take this way.
        mark: as that of a box.
    """

    source: str
    target: str
    shape: str = ""
    times: int = 1
    mark: Mark = ""


@dataclass(frozen=True)
class Box:
    """A module call, an operation that matters, an input, or an output.

    Attributes:
        id: unique in the drawing.
        path: of the module; of an operation, that of the module whose forward calls it.
        label: the name in its parent, or that of the operation.
        kind: the class of the module, or "".
        role: what it stands for.
        detail: its settings in short, such as `3×3, 64 → 128, stride 2`.
        given: shapes that go in.
        gave: shapes that come out.
        parameters: how many numbers it holds, those inside included; each counted once.
        trainable: how many of them training changes.
        macs: multiply-accumulates for one sample.
        bytes: of the activations that it makes, for one sample.
        state: whether training changes it.
        mark: what edits, repairs or a difference say of it.
        edit: the number of the edit that put it in.
        call: which call of the module it is, from 1; `calls` says how many there are.
        calls: how often the module is called.
        times: it stands for so many alike in a row; all figures are those of one.
        folded: the paths of all that it stands for, itself first; one path where one module is called again.
        boxes: what is inside, in the order of the pass.
        edges: between those, from "" (in) to "" (out).
        notes: what else a reader wants to know, a line each.
    """

    id: str
    path: str
    label: str
    kind: str = ""
    role: Role = "module"
    detail: str = ""
    given: tuple[str, ...] = ()
    gave: tuple[str, ...] = ()
    parameters: int = 0
    trainable: int = 0
    macs: int = 0
    bytes: int = 0
    state: State = "none"
    mark: Mark = ""
    edit: int | None = None
    call: int = 1
    calls: int = 1
    times: int = 1
    folded: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    edges: tuple[Edge, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drawing:
    """A whole picture.

    Attributes:
        title: what is drawn.
        root: the model; its boxes are inputs, top modules, outputs.
        opened: ids of the boxes that are shown open at first.
        facts: what stands below the title: parameters, MACs, input.
    """

    title: str
    root: Box
    opened: frozenset[str] = frozenset()
    facts: tuple[tuple[str, str], ...] = field(default=())

    @property
    def broke(self) -> str:
        """Where the pass breaks off, and why; empty where it does not."""
        return dict(self.facts).get(BREAK, "")

    def summary(self) -> str:
        """Say how much is in the picture, and where the pass breaks off."""
        shown = sum(len(box.boxes) for box in _walked(self.root) if box.id in self.opened)
        inside = sum(1 for _ in _walked(self.root)) - 1
        more = f", {inside - shown} more in closed ones" if inside > shown else ""
        broke = "".join(f"; the pass {BREAK} {words}" for name, words in self.facts if name == BREAK)
        return f"{shown} boxes{more}{broke}"

    def __str__(self) -> str:
        return f"{self.title}: {self.summary()}"

    def _repr_svg_(self) -> str:
        """Show the picture in a notebook."""
        from torchgraft.graph.svg import svg

        return svg(self)

    def svg(self) -> str:
        """Give the picture as the text of an SVG file."""
        return self._repr_svg_()


def _walked(box: Box) -> Iterator[Box]:
    yield box
    for child in box.boxes:
        yield from _walked(child)
