"""How much work a step is, by module: floating-point operations, and bytes that operations read and write."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from torchgraft.profile.events import OUTSIDE, is_product
from torchgraft.trace.tree import tensors

__all__ = ["Work", "counting"]


@dataclass
class Work:
    """What was counted, by module.

    Attributes:
        flops: two for each multiply-accumulate, as torch's FlopCounterMode counts.
        bytes: of all operations; a view moves none.
        product_bytes: of products alone.
        calls: operations, of all modules.
    """

    flops: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    bytes: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    product_bytes: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: int = 0


@contextmanager
def counting(name_of: Callable[[nn.Module], str | None]) -> Iterator[Work]:
    """Count what the block does; an operation belongs to a module as `torchgraft.profile.events` says."""
    counter = _Counter()

    def before(module: nn.Module, given: Any) -> None:
        name = name_of(module)
        counter.enter(counter.stack[-1] if name is None and counter.stack else name or "")

    def after(module: nn.Module, given: Any, gave: Any) -> None:
        counter.leave()

    opened = hooks.register_module_forward_pre_hook(before)
    closed = hooks.register_module_forward_hook(after, always_call=True)
    try:
        with counter:
            yield counter.work
    finally:
        opened.remove()
        closed.remove()


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts every operation, and keeps which module was at work when the graph had grown so far."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.work = Work()
        self.stack: list[str] = []
        self._from: list[int] = [0]
        self._owner: list[str] = [OUTSIDE]

    def enter(self, path: str) -> None:
        self.stack.append(path)
        self._mark()

    def leave(self) -> None:
        if self.stack:
            self.stack.pop()
        self._mark()

    def _mark(self) -> None:
        self._from.append(torch.autograd._get_sequence_nr())  # type: ignore[attr-defined]
        self._owner.append(self.stack[-1] if self.stack else OUTSIDE)

    def _path(self) -> str:
        if self.stack:
            return self.stack[-1]
        node = torch._C._current_autograd_node()
        if node is None:
            return OUTSIDE
        return self._owner[bisect_right(self._from, node._sequence_nr()) - 1]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        gave = func(*args, **kwargs)
        path, packet = self._path(), func._overloadpacket
        self.work.calls += 1
        if not func.is_view:
            moved = sum(one.numel() * one.element_size() for one in tensors((args, kwargs, gave)))
            self.work.bytes[path] += moved
            if is_product(func._schema.name):
                self.work.product_bytes[path] += moved
        formula = flop_registry.get(packet)
        if formula is not None:
            self.work.flops[path] += formula(*args, **kwargs, out_val=gave)
        return gave
