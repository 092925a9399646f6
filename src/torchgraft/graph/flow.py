"""Where tensors come from and go to, seen from every module call of a trace."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate

from torchgraft.trace import Call, Op, Trace

__all__ = ["Flow", "Item", "flow"]

Item = Call | Op
"""What happens in a call: another call, or an operation."""


@dataclass(frozen=True)
class Flow:
    """A trace, indexed by call.

    Attributes:
        trace: what it was read from.
        items: what happens in each call, in order.
        taken: the values from outside that are read inside of each call.
        given: the values made inside of each call that are read outside of it.
        void: values that nothing drawn flows into: positions, masks, constants.
        broken: the innermost call in which the pass broke off, if it did.
    """

    trace: Trace
    items: dict[int, list[Item]]
    void: frozenset[int]
    broken: int | None = None
    taken: dict[int, dict[int, None]] = field(default_factory=lambda: defaultdict(dict))
    given: dict[int, dict[int, None]] = field(default_factory=lambda: defaultdict(dict))

    @cached_property
    def macs(self) -> list[int]:
        """Multiply-accumulates before each operation, for one sample."""
        return [0, *accumulate(self.trace.work)]

    @cached_property
    def bytes(self) -> list[int]:
        """Bytes of activations before each operation, for the whole batch."""
        return [0, *accumulate(op.bytes for op in self.trace.ops)]

    def made_in(self, value: int, call: Call) -> bool:
        """Tell whether a value is made inside of a call."""
        maker = self.trace.makers[value]
        return maker is not None and call.first_op <= maker < call.last_op

    def reads(self, call: Call) -> list[int]:
        """Give what flows into a call: what is read inside, and what it hands on as it came."""
        passed = [one for one in call.gave if not self.made_in(one, call)]
        found = dict.fromkeys([*self.taken[call.index], *passed])
        return [one for one in found or call.given if one not in self.void]


def flow(trace: Trace, flows_in: Callable[[str], bool]) -> Flow:
    """Index a trace.

    Args:
        trace: of one pass.
        flows_in: whether a parameter or buffer of that name counts as something that flows into an operation.
    """
    trace = _same(trace if trace.calls else _as_one(trace))
    home, items = _homes(trace)
    broken = _broken(trace)
    found = Flow(trace, items, _void(trace, flows_in), broken)
    for op in trace.ops:
        for value in op.inputs if op.name not in _NOTHING else ():
            _note(found, home, value, home[op.index], op.index)
    if trace.mismatch is not None and broken is not None:
        for value in trace.mismatch.inputs:
            _note(found, home, value, broken, len(trace.ops))
    for value in trace.outputs:
        _note(found, home, value, -1, len(trace.ops))
    return found


def _as_one(trace: Trace) -> Trace:
    """Make one call of a pass without any: in TorchScript, no module says that it is called."""
    kind = trace.kinds.get("", "")
    return replace(trace, calls=(Call(0, "", kind, None, trace.inputs, trace.outputs, 0, len(trace.ops)),))


def _same(trace: Trace) -> Trace:
    """Give a value that an operation handed on as it was the number that it had before.

    `x.to(torch.float32)` of what is float32 gives x itself; the trace numbers it anew, and who reads x later would
    seem to read what a module inside of a branch made.
    """
    same: dict[int, int] = {}
    for op in trace.ops:
        if op.name in _HANDS_ON and len(op.inputs) == len(op.outputs) == 1:
            given, gave = op.inputs[0], op.outputs[0]
            if trace.values[given] == trace.values[gave] and ("training", True) not in op.settings:
                same[gave] = same.get(given, given)
    if not same:
        return trace

    def back(numbers: tuple[int, ...]) -> tuple[int, ...]:
        return numbers if same.keys().isdisjoint(numbers) else tuple([same.get(one, one) for one in numbers])

    at = trace.mismatch
    return replace(
        trace,
        ops=tuple([op._replace(inputs=back(op.inputs), outputs=back(op.outputs)) for op in trace.ops]),
        calls=tuple([call._replace(given=back(call.given), gave=back(call.gave)) for call in trace.calls]),
        outputs=back(trace.outputs),
        mismatch=at and replace(at, inputs=back(at.inputs)),
    )


_HANDS_ON = frozenset({"to", "contiguous", "float", "type", "type_as", "dropout", "dropout_", "detach"})
"""Operations that may give what they were given, the same tensor."""


_NOTHING = frozenset(
    {"new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like", "full_like", "empty_like"}
    | {"rand_like", "randn_like"}
)
"""Operations that read no more of what they take than its shape."""


def _homes(trace: Trace) -> tuple[list[int], dict[int, list[Item]]]:
    """Give the innermost call of every operation, and what happens in each call."""
    home = [-1] * len(trace.ops)
    for call in trace.calls:
        home[call.first_op : call.last_op] = [call.index] * (call.last_op - call.first_op)
    items: dict[int, list[tuple[int, int, Item]]] = defaultdict(list)
    for call in trace.calls:
        if call.parent is not None:
            items[call.parent].append((call.first_op, 0, call))
    for op in trace.ops:
        items[home[op.index]].append((op.index, 1, op))
    for held in items.values():
        held.sort(key=lambda one: one[:2])
    return home, defaultdict(list, {index: [one[2] for one in held] for index, held in items.items()})


def _broken(trace: Trace) -> int | None:
    if trace.mismatch is None:
        return None
    under_way = [call for call in trace.calls if not call.gave and call.last_op == len(trace.ops)]
    same = [call.index for call in under_way if call.path == trace.mismatch.path]
    return same[-1] if same else 0


def _void(trace: Trace, flows_in: Callable[[str], bool]) -> frozenset[int]:
    inputs = set(trace.inputs)
    void = {number for number, maker in enumerate(trace.makers) if maker is None and number not in inputs}
    for op in trace.ops:
        if op.name in _NOTHING or (void.issuperset(op.inputs) and not any(flows_in(name) for name in op.params)):
            void.update(op.outputs)
    return frozenset(void)


def _note(found: Flow, home: list[int], value: int, reader: int, when: int) -> None:
    """Write down which calls a value enters and leaves on its way to the call that reads it."""
    calls, maker = found.trace.calls, found.trace.makers[value]
    at: int | None = reader
    while at is not None and at >= 0 and (maker is None or calls[at].first_op > maker):
        found.taken[at][value] = None
        at = calls[at].parent
    at = home[maker] if maker is not None else None
    while at is not None and at >= 0 and (calls[at].last_op <= when):
        found.given[at][value] = None
        at = calls[at].parent
