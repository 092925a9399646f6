"""The traces of a model under change: taken when they are asked for, forgotten when it changes."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any, Literal

from torch import nn

from torchgraft.probes.arguments import is_named
from torchgraft.trace import Trace, Tracer, doubled

__all__ = ["Looks", "Mode"]

Mode = Literal["eval", "train", "wide"]
"""Evaluation, training, or evaluation with twice as many samples."""


class Looks:
    """The latest trace of each mode.

    Attributes:
        real: taken with small real tensors.
    """

    def __init__(self, module: nn.Module, inputs: Callable[[], Any], *, real: bool = False) -> None:
        self.real = real
        self._module = module
        self._inputs = inputs
        self._tracer = Tracer(module, values=real)
        self._taken: dict[Mode, Trace] = {}
        self._stale = True  # the tracer has not seen the model as it is now
        self._touched: set[int] | None = None

    def sweep(self, *, quick: bool = False) -> None:
        """Forget the traces where the model changed since they were taken, by whatever hand.

        Args:
            quick: look only at what edits touched, where the model was looked at as a whole just before them.
        """
        touched = self._touched if quick else None
        self._stale, self._touched = False, set()
        if self._tracer.sweep(touched) or self.real:  # real values may have changed without a trace
            self._taken = {}

    def of(self, mode: Mode) -> Trace:
        """Give the latest trace of a mode."""
        if mode not in self._taken:
            if self._stale:
                self.sweep(quick=True)
            given = self._inputs()
            given = doubled(given) if mode == "wide" else given
            self._taken[mode] = self._run(self._tracer, given, train=mode == "train", swept=True)
        return self._taken[mode]

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Every module of the model as it was at the last sweep, by its first path."""
        return self._tracer.modules

    def whole(self, mode: Mode) -> Trace:
        """Take a trace of which nothing is answered from memory."""
        tracer = Tracer(self._module, values=self.real)
        return self._run(tracer, self._inputs(), train=mode == "train", cached=False)

    def _run(self, tracer: Tracer, given: Any, **settings: Any) -> Trace:
        """Trace with what is given: a dict by the names of the forward's parameters goes in as keywords."""
        if is_named(given, self._module):
            return tracer.trace((), **settings, kwargs=given)
        return tracer.trace(given, **settings)

    def forget(self, touched: Set[int] | None = None) -> None:
        """Take every trace anew: the model or its input has changed.

        Args:
            touched: ids of the only modules that an edit changed, where that is known.
        """
        known = touched is not None and self._touched is not None
        self._touched = self._touched | touched if known else None  # type: ignore[operator]
        self._taken, self._stale = {}, True

    def mark(self) -> dict[Mode, Trace]:
        """Give the traces that there are, to come back to."""
        return dict(self._taken)

    def back_to(self, taken: dict[Mode, Trace]) -> None:
        """Take traces as the latest again: the model is as it was when they were taken."""
        self._taken, self._stale, self._touched = dict(taken), True, None
