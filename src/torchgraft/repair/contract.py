"""The contract of a place: what it gave before, which dimension holds the channels, and a projection to it."""

from __future__ import annotations

from torchgraft.blocks.projection import Projection
from torchgraft.edits.append import Append
from torchgraft.edits.base import Edit
from torchgraft.edits.insert import Insert
from torchgraft.edits.replace import Replace
from torchgraft.trace import Trace, Value
from torchgraft.trace.layout import Side, side

__all__ = ["Side", "contract", "projection", "side"]


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
