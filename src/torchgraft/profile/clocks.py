"""A script by the clock, over its whole run: modules, backward passes, optimizer steps, waits for data."""

from __future__ import annotations

import functools
import threading
import time
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as module_hooks
from torch.optim import optimizer as optimizer_hooks
from torch.utils import data

from torchgraft.profile.spans import MODULE

__all__ = ["Clocks", "around"]

GAPS = 10_000
"""So many steps are kept for the median."""


@dataclass
class Clocks:
    """What was seen of a run so far.

    Attributes:
        calm: called where no module, backward pass or optimizer is at work; True right after an optimizer's step.
        forking: called before processes are started that load data.
        phases: seconds in all.
        own: seconds of each module without those inside it.
        calls: of each module.
        kinds: the class of each module by its path, the model's name first.
        steps: of optimizers.
        gaps: seconds from the end of a step to that of the next, the latest ones.
        away: seconds that were torchgraft's own so far.
        samples: that loaders gave; 0 where unknown.
        workers: the most processes that a loader had; None without a loader.
        begun: when the first of it happened.
        begun_cpu: the CPU seconds of the process by then.
    """

    calm: Callable[[bool], None] = lambda _: None
    forking: Callable[[], None] = lambda: None
    phases: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    own: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    kinds: dict[str, str] = field(default_factory=dict)
    steps: int = 0
    gaps: deque[float] = field(default_factory=lambda: deque(maxlen=GAPS))
    away: float = 0.0
    workers: int | None = None
    fused: bool | None = None
    begun: float | None = None
    begun_cpu: float = 0.0
    deep: int = 0
    _names: Any = field(default_factory=weakref.WeakKeyDictionary)
    _stack: list[list[Any]] = field(default_factory=list)
    _main: int = field(default_factory=threading.get_ident)
    _updated: float | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Watch while the block runs; everything that was put on is removed after it."""
        with ExitStack() as stack:
            hooks = (
                module_hooks.register_module_forward_pre_hook(self._enter),
                module_hooks.register_module_forward_hook(self._leave, always_call=True),
                optimizer_hooks.register_optimizer_step_pre_hook(self._before_update),
                optimizer_hooks.register_optimizer_step_post_hook(self._after_update),
            )
            for hook in hooks:
                stack.callback(hook.remove)
            loaders: Any = getattr(data.dataloader, "_BaseDataLoaderIter", None)
            stack.enter_context(around(loaders, "__next__", self._timed("data")))
            stack.enter_context(around(data.DataLoader, "_get_iterator", self._iterated))
            stack.enter_context(around(torch.autograd, "backward", self._timed("backward")))
            stack.enter_context(around(torch.autograd, "grad", self._timed("backward")))
            yield

    @property
    def is_calm(self) -> bool:
        """Whether no module, backward pass, optimizer or loader is at work."""
        return not self._stack and not self.deep

    def _here(self) -> bool:
        return threading.get_ident() == self._main and not torch.compiler.is_compiling()

    def _begin(self) -> float:
        now = time.perf_counter()
        if self.begun is None:
            self.begun, self.begun_cpu = now, time.process_time()
        return now

    def _enter(self, module: nn.Module, given: Any) -> None:
        if not self._here():
            return
        path = self._named(module)
        if self.is_calm:
            self._begin()
            self.calm(False)
        span = torch._C._profiler._RecordFunctionFast(f"{MODULE}{path}")
        span.__enter__()
        self._stack.append([module, path, span, time.perf_counter(), 0.0])

    def _leave(self, module: nn.Module, given: Any, gave: Any) -> None:
        if not self._here():
            return
        now = time.perf_counter()
        while self._stack:
            one, path, span, start, inside = self._stack.pop()
            span.__exit__(None, None, None)
            whole = now - start
            self.own[path] += whole - inside
            self.calls[path] += 1
            if self._stack:
                self._stack[-1][4] += whole
            elif not self.deep:
                self.phases["forward"] += whole
            if one is module:
                break
        if self.is_calm:
            self.calm(False)

    def _named(self, module: nn.Module) -> str:
        """Name a module by the model that was called first: `Net.layer1.0`."""
        if module not in self._names:
            root = type(module).__name__
            known = sum(name.partition("#")[0] == root for name in self.kinds)
            root = f"{root}#{known + 1}" if known else root
            for path, one in module.named_modules():
                if one not in self._names:
                    name = f"{root}.{path}" if path else root
                    self._names[one] = name
                    self.kinds[name] = type(one).__name__
        found: str = self._names[module]
        return found

    def _timed(self, phase: str) -> Callable[..., Any]:
        """Give what times a function as a phase; one within another phase is that one's."""

        def timed(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if not self._here() or not self.is_calm:
                return function(*args, **kwargs)
            self.calm(False)
            start = self._begin()
            self.deep += 1
            try:
                return function(*args, **kwargs)
            finally:
                self.deep -= 1
                self.phases[phase] += time.perf_counter() - start

        return timed

    def _iterated(self, function: Callable[..., Any], loader: Any) -> Any:
        """Start a loader's processes with nothing recorded: they would go on recording."""
        self.workers = max(self.workers or 0, loader.num_workers)
        if loader.num_workers:
            self.forking()
        return self._timed("data")(function, loader)

    def _before_update(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._here():
            now = self._begin()
            if "_torchgraft_begun" not in optimizer.__dict__:  # else its last step broke off
                self.deep += 1
            optimizer.__dict__["_torchgraft_begun"] = now

    def _after_update(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        start = optimizer.__dict__.pop("_torchgraft_begun", None)
        if start is None:
            return
        self.deep -= 1
        now = time.perf_counter()
        self.phases["optimizer"] += now - start
        self._stepped(now - self.away)
        if "fused" in optimizer.defaults:
            self.fused = bool(optimizer.defaults["fused"])
        if self.is_calm:
            self.calm(True)

    def _stepped(self, now: float) -> None:
        self.steps += 1
        if self._updated is not None:
            self.gaps.append(now - self._updated)
        self._updated = now


@contextmanager
def around(home: Any, name: str, wrap: Callable[..., Any]) -> Iterator[None]:
    """Let a function of torch's be called through another while the block runs, where torch has it."""
    own = getattr(home, name, None)
    if own is None:
        yield
        return

    @functools.wraps(own)
    def called(*args: Any, **kwargs: Any) -> Any:
        return wrap(own, *args, **kwargs)

    setattr(home, name, called)
    try:
        yield
    finally:
        setattr(home, name, own)
