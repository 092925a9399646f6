"""Hidden: layers and tensors in plain attributes, lists and objects, which a module does not register."""

from __future__ import annotations

import functools
import types
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Hidden", "hidden"]

_DEPTH = 4
_MOST = 4096
"""How deep attributes are followed, and how many values of one module at the most."""

_GRAPH = 64
"""How many steps of a tensor's graph are walked back: a weight is made in a few, a pass takes more."""


@dataclass(frozen=True)
class Hidden:
    """Something with values that the model does not know of.

    Attributes:
        home: path of the module that it hangs on.
        place: how it is reached from there: `layers[0]`.
        kind: its class.
        what: a `module` with parameters of its own, a `parameter` (a tensor that wants a gradient, or was
            computed from such), a `computed` tensor that holds the graph of a pass, or a plain `tensor` of floats.
        count: how many values it holds.
        trainable: whether any of them wants a gradient.
    """

    home: str
    place: str
    kind: str
    what: Literal["module", "parameter", "computed", "tensor"]
    count: int
    trainable: bool


def hidden(modules: Sequence[tuple[str, nn.Module]]) -> tuple[Hidden, ...]:
    """Look through every attribute of every module for what is not registered; nothing is called or read.

    Args:
        modules: every module of a model with its path.
    """
    from torch import nn

    known = {id(module) for _, module in modules}
    for _, module in modules:
        known.update(map(id, module._parameters.values()))
        known.update(map(id, module._buffers.values()))
    known.discard(id(None))
    usual = frozenset((*vars(nn.Module()), "_compiled_call_impl", "_flat_weights", "_flat_weight_refs"))
    walk = _Walk(known)
    for path, module in modules:
        walk.module(path, module, usual)
    return tuple(walk.found)


class _Walk:
    """One walk: each thing is met once."""

    def __init__(self, known: set[int]) -> None:
        self.known = frozenset(known)
        self.seen = known
        self.classes: set[type] = set()
        self.found: list[Hidden] = []
        self.left = 0

    def module(self, path: str, module: nn.Module, usual: frozenset[str]) -> None:
        """Follow the attributes of one module, and those of its class that are its author's."""
        self.left = _MOST
        for name, value in vars(module).items():
            kind = type(value)
            if kind in _SIMPLE or name in usual or (kind is tuple and _SIMPLE.issuperset(map(type, value))):
                continue  # nearly all of them: sizes, rates and flags
            if not _computed_weight(module, name):
                self._follow(path, name, value, 0)
        if type(module) not in self.classes:
            self.classes.add(type(module))
            self._class(path, type(module))

    def _class(self, path: str, kind: type) -> None:
        for cls in kind.__mro__:
            if cls.__module__.partition(".")[0] in _LIBRARIES:
                break
            for name, value in vars(cls).items():
                if not name.startswith("__") and not isinstance(value, (property, types.FunctionType)):
                    self._follow(path, name, value, 0)

    def _follow(self, home: str, place: str, value: Any, depth: int) -> None:
        if (
            type(value) in _SIMPLE
            or isinstance(value, _ATOMS)
            or depth > _DEPTH
            or self.left <= 0
            or id(value) in self.seen
        ):
            return
        self.left -= 1
        if self._is_found(home, place, value):
            return
        self.seen.add(id(value))
        for step, one in _inside(value):
            self._follow(home, f"{place}{step}", one, depth + 1)

    def _is_found(self, home: str, place: str, value: Any) -> bool:
        """Note a module or a tensor; tell whether it was one."""
        import torch
        from torch import nn

        if isinstance(value, nn.Module):
            self.seen.add(id(value))
            own = [one for one in value.parameters() if id(one) not in self.seen]
            if own:
                self._note(home, place, value, "module", own)
            return True
        if isinstance(value, torch.Tensor):
            self.seen.add(id(value))
            if value.requires_grad:
                learnt = value.is_leaf or self._of_its_own(value)
                self._note(home, place, value, "parameter" if learnt else "computed", [value])
            elif value.is_floating_point():
                self._note(home, place, value, "tensor", [value])
            return True
        return False

    def _of_its_own(self, value: Any) -> bool:
        """Tell whether a computed tensor stems from leaves that are not the model's: `nn.Parameter(…).to(device)`.

        What a pass made of the model's own parameters is no parameter.
        """
        steps, leaves = [value.grad_fn], []
        for step in steps:  # grows while it is walked
            if hasattr(step, "variable"):
                leaves.append(step.variable)
            elif len(steps) < _GRAPH:
                steps += [before for before, _ in step.next_functions if before is not None]
        return bool(leaves) and not any(id(leaf) in self.known for leaf in leaves)

    def _note(
        self,
        home: str,
        place: str,
        value: Any,
        what: Literal["module", "parameter", "computed", "tensor"],
        tensors: list[Any],
    ) -> None:
        from torch.nn.parameter import is_lazy

        count = sum(one.numel() for one in tensors if not is_lazy(one))
        trainable = any(one.requires_grad for one in tensors)
        self.found.append(Hidden(home, place, type(value).__name__, what, count, trainable))
        self.seen.update(id(one) for one in tensors)


_ATOMS = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType, types.BuiltinFunctionType)
_SIMPLE = frozenset({str, int, float, bool, type(None)})
"""The usual ones of them, told at once."""

_LIBRARIES = ("torch", "torchvision", "timm", "transformers", "builtins")
"""Packages whose classes hold no layer as an attribute of the class."""


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    """Give what a container, a function or an object of a plain class holds, and how it is reached."""
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", one) for key, one in list(value.items())[:_MOST])
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        yield from ((f"[{number}]", one) for number, one in enumerate(list(value)[:_MOST]))
    elif isinstance(value, functools.partial):
        yield from (("", one) for one in (value.func, *value.args, *value.keywords.values()))
    elif isinstance(value, types.MethodType):
        yield "", value.__self__
    elif isinstance(value, types.FunctionType):
        yield from (("", cell.cell_contents) for cell in value.__closure__ or () if _is_filled(cell))
    elif isinstance(getattr(value, "__dict__", None), dict) and type(value).__module__ not in ("torch", "weakref"):
        yield from ((f".{name}", one) for name, one in vars(value).items())


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _computed_weight(module: nn.Module, name: str) -> bool:
    """Tell whether an attribute is computed from registered parameters: weight norm, spectral norm, pruning."""
    own = module._parameters
    return f"{name}_g" in own or f"{name}_orig" in own
