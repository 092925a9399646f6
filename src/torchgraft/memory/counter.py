"""A counter of the tensors alive, as torch sees them: every storage from the operation that makes it to its end.

It sees fake tensors and real ones alike, so that what is predicted can be compared with what is measured. What an
operation takes for itself inside of a kernel, such as the workspace of a convolution, is seen in neither.
"""

from __future__ import annotations

import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from torchgraft.trace.tree import tensors

__all__ = ["KINDS", "Block", "Counter", "Event", "Kind", "Phase"]

Kind = Literal["weights", "buffers", "gradients", "optimizer", "activations", "copies", "batch", "temporary"]
KINDS: tuple[Kind, ...] = (
    "weights",
    "buffers",
    "gradients",
    "optimizer",
    "activations",
    "copies",
    "batch",
    "temporary",
)

Phase = Literal["load", "forward", "loss", "backward", "optimizer"]


@dataclass(eq=False, slots=True)
class Block:
    """The memory of one storage.

    Attributes:
        size: in bytes.
        path: the module under way when it was made, or that it belongs to.
        phase: in which it was made.
        again: made by a forward pass that the backward pass ran again.
        kind: what it is for, as far as it is known yet.
        kept: it outlived a forward pass.
    """

    size: int
    path: str
    phase: Phase
    again: bool = False
    kind: Kind | None = None
    kept: bool = False

    @property
    def what(self) -> Kind:
        """What it is for: named, or an activation where it outlived its forward pass, or temporary."""
        if self.kind is not None:
            return self.kind
        return "activations" if self.kept or self.again else "temporary"


@dataclass(frozen=True, slots=True)
class Event:
    """A block comes, or goes (`sign` -1), in a phase of an optimizer step and in a module."""

    block: Block
    sign: int
    phase: Phase
    path: str
    step: int


_UNSEEN = frozenset([torch.ops.prim.device.default])
_CAST = torch.ops.aten._to_copy.default
_SCALAR = torch.ops.aten._local_scalar_dense.default


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """As a context, it writes down every storage that comes and goes.

    Attributes:
        events: in order.
        phase: what is under way; whoever runs the step sets it.
        step: the number of the optimizer step, from 1; 0 is what was there before.
        broke: the innermost module that an exception came out of.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.events: list[Event] = []
        self.phase: Phase = "load"
        self.step = 0
        self.broke = ""
        self._alive: dict[int, tuple[weakref.ref[Any], Block]] = {}
        self._stack: list[str] = []
        self._starts: list[int] = []
        self._paths: list[str] = []

    # what is there

    def name(self, held: Iterable[Tensor], kind: Kind, path: str | None = None) -> None:
        """Say what tensors are for; those that were not seen yet come now."""
        for one in held:
            block = self._see(one)
            if block is not None:
                block.kind = kind
                block.path = block.path if path is None else path

    def keep(self) -> None:
        """Note what is alive at the end of a forward pass: the backward pass, or the loop, needs it."""
        for _, block in self._alive.values():
            block.kept = block.kept or block.phase in ("forward", "loss")

    def stop(self) -> None:
        """Look no further: what is alive now stays so in the events."""
        self._alive.clear()

    def assume(self, blocks: Iterable[Block]) -> None:
        """Take blocks as there, without tensors."""
        self.events += [Event(one, 1, self.phase, one.path, self.step) for one in blocks]

    def bump(self, size: int) -> None:
        """Take so many bytes as there for a moment."""
        block = Block(size, "", self.phase)
        self.events += [Event(block, sign, self.phase, "", self.step) for sign in (1, -1)]

    @property
    def now(self) -> int:
        """Bytes alive."""
        return sum(block.size for _, block in self._alive.values())

    # where it is made

    @contextmanager
    def inside(self, path: str) -> Iterator[None]:
        """Let what is made in the block belong to a module, and to the backward pass of what it does."""
        self._stack.append(path)
        self._turn(path)
        try:
            yield
        except Exception:
            self.broke = self.broke or path
            raise
        finally:
            self._stack.pop()
            self._turn(self._stack[-1] if self._stack else "")

    @property
    def is_inside(self) -> bool:
        """Whether a module is under way."""
        return bool(self._stack)

    def _turn(self, path: str) -> None:
        self._starts.append(torch.autograd._get_sequence_nr())  # type: ignore[attr-defined]
        self._paths.append(path)

    def _place(self) -> str:
        """Give the module under way: of the forward pass, or of the node that the backward pass is at."""
        if self._stack or self.phase != "backward":
            return self._stack[-1] if self._stack else ""
        node = torch._C._current_autograd_node()
        number = bisect_right(self._starts, node._sequence_nr()) if node is not None else 0
        return self._paths[number - 1] if number else ""

    # what happens

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, and see what it made."""
        if func is _SCALAR and self.phase == "optimizer" and isinstance(args[0], FakeTensor):
            return 1.0 if args[0].is_floating_point() else 1  # how far it is decides no size
        result = func(*args, **(kwargs or {}))
        if func in _UNSEEN:
            return result
        for one in [result] if isinstance(result, Tensor) else tensors(result):
            block = self._see(one)
            if block is not None and func is _CAST and block.kind is None:
                block.kind = self._copied(args[0])
        return result

    def _copied(self, source: Tensor) -> Kind | None:
        """Tell a weight in another number format, which autocast keeps, from an activation."""
        known = self._alive.get(_key(source))
        return "copies" if known is not None and known[1].kind == "weights" else None

    def _see(self, tensor: Tensor) -> Block | None:
        """Give the block of a tensor; a new one comes with an event, and its end gives another."""
        storage = _storage(tensor)
        if storage is None:
            return None
        key = storage._cdata
        known = self._alive.get(key)
        if known is not None:
            return known[1]
        again = self.phase == "backward" and bool(self._stack)
        block = Block(storage.nbytes(), self._place(), self.phase, again)
        self._alive[key] = (weakref.ref(storage, partial(_gone, weakref.ref(self), key)), block)
        self.events.append(Event(block, 1, self.phase, block.path, self.step))
        return block

    def _end(self, key: int) -> None:
        known = self._alive.pop(key, None)
        if known is not None:
            self.events.append(Event(known[1], -1, self.phase, self._place(), self.step))


def _gone(counter: Callable[[], Counter | None], key: int, _: Any) -> None:
    found = counter()
    if found is not None:
        found._end(key)


def _storage(tensor: Tensor) -> Any:
    """Give the storage of a tensor; sparse and other odd ones have none."""
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None


def _key(tensor: Tensor) -> int:
    storage = _storage(tensor)
    return int(storage._cdata) if storage is not None else 0
