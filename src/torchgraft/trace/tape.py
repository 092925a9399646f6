"""The tape: writes down operations and module calls while a pass runs.

The forward of every module of the ghost is wrapped, so the path of the innermost call is always known; a
TorchFunctionMode sees every tensor operation and keeps who made which tensor. When the pass breaks off, the
innermost call is the consumer and its inputs lead back to their makers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode

from torchgraft.trace import strict
from torchgraft.trace.body import Part, changed_state
from torchgraft.trace.macs import count
from torchgraft.trace.memory import Memory, Range, Start, asked, kept, replayed, sizes_of
from torchgraft.trace.record import Call, Mismatch, Op, Value
from torchgraft.trace.repeats import REPEATED, Repeats, made_again, made_of
from torchgraft.trace.repeats import asked as asked_before
from torchgraft.trace.storages import OPENED, Inside, Storages
from torchgraft.trace.tree import PLAIN, labelled, mapped, tensors

__all__ = ["Tape"]

_off = torch._C.DisableTorchFunction  # looking at a tensor's shape is no operation of the model
_WRITES = frozenset(["__setitem__", "copy_", "index_put_"])


@dataclass(slots=True)
class _Frame:
    """A module call that is under way.

    Attributes:
        value: the first value that is made in the call.
        closed: so far, nothing but its own values, inputs, parameters and modules took part.
        pure: no module in it wrote to itself.
    """

    index: int
    path: str
    kind: str
    given: tuple[int, ...]
    value: int = 0
    closed: bool = True
    pure: bool = True

    def sees(self, number: int) -> bool:
        return number >= self.value or number in self.given

    def holds(self, path: str) -> bool:
        return not self.path or path == self.path or path.startswith(f"{self.path}.")


@dataclass(slots=True)
class _Failure:
    """The operation that raised, and the frame that was innermost then."""

    op: str
    frame: _Frame
    inputs: tuple[int, ...]
    params: tuple[str, ...]
    settings: tuple[tuple[int | str, Any], ...]
    error: BaseException = field(repr=False)


_ROOT = _Frame(-1, "", "", ())


class Tape(TorchFunctionMode):
    """One pass as it is written down.

    Attributes:
        numbers: the number of each tensor that was seen, by id.
        ranges: the least and the greatest number in a value of whole numbers, where that is known, and whether
            both are really there.
        ran: ids of the modules whose forward really ran.
        replaced: paths of modules whose hooks gave something back.
        storages: those that were seen.
    """

    def __init__(
        self,
        mode: FakeTensorMode | None,
        names: Mapping[int, str],
        memory: Memory | None,
        repeats: Repeats | None,
        stand_in: Callable[[Tensor], Tensor] | None,
        *,
        train: bool,
    ) -> None:
        super().__init__()
        self.mode: Any = mode
        self.names = names
        self.train = train
        self.stand_in = stand_in
        self.values: list[Value] = []
        self.makers: list[int | None] = []
        self.ops: list[Op] = []
        self.calls: list[Call | None] = []
        self.numbers: dict[int, int] = {}
        self.ranges: dict[int, Range] = {}
        self.ran: set[int] = set()
        self.replaced: dict[str, None] = {}
        self.storages = Storages()
        self.fresh: list[Any] = []
        self._memory = memory
        self._repeats = repeats
        self._alive: list[Tensor] = []  # an id must not be used again while the pass runs
        self._stack: list[_Frame] = []
        self._failure: _Failure | None = None

    # module calls

    def call(self, part: Part, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the forward of a module, or give what it is known to give."""
        with _off():
            given = self._read((args, kwargs))
            parent = self._stack[-1].index if self._stack else None
            self._open(given, (part.path,))
            key = None
            if self._memory is not None and part.free:
                key = asked(self, args, kwargs)
                if key is not None:
                    key = (part.sign, self.train, part.odd, _context(), key)
                    entry = self._memory.get(key)
                    if entry is not None:
                        return replayed(self, entry, part.path, parent, given, (args, kwargs))
            start = self._start(part, given, (args, kwargs)) if key is not None else None
        result, alone = self._ran(part, forward, parent, given, args, kwargs)
        if start is not None and alone:
            with _off():
                self._keep(key, start, result)
        return result

    def _keep(self, key: Any, start: Start, result: Any) -> None:
        entry = kept(self, start, result)
        if entry is not None and self._memory is not None:
            self._memory[key] = entry
            self.fresh.append(key)

    def _open(self, numbers: tuple[int, ...], paths: tuple[str, ...]) -> None:
        """Mark the calls under way that use something from elsewhere: they can't be given again by themselves."""
        for frame in reversed(self._stack):
            if all(frame.sees(number) for number in numbers) and all(frame.holds(path) for path in paths):
                return
            frame.closed = False

    def _start(self, part: Part, given: tuple[int, ...], asked: Any) -> Start:
        arguments = [one for one in tensors(asked) if id(one) not in self.names]
        sizes = sizes_of(arguments)
        parent = self._stack[-1].index if self._stack else None
        counts = (len(self.values), len(self.ops), len(self.calls))
        return Start(*counts, parent, given, part.path, arguments, sizes, len(self.replaced))

    def _ran(
        self,
        part: Part,
        forward: Callable[..., Any],
        parent: int | None,
        given: tuple[int, ...],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[Any, bool]:
        frame = _Frame(len(self.calls), part.path, part.kind, given, len(self.values))
        self.calls.append(None)
        self._stack.append(frame)
        self.ran.add(id(part.module))
        first = len(self.ops)
        result = None
        try:
            result = forward(*args, **kwargs)
        except Exception as error:
            self._fail("forward", frame, given, (), (), error)
            raise
        finally:
            self._stack.pop()
            with _off():
                gave = self._read(result)
                names = () if isinstance(result, Tensor) else self._names(result)
            self.calls[frame.index] = Call(
                frame.index, part.path, part.kind, parent, given, gave, first, len(self.ops), names
            )
        if part.state and changed_state(part):
            part.dirty = True
            frame.pure = False
        if not frame.pure and self._stack:
            self._stack[-1].pure = False
        return result, frame.pure and frame.closed

    # operations

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        kwargs = kwargs or {}
        if name == "__get__":  # a shape, a dtype, a device, or .T
            result = func(*args, **kwargs)
            if not isinstance(result, Tensor):
                return result
            self._note(".T" if result is not args[0] else "get", (args, kwargs), result, 0)
            return result
        if self.stand_in is not None:
            args, kwargs = self._all_fake(args, kwargs)
        try:
            strict.check(self, name, args, kwargs)
            result, macs, hidden = self._counted(name, func, args, kwargs)
        except Exception as error:
            asked = (args, kwargs)
            self._fail(name, self._here(), self._read(asked), self._params(asked), _settings(name, asked), error)
            raise
        made = args[0] if result is None and name in _WRITES else result
        if made is not None and type(made) not in PLAIN and tensors(made):
            self._note(name, (args, kwargs), made, macs, hidden)
        return result

    def _counted(self, name: str, func: Any, args: Any, kwargs: Any) -> tuple[Any, int, int]:
        """Run an operation, and give its result, its multiply-accumulates, and the bytes it took on the way."""
        if name in REPEATED and self._repeats is not None:
            return (*self._repeated(self._repeats, func, args, kwargs), 0)
        if name not in OPENED:
            return (*count(func, args, kwargs), 0)
        with Inside() as inside:
            result, macs = count(func, args, kwargs)
        return result, macs, inside.dropped(result)

    def _repeated(self, repeats: Repeats, func: Any, args: Any, kwargs: Any) -> tuple[Any, int]:
        """Run an operation, or make its result again where the same was asked before."""
        given: list[Tensor] = []
        key = asked_before(func, args, kwargs, given)
        if key is None:
            return count(func, args, kwargs)
        key = (key, _context())
        known = repeats.get(key)
        if known is not None:
            return made_again(self.mode, known, given), known.macs
        result, macs = count(func, args, kwargs)
        made = made_of(result, given, macs)
        if made is not None:
            repeats[key] = made
        return result, macs

    def _all_fake(self, args: Any, kwargs: Any) -> Any:
        """Put stand-ins where real tensors reach an operation, which would write to them in place."""
        if all(isinstance(one, FakeTensor) or type(one) not in _REAL for one in tensors((args, kwargs))):
            return args, kwargs
        turn = self.stand_in
        return mapped(lambda one: turn(one) if turn and type(one) in _REAL else one, (args, kwargs))

    def _here(self) -> _Frame:
        return self._stack[-1] if self._stack else _ROOT

    def _note(
        self, name: str, asked: tuple[tuple[Any, ...], dict[str, Any]], made: Any, macs: int, hidden: int = 0
    ) -> None:
        index, path = len(self.ops), self._here().path
        inputs, params = self._taken(asked)
        self._open(inputs, params)
        found = strict.range_made(self, name, asked)
        results = tensors(made)
        size = hidden + sum([self.storages.new(tensor) for tensor in results])
        outputs = tuple([self._made(tensor, index) for tensor in results])
        self.ops.append(Op(index, name, path, inputs, outputs, params, macs, _settings(name, asked), size))
        if found is not None and outputs and strict.holds(made, found):
            self.ranges[outputs[0]] = found

    # numbers

    def _made(self, tensor: Tensor, maker: int | None) -> int:
        number = len(self.values)
        self.values.append(Value(tuple(tensor.shape), str(tensor.dtype)[6:]))
        self.makers.append(maker)
        if maker is None:
            self.storages.hold(tensor)
            for frame in self._stack:
                frame.closed = False
        self.bind(tensor, number)
        return number

    def bind(self, tensor: Tensor, number: int) -> None:
        """Let a tensor stand for a value."""
        self.numbers[id(tensor)] = number
        self._alive.append(tensor)

    def see(self, tree: Any) -> tuple[int, ...]:
        """Number the tensors of a structure; those that were seen keep their number."""
        numbers = self.numbers
        return tuple([numbers[id(one)] if id(one) in numbers else self._made(one, None) for one in tensors(tree)])

    def _read(self, tree: Any) -> tuple[int, ...]:
        """Number the tensors of a structure that are no parameters or buffers: these go by their names."""
        numbers = self.numbers
        return tuple(
            [
                numbers[id(one)] if id(one) in numbers else self._made(one, None)
                for one in tensors(tree)
                if id(one) not in self.names
            ]
        )

    def _taken(self, tree: Any) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Number the tensors that an operation takes; its parameters and buffers go by their names."""
        inputs, params = [], []
        for one in tensors(tree):
            name = self.names.get(id(one))
            if name is not None:
                params.append(name)
                self.storages.hold(one)
                continue
            number = self.numbers.get(id(one))
            inputs.append(self._made(one, None) if number is None else number)
        return tuple(inputs), tuple(params)

    def _names(self, tree: Any) -> tuple[str, ...]:
        """Give the names of what `_read` numbers, where there are any."""
        names = tuple([name for name, one in labelled(tree) if id(one) not in self.names])
        return names if any(names) else ()

    def _params(self, tree: Any) -> tuple[str, ...]:
        return tuple([self.names[id(one)] for one in tensors(tree) if id(one) in self.names])

    # the break

    def _fail(
        self,
        op: str,
        frame: _Frame,
        inputs: tuple[int, ...],
        params: tuple[str, ...],
        settings: tuple[tuple[int | str, Any], ...],
        error: BaseException,
    ) -> None:
        if self._failure is None or self._failure.error is not error:
            self._failure = _Failure(op, frame, inputs, params, settings, error)

    def broke(self, error: BaseException, inputs: tuple[int, ...]) -> Mismatch:
        """Say where the pass broke off."""
        failure = self._failure or _Failure("forward", _ROOT, inputs, (), (), error)
        return Mismatch(
            op=failure.op,
            path=failure.frame.path,
            kind=failure.frame.kind,
            inputs=failure.inputs,
            params=failure.params,
            error="DataDependentOutputException" if failure.op in _LEAVES else type(failure.error).__name__,
            message=str(failure.error).strip() or type(failure.error).__name__,
            settings=failure.settings,
        )


_LEAVES = frozenset({"numpy", "tolist", "__array__"})
"""Operations that take values out of torch: fake tensors have none."""

_REAL = (Tensor, nn.Parameter, nn.Buffer)


def _context() -> Any:
    """Tell what else an operation depends on: autocast, gradients, defaults."""
    cast: Any = None
    if torch._C._is_any_autocast_enabled():
        kinds = ("cpu", "cuda")
        cast = tuple((torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds)
    return (cast, torch.is_grad_enabled(), torch.get_default_dtype(), torch._C._len_torch_function_stack())


_TELLING = frozenset(
    {"view", "reshape", "flatten", "unflatten", "permute", "transpose", "squeeze", "unsqueeze", "chunk", "split"}
    | {"cat", "concat", "stack", "softmax", "log_softmax", "mean", "sum", "amax", "max", "std", "var", "norm"}
    | {"normalize", "argmax", "cumsum", "interpolate", "adaptive_avg_pool2d", "leaky_relu"}
)
"""Operations whose plain arguments say what went wrong."""


def _settings(name: str, asked: tuple[tuple[Any, ...], dict[str, Any]]) -> tuple[tuple[int | str, Any], ...]:
    args, kwargs = asked
    if "dropout" in name and "training" in kwargs:  # the share is left out: traces of other shares are shared
        return (("training", bool(kwargs["training"])),)
    if name not in _TELLING:
        return ()
    pairs: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    return tuple([(place, one) for place, one in pairs if _plain(one)])


def _plain(one: Any) -> bool:
    if type(one) is tuple or isinstance(one, torch.Size):
        return all(type(part) in PLAIN for part in one)
    return type(one) in PLAIN and one is not None
