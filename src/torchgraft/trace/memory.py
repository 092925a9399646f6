"""What was traced once: the record of a module call, written relative to its place, to be given again elsewhere.

Value numbers are written as offsets from the first value that the call made, or as -1, -2, … for what it was
given; paths and parameter names are written from the module down.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
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

Spec = tuple[torch.Size, tuple[int, ...], torch.dtype, torch.device]


@dataclass(frozen=True, slots=True)
class Entry:
    """One call of a module, to be given again.

    Attributes:
        out: the structure that was given back, its tensors numbered in order of appearance.
        sources: for each of these, the place of the argument that it is, or how to make it; and its value.
        rebound: arguments that were changed in place: their place, and the value that they then had.
    """

    values: list[Value]
    makers: list[int]
    ops: list[Op]
    calls: list[Call]
    out: Any
    sources: tuple[tuple[int | Spec, int], ...]
    rebound: tuple[tuple[int, int], ...]


class _Slot:
    """Stands for a tensor in the structure of an output."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


def asked(tape: Tape, args: Any, kwargs: Any) -> Hashable | None:
    """Write the arguments of a call as a value; None where one can't be told by its value."""
    order: dict[int, int] = {}

    def one(tensor: Tensor) -> Hashable:
        if id(tensor) in tape.names or type(tensor) is not FakeTensor:
            raise Open("a parameter, or a tensor of another kind")
        place = order.setdefault(id(tensor), len(order))
        number = tape.numbers.get(id(tensor))
        known = tape.ranges.get(number) if number is not None else None
        return (place, tensor.shape, tensor.stride(), tensor.dtype, tensor.fake_device, known)

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
    given: tuple[int, ...]
    path: str
    arguments: list[Tensor]
    sizes: list[torch.Size]


def kept(tape: Tape, start: Start, result: Any) -> Entry | None:
    """Write down a call that has just ended; None where it can't be given again."""
    if any(one.shape != size for one, size in zip(start.arguments, start.sizes, strict=True)):
        return None
    back = {number: -place - 1 for place, number in reversed(list(enumerate(start.given)))}
    for number in range(start.value, len(tape.values)):
        back[number] = number - start.value
    try:
        return Entry(
            values=tape.values[start.value :],
            makers=[_made(tape, number, start) for number in range(start.value, len(tape.values))],
            ops=[_op(one, start, back) for one in tape.ops[start.op :]],
            calls=[_call(one, start, back) for one in tape.calls[start.call :] if one is not None],
            **_output(tape, start, result, back),
        )
    except (Open, KeyError):
        return None


def _made(tape: Tape, number: int, start: Start) -> int:
    maker = tape.makers[number]
    if maker is None or maker < start.op:
        raise Open("a tensor that the module holds")
    return maker - start.op


def _below(path: str, home: str) -> str:
    if home and path != home and not path.startswith(f"{home}."):
        raise Open("a module or parameter from elsewhere")
    return path[len(home) :] if home or not path else f".{path}"


def _op(one: Op, start: Start, back: dict[int, int]) -> Op:
    return Op(
        one.index - start.op,
        one.name,
        _below(one.path, start.path),
        tuple([back[n] for n in one.inputs]),
        tuple([back[n] for n in one.outputs]),
        tuple([_below(name, start.path) for name in one.params]),
        one.macs,
        one.settings,
    )


def _call(one: Call, start: Start, back: dict[int, int]) -> Call:
    return Call(
        one.index - start.call,
        _below(one.path, start.path),
        one.kind,
        None if one.index == start.call else (one.parent or 0) - start.call,
        tuple([back[n] for n in one.given]),
        tuple([back[n] for n in one.gave]),
        one.first_op - start.op,
        one.last_op - start.op,
    )


def _output(tape: Tape, start: Start, result: Any, back: dict[int, int]) -> dict[str, Any]:
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
        sources.append((places.get(id(tensor), spec), back[tape.numbers[id(tensor)]]))
    rebound = [
        (place, back[tape.numbers[id(one)]])
        for place, (one, number) in enumerate(zip(start.arguments, start.given, strict=True))
        if tape.numbers[id(one)] != number
    ]
    out = mapped(lambda tensor: _Slot(order[id(tensor)]), result, strict=True)
    return {"out": out, "sources": tuple(sources), "rebound": tuple(rebound)}


def replayed(tape: Tape, entry: Entry, path: str, parent: int | None, given: tuple[int, ...], asked: Any) -> Any:
    """Put the record of a call on the tape at another place, and give what the call would give."""
    value, op, call = len(tape.values), len(tape.ops), len(tape.calls)

    def at(numbers: Sequence[int]) -> tuple[int, ...]:
        return tuple([number + value if number >= 0 else given[-number - 1] for number in numbers])

    tape.values.extend(entry.values)
    tape.makers.extend([maker + op for maker in entry.makers])
    tape.ops.extend(
        [
            Op(i + op, n, _at(path, p), at(ins), at(outs), tuple([_at(path, q) for q in ps]) if ps else ps, m, s)
            for i, n, p, ins, outs, ps, m, s in entry.ops
        ]
    )
    tape.calls.extend(
        [
            Call(i + call, _at(path, p), k, parent if up is None else up + call, at(gi), at(go), f + op, e + op)
            for i, p, k, up, gi, go, f, e in entry.calls
        ]
    )
    arguments = tensors(asked)
    made = [arguments[how] if isinstance(how, int) else _fresh(tape, how) for how, _ in entry.sources]
    for place, number in entry.rebound:
        tape.bind(arguments[place], at((number,))[0])
    for tensor, (_, number) in zip(made, entry.sources, strict=True):
        tape.bind(tensor, at((number,))[0])
    return _filled(entry.out, made)


def _at(home: str, below: str) -> str:
    return home + below if home else below[1:]


def _fresh(tape: Tape, spec: Spec) -> Tensor:
    mode: FakeTensorMode = tape.mode
    shape, stride, dtype, device = spec
    return FakeTensor(mode, torch.empty_strided(shape, stride, dtype=dtype, device="meta"), device)


def _filled(out: Any, made: list[Tensor]) -> Any:
    """Put tensors where the slots are."""
    if type(out) is _Slot:
        return made[out.number]
    if isinstance(out, tuple):
        items = [_filled(one, made) for one in out]
        return type(out)(*items) if hasattr(out, "_fields") else type(out)(items)
    if isinstance(out, list):
        return type(out)(_filled(one, made) for one in out)
    return _refilled(out, lambda one: _filled(one, made))


def _refilled(out: Any, change: Callable[[Any], Any]) -> Any:
    import copy
    from dataclasses import fields, is_dataclass

    if isinstance(out, dict):
        pairs = {key: change(one) for key, one in out.items()}
        if is_dataclass(out):
            return type(out)(**pairs)
        made = copy.copy(out)
        made.update(pairs)
        return made
    if is_dataclass(out) and not isinstance(out, type):
        twin = copy.copy(out)
        for entry in fields(out):
            object.__setattr__(twin, entry.name, change(getattr(out, entry.name)))
        return twin
    return out
