"""The contract of a place: what it gave before, which dimension holds the channels, and a projection to it."""

from __future__ import annotations

from typing import Literal

from torchgraft.blocks.projection import Projection
from torchgraft.edits.append import Append
from torchgraft.edits.base import Edit
from torchgraft.edits.insert import Insert
from torchgraft.edits.replace import Replace
from torchgraft.trace import Trace, Value

__all__ = ["Side", "contract", "projection", "side"]

Side = Literal["first", "last"]

_FIRST = ("conv1d", "conv2d", "conv3d", "batch_norm", "group_norm")
_LAST = ("linear", "layer_norm", "rms_norm", "embedding")
_TURNS = ("permute", "transpose", "movedim")


def contract(edit: Edit, before: Trace) -> Value | None:
    """Give the tensor that the place must give in every call: what it gave, or what passed there, before."""
    if not isinstance(edit, (Insert, Replace, Append)):
        return None
    into = isinstance(edit, Insert) and edit.before is not None
    shapes = {}
    for call in before.calls_of(edit.at):
        numbers = call.given[:1] if into else call.gave
        if len(numbers) != 1:
            return None
        shapes[before.values[numbers[0]].shape] = before.values[numbers[0]]
    return next(iter(shapes.values())) if len(shapes) == 1 else None


def side(run: Trace, value: Value) -> Side:
    """Say which dimension holds the channels of a value: 1, or the last.

    A square map says it by its shape; else the nearest operation with weights that made the value does.
    """
    shape = value.shape
    if len(shape) == 3:
        made = _made_by(run, value)
        return "first" if made == "conv1d" else "last"
    if len(shape) < 4 or shape[1] == shape[2] == shape[3]:
        return "first"
    square = shape[2:].count(shape[2]) == len(shape) - 2, shape[1:-1].count(shape[1]) == len(shape) - 2
    if square[0] != square[1]:
        return "first" if square[0] else "last"
    return "last" if _made_by(run, value) in _LAST else "first"


def _made_by(run: Trace, value: Value) -> str:
    """Name the nearest operation upstream that has weights; one that turned the map since says nothing."""
    number = next((n for n, one in enumerate(run.values) if one is value), None)
    for op in () if number is None else run.upstream(number):
        if op.name in _TURNS:
            return ""
        if op.params and op.name in (*_FIRST, *_LAST):
            return op.name
    return ""


def projection(given: tuple[int, ...], out: tuple[int, ...], gives: Side, takes: Side | None = None) -> Projection:
    """Describe the projection between two shapes, batch included.

    Args:
        given: the shape that arrives.
        out: the shape that is wanted.
        gives: where the channels of the wanted one are.
        takes: where those of the arriving one are; as in the wanted one where the ranks agree.
    """
    if takes is None:
        takes = gives if len(given) == len(out) else "last" if len(given) == 3 else "first"
    return Projection(out=out[1:], given=given[1:], channels=gives, arriving=takes if takes != gives else None)
