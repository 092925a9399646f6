"""Positions: a table that the model adds to a sequence or map holds another number of places."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torchgraft.edits.reshape import Reshape
from torchgraft.edits.resize import Resize
from torchgraft.fixes.cause import Cause, Fault, Proposal
from torchgraft.surgery.forward import plain

if TYPE_CHECKING:
    from torchgraft.trace import Mismatch

__all__ = ["Positions", "Rows"]

_VIEWS = frozenset(
    {"__getitem__", "view", "reshape", "unsqueeze", "squeeze", "expand", "expand_as", "to", "type_as"}
)


class Positions(Cause):
    """A parameter or buffer of the model meets a longer or shorter sequence in a sum."""

    def proposals(self, fault: Fault) -> Iterator[Proposal]:
        """Interpolate the table along its positions; the dimension that holds the channels stays."""
        at = fault.at
        if at is None or plain(at.op) not in ("add", "mul") or len(at.inputs) + len(at.params) != 2:
            return
        sizes = {name: tuple(one.shape) for name, one in fault.model.state_dict(keep_vars=True).items()}
        for name, met, number in _tables(fault, at):
            edit = _fitted(fault, name, sizes.get(name, ()), met, number)
            if edit is not None:
                yield Proposal("reshape", ((edit,),), "its positions are interpolated")


class Rows(Cause):
    """Positions are counted and looked up in an embedding that has fewer rows."""

    def proposals(self, fault: Fault) -> Iterator[Proposal]:
        """Give the table as many rows as are counted; words that a vocabulary lacks are another matter."""
        at = fault.at
        if at is None or at.op != "embedding" or at.error != "OutOfRangeError" or not at.inputs:
            return
        counted = fault.run.maker(at.inputs[0])
        while counted is not None and counted.name in _VIEWS and counted.inputs:
            counted = fault.run.maker(counted.inputs[0])
        if counted is not None and counted.name == "arange":
            rows = fault.shape(counted.outputs[0])[0]
            yield Proposal(
                "rows", ((Resize(at=at.path, inputs=rows),),), "its further rows are new, to be trained"
            )


def _tables(fault: Fault, at: Mismatch) -> Iterator[tuple[str, tuple[int, ...], int]]:
    """Give each held tensor that takes part, the shape in which it does, and the other operand."""
    sizes = {name: tuple(one.shape) for name, one in fault.model.state_dict(keep_vars=True).items()}
    if at.params and at.inputs:
        yield at.params[0], sizes.get(at.params[0], ()), at.inputs[0]
    for place, number in enumerate(at.inputs if len(at.inputs) == 2 else ()):
        name = _held(fault, number)
        if name:
            yield name, fault.shape(number), at.inputs[1 - place]


def _held(fault: Fault, number: int) -> str:
    """Name the tensor of the model that a value is nothing but a part of; empty where there is none."""
    op = fault.run.maker(number)
    while op is not None and op.name in _VIEWS and op.inputs and not op.params:
        op = fault.run.maker(op.inputs[0])
    alone = op is not None and op.name in _VIEWS and not op.inputs and len(op.params) == 1
    return op.params[0] if op is not None and alone else ""


def _fitted(fault: Fault, name: str, table: tuple[int, ...], met: tuple[int, ...], number: int) -> Reshape | None:
    """Give a table as many places as what it meets has; None where it is not the places that differ."""
    other = fault.shape(number)
    rank = len(other)
    if len(met) > rank or rank < 3 or not table:
        return None
    apart = [back for back in range(1, len(met) + 1) if met[-back] not in (1, other[-back])]
    channels = 1 if fault.channels_last(number) else rank - 1
    if len(apart) != 1 or apart[0] in (channels, rank):
        return None
    held = [back for back in range(1, len(table) + 1) if table[-back] == met[-apart[0]]]
    if not held:
        return None
    back = apart[0] if apart[0] in held else held[0]
    along = len(table) - back
    shape = tuple(other[-apart[0]] if place == along else size for place, size in enumerate(table))
    return Reshape(at=name, shape=shape, along=along, line=not _is_image(fault, number))


def _is_image(fault: Fault, number: int) -> bool:
    """Tell whether a sequence was made of an image: its places lie on a grid."""
    return any(op.name in ("conv2d", "unfold") for op in fault.run.upstream(number))
