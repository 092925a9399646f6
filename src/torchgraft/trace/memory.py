"""What was traced once: the record of a module call, written relative to its place, to be given again elsewhere.

Relative value numbers are offsets from the first value that the call made, or -1, -2, … for what it was given;
paths and parameter names are written from the module down. That is done only once a record is needed elsewhere:
most are given again where they were taken.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from torchgraft.trace.record import Call, Op, Value
from torchgraft.trace.tree import Open, frozen, mapped, tensors

if TYPE_CHECKING:
    from torchgraft.trace.tape import Tape

__all__ = ["Memory", "asked"]

Memory = dict[Hashable, "Entry"]
"""Entries by what was called: the signature of the module, the mode, and the arguments."""

Lines = tuple[list[int], list[Op], list[Call]]
"""Makers, operations and calls."""

Range = tuple[int, int, bool]
"""The least and the greatest whole number in a value, and whether both are really there."""

Spec = tuple[torch.Size, tuple[int, ...], torch.dtype, torch.device]


@dataclass(slots=True)
class Entry:
    """One call of a module, to be given again.

    Attributes:
        start: where the call began when it was recorded.
        values: the values that it made.
        lines: makers, operations and calls as they stood there.
        out: the structure that was given back, its tensors numbered in order of appearance.
        sources: for each of these, the place of the argument that it is, or how to make it; and its value.
        rebound: arguments that were changed in place: their place, and the value that they then had.
        ranges: the least and the greatest number in those of its values where that is known.
        replaced: paths of modules in it whose hooks gave something back, from the module down.
        placed: by path, where the record was last put, and its lines as they stood there.
        relative: the lines written from the module down, once they are needed at another place.
    """

    start: Start
    values: list[Value]
    lines: Lines
    out: Any
    sources: tuple[tuple[int | Spec, int], ...]
    rebound: tuple[tuple[int, int], ...]
    ranges: tuple[tuple[int, Range], ...] = ()
    replaced: tuple[str, ...] = ()
    placed: dict[str, tuple[Any, Lines]] = field(default_factory=dict)
    relative: Lines | None = None


class _Slot:
    """Stands for a tensor in the structure of an output."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


@functools.cache
def _own() -> frozenset[str]:
    """Name the attributes that every fake tensor has."""
    sample = FakeTensor(FakeTensorMode(), torch.empty(0, device="meta"), torch.device("cpu"))
    return frozenset({*sample.__dict__, "_is_param"})


def asked(tape: Tape, args: Any, kwargs: Any) -> Hashable | None:
    """Write the arguments of a call as a value; None where one can't be told by its value."""
    order: dict[int, int] = {}
    own = _own()

    def one(tensor: Tensor) -> Hashable:
        if id(tensor) in tape.names or type(tensor) is not FakeTensor or tensor.layout != torch.strided:
            raise Open("a parameter, or a tensor of another kind")
        place = order.setdefault(id(tensor), len(order))
        number = tape.numbers.get(id(tensor))
        known = tape.ranges.get(number) if number is not None else None
        if len(tensor.__dict__) > len(own) or not own.issuperset(tensor.__dict__):
            raise Open("a tensor that carries something else")
        kind = (tensor.dtype, tensor.fake_device, tensor.requires_grad, tensor.is_conj())
        return (place, tensor.shape, tensor.stride(), kind, known)

    try:
        key = (frozen(args, one), frozen(kwargs, one))
        hash(key)
    except (Open, TypeError):
        return None
    return key


@dataclass(frozen=True, slots=True)
class Start:
    """Where a call began on the tape."""

    value: int
    op: int
    call: int
    parent: int | None
    given: tuple[int, ...]
    path: str
    arguments: list[Tensor]
    sizes: list[tuple[Any, ...]]
    replaced: int = 0

    def back(self, number: int) -> int:
        """Write a value relative to the call."""
        return number - self.value if number >= self.value else -self.given.index(number) - 1


def kept(tape: Tape, start: Start, result: Any) -> Entry | None:
    """Write down a call that has just ended; None where it can't be given again."""
    if sizes_of(start.arguments) != start.sizes:
        return None
    lines: Any = (tape.makers[start.value :], tape.ops[start.op :], tape.calls[start.call :])
    try:
        entry = Entry(start, tape.values[start.value :], lines, *_output(tape, start, result))
    except Exception:  # whatever the user's own containers raise: then it is run again the next time
        return None
    entry.ranges = tuple([(n - start.value, r) for n, r in tape.ranges.items() if n >= start.value])
    cut = len(start.path) or -1
    entry.replaced = tuple([_below(one, cut) for one in list(tape.replaced)[start.replaced :]])
    start.arguments.clear()
    entry.placed[start.path] = ((start.value, start.op, start.call, start.parent, start.given), lines)
    return entry


def sizes_of(tensors: list[Tensor]) -> list[tuple[Any, ...]]:
    """Take down the geometry of tensors, to see later whether it was changed in place."""
    return [(one.shape, one.stride()) if one.layout == torch.strided else (one.shape,) for one in tensors]


def _below(path: str, cut: int) -> str:
    return path[cut:] if cut > 0 else f".{path}" if path else ""


def _relative(entry: Entry) -> Lines:
    """Write the lines of a record from its module down."""
    start, (makers, ops, calls) = entry.start, entry.lines
    cut = len(start.path) or -1  # paths below the root have no leading dot

    def below(path: str) -> str:
        return _below(path, cut)

    def back(numbers: tuple[int, ...]) -> tuple[int, ...]:
        return tuple([start.back(number) for number in numbers])

    return (
        [maker - start.op for maker in makers],
        [
            Op(i - start.op, n, below(p), back(ins), back(outs), tuple([below(q) for q in ps]), m, s, b)
            for i, n, p, ins, outs, ps, m, s, b in ops
        ],
        [
            Call(i - start.call, below(p), k, up, back(gi), back(go), f - start.op, e - start.op, t)
            for i, p, k, up, gi, go, f, e, t in _reparented(calls, start)
        ],
    )


def _reparented(calls: list[Call], start: Start) -> list[Call]:
    first, *others = calls
    held = [one._replace(parent=(one.parent or 0) - start.call) for one in others]
    return [first._replace(parent=None), *held]


def _output(tape: Tape, start: Start, result: Any) -> tuple[Any, Any, Any]:
    places = {id(tensor): place for place, tensor in reversed(list(enumerate(start.arguments)))}
    order: dict[int, int] = {}
    sources: list[tuple[int | Spec, int]] = []
    for tensor in tensors(result):
        if id(tensor) in order:
            continue
        if id(tensor) in tape.names or type(tensor) is not FakeTensor or tensor.layout != torch.strided:
            raise Open("a parameter, or a tensor of another kind")
        order[id(tensor)] = len(sources)
        spec: Spec = (tensor.shape, tensor.stride(), tensor.dtype, tensor.fake_device)
        sources.append((places.get(id(tensor), spec), start.back(tape.numbers[id(tensor)])))
    rebound = [
        (place, start.back(tape.numbers[id(one)]))
        for place, (one, number) in enumerate(zip(start.arguments, start.given, strict=True))
        if tape.numbers[id(one)] != number
    ]
    out = mapped(lambda tensor: _Slot(order[id(tensor)]), result, strict=True)
    return out, tuple(sources), tuple(rebound)


def replayed(tape: Tape, entry: Entry, path: str, parent: int | None, given: tuple[int, ...], asked: Any) -> Any:
    """Put the record of a call on the tape at another place, and give what the call would give."""
    start = len(tape.values)
    where = (start, len(tape.ops), len(tape.calls), parent, given)
    known = entry.placed.get(path)
    if known is None or known[0] != where:  # most calls stand where they stood the last time
        known = entry.placed[path] = (where, _lines(entry, path, *where))
    makers, ops, calls = known[1]
    tape.values.extend(entry.values)
    tape.makers.extend(makers)
    tape.ops.extend(ops)
    tape.calls.extend(calls)
    for number, known_range in entry.ranges:
        tape.ranges[number + start] = known_range
    for one in entry.replaced:
        tape.replaced.setdefault(_at(path, one))
    arguments = tensors(asked)
    made = [arguments[how] if isinstance(how, int) else _fresh(tape, how) for how, _ in entry.sources]
    for place, number in entry.rebound:
        tape.bind(arguments[place], number + start if number >= 0 else given[-number - 1])
    for tensor, (_, number) in zip(made, entry.sources, strict=True):
        tape.storages.hold(tensor)
        tape.bind(tensor, number + start if number >= 0 else given[-number - 1])
    return mapped(lambda slot: made[slot.number], entry.out, leaf=_Slot)


def _lines(
    entry: Entry, path: str, value: int, op: int, call: int, parent: int | None, given: tuple[int, ...]
) -> Lines:
    """Write the record of a call as it reads at a place."""
    if entry.relative is None:
        entry.relative = _relative(entry)
    makers, lines, held = entry.relative

    def at(numbers: Sequence[int]) -> tuple[int, ...]:
        return tuple([number + value if number >= 0 else given[-number - 1] for number in numbers])

    ops = [
        Op(i + op, n, _at(path, p), at(ins), at(outs), tuple([_at(path, q) for q in ps]) if ps else ps, m, s, b)
        for i, n, p, ins, outs, ps, m, s, b in lines
    ]
    calls = [
        Call(i + call, _at(path, p), k, parent if up is None else up + call, at(gi), at(go), f + op, e + op, t)
        for i, p, k, up, gi, go, f, e, t in held
    ]
    return [maker + op for maker in makers], ops, calls


def _at(home: str, below: str) -> str:
    return home + below if home else below[1:]


def _fresh(tape: Tape, spec: Spec) -> Tensor:
    mode: FakeTensorMode = tape.mode
    shape, stride, dtype, device = spec
    with torch._C._DisableTorchDispatch():  # the mode need not see a tensor without data being made
        return FakeTensor(mode, torch.empty_strided(shape, stride, dtype=dtype, device="meta"), device)
