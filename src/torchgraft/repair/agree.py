"""Which shapes disagree, which ones agree, and which tensors lie behind one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from torch import Tensor

from torchgraft.repair.flow import Node
from torchgraft.trace import Trace

__all__ = ["agreeing", "changed_behind", "climbed", "disagreeing", "put", "shapes_of"]


def climbed(node: Node) -> Iterator[Node]:
    """Walk back over operations that leave the shape as it is."""
    for _ in range(20):
        yield node
        behind = [one for one in node.inputs if not one.constant and one.shape == node.shape]
        if len(behind) != 1 or node.op in (None, "projection"):
            return
        node = behind[0]


def changed_behind(node: Node) -> Iterator[Node]:
    """Walk back over all tensors that have another shape than before the edit, nearest first."""
    queue, seen = [node], {id(node)}
    while queue:
        one = queue.pop(0)
        yield one
        behind = [other for other in one.inputs if other.changed and id(other) not in seen]
        seen |= {id(other) for other in behind}
        queue += behind


def shapes_of(run: Trace, which: Literal["gave", "given"]) -> dict[str, list[list[tuple[int, ...]]]]:
    """List the shapes that each call of each module gave or was given."""
    found: dict[str, list[list[tuple[int, ...]]]] = {}
    for call in run.calls:
        found.setdefault(call.path, []).append([run.values[number].shape for number in getattr(call, which)])
    return found


def disagreeing(shapes: list[tuple[int, ...]], axis: int | None) -> tuple[int, int] | None:
    """Find two shapes that can't be joined along an axis; without one, that can't be broadcast."""
    for first in range(len(shapes)):
        for second in range(first + 1, len(shapes)):
            if agreeing(shapes[first], shapes[second], axis):
                return first, second
    return None


def agreeing(mine: tuple[int, ...], theirs: tuple[int, ...], axis: int | None) -> tuple[int, ...] | None:
    """Give the shape that one tensor must have to agree with another; None where it agrees."""
    if axis is not None:
        if len(mine) != len(theirs):
            return None
        place = axis % len(mine)
        joined = (*theirs[:place], mine[place], *theirs[place + 1 :])
        return joined if joined != mine else None
    shape = list(mine)
    for back in range(1, min(len(mine), len(theirs)) + 1):
        if mine[-back] != theirs[-back] and 1 not in (mine[-back], theirs[-back]):
            shape[-back] = theirs[-back]
    return tuple(shape) if tuple(shape) != mine else None


def put(tree: Any, changed: dict[int, Tensor]) -> Any:
    """Put tensors in the place of others."""
    if isinstance(tree, Tensor):
        return changed.get(id(tree), tree)
    if isinstance(tree, (list, tuple)):
        return type(tree)(put(one, changed) for one in tree)
    if isinstance(tree, dict):
        return {key: put(one, changed) for key, one in tree.items()}
    return tree
