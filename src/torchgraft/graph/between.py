"""Two models in one drawing: what came, what went, what changed; what is the same on both sides is folded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Any

from torchgraft.graph.drawing import Box, Drawing, Edge, Mark
from torchgraft.graph.folding import span
from torchgraft.graph.opening import opened
from torchgraft.paths import joined
from torchgraft.view.difference import Difference, TensorChange

__all__ = ["between"]

_TOLD = frozenset({"changed", "reshaped", "retyped", "tied"})
"""What of a tensor marks its module: whether it is frozen shows without."""

_GONE = "gone:"
"""What the id of a box begins with that only the first side has."""


def between(before: Drawing, after: Drawing, told: Difference) -> Drawing:
    """Draw two models in one.

    Args:
        before: the first, unfolded.
        after: the second, unfolded.
        told: what differs between them.

    Returns:
        the second, with marks on what is new and changed, and with what is gone beside it.
    """
    union = _Union(told)
    root = union.merged(before.root, after.root)
    return Drawing(f"{told.before.title} → {told.after.title}", root, opened(root), _facts(told))


def _facts(told: Difference) -> tuple[tuple[str, str], ...]:
    names = {"parameters": "parameters", "trainable": "trainable", "multiply-accumulates": "macs"}
    pairs = [(name, getattr(told.before, field), getattr(told.after, field)) for name, field in names.items()]
    counts = [f"{count} {way}" for way, count in told.counted().items() if count]
    return (
        *((name, f"{old:,} → {new:,}" if old != new else f"{old:,}") for name, old, new in pairs if old and new),
        ("modules", ", ".join(counts) or "no difference"),
    )


class _Union:
    """Merges boxes level by level."""

    def __init__(self, told: Difference) -> None:
        self.was = {one.after: one.before for one in told.modules if one.after is not None}
        self.now = {one.before: one.after for one in told.modules if one.before is not None}
        self.ways = {one.after: one.way for one in told.modules if one.after is not None}
        self.tensors: dict[str, list[TensorChange]] = defaultdict(list)
        for one in told.tensors:
            if one.after is not None and one.way in _TOLD:
                self.tensors[one.after.rpartition(".")[0]].append(one)

    def before(self, path: str) -> str | None:
        """Give where a module of the second side stands on the first; None: it does not."""
        rest = ""
        above = path
        while above not in self.was:
            if not above:
                return path
            home, _, name = above.rpartition(".")
            rest, above = joined(name, rest) if rest else name, home
        old = self.was[above]
        return None if old is None else joined(old, rest) if rest else old

    def merged(self, old: Box, new: Box) -> Box:
        """Give the box of what both sides have."""
        mark = self._mark(old, new)
        pairs = self._pairs(old.boxes, new.boxes)
        back = {second: first for first, second in pairs.items()}
        olds = {box.id: box for box in old.boxes}
        boxes: list[Box] = []
        gone = _gone(old.boxes, pairs)
        boxes += gone.pop("", [])
        for box in new.boxes:
            one = back.get(box.id)
            boxes.append(self._met(olds[one], box) if one is not None else _marked(box, "added"))
            boxes += gone.pop(box.id, [])
        edges = _edges(old, new, pairs)
        boxes, edges = _folded(boxes, edges)
        notes = self._notes(new) if mark else ()
        return replace(new, mark=mark, boxes=tuple(boxes), edges=tuple(edges), notes=(*new.notes, *notes))

    def _met(self, old: Box, new: Box) -> Box:
        """Give the box of what both sides have, or of what is new around it."""
        if new.role == "module" and self._is_around(old, new):
            return self._around(old, new)
        return self.merged(old, new)

    def _is_around(self, old: Box, new: Box) -> bool:
        return (self.now.get(old.path) or "").startswith(f"{new.path}.")

    def _around(self, old: Box, new: Box) -> Box:
        """Mark a box as new, but what it wraps."""
        if new.role == "module" and new.path == self.now.get(old.path):
            return self.merged(old, new)
        edges = tuple(replace(edge, mark="added") for edge in new.edges)
        boxes = tuple(self._around(old, one) for one in new.boxes)
        return replace(new, mark="added", boxes=boxes, edges=edges)

    def _mark(self, old: Box, new: Box) -> Mark:
        if new.role == "constant":
            names = [one.name for one in self.tensors.get(new.path, [])]
            return "changed" if joined(new.path, new.label.rpartition(".")[2]) in names else ""
        if new.role == "module" and (
            self.ways.get(new.path) in ("changed", "moved") or self.tensors.get(new.path)
        ):
            return "changed" if new.path or new.boxes == () else ""
        if old.label != new.label and new.role == "operation":
            return "changed"
        return ""

    def _notes(self, box: Box) -> tuple[str, ...]:
        changes = self.tensors.get(box.path, []) if box.role == "module" else []
        words = [f"{one.name.rpartition('.')[2]}: {one.way}" for one in changes[:6]]
        was = self.was.get(box.path)
        return (*([f"was {was}"] if was and was != box.path else []), *words)

    def _pairs(self, olds: Sequence[Box], news: Sequence[Box]) -> dict[str, str]:
        """Pair the boxes of a level: modules by their paths, the others by what they are and their order."""
        places = {(box.path, box.call): box.id for box in olds if box.role == "module"}
        found: dict[str, str] = {}
        for box in news:
            path = self.before(box.path) if box.role == "module" else None
            if path is not None and (path, box.call) in places:
                found[places[path, box.call]] = box.id
        free = [box for box in olds if box.role == "module" and box.id not in found]
        taken = set(found.values())
        for box in news:
            inner = next((one for one in free if one.call == box.call and self._is_around(one, box)), None)
            if inner is not None and box.role == "module" and box.id not in taken:
                found[inner.id] = box.id
        rest = [[box for box in boxes if box.role != "module"] for boxes in (olds, news)]
        keys = [[f"{box.role} {box.label}" for box in boxes] for boxes in rest]
        for block in SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_matching_blocks():
            for number in range(block.size):
                found[rest[0][block.a + number].id] = rest[1][block.b + number].id
        return found


def _marked(box: Box, mark: Mark) -> Box:
    """Mark a box with all that is in it."""
    edges = tuple(replace(edge, mark=mark) for edge in box.edges)
    return replace(box, mark=mark, boxes=tuple(_marked(one, mark) for one in box.boxes), edges=edges)


def _gone(boxes: Sequence[Box], pairs: dict[str, str]) -> dict[str, list[Box]]:
    """Give the boxes that are gone, by the id of what they stood behind."""
    found: dict[str, list[Box]] = defaultdict(list)
    last = ""
    for box in boxes:
        if box.id in pairs:
            last = pairs[box.id]
        else:
            found[last].append(_renamed(_marked(box, "removed")))
    return found


def _renamed(box: Box) -> Box:
    """Give a box of the first side ids that none of the second has."""

    def new(id: str) -> str:
        return f"{_GONE}{id}" if id else id

    edges = tuple(replace(edge, source=new(edge.source), target=new(edge.target)) for edge in box.edges)
    return replace(box, id=new(box.id), boxes=tuple(map(_renamed, box.boxes)), edges=edges)


def _edges(old: Box, new: Box, pairs: dict[str, str]) -> list[Edge]:
    """Give the edges of both sides, each once."""

    def here(id: str) -> str:
        return pairs.get(id, f"{_GONE}{id}") if id else id

    was = {(here(edge.source), here(edge.target)): edge for edge in old.edges}
    edges: list[Edge] = []
    for edge in new.edges:
        known = was.pop((edge.source, edge.target), None)
        mark: Mark = "added" if known is None else "changed" if known.shape != edge.shape else ""
        shape = edge.shape if known is None or known.shape == edge.shape else f"{known.shape} → {edge.shape}"
        edges.append(replace(edge, mark=mark, shape=shape))
    return edges + [
        replace(edge, source=source, target=target, mark="removed") for (source, target), edge in was.items()
    ]


# folding


def _folded(boxes: list[Box], edges: list[Edge]) -> tuple[list[Box], list[Edge]]:
    """Draw blocks in a row as one that are alike and came, went or stayed together."""
    into, out = _neighbours(edges, "target", "source"), _neighbours(edges, "source", "target")
    stands: dict[str, Box] = {}
    for run in _runs(boxes, into, out):
        paths = tuple(box.path for box in run)
        first = replace(run[0], label=span(run), times=len(run), folded=paths, gave=run[-1].gave)
        stands |= {box.id: first for box in run}
    kept = {stands.get(box.id, box).id: stands.get(box.id, box) for box in boxes}
    joins: dict[tuple[str, str, str], Edge] = {}
    for edge in edges:
        source, target = (stands[id].id if id in stands else id for id in (edge.source, edge.target))
        if source != target or source not in stands:
            joins.setdefault((source, target, edge.mark), replace(edge, source=source, target=target))
    return list(kept.values()), list(joins.values())


def _neighbours(edges: Iterable[Edge], one: str, other: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for edge in edges:
        found[getattr(edge, one)].add(getattr(edge, other))
    return found


def _runs(boxes: Sequence[Box], into: dict[str, set[str]], out: dict[str, set[str]]) -> list[list[Box]]:
    runs: list[list[Box]] = [[]]
    for box in boxes:
        run = runs[-1]
        follows = run and into[box.id] == {run[-1].id} and out[run[-1].id] == {box.id}
        if not (follows and box.boxes and _form(box) == _form(run[0])):
            runs.append([])
        runs[-1].append(box)
    return [run for run in runs if len(run) > 1]


def _form(box: Box) -> Any:
    """Write a box without its names; a mark of its insides tells it apart from all others."""
    kept = (box.kind, box.role, box.detail, box.gave, box.parameters, box.trainable, box.macs, box.mark, box.state)
    return (*kept, tuple(map(_form, box.boxes)))
