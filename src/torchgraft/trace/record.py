"""What a trace holds: values, operations, module calls, and the mismatch if the pass did not get through."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

__all__ = ["Call", "Mismatch", "Op", "Trace", "Value"]


class Value(NamedTuple):
    """A tensor that was seen: its shape and dtype."""

    shape: tuple[int, ...]
    dtype: str

    def show(self, batch: int) -> str:
        """Write the shape with the batch dimension as N: `[N, 256, 28, 28]`."""
        sizes = [str(size) for size in self.shape]
        if self.shape and self.shape[0] == batch:
            sizes[0] = "N"
        return f"[{', '.join(sizes)}]"


class Op(NamedTuple):
    """One tensor operation, in the module whose forward called it.

    `settings` are its plain arguments (place or name, value), for operations that rearrange or reduce; `bytes` is
    the memory that it took for what it gave: nothing for views, and for what was changed in place.
    """

    index: int  # type: ignore[assignment]  # tuples have a method of that name, which nobody needs here
    name: str
    path: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    params: tuple[str, ...]
    macs: int
    settings: tuple[tuple[int | str, Any], ...] = ()
    bytes: int = 0


class Call(NamedTuple):
    """One call of a module: its contract is what it was given and what it gave (value numbers).

    A call that the pass broke off in gave nothing. `names` are those of what it gave, where a mapping, a dataclass
    or a named tuple has some.
    """

    index: int  # type: ignore[assignment]
    path: str
    kind: str
    parent: int | None
    given: tuple[int, ...]
    gave: tuple[int, ...]
    first_op: int
    last_op: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mismatch:
    """Where the pass broke off: the operation, its module, what it was given, and torch's own words."""

    op: str
    path: str
    kind: str
    inputs: tuple[int, ...]
    params: tuple[str, ...]
    error: str
    message: str
    settings: tuple[tuple[int | str, Any], ...] = ()


@dataclass(frozen=True)
class Trace:
    """What happened in one forward pass.

    Attributes:
        values: every tensor that was seen, by number.
        makers: the operation that made each value (None: an input, or a tensor that the model holds).
        ops: every operation, in order.
        calls: every module call, in the order in which they began.
        inputs: the numbers of the model's inputs.
        outputs: the numbers of its outputs.
        kinds: the class name of each module, by path.
        batch: the number of samples that went in.
        train: traced in training mode.
        mismatch: where the pass broke off, if it did.
        replaced: paths of modules whose output or input a forward hook replaced.
        real: taken with real tensors, since the flow depends on values.
    """

    values: tuple[Value, ...]
    makers: tuple[int | None, ...]
    ops: tuple[Op, ...]
    calls: tuple[Call, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kinds: dict[str, str]
    batch: int
    train: bool
    mismatch: Mismatch | None = None
    replaced: tuple[str, ...] = ()
    real: bool = False

    @cached_property
    def called(self) -> frozenset[str]:
        """The paths of all modules that were called."""
        return frozenset([call.path for call in self.calls])

    @cached_property
    def used(self) -> frozenset[str]:
        """The names of all parameters and buffers that an operation took."""
        return frozenset(name for op in self.ops for name in op.params)

    @cached_property
    def _by_path(self) -> dict[str, list[Call]]:
        found: dict[str, list[Call]] = defaultdict(list)
        for call in self.calls:
            found[call.path].append(call)
        return dict(found)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the pass for one sample (convolution, linear, matrix products)."""
        return sum(self.work)

    @cached_property
    def work(self) -> tuple[int, ...]:
        """Multiply-accumulates of each operation for one sample; what is done once for all counts whole."""
        pairs = zip([op.macs for op in self.ops], self._samples, strict=True)
        return tuple([size // shared if size % shared == 0 else size for size, shared in pairs])

    @cached_property
    def storage(self) -> tuple[int, ...]:
        """Bytes of new storage of each operation for one sample; what is made once for all counts whole."""
        pairs = zip([op.bytes for op in self.ops], self._samples, strict=True)
        return tuple([size // shared if size % shared == 0 else size for size, shared in pairs])

    @cached_property
    def _samples(self) -> list[int]:
        """For how many samples each operation is done: all, or one where it reads no input."""
        batch = max(self.batch, 1)
        reached = set(self.inputs)
        found = []
        for op in self.ops:
            if not reached.isdisjoint(op.inputs):
                reached.update(op.outputs)
                found.append(batch)
            else:  # it reads no input: made of weights and constants alone, unless these were expanded
                sizes = [self.values[number].shape[:1] for number in (*op.inputs, *op.outputs)]
                found.append(batch if (batch,) in sizes else 1)
        return found

    def calls_of(self, path: str) -> list[Call]:
        """Give every call of the module at `path`, in order."""
        return list(self._by_path.get(path, ()))

    def given(self, path: str) -> list[Value]:
        """Give the tensors that the first call of `path` was given."""
        calls = self.calls_of(path)
        return [self.values[number] for number in calls[0].given] if calls else []

    def gave(self, path: str) -> list[Value]:
        """Give the tensors that the first call of `path` gave."""
        calls = self.calls_of(path)
        return [self.values[number] for number in calls[0].gave] if calls else []

    def maker(self, value: int) -> Op | None:
        """Give the operation that made a value; None for an input of the model."""
        made = self.makers[value]
        return None if made is None else self.ops[made]

    def upstream(self, value: int) -> Iterator[Op]:
        """Walk back from a value over all operations that it depends on, nearest first."""
        seen: set[int] = set()
        queue = [value]
        while queue:
            op = self.maker(queue.pop(0))
            if op is not None and op.index not in seen:
                seen.add(op.index)
                yield op
                queue.extend(op.inputs)

    def show(self, value: int) -> str:
        """Write the shape of a value with its batch dimension as N."""
        return self.values[value].show(self.batch)

    def output_shapes(self) -> list[tuple[int, ...]]:
        """Give the shapes of the model's outputs, batch included."""
        return [self.values[number].shape for number in self.outputs]
