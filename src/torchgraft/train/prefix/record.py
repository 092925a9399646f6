"""One pass of a model, written down on real tensors: every operation and module call, and what is still about it.

A trace on fake tensors can't say which operations draw random numbers, which buffers move, or what depends on the
other samples of a batch. Here two small real passes tell: of four samples, and of three of them in another order.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from torchgraft.errors import TorchgraftError
from torchgraft.rng import rng_kept
from torchgraft.trace.tree import tensors
from torchgraft.train.prefix.rows import same

__all__ = [
    "Act",
    "Drifted",
    "Record",
    "Steered",
    "Unclear",
    "Visit",
    "called",
    "name_of",
    "recorded",
    "state_kept",
    "swapped",
]


class Unclear(TorchgraftError):  # noqa: N818
    """A pass can't be told apart into what is still and what is not; the words say why."""


class Steered(Unclear):
    """Two passes did not do the same."""


class Drifted(TorchgraftError):  # noqa: N818
    """A pass went another way than the recorded one; buffers and random numbers are as before it."""


@dataclass(slots=True, eq=False)
class Act:
    """One operation.

    Attributes:
        index: its place among the operations of the pass.
        name: of the function.
        inputs: the values it takes.
        outputs: the values it makes, what it writes over included.
        made: those of them that its result holds, in order.
        reads: it gives a plain number, word or array made of values.
        draws: it moves a random generator.
        writes: it writes to what was there before the pass.
        saved: hooks for saved tensors are on, as in a checkpointed block.
        func: what was called.
        given: its arguments, by place and by name.
        answer: the plain value that it gave.
    """

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    made: tuple[int, ...]
    reads: bool
    draws: bool
    writes: bool
    saved: bool
    func: Callable[..., Any]
    given: tuple[Any, Any]
    answer: Any


@dataclass(slots=True, eq=False)
class Visit:
    """One call of a module.

    Attributes:
        path: of the module.
        module: itself.
        given: the values it is given.
        first: the number of operations before it.
        saved: see `Act`; where the call begins.
        last: the number of operations at its end.
        gave: the values it gives, in order.
        result: what it gives.
        items: what happens directly in it, in order.
    """

    path: str
    module: nn.Module
    given: tuple[int, ...]
    first: int
    saved: bool
    last: int = 0
    gave: tuple[int, ...] = ()
    result: Any = None
    items: list[Act | Visit] = field(default_factory=list)

    def acts(self) -> Iterator[Act]:
        """Give every operation in it, those of calls in it included."""
        for item in self.items:
            if isinstance(item, Act):
                yield item
            else:
                yield from item.acts()

    def visits(self) -> Iterator[Visit]:
        """Give every call in it, itself first."""
        yield self
        for item in self.items:
            if isinstance(item, Visit):
                yield from item.visits()


@dataclass
class Record:
    """What one pass did.

    Attributes:
        root: the call of the model.
        values: every tensor that was seen, as it is after the pass.
        names: of the parameters, buffers and other tensors that modules hold, by value.
        inputs: the values that went in.
        strange: values that came from where nobody looks, each with the call in which it turned up.
        over: values that are written over later in the pass.
    """

    root: Visit
    values: list[Tensor]
    names: dict[int, str]
    inputs: tuple[int, ...]
    strange: dict[int, Visit]
    over: frozenset[int]


_SHAPE = frozenset(
    {"size", "dim", "numel", "stride", "storage_offset", "ndimension", "nelement", "element_size", "__len__"}
    | {"is_floating_point", "is_complex", "is_contiguous", "is_tensor", "is_same_size", "get_device", "type"}
    | {"is_signed", "is_inference", "is_nested", "__hash__", "_is_view", "is_conj", "is_neg", "is_set_to"}
    | {"result_type", "can_cast", "promote_types", "is_storage", "__dir__", "has_names", "is_shared", "is_pinned"}
    | {"requires_grad_", "is_distributed", "is_coalesced", "dense_dim", "sparse_dim"}
)
_TENSORS = frozenset({"T", "mT", "H", "mH", "data", "grad", "real", "imag"})


def name_of(func: Any) -> str:
    """Name an operation; empty where it reads no more than a shape, a type or a place."""
    name: str = getattr(func, "__name__", "")
    if name == "__get__":
        own = getattr(getattr(func, "__self__", None), "__name__", "")
        return f".{own}" if own in _TENSORS else ""
    if name == "__set__":
        return f"set {getattr(getattr(func, '__self__', None), '__name__', '')}"
    return "" if name in _SHAPE else name


def called(model: Callable[..., Any], inputs: Any) -> Any:
    """Call a model: a dict goes in by name, a tuple by place, anything else as the one argument."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


@contextmanager
def swapped(forwards: dict[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Let modules run other functions than their own forward; afterwards they are as they were."""
    before = [(one, one.__dict__.get("forward")) for one in forwards]
    try:
        for one, forward in forwards.items():
            one.__dict__["forward"] = forward
        yield
    finally:
        for one, own in before:
            if own is None:
                one.__dict__.pop("forward", None)
            else:
                one.__dict__["forward"] = own


@contextmanager
def state_kept(model: nn.Module) -> Iterator[None]:
    """Put buffers, random numbers and what autocast remembers back as they were."""
    kept = [(one, one.detach().clone()) for one in model.buffers()]
    with rng_kept():
        try:
            yield
        finally:
            with torch.no_grad():
                for one, was in kept:
                    if not same(one, was):
                        one.copy_(was)
            torch.clear_autocast_cache()  # a weight that was cast without gradients would go on without


def recorded(model: nn.Module, inputs: Any) -> Record:
    """Run a pass and write it down; the model, its buffers and the random numbers are as before.

    Raises:
        Unclear: random numbers of Python or numpy are drawn.
    """
    tape = _Tape(model, inputs)
    buffers = {name: (one, one.detach().clone()) for name, one in model.named_buffers()}
    with state_kept(model):
        drawn = _drawn()
        with swapped({one: tape.wrapped(one) for one in tape.paths}):
            called(model, inputs)
        if _drawn() != drawn:
            raise Unclear("the pass draws random numbers outside of torch")
        moved = {name for name, (one, was) in buffers.items() if not same(one, was)}
    return tape.record(moved)


def _drawn() -> int:
    numbers = np.random.get_state()
    return hash((random.getstate(), numbers[1].tobytes(), numbers[2]))  # type: ignore[index]


def _held(model: nn.Module) -> dict[str, Tensor]:
    """Name every tensor that the modules hold, in attributes and plain containers too."""
    found: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    found |= model.named_buffers(remove_duplicate=False)
    for path, module in model.named_modules():
        for name, one in vars(module).items():
            if not name.startswith(("_parameters", "_buffers", "_modules")) and "hooks" not in name:
                found |= {f"{path}.{name}.{place}": held for place, held in enumerate(tensors(one))}
    return found


class _Tape(TorchFunctionMode):
    """Writes a pass down."""

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        super().__init__()
        self.paths = {one: path for path, one in model.named_modules() if _python(one)}
        self.values: list[Tensor] = []
        self.numbers: dict[int, int] = {}
        self.strange: dict[int, Visit] = {}
        self.names: dict[int, str] = {}
        self.versions: list[int] = []
        self.shared: dict[int, list[Tensor]] = defaultdict(list)
        self.stack: list[Visit] = []
        self.count = 0
        self.hooks: Any = None
        self.root: Visit | None = None
        for name, one in _held(model).items():
            self.names.setdefault(self._number(one), name)
        self.outer = frozenset([_place(one) for one in self.values])
        for one in tensors(inputs):
            self._number(one)

    def record(self, moved: set[str]) -> Record:
        """Give what was written down; `moved` names the buffers that the pass wrote to."""
        assert self.root is not None
        for number, name in self.names.items():
            if name in moved:
                self.names[number] = f"~{name}"
        pairs = enumerate(zip(self.values, self.versions, strict=True))
        over = frozenset([number for number, (one, was) in pairs if _version(one) != was])
        return Record(self.root, self.values, self.names, self.root.given, self.strange, over)

    # numbers

    def _number(self, one: Tensor) -> int:
        known = self.numbers.get(id(one))
        if known is not None:
            return known
        self.shared[_place(one)].append(one)
        return self._anew(one)

    def _anew(self, one: Tensor) -> int:
        number = self.numbers[id(one)] = len(self.values)
        self.values.append(one)
        self.versions.append(_version(one))
        return number

    def _taken(self, tree: Any) -> tuple[int, ...]:
        """Number what an operation or a call takes; what nobody has seen is strange."""
        numbers = []
        for one in tensors(tree):
            if id(one) not in self.numbers:
                self.strange[self._number(one)] = self.stack[-1]
            numbers.append(self.numbers[id(one)])
        return tuple(numbers)

    # calls

    def wrapped(self, module: nn.Module) -> Callable[..., Any]:
        """Give the forward of a module that writes its call down."""
        forward = module.forward

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.root is not None:
                return self._visit(module, forward, args, kwargs)
            with self:
                return self._visit(module, forward, args, kwargs)

        call.__wrapped__ = forward  # type: ignore[attr-defined]  # inspect.signature follows it
        return call

    def _visit(self, module: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        with torch._C.DisableTorchFunction():
            if self.root is None:
                self.hooks = _saved()
            visit = Visit(self.paths[module], module, (), self.count, _saved() != self.hooks)
            if self.root is None:
                self.root = visit
            else:
                self.stack[-1].items.append(visit)
            self.stack.append(visit)
            visit.given = self._taken((args, kwargs))
        try:
            visit.result = forward(*args, **kwargs)
        finally:
            with torch._C.DisableTorchFunction():
                visit.gave = self._taken(visit.result)
            visit.last = self.count
            self.stack.pop()
        return visit.result

    # operations

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        if not name or not self.stack:
            return func(*args, **kwargs)
        given = tensors((args, kwargs))
        inputs = self._taken((args, kwargs))
        versions = [_version(one) for one in given]
        before = _generators()
        result = func(*args, **kwargs)
        written = [one for one, was in zip(given, versions, strict=True) if _version(one) != was]
        outputs = self._rewritten(written)
        results = tensors(result)
        made = tuple([self._number(one) for one in results])
        act = Act(
            index=self.count,
            name=name,
            inputs=inputs,
            outputs=tuple(dict.fromkeys((*made, *outputs))),
            made=made,
            reads=not results and result is not None,
            draws=_generators() != before or any(isinstance(one, torch.Generator) for one in kwargs.values()),
            writes=name.startswith("set ") or any(_place(one) in self.outer for one in written),
            saved=_saved() != self.hooks,
            func=func,
            given=(args, kwargs),
            answer=None if results else result,
        )
        self.count += 1
        self.stack[-1].items.append(act)
        return result

    def _rewritten(self, written: list[Tensor]) -> list[int]:
        """Number anew what was written over, and all that shares its memory."""
        places = {_place(one) for one in written}
        return [self._anew(one) for place in places for one in self.shared[place]]


def _python(module: nn.Module) -> bool:
    return not isinstance(module, torch.jit.ScriptModule)


def _version(one: Tensor) -> int:
    return 0 if one.is_inference() else one._version


def _place(one: Tensor) -> int:
    try:
        return int(one.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return id(one)


def _saved() -> Any:
    return torch._C._autograd._top_saved_tensors_default_hooks(True)


def _generators() -> tuple[bytes, ...]:
    """Read the state of torch's random generators, on every device in use."""
    states = [torch.default_generator.get_state()]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states += torch.cuda.get_rng_state_all()
    return tuple([one.numpy().tobytes() for one in states])
