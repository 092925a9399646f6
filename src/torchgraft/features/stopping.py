"""When a pass may stop: every call of every layer asked for was seen, and a trace knows how many there are."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from torch import nn

from torchgraft.errors import TorchgraftError
from torchgraft.trace.tree import tensors

if TYPE_CHECKING:
    from torchgraft.features.hooks import Capture
    from torchgraft.trace import Trace

__all__ = ["Awaited", "Stop", "Stopped", "Watch", "awaited"]


class Stop(BaseException):
    """Ends a pass in which nothing more is asked for; no `except Exception` of a model catches it."""

    def __init__(self, watch: Watch, last: str) -> None:
        super().__init__(last)
        self.watch, self.last = watch, last


class Stopped:
    """What a model gives where its pass was stopped. Whoever wants to compute with it is told so."""

    def __init__(self, last: str) -> None:
        self._last = last

    def _told(self) -> TorchgraftError:
        return TorchgraftError(
            f"the model has no output here: its pass was stopped after {self._last}, the last layer captured",
            where="capture",
            hint="capture(…, stop=False) lets the pass go on to its end",
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise self._told()

    def _use(self, *_: Any, **__: Any) -> Any:
        raise self._told()

    __getitem__ = __iter__ = __len__ = __call__ = __float__ = __int__ = _use
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __matmul__ = __neg__ = _use

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise next(one for one in _leaves((args, kwargs)) if isinstance(one, Stopped))._told()

    def __repr__(self) -> str:
        return f"<no output: the pass was stopped after {self._last}>"


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        tree = list(tree.values())
    return [one for part in tree for one in _leaves(part)] if isinstance(tree, (list, tuple)) else [tree]


class Awaited:
    """What a pass of one trace still has to show.

    Attributes:
        last: the path of the layer that ends it.
    """

    def __init__(self, trace: Trace, calls: Counter[str], last: str) -> None:
        self.last = last
        self._trace, self._calls = trace, calls
        self._left: Counter[str] | None = None

    def begin(self, module: nn.Module, given: Any) -> None:
        """Begin a pass; one of another mode, or of inputs of other sizes, has calls that nobody counted."""
        same = module.training == self._trace.train and self._fits(given)
        self._left = Counter(self._calls) if same else None

    def saw(self, path: str) -> None:
        """Take one call off."""
        if self._left is not None:
            self._left[path] -= 1

    @property
    def over(self) -> bool:
        """Whether there is nothing left to see."""
        return self._left is not None and not any(count > 0 for count in self._left.values())

    def _fits(self, given: Any) -> bool:
        known = [self._trace.values[number].shape for number in self._trace.inputs]
        batch = {shape[0] for shape in known if shape}
        if len(batch) != 1:
            return sorted(known) == sorted(tuple(one.shape) for one in tensors(given))
        return sorted(shape[1:] for shape in known) == sorted(tuple(one.shape[1:]) for one in tensors(given))


def awaited(trace: Trace, paths: Collection[str], *, inputs: bool) -> Awaited | None:
    """Say what a pass has to show before it may stop; None: nothing with weights follows, or it is not known.

    Args:
        trace: of the model as it stands.
        paths: the first path of each module that is asked for.
        inputs: what they are given is asked for, not what they give.
    """
    if trace.mismatch is not None or trace.real:
        return None
    calls = [call for call in trace.calls if call.path in paths]
    if not calls:
        return None
    last = max(calls, key=lambda call: call.first_op if inputs else call.last_op)
    end = last.first_op if inputs else last.last_op
    if not any(op.params for op in trace.ops[end:]):
        return None
    return Awaited(trace, Counter(call.path for call in calls), last.path)


class Watch:
    """Watches over the passes of one model for every capture that is open on it, and ends those that may end."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.captures: list[Capture] = []
        self._running = 0
        self._own: Any = None
        self._patched = False

    @staticmethod
    def of(module: nn.Module) -> Watch:
        """Give the watch of a model, the same one to every capture."""
        return _WATCHES.setdefault(module, Watch(module))

    def join(self, capture: Capture, *, stops: bool) -> None:
        """Let a capture be asked before a pass ends; one that stops nothing only keeps others from it."""
        self.captures.append(capture)
        if stops and not self._patched:
            self._patched, self._own = True, vars(self.module).get("forward")
            vars(self.module)["forward"] = self._wrapped(self.module.forward)

    def leave(self, capture: Capture) -> None:
        """Ask a capture no more; the last one leaves the model as it was."""
        self.captures.remove(capture)
        if self.captures:
            return
        _WATCHES.pop(self.module, None)
        if self._patched and self._own is None:
            del vars(self.module)["forward"]
        elif self._patched:
            vars(self.module)["forward"] = self._own

    def look(self, last: str) -> None:
        """End the pass if nobody awaits anything more, in this model or in a part of it."""
        if not self._running or not all(one.over for one in self.captures):
            return
        others = [watch for watch in _WATCHES.values() if watch is not self]
        if others:
            inside = {id(one) for one in self.module.modules()}
            if not all(one.over for watch in others if id(watch.module) in inside for one in watch.captures):
                return
        raise Stop(self, last)

    def _wrapped(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self._running += 1
            try:
                return forward(*args, **kwargs)
            except Stop as stop:
                if stop.watch is not self or self._running > 1:
                    raise
                return Stopped(stop.last)
            finally:
                self._running -= 1

        return watched


_WATCHES: WeakKeyDictionary[nn.Module, Watch] = WeakKeyDictionary()
