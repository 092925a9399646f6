"""What a pass asks its input, such as `if mask.all():`; while the answers are as they were, it goes the same way.

Such a question mixes the samples of a batch, so it is asked anew of each one. That takes the few operations that
lead to it, not the module that they are in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from torchgraft.trace.tree import PLAIN, mapped, tensors
from torchgraft.train.prefix.record import Act, Record

__all__ = ["Inquiry", "Redo", "asking", "inquiry_of"]


@dataclass(frozen=True, slots=True)
class Value:
    """Stands for a tensor among the arguments of an operation."""

    number: int


@dataclass(frozen=True, slots=True)
class Redo:
    """One operation, to be done again.

    Attributes:
        func: what is called.
        given: its arguments, by place and by name.
        made: the values that its result holds.
        answer: what it said; None where it gives tensors.
    """

    func: Callable[..., Any]
    given: tuple[Any, Any]
    made: tuple[int, ...]
    answer: bool | None


@dataclass(frozen=True)
class Inquiry:
    """All that a pass asks.

    Attributes:
        early: what is done for each sample by itself.
        late: what is done for all of them together, and what they say.
        read: values that are kept of each sample to ask again.
    """

    early: tuple[Redo, ...] = ()
    late: tuple[Redo, ...] = ()
    read: tuple[int, ...] = ()

    def first(self, values: dict[int, Tensor]) -> dict[int, Tensor] | None:
        """Ask an input; gives what is to be kept, or None where it says something else than before."""
        known = _done(self.early, values)
        return None if known is None or _done(self.late, known) is None else {one: known[one] for one in self.read}

    def again(self, values: dict[int, Tensor]) -> bool:
        """Ask what was kept; tells whether it says the same."""
        return not self.late or _done(self.late, values) is not None


def _done(redos: Iterable[Redo], values: dict[int, Tensor]) -> dict[int, Tensor] | None:
    known = dict(values)
    for redo in redos:
        result = _redone(redo, known)
        if redo.answer is None:
            known |= zip(redo.made, tensors(result), strict=True)
        elif result is not redo.answer:
            return None
    return known


def _redone(redo: Redo, known: dict[int, Tensor]) -> Any:
    args, kwargs = redo.given
    if all(type(one) is Value or type(one) in PLAIN for one in args) and not kwargs:  # the quick way, mostly
        return redo.func(*[known[one.number] if type(one) is Value else one for one in args])
    args, kwargs = mapped(lambda one: known[one.number], redo.given, leaf=Value)
    return redo.func(*args, **kwargs)


def asking(one: Record, other: Record, forced: set[int], rowed: set[int]) -> list[Act]:
    """Give the operations that lead from the input to the questions, and these; all of them can be left out.

    Args:
        one: a pass.
        other: of the same model, with other samples.
        forced: operations that are done in any case.
        rowed: values that have a row for each sample.
    """
    acts, twins = list(one.root.acts()), list(other.root.acts())
    same = {act.index: act for act, twin in zip(acts, twins, strict=True) if _alike(act, twin)}
    for index in forced:
        same.pop(index, None)
    shown = {number for visit in one.root.visits() for number in (*visit.gave, *visit.given)} - rowed
    while True:
        found = _led(acts, same, set(one.inputs) - set(one.names) - one.over, one.over)
        read = shown | {number for act in acts if act.index not in found for number in act.inputs}
        other_way = [index for index, act in found.items() if not read.isdisjoint(set(act.made) - rowed)]
        if not other_way:
            return [found[index] for index in sorted(found)]
        for index in other_way:
            del same[index]


def _led(acts: list[Act], same: dict[int, Act], sources: set[int], over: frozenset[int]) -> dict[int, Act]:
    """Give the questions that can be asked of the input alone, and what leads there."""
    makers = {number: act for act in acts for number in act.outputs}

    def before(act: Act) -> dict[int, Act] | None:
        if act.index not in same or act.made != act.outputs or not over.isdisjoint(act.made):
            return None
        found = {act.index: act}
        for number in set(act.inputs) - sources:
            led = before(makers[number]) if number in makers else None
            if led is None:
                return None
            found |= led
        return found

    led: dict[int, Act] = {}
    for act in acts:
        led |= (before(act) or {}) if type(act.answer) is bool else {}
    return led


def _alike(act: Act, twin: Act) -> bool:
    """Tell whether an operation was done in the same way and said the same of two batches."""
    if act.draws or act.writes or act.saved or (act.reads and type(act.answer) is not bool):
        return False
    try:
        return bool(_given(act) == _given(twin)) and act.answer is twin.answer
    except (RuntimeError, ValueError, StopIteration):  # arrays have no one answer, sets no order
        return False


def _given(act: Act) -> Any:
    order = iter(act.inputs)
    return mapped(lambda _: Value(next(order)), act.given)


def inquiry_of(asking: Iterable[Act], rowed: set[int]) -> Inquiry:
    """Put together what is asked.

    Args:
        asking: the operations of all questions, in order.
        rowed: values that have a row for each sample.
    """
    early, late, read, mixed = list[Redo](), list[Redo](), dict[int, None](), set[int]()
    for act in asking:
        redo = Redo(act.func, _given(act), act.made, act.answer)
        if act.answer is None and rowed.issuperset(act.made) and mixed.isdisjoint(act.inputs):
            early.append(redo)
            continue
        late.append(redo)
        read |= dict.fromkeys(number for number in act.inputs if number not in mixed)
        mixed.update(act.made)
    return Inquiry(tuple(early), tuple(late), tuple(read))
