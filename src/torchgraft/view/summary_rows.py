"""The rows of a summary: every module, bare parameter and functional operation, with what each takes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from torchgraft.paths import joined
from torchgraft.view.summary_sizes import Held, Size

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.trace import Trace
    from torchgraft.trace.record import Call, Op

__all__ = ["JOINS", "Row", "Rows", "Shape"]

Shape = tuple[int, ...]

State = Literal["", "never called", "not reached", "its weights are used", "again"]


class Row(NamedTuple):
    """One line of the tree; a module's figures are those of all that is in it.

    Attributes:
        path: of the module; the name of a bare parameter; for an operation, the module whose forward does it.
        name: the last part of the path, or what the operation is called.
        kind: the module's class, `Parameter`, or `operation`.
        sort: what the row stands for.
        depth: how far below the model it stands.
        given: the shapes that the first call was given, batch included.
        gave: the shapes that it gave; of a parameter its own.
        names: of what it gave, where a dict, dataclass or named tuple has some.
        shapes: how many different shapes its calls gave.
        parameters: numbers in its parameters, each parameter once.
        trainable: of these, what training may change.
        new: of these, what edits put in.
        elsewhere: of these, what an earlier row counts as well: tied parameters, modules under a second name.
        macs: multiply-accumulates of all its calls, for one sample; what is done once for all counts whole.
        activations: bytes of new storage that its operations make for one sample.
        calls: how often it was called; of an operation, how often it is done.
        tied: other names of its own parameters; of a module under a second name, the first.
        edit: the number of the edit that put it in.
        state: what a reader should know about it.
    """

    path: str
    name: str
    kind: str
    sort: Literal["module", "parameter", "operation"]
    depth: int
    given: tuple[Shape, ...] = ()
    gave: tuple[Shape, ...] = ()
    names: tuple[str, ...] = ()
    shapes: int = 0
    parameters: int = 0
    trainable: int = 0
    new: int = 0
    elsewhere: int = 0
    macs: int = 0
    activations: int = 0
    calls: int = 0
    tied: tuple[str, ...] = ()
    edit: int | None = None
    state: State = ""

    @property
    def size(self) -> Size:
        """Its parameters."""
        return Size(*self[9:13])


@dataclass(slots=True)
class _Done:
    """What one operation of a module's own forward adds up to."""

    first: Op
    calls: int = 0
    macs: int = 0
    bytes: int = 0


class Rows:
    """Makes the rows of a model from its trace."""

    def __init__(self, model: nn.Module, trace: Trace, added: Mapping[str, int]) -> None:
        self.held = Held(model, added)
        self._model = model
        self._trace = trace
        self._calls: dict[str, list[Call]] = defaultdict(list)
        for call in trace.calls:
            self._calls[call.path].append(call)
        self._done = _done(trace)
        self._first: dict[int, str] = {}

    def all(self) -> tuple[Row, ...]:
        """Give the rows, the model first, then what is in it in the order of the pass."""
        self._first.clear()
        return tuple(self._module("", "", self._model, 0))

    def _module(self, path: str, name: str, module: nn.Module, depth: int) -> list[Row]:
        """Give the row of a module and all below it."""
        kind = type(module).__name__
        if id(module) in self._first:
            first, size = self._first[id(module)], self.held.again(module)
            return [_row(path, name, kind, depth, size, tied=(first,), edit=self.held.edit(path), state="again")]
        self._first[id(module)] = path
        parts = [
            self._module(joined(path, key), key, child, depth + 1)
            for key, child in module._modules.items()
            if child is not None
        ]
        own, work = self._own(path, module, depth + 1), self._done.get(path, {})
        heads = [part[0] for part in parts]
        calls = self._calls.get(path, [])
        row = _row(
            path, name, kind, depth,
            self.held.together(path, [row.size for row in (*own, *heads)]),
            **self._contract(calls),
            macs=sum([one.macs for one in heads]) + sum([one.macs for one in work.values()]),
            activations=sum([one.activations for one in heads]) + sum([one.bytes for one in work.values()]),
            calls=len(calls),
            tied=() if parts else tuple([one for part in own for one in part.tied]),
            edit=self.held.edit(path),
            state="" if _is_scripted(module) else self._state(path, calls, heads, own),
        )  # fmt: skip
        return [row, *own, *self._in_order(path, depth + 1, parts, work)] if parts else [row]

    def _own(self, path: str, module: nn.Module, depth: int) -> list[Row]:
        """Give a row for each parameter that a module holds itself."""
        rows = []
        for name, one in module._parameters.items():
            if one is not None:
                full = joined(path, name)
                size, tied = self.held.of(full, one)
                shape = (tuple(one.shape),)
                edit = self.held.edit(full)
                rows.append(Row(full, name, "Parameter", "parameter", depth, (), shape, (), 0, *size, tied=tied,
                                edit=edit))  # fmt: skip
        return rows

    def _contract(self, calls: list[Call]) -> dict[str, Any]:
        """Give what the first call of a module was given and gave, and how many different shapes all gave."""
        if not calls:
            return {}
        values, first = self._trace.values, calls[0]
        shapes = 1 if len(calls) == 1 else len({tuple([values[n].shape for n in call.gave]) for call in calls})
        return {
            "given": tuple([values[number].shape for number in first.given]),
            "gave": tuple([values[number].shape for number in first.gave]),
            "names": first.names,
            "shapes": shapes,
        }

    def _state(self, path: str, calls: list[Call], heads: list[Row], own: list[Row]) -> State:
        if calls or path in self._done or any(not _idle(head) for head in heads):
            return ""
        if not self._trace.used.isdisjoint([row.path for row in own]):
            return "its weights are used"
        return "not reached" if self._trace.mismatch is not None else "never called"

    def _in_order(self, path: str, depth: int, parts: list[list[Row]], work: dict[str, _Done]) -> list[Row]:
        """Give the parts of a module and the operations between them as they follow each other in the pass."""
        placed: list[tuple[tuple[int, int, int], list[Row]]] = []
        key = (-1, 0, 0)
        for part in parts:
            key = self._place(part) or key  # what is never called stays behind what it was written after
            placed.append((key, part))
        for name, one in work.items():
            if one.macs or one.bytes or name in JOINS:
                placed.append(((one.first.index, 1, 0), [self._operation(path, name, one, depth)]))
        return [row for _, part in sorted(placed, key=lambda pair: pair[0]) for row in part]

    def _place(self, part: list[Row]) -> tuple[int, int, int] | None:
        """Say when a module is first called, or what is in it."""
        for row in part:
            calls = self._calls.get(row.path) if row.sort == "module" else None
            if calls:
                return (calls[0].first_op, 0, calls[0].index)
        return None

    def _operation(self, path: str, name: str, one: _Done, depth: int) -> Row:
        gave = tuple([self._trace.values[number].shape for number in one.first.outputs])
        given = tuple([self._trace.values[number].shape for number in one.first.inputs])
        return Row(path, name, "operation", "operation", depth, given, gave, shapes=1, macs=one.macs,
                   activations=one.bytes, calls=one.calls)  # fmt: skip


JOINS = frozenset(["iadd", "add_", "imul", "mul_"])
"""Operations that are told though they take no memory: they join two ways."""


def _is_scripted(module: nn.Module) -> bool:
    """Tell whether a module lives in TorchScript, where no call of its parts is seen."""
    import torch

    return isinstance(module, torch.jit.ScriptModule)


def _idle(row: Row) -> bool:
    return row.state in ("never called", "not reached", "again")


def _row(path: str, name: str, kind: str, depth: int, size: Size, **figures: Any) -> Row:
    held: dict[str, Any] = dict(zip(Size._fields, size, strict=True))
    return Row(path, name, kind, "module", depth, **held, **figures)


def _done(trace: Trace) -> dict[str, dict[str, _Done]]:
    """Add up what the forward of each module does itself, by the names of the operations."""
    found: dict[str, dict[str, _Done]] = defaultdict(dict)
    for op, macs, size in zip(trace.ops, trace.work, trace.storage, strict=True):
        work = found[op.path]
        name = op.name.strip("_") if op.name.startswith("__") else op.name
        one = work.get(name)
        if one is None:
            one = work[name] = _Done(op)
        one.calls += 1
        one.macs += macs
        one.bytes += size
    return dict(found)
