"""Run a model once on fake tensors and write down what happens.

The forward of every module of the ghost is wrapped, so the path of the innermost call is always known;
a TorchFunctionMode sees every tensor operation and keeps who made which tensor. When the pass breaks off,
the innermost call is the consumer and its inputs lead back to their makers.
"""

from __future__ import annotations

import functools
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from torchgraft.errors import SourceError
from torchgraft.trace.ghost import fake, ghost
from torchgraft.trace.macs import count
from torchgraft.trace.record import Call, Mismatch, Op, Trace, Value

__all__ = ["trace"]

# Failing operations under FakeTensorMode log tracebacks; the mismatch says it better.
logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)


def trace(
    model: nn.Module, example: Any, *, train: bool = False, kwargs: Mapping[str, Any] | None = None
) -> Trace:
    """Run `model` once on fake twins of `example` and record the pass.

    Args:
        model: any module; it is neither changed nor called itself.
        example: a tensor, or a tuple of positional arguments; only shapes and dtypes are read.
        train: trace as in training mode instead of evaluation mode.
        kwargs: further arguments of the forward pass by name.

    Returns:
        the trace; where the pass broke off, `mismatch` says where and why.

    Raises:
        SourceError: a layer's sizes are not known yet (`nn.LazyLinear` and the like).
    """
    _refuse_lazy(model)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    twin, twins = ghost(model, mode)
    twin.train(train)
    arguments = example if isinstance(example, tuple) else (example,)
    given = _map(lambda one: fake(mode, one), arguments)
    named = _map(lambda one: fake(mode, one), dict(kwargs or {}))
    tape = _Tape(_names(model, twins), _batch(given))
    tape.watch(twin)
    tape.inputs = tape.see((given, named), None)
    with _rng_kept(), torch.no_grad(), mode, tape:
        outputs, mismatch = _forward(twin, given, named, tape)
    kinds = {path: type(module).__name__ for path, module in model.named_modules()}
    return Trace(
        values=tuple(tape.values),
        ops=tuple(tape.ops),
        calls=tuple(call for call in tape.calls if call is not None),
        inputs=tape.inputs,
        outputs=outputs,
        kinds=kinds,
        batch=tape.batch,
        train=train,
        mismatch=mismatch,
    )


def _forward(
    twin: nn.Module, given: tuple[Any, ...], named: dict[str, Any], tape: _Tape
) -> tuple[tuple[int, ...], Mismatch | None]:
    try:
        with torch.compiler.set_stance("force_eager"):
            result = twin(*given, **named)
    except Exception as error:
        return (), tape.broke(error)
    return tape.see(result, None), None


def _refuse_lazy(model: nn.Module) -> None:
    for path, module in model.named_modules():
        tensors = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        if any(isinstance(one, (nn.UninitializedParameter, nn.UninitializedBuffer)) for one in tensors):
            raise SourceError(
                f"the sizes of {path or 'the model'} ({type(module).__name__}) are not known yet",
                where=path,
                hint="run one batch through the model first, or write the sizes out",
            )


def _names(model: nn.Module, twins: Mapping[int, Any]) -> dict[int, str]:
    """Map the id of each fake parameter or buffer to its name."""
    names: dict[int, str] = {}
    for listing in (model.named_parameters(), model.named_buffers()):
        for name, tensor in listing:
            if id(tensor) in twins:
                names[id(twins[id(tensor)])] = name
    return names


def _batch(given: Any) -> int:
    first = next(_tensors(given), None)
    return int(first.shape[0]) if first is not None and first.dim() else 1


@contextmanager
def _rng_kept() -> Iterator[None]:
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        torch.set_rng_state(kept[2])


@dataclass
class _Frame:
    """A module call that is under way."""

    index: int
    path: str
    kind: str
    given: tuple[int, ...]


@dataclass
class _Failure:
    """The operation that raised, and the frame that was innermost then."""

    op: str
    frame: _Frame
    inputs: tuple[int, ...]
    params: tuple[str, ...]
    error: BaseException = field(repr=False)


class _Tape(TorchFunctionMode):
    """Records operations and module calls while the pass runs."""

    def __init__(self, names: Mapping[int, str], batch: int) -> None:
        super().__init__()
        self.names = names
        self.batch = batch
        self.values: list[Value] = []
        self.ops: list[Op] = []
        self.calls: list[Call | None] = []
        self.inputs: tuple[int, ...] = ()
        self._number: dict[int, int] = {}
        self._kept: list[Tensor] = []  # an id must not be used again while the pass runs
        self._stack: list[_Frame] = []
        self._failure: _Failure | None = None

    # module calls

    def watch(self, twin: nn.Module) -> None:
        """Wrap the forward of every module of the ghost."""
        for path, module in twin.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            module.__dict__["forward"] = self._wrapped(module.forward, path, type(module).__name__)

    def _wrapped(self, forward: Callable[..., Any], path: str, kind: str) -> Callable[..., Any]:
        @functools.wraps(forward)
        def call(*args: Any, **kwargs: Any) -> Any:
            frame = _Frame(len(self.calls), path, kind, self.see((args, kwargs), None))
            parent = self._stack[-1].index if self._stack else None
            self.calls.append(None)
            self._stack.append(frame)
            first = len(self.ops)
            result = None
            try:
                result = forward(*args, **kwargs)
            except Exception as error:
                self._fail("forward", frame, frame.given, (), error)
                raise
            finally:
                self._stack.pop()
                self.calls[frame.index] = Call(
                    frame.index, path, kind, parent, frame.given, self.see(result, None), first, len(self.ops)
                )
            return result

        return call

    # operations

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        frame = self._stack[-1] if self._stack else _Frame(-1, "", "", ())
        before = {id(tensor) for tensor in _tensors((args, kwargs))}
        try:
            result, macs = count(func, args, kwargs)
        except Exception as error:
            self._fail(_name(func), frame, self._read((args, kwargs)), self._params((args, kwargs)), error)
            raise
        made = args[0] if result is None and _name(func) in _WRITES else result
        if made is not None and any(True for _ in _tensors(made)):
            self._note(func, frame, (args, kwargs), made, macs, before)
        return result

    def _note(self, func: Any, frame: _Frame, asked: Any, made: Any, macs: int, before: set[int]) -> None:
        index = len(self.ops)
        inputs = self._read(asked)
        params = self._params(asked)
        self.ops.append(Op(index, _name(func), frame.path, inputs, (), params, macs))
        outputs = tuple(self._made(tensor, index) for tensor in _tensors(made))
        self.ops[index] = Op(index, _name(func), frame.path, inputs, outputs, params, macs)

    def _made(self, tensor: Tensor, maker: int | None) -> int:
        number = len(self.values)
        self.values.append(Value(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), maker))
        self._number[id(tensor)] = number
        self._kept.append(tensor)
        return number

    def see(self, tree: Any, maker: int | None) -> tuple[int, ...]:
        """Number the tensors of a structure; those that were seen keep their number."""
        return tuple(
            self._number[id(tensor)] if id(tensor) in self._number else self._made(tensor, maker)
            for tensor in _tensors(tree)
        )

    def _read(self, tree: Any) -> tuple[int, ...]:
        return tuple(
            self._number[id(tensor)] if id(tensor) in self._number else self._made(tensor, None)
            for tensor in _tensors(tree)
            if id(tensor) not in self.names
        )

    def _params(self, tree: Any) -> tuple[str, ...]:
        return tuple(self.names[id(tensor)] for tensor in _tensors(tree) if id(tensor) in self.names)

    # the break

    def _fail(
        self, op: str, frame: _Frame, inputs: tuple[int, ...], params: tuple[str, ...], error: BaseException
    ) -> None:
        if self._failure is None or self._failure.error is not error:
            self._failure = _Failure(op, frame, inputs, params, error)

    def broke(self, error: BaseException) -> Mismatch:
        """Say where the pass broke off."""
        failure = self._failure or _Failure("forward", _Frame(-1, "", "", ()), self.inputs, (), error)
        return Mismatch(
            op=failure.op,
            path=failure.frame.path,
            kind=failure.frame.kind,
            inputs=failure.inputs,
            params=failure.params,
            error=type(failure.error).__name__,
            message=str(failure.error).strip() or type(failure.error).__name__,
        )


_WRITES = frozenset({"__setitem__", "copy_", "index_put_"})


def _name(func: Any) -> str:
    return str(getattr(func, "__name__", func))


def _tensors(tree: Any) -> Iterator[Tensor]:
    """Walk over the tensors of any structure: containers, mappings, dataclass and model outputs."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (str, bytes, int, float, type(None))):
        return
    elif isinstance(tree, Mapping):
        for one in tree.values():
            yield from _tensors(one)
    elif isinstance(tree, (list, tuple, set, frozenset)):
        for one in tree:
            yield from _tensors(one)
    elif is_dataclass(tree) and not isinstance(tree, type):
        for entry in fields(tree):
            yield from _tensors(getattr(tree, entry.name, None))


def _map(change: Callable[[Tensor], Any], tree: Any) -> Any:
    """Change every tensor of a structure of tuples, lists and dicts."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, dict):
        return {key: _map(change, one) for key, one in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_map(change, one) for one in tree))
    if isinstance(tree, (list, tuple)):
        return type(tree)(_map(change, one) for one in tree)
    return tree
