"""Run a model on fake tensors and write down what happens: once, or again and again while it changes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Set
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from torchgraft.rng import rng_kept
from torchgraft.trace import strict
from torchgraft.trace.body import Body, Part
from torchgraft.trace.caches import Caches
from torchgraft.trace.ghost import fake, real
from torchgraft.trace.memory import Memory
from torchgraft.trace.quiet import unprinted
from torchgraft.trace.record import Mismatch, Trace
from torchgraft.trace.repeats import Repeats
from torchgraft.trace.tape import Tape
from torchgraft.trace.tree import mapped, tensors

__all__ = ["Tracer", "arriving", "doubled", "outputs", "trace"]

# Failing operations under FakeTensorMode log tracebacks; the mismatch says it better.
logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)


_REMEMBERED = 4096
"""So many module calls and operations are remembered; a large model has a few hundred different ones."""


def trace(
    model: nn.Module,
    example: Any,
    *,
    train: bool = False,
    kwargs: Mapping[str, Any] | None = None,
    cached: bool = True,
    values: bool = False,
) -> Trace:
    """Run `model` once on fake twins of `example` and record the pass.

    Args:
        model: any module; it is neither changed nor called itself.
        example: a tensor, or a tuple of positional arguments; only shapes and dtypes are read, and the range of
            whole numbers.
        train: trace as in training mode instead of evaluation mode.
        kwargs: further arguments of the forward pass by name.
        cached: let identical blocks share one trace; without it every module really runs, with the same result.
        values: run on real tensors instead, for a model whose flow depends on values.

    Returns:
        the trace; where the pass broke off, `mismatch` says where and why.

    Raises:
        SourceError: a layer's sizes are not known yet (`nn.LazyLinear` and the like).
    """
    return Tracer(model, values=values).trace(example, train=train, kwargs=kwargs, cached=cached)


class Tracer:
    """Traces one model again and again.

    A call of a module whose structure, mode and input were traced before is answered from memory, so that after
    a change only the changed place, what holds it, and what sees another shape run again.
    """

    def __init__(self, model: nn.Module, *, values: bool = False) -> None:
        model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
        self._values = values
        self._mode = None if values else FakeTensorMode(allow_non_fake_inputs=True)
        self._model = model
        self._body = self._new_body()
        self._memory: Memory | None = None if values else {}
        self._repeats: Repeats | None = None if values else {}
        self._caches = Caches()
        self._tape: Tape | None = None
        self.given_back: list[Tensor] = []
        self.watched: str | None = None
        self.caught: Any = ()

    def sweep(self, touched: Set[int] | None = None) -> bool:
        """Look at every module, and tell whether anything changed since the last trace.

        Args:
            touched: ids of the only modules that can have changed, where that is known.

        Raises:
            SourceError: a layer's sizes are not known yet.
        """
        return self._body.sweep(touched)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Every module of the model as it was at the last sweep, by its first path."""
        return {part.path: part.module for part in self._body.parts.values()}

    def trace(
        self,
        example: Any,
        *,
        train: bool = False,
        kwargs: Mapping[str, Any] | None = None,
        cached: bool = True,
        swept: bool = False,
    ) -> Trace:
        """Trace the model as it stands; see `trace`.

        Args:
            example: see `trace`.
            train: see `trace`.
            kwargs: see `trace`.
            cached: see `trace`.
            swept: the model has not changed since the last trace, so there is no need to look.
        """
        if self._values:
            self._body = self._new_body()  # real values may have changed, and its own buffers have
        if not swept or not self._body.parts:
            self._body.sweep()
        self._body.train(train)
        arguments = example if isinstance(example, tuple) else (example,)
        given = mapped(self._input, (arguments, dict(kwargs or {})))
        memory = self._memory if cached else None
        repeats = self._repeats if cached else None
        tape = self._tape = Tape(self._mode, self._body.names, memory, repeats, self._backstop(), train=train)
        inputs = tape.see(given)
        for number, tensor in zip(inputs, tensors((arguments, kwargs or {})), strict=False):
            found = strict.range_of(tensor)
            if found is not None:
                tape.ranges[number] = found
        try:
            with (
                rng_kept(),
                self._caches.of(self._body.files),
                _eager(),
                unprinted(),
                torch.no_grad(),
                self._mode or nullcontext(),
                tape,
            ):
                outputs, mismatch = self._forward(given, tape, inputs)
        finally:
            self._settle(tape)
        for known in (self._memory, self._repeats):
            while known and len(known) > _REMEMBERED:
                known.pop(next(iter(known)))
        self._tape = None
        return Trace(
            values=tuple(tape.values),
            makers=tuple(tape.makers),
            ops=tuple(tape.ops),
            calls=tuple(call for call in tape.calls if call is not None),
            inputs=inputs,
            outputs=outputs,
            kinds=self._body.kinds,
            batch=_batch(given),
            train=train,
            mismatch=mismatch,
            replaced=tuple(tape.replaced),
            real=self._values,
        )

    def _new_body(self) -> Body:
        return Body(self._model, self._stand_in, self._wrapped, self._hooked)

    def _settle(self, tape: Tape) -> None:
        """Forget what can't be relied on, after a pass that a Ctrl-C ended too."""
        if self._body.disturbed(tape.ran) and self._memory is not None:
            for key in tape.fresh:
                self._memory.pop(key, None)

    def _backstop(self) -> Callable[[Tensor], Tensor] | None:
        """Give what puts stand-ins for real tensors that reach an operation; a scripted copy needs its own."""
        return None if self._values or self._body.scripted else self._body.stand_in

    def _forward(self, given: Any, tape: Tape, inputs: tuple[int, ...]) -> tuple[tuple[int, ...], Mismatch | None]:
        arguments, named = given
        try:
            result = self._body.ghost(*arguments, **named)
        except Exception as error:
            return (), tape.broke(error, inputs)
        if self._values:
            self.given_back = tensors(result)
        return tape.see(result), None

    def _stand_in(self, tensor: Tensor) -> Tensor:
        return real(tensor) if self._mode is None else fake(self._mode, tensor)

    def _input(self, tensor: Tensor) -> Tensor:
        if self._mode is not None:
            return fake(self._mode, tensor)
        if tensor.device.type != "meta":
            return tensor.detach().clone()
        drawn = torch.empty_like(tensor, device="cpu")
        return drawn.normal_() if tensor.is_floating_point() else drawn.zero_()

    def _wrapped(self, part: Part, forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            assert self._tape is not None
            if self.watched is not None and part.path == self.watched:
                self.caught, self.watched = (args, kwargs), None
            return self._tape.call(part, forward, args, kwargs)

        call.__wrapped__ = forward  # type: ignore[attr-defined]  # inspect.signature follows it
        return call

    def _hooked(self, part: Part) -> None:
        if self._tape is not None:
            self._tape.replaced.setdefault(part.path)


def outputs(model: nn.Module, example: Any, *, seed: int = 0) -> list[Tensor]:
    """Run the model's copy for real in evaluation mode, and give its outputs; no weight is changed.

    Args:
        model: any module; it is neither changed nor called itself.
        example: a tensor or a tuple of arguments; floating ones without data, on meta, are drawn from `seed`.
        seed: what is drawn from.
    """
    tracer = Tracer(model, values=True)
    with rng_kept(), torch.no_grad():
        torch.manual_seed(seed)
        tracer.trace(example)
        return [tensor for tensor in tracer.given_back if tensor.is_floating_point()]


def arriving(model: nn.Module, example: Any, path: str) -> Tensor | None:
    """Run the model's copy for real up to a module, and give the first tensor that this is given.

    Args:
        model: any module; it is neither changed nor called itself.
        example: a tensor or a tuple of arguments.
        path: of the module; what comes after it may be on meta.
    """
    tracer = Tracer(model, values=True)
    tracer.watched = path
    tracer.trace(example)
    return next(iter(tensors(tracer.caught)), None)


def doubled(example: Any) -> Any:
    """Give an example of twice as many samples: every tensor whose first dimension is the batch is doubled."""
    batch = _batch((example, {}))

    def twice(tensor: Tensor) -> Tensor:
        if tensor.dim() == 0 or tensor.shape[0] != batch:
            return tensor
        if tensor.device.type != "meta" and not tensor.is_floating_point():  # numbers may be read
            return torch.cat([tensor, tensor])
        return torch.empty((2 * batch, *tensor.shape[1:]), dtype=tensor.dtype, device="meta")

    return mapped(twice, example)


def _batch(given: Any) -> int:
    """Give the number of samples: rows of the first tensor, or the length of a list of single samples."""
    first = given
    while isinstance(first, tuple) and first:
        first = first[0]
    if isinstance(first, list):
        return len(first)
    tensor = next(iter(tensors(given)), None)
    return int(tensor.shape[0]) if tensor is not None and tensor.dim() else 1


def _eager() -> Any:
    """Keep compiled functions from compiling; where torch's compiler was never loaded, there is none."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
