"""One side of a comparison: what a model is made of, written down as data, and a way to read its tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torchgraft.paths import joined
from torchgraft.view.distance import plain

if TYPE_CHECKING:
    from types import CodeType

    from torch import Tensor, nn

    from torchgraft.recipe import Recipe
    from torchgraft.trace import Trace

__all__ = ["Held", "Part", "Side", "side"]


@dataclass(frozen=True)
class Held:
    """A parameter or buffer.

    Attributes:
        name: its full name.
        shape: its sizes.
        dtype: as torch names it, without `torch.`.
        buffer: it is no parameter.
        trainable: whether training may change it.
        tied: the first name of the same tensor, where it has another before this one.
        meta: it has no values.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    buffer: bool
    trainable: bool
    tied: str = ""
    meta: bool = False

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        count = 1
        for one in self.shape:
            count *= one
        return count


@dataclass(frozen=True)
class Part:
    """A module.

    Attributes:
        path: its first path; "" is the model.
        kind: its class.
        settings: its plain attributes, such as `kernel_size`.
        forward: what its forward pass says, as a digest.
        children: their names, in order.
        held: its own parameters and buffers, by their names in it.
        training: its training flag.
        given: shapes that its first call was given.
        gave: shapes that its first call gave.
        macs: multiply-accumulates of all its calls for one sample, with those inside.
        edit: the number of the edit that put it in.
    """

    path: str
    kind: str
    settings: Mapping[str, Any]
    forward: str
    children: tuple[str, ...]
    held: Mapping[str, Held]
    training: bool
    given: tuple[str, ...] = ()
    gave: tuple[str, ...] = ()
    macs: int = 0
    edit: int | None = None

    @property
    def name(self) -> str:
        """Its name in its parent."""
        return self.path.rpartition(".")[2]

    def child(self, name: str) -> str:
        """Give the path of a child."""
        return joined(self.path, name)


@dataclass(frozen=True)
class Side:
    """A model as data.

    Attributes:
        title: what it is called.
        parts: its modules by path, a parent before its children; one that is held twice stands at its first path.
        recipe: what was done to it.
        read: gives a tensor by its name; None where its values can't be had.
        digest: gives what tells a tensor's bytes without reading them; "" where nothing does.
        macs: multiply-accumulates for one sample; None where the pass is not known.
        notes: what a reader should know.
    """

    title: str
    parts: Mapping[str, Part]
    recipe: Recipe
    read: Callable[[str], Tensor | None]
    digest: Callable[[str], str] = field(default=lambda name: "")
    macs: int | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def tensors(self) -> dict[str, Held]:
        """Every tensor by its name; a tied one under each."""
        return {one.name: one for part in self.parts.values() for one in part.held.values()}

    def below(self, path: str) -> Iterator[Part]:
        """Give a module and all that are inside."""
        part = self.parts.get(path)
        if part is not None:
            yield part
            for name in part.children:
                yield from self.below(part.child(name))

    def parameters(self, path: str = "", *, trainable: bool = False, but: Container[str] = ()) -> int:
        """Count the numbers in the parameters of a module; a tied one counts at its first name alone.

        Args:
            path: of the module.
            trainable: only of those that training may change.
            but: paths of modules whose own are left out.
        """
        return sum(
            one.size
            for part in self.below(path)
            if part.path not in but
            for one in part.held.values()
            if not (one.buffer or one.tied) and (one.trainable or not trainable)
        )

    @cached_property
    def structures(self) -> dict[str, str]:
        """Tell by a digest how each module is built: class, settings, tensors, and what is inside."""
        found: dict[str, str] = {}
        for path, part in reversed(list(self.parts.items())):
            inside = [(name, found.get(part.child(name), "")) for name in part.children]
            held = [(name, one.shape, one.buffer) for name, one in part.held.items()]
            found[path] = _digest((part.kind, sorted(part.settings.items()), held, inside))
        return found

    def print_of(self, path: str) -> str:
        """Tell by a few numbers of each tensor which weights a module holds; "" where it holds none."""
        known = self._prints
        if path not in known:
            marks = [mark for part in self.below(path) for one in part.held.values() if (mark := self._mark(one))]
            known[path] = _digest(marks) if marks else ""
        return known[path]

    @cached_property
    def _prints(self) -> dict[str, str]:
        return {}

    def _mark(self, one: Held) -> str:
        if one.buffer and one.size == 1:  # a counter says nothing
            return ""
        known = self.digest(one.name)
        if known or one.meta or not one.size:
            return known
        tensor = self.read(one.name)
        if tensor is None:
            return ""
        numbers = plain(tensor).reshape(-1)
        return _digest(numbers[:: max(numbers.numel() // 8, 1)].tolist())


def side(
    title: str,
    model: nn.Module,
    recipe: Recipe,
    trace: Trace | None,
    *,
    edits: Mapping[str, int] | None = None,
    notes: tuple[str, ...] = (),
) -> Side:
    """Write a model down; its tensors are referred to, not copied."""
    names: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    parts = {
        path: _part(path, module, names, tensors, (edits or {}).get(path))
        for path, module in model.named_modules()
    }
    ran = trace is not None and trace.mismatch is None
    if trace is not None and not ran:
        notes = (*notes, f"{title} does not run on its input: shapes and MACs are left out")
    parts = _with_passes(parts, trace) if trace is not None and ran else parts
    return Side(
        title, parts, recipe, tensors.get, macs=trace.macs if trace is not None and ran else None, notes=notes
    )


def _part(
    path: str, module: nn.Module, names: dict[int, str], tensors: dict[str, Tensor], edit: int | None
) -> Part:
    held: dict[str, Held] = {}
    for table, buffer in ((module._parameters, False), (module._buffers, True)):
        for name, one in table.items():
            if one is not None and hasattr(one, "shape") and not _open(one):
                whole = joined(path, name)
                first = names.setdefault(id(one), whole)
                tensors[whole] = one
                held[name] = Held(
                    whole,
                    tuple(one.shape),
                    str(one.dtype).removeprefix("torch."),
                    buffer,
                    one.requires_grad,
                    "" if first == whole else first,
                    one.is_meta,
                )
    children = tuple(name for name, one in module._modules.items() if one is not None)
    settings = {name: told for name, one in vars(module).items() if (told := _setting(name, one)) is not _NOTHING}
    return Part(
        path, type(module).__name__, settings, _forward(module), children, held, module.training, edit=edit
    )


def _open(tensor: Tensor) -> bool:
    from torch.nn.parameter import is_lazy

    return bool(is_lazy(tensor))


_NOTHING = object()
_PLAIN = (int, float, str, bool, bytes, complex, type(None))


def _setting(name: str, value: Any) -> Any:
    """Give a plain attribute as data; functions and classes by their names."""
    import torch

    if name.startswith("_") or name in ("training", "forward"):
        return _NOTHING
    if type(value) in _PLAIN:
        return value
    if isinstance(value, (tuple, list)) and all(type(one) in _PLAIN for one in value):
        return tuple(value)
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value)
    return getattr(value, "__qualname__", _NOTHING) if callable(value) and _is_plain_callable(value) else _NOTHING


def _is_plain_callable(value: Any) -> bool:
    from types import BuiltinFunctionType, FunctionType

    return isinstance(value, (FunctionType, BuiltinFunctionType, type))


def _forward(module: nn.Module) -> str:
    """Tell by a digest what a forward pass says: its code, not where it stands."""
    text = getattr(module, "code", None)  # of a torch.fx.GraphModule
    if isinstance(text, str):
        return _digest(text)
    said = getattr(vars(module).get("forward", type(module).forward), "__code__", None)
    return _digest(_written(said)) if said is not None else ""


def _written(code: CodeType) -> Any:
    inside = [_written(one) if hasattr(one, "co_code") else repr(one) for one in code.co_consts]
    return (code.co_code.hex(), code.co_names, code.co_varnames, inside)


def _digest(value: Any) -> str:
    return hashlib.blake2b(repr(value).encode(), digest_size=12).hexdigest()


def _with_passes(parts: dict[str, Part], trace: Trace) -> dict[str, Part]:
    """Add what the trace knows: shapes of the first call, and the work of all calls."""
    macs = dict.fromkeys(parts, 0)
    for op, work in zip(trace.ops, trace.work, strict=True):
        path = op.path
        while work:
            if path in macs:
                macs[path] += work
            if not path:
                break
            path = path.rpartition(".")[0]
    first: dict[str, Any] = {}
    for call in trace.calls:
        first.setdefault(call.path, call)
    return {
        path: replace(
            part,
            macs=macs[path],
            given=tuple(trace.show(number) for number in first[path].given) if path in first else (),
            gave=tuple(trace.show(number) for number in first[path].gave) if path in first else (),
        )
        for path, part in parts.items()
    }
