"""What a trace holds: values, operations, module calls, and the mismatch if the pass did not get through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

__all__ = ["Call", "Mismatch", "Op", "Trace", "Value"]


@dataclass(frozen=True)
class Value:
    """A tensor that was seen: its shape, and the operation that made it (None: an input)."""

    shape: tuple[int, ...]
    dtype: str
    maker: int | None

    def show(self, batch: int) -> str:
        """Write the shape with the batch dimension as N: `[N, 256, 28, 28]`."""
        sizes = [str(size) for size in self.shape]
        if self.shape and self.shape[0] == batch:
            sizes[0] = "N"
        return f"[{', '.join(sizes)}]"


@dataclass(frozen=True)
class Op:
    """One tensor operation, in the module whose forward called it."""

    index: int
    name: str
    path: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    params: tuple[str, ...]
    macs: int


@dataclass(frozen=True)
class Call:
    """One call of a module: its contract is what it was given and what it gave (value numbers).

    A call that the pass broke off in gave nothing.
    """

    index: int
    path: str
    kind: str
    parent: int | None
    given: tuple[int, ...]
    gave: tuple[int, ...]
    first_op: int
    last_op: int


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


@dataclass(frozen=True)
class Trace:
    """What happened in one forward pass on fake tensors."""

    values: tuple[Value, ...]
    ops: tuple[Op, ...]
    calls: tuple[Call, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kinds: dict[str, str]
    batch: int
    train: bool
    mismatch: Mismatch | None = None

    @cached_property
    def called(self) -> frozenset[str]:
        """The paths of all modules that were called."""
        return frozenset(call.path for call in self.calls)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the pass for one sample (convolution, linear, matrix products)."""
        return sum(op.macs for op in self.ops) // max(self.batch, 1)

    def calls_of(self, path: str) -> list[Call]:
        """Give every call of the module at `path`, in order."""
        return [call for call in self.calls if call.path == path]

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
        made = self.values[value].maker
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
