"""One level of a drawing: the boxes of one call, and the edges that tensors draw between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from torchgraft.graph.drawing import ROOT, Box, Edge
from torchgraft.graph.flow import Flow
from torchgraft.graph.ops import sign
from torchgraft.graph.rotary import rotary
from torchgraft.trace import Call, Op

__all__ = ["Level"]

_Ends = dict[tuple[str, int], str]
"""Where a tensor comes from: boxes, each with the value that it gave, and the shape of that."""

_Folding = Callable[[Sequence[Box], Sequence[Edge]], tuple[Sequence[Box], Sequence[Edge]]]


class Level:
    """Boxes in the order of the pass; operations that are not drawn hand on where their tensors come from."""

    def __init__(self, flow: Flow, call: Call) -> None:
        self.id = call.path or ROOT
        self._flow, self._call = flow, call
        self._sources: dict[int, _Ends] = {}
        self._boxes: dict[str, Box] = {}
        self._edges: dict[tuple[str, str], dict[int, str]] = {}
        self._constants: dict[str, Box] = {}
        self._turns = rotary(flow, call)

    def joined(self, op: Op) -> list[int]:
        """Give the values that an operation, or the pattern that it ends, takes from somewhere."""
        return [one for one in op.inputs if one not in self._flow.void]

    def sign(self, op: Op, constants: Sequence[Box]) -> str:
        """Give what the box of an operation says; empty for one that is not drawn."""
        if op.index in self._turns:
            return self._turns[op.index]
        values = self._flow.trace.values
        full = [one for one in dict.fromkeys(self.joined(op)) if 0 not in values[one].shape]
        return sign(op, values[op.outputs[0]].dtype, len(full) + len(constants))

    def add(self, box: Box, reads: Iterable[int], makes: Iterable[int], constants: Sequence[Box] = ()) -> None:
        """Put in a box, with edges from all that it reads."""
        ends = self._from(reads, constants)
        for source, _ in ends:
            if source in self._constants:
                self._boxes.setdefault(source, self._constants[source])
        while box.id in self._boxes:
            box = _renamed(box)
        self._boxes[box.id] = box
        for (source, value), shape in ends.items():
            self._edges.setdefault((source, box.id), {})[value] = shape
        for value in makes:
            self._sources[value] = {(box.id, value): self._flow.trace.show(value)}

    def pass_on(self, reads: Iterable[int], makes: Iterable[int], constants: Sequence[Box] = ()) -> None:
        """Let what is made come from where all that is read came from."""
        ends = self._from(reads, constants)
        for value in makes:
            self._sources[value] = ends

    def _from(self, reads: Iterable[int], constants: Sequence[Box]) -> _Ends:
        ends: _Ends = {}
        for value in reads:
            ends.update(self._ends(value))
        for number, box in enumerate(constants):
            self._constants[box.id] = box
            ends[box.id, -1 - number] = box.gave[0]
        return ends

    def _ends(self, value: int) -> _Ends:
        if value in self._flow.void:
            return {}
        known = self._sources.get(value)
        if known is not None:
            return known
        if self._flow.made_in(value, self._call):
            return {}
        return {("", value): self._flow.trace.show(value)}

    def finished(self, folding: _Folding) -> tuple[tuple[Box, ...], tuple[Edge, ...]]:
        """Give the boxes and the edges, those to the outside too."""
        leaving = [one for one in self._flow.given[self._call.index] if one not in self._flow.void]
        if self._call.index:
            for (source, value), shape in self._from(leaving, ()).items():
                if source:
                    self._edges.setdefault((source, ""), {})[value] = shape
        boxes = list(self._boxes.values())
        broken = {box.id for box in boxes if box.mark == "broken"}
        edges = [
            Edge(
                *ends,
                ", ".join(dict.fromkeys(values.values())),
                len(values),
                "broken" if ends[1] in broken else "",
            )
            for ends, values in self._edges.items()
        ]
        kept, drawn = folding(boxes, edges)
        return tuple(kept), tuple(drawn)


def _renamed(box: Box) -> Box:
    return replace(box, id=f"{box.id}'")
