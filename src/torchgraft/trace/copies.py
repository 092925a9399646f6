"""Copies of what modules hold beside tensors: containers, plain objects, functions with closures, generators.

A ghost gets copies, so that a pass leaves nothing in what is the user's. What several modules share is shared by
their ghosts as well. Each copy knows what the original held when it was made, and what it held itself: so it is
seen when the user changes the one, or a pass the other.
"""

from __future__ import annotations

import copy
import enum
import functools
import random
import types
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchgraft.trace.tree import PLAIN

__all__ = ["BOXES", "Copied", "Copies", "Turn", "box_copied", "hook_copied"]

BOXES = (dict, list, set, deque)
_DEPTH = 4
_GENERATORS = (random.Random, np.random.Generator, np.random.RandomState)
_SHARED = (type, types.ModuleType, types.BuiltinFunctionType, enum.Enum, torch.dtype, torch.device, torch.Size)


class Copied:
    """An original and its copy, with what each held at the time."""

    __slots__ = ("checked", "inner", "made", "original", "seen", "stale", "twin")

    def __init__(self, original: Any, twin: Any) -> None:
        self.original = original
        self.twin = twin
        self.seen = _contents(original)
        self.made: tuple[Any, ...] = ()
        self.inner: dict[int, Copied] = {}
        self.stale = False
        self.checked = (-1, False)

    def settle(self) -> None:
        """Remember what the copy holds, now that it is whole."""
        self.made = _contents(self.twin)

    def changed(self, stamp: int) -> bool:
        """Tell whether the original holds something else now; looked at once a sweep."""
        if self.checked[0] != stamp:
            self.checked = (stamp, not _alike(_contents(self.original), self.seen))
        return self.stale or self.checked[1]

    def disturbed(self) -> bool:
        """Tell whether a pass wrote to the copy; it is then made anew."""
        if not self.stale and not _alike(_contents(self.twin), self.made):
            self.stale = True
        return self.stale


Copies = dict[int, Copied]


def _alike(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return len(one) == len(other) and all(map(is_, one, other))


def _contents(value: Any) -> tuple[Any, ...]:
    if isinstance(value, dict):
        return (*value.keys(), *value.values())
    if isinstance(value, (list, tuple, deque, set)):
        return tuple(value)
    if isinstance(value, functools.partial):
        return (value.func, *value.args, *value.keywords.values())
    held = getattr(value, "__dict__", None)
    return (*held.keys(), *held.values()) if isinstance(held, dict) else ()


class Turn:
    """Gives the ghost's version of an attribute's value.

    Attributes:
        hidden: ids of modules that were met outside of `_modules`.
        outside: whether one of them is not in the model's tree.
        used: the copies that were taken.
    """

    def __init__(
        self,
        ghost_of: Callable[[nn.Module], tuple[nn.Module, bool]],
        tensor: Callable[[Tensor], Tensor],
        copies: Copies,
        *,
        deep: bool = True,
    ) -> None:
        self._deep = deep
        self._ghost_of = ghost_of
        self._tensor = tensor
        self._copies = copies
        self.hidden: set[int] = set()
        self.outside = False
        self.used: dict[int, Copied] = {}

    @classmethod
    def over(
        cls, ghosts: Mapping[int, nn.Module], tensor: Callable[[Tensor], Tensor], *, deep: bool = True
    ) -> Turn:
        """Turn to ghosts that are there already; a module that has none stays as it is.

        Args:
            ghosts: the ghost of each module, by the id of the original.
            tensor: gives the stand-in of a tensor.
            deep: copy plain objects and the closures of functions as well.
        """
        return cls(lambda module: (ghosts.get(id(module), module), id(module) in ghosts), tensor, {}, deep=deep)

    def __call__(self, value: Any, depth: int = 0) -> Any:
        """Turn one value."""
        if type(value) in PLAIN or isinstance(value, _SHARED):
            return value
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, nn.Module):
            ghost, inside = self._ghost_of(value)
            self.hidden.add(id(value))
            self.outside = self.outside or not inside
            return ghost
        if depth >= _DEPTH:
            return value
        return self._copied(value, depth)

    def _copied(self, value: Any, depth: int) -> Any:
        known = self._copies.get(id(value))
        if known is not None and known.original is value and not known.stale:
            self.used.update(known.inner)
            self.used[id(value)] = known
            return known.twin
        if isinstance(value, tuple):
            return self._tuple(value, depth)
        if isinstance(value, BOXES):
            return self._noted(value, copy.copy(value), lambda twin: _turned_box(value, twin, self, depth))
        if isinstance(value, types.MethodType):
            return types.MethodType(value.__func__, self(value.__self__, depth + 1))
        if isinstance(value, functools.partial):
            parts = [self(one, depth + 1) for one in value.args]
            named = {key: self(one, depth + 1) for key, one in value.keywords.items()}
            return functools.partial(self(value.func, depth + 1), *parts, **named)
        if isinstance(value, weakref.ref):
            held = value()
            return weakref.ref(self(held, depth + 1)) if isinstance(held, nn.Module) else value
        if isinstance(value, types.FunctionType):
            return self._function(value, depth) if self._deep else value
        return self._object(value, depth) if self._deep else value

    def _noted(self, value: Any, twin: Any, fill: Callable[[Any], None]) -> Any:
        one = self._copies[id(value)] = Copied(value, twin)
        outer, self.used = self.used, {}
        fill(twin)
        one.inner = self.used
        self.used = {**outer, **one.inner, id(value): one}
        one.settle()
        return twin

    def _tuple(self, value: tuple[Any, ...], depth: int) -> Any:
        items = [self(one, depth + 1) for one in value]
        if all(map(is_, items, value)):
            return value
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)

    def _function(self, value: types.FunctionType, depth: int) -> Any:
        """Give a function whose closure holds modules, containers or objects the same code over their copies."""
        cells = value.__closure__ or ()
        if not cells or not all(map(_full, cells)) or value.__module__.startswith("torch."):
            return value
        if all(type(cell.cell_contents) in PLAIN for cell in cells):
            return value
        made = _function(value, {}, tuple(types.CellType(None) for _ in cells))

        def filled(twin: types.FunctionType) -> None:
            for mine, cell in zip(twin.__closure__ or (), cells, strict=True):
                mine.cell_contents = self(cell.cell_contents, depth + 1)

        return self._noted(value, made, filled)

    def _object(self, value: Any, depth: int) -> Any:
        """Copy a plain object of the user's; one that can't be copied is shared."""
        try:
            if isinstance(value, torch.Generator):
                return value.clone_state()
            if isinstance(value, _GENERATORS):
                return copy.deepcopy(value)
            held = getattr(value, "__dict__", None)
            if not isinstance(held, dict) or type(value).__module__.partition(".")[0] in _FOREIGN:
                return value
            twin = copy.copy(value)
            if twin is value or vars(twin) is held:
                return value
        except Exception:  # what its author's own code raises
            return value
        return self._noted(value, twin, lambda made: _turned_object(made, self, depth))


_FOREIGN = frozenset({"torch", "builtins", "functools", "numpy", "threading", "logging", "collections"})
"""Packages whose objects are shared as they are."""


def _turned_box(value: Any, twin: Any, turn: Turn, depth: int) -> None:
    if isinstance(value, dict):
        for key, one in value.items():
            twin[key] = turn(one, depth + 1)
    elif isinstance(value, (list, deque)):
        for place, one in enumerate(value):
            twin[place] = turn(one, depth + 1)


def _turned_object(twin: Any, turn: Turn, depth: int) -> None:
    held = vars(twin)
    for name, one in list(held.items()):
        held[name] = turn(one, depth + 1)


def box_copied(value: Any, turn: Callable[[Any], Any]) -> Any:
    """Copy a dict of any class with its values turned."""
    made = copy.copy(value)
    for key, one in value.items():
        made[key] = turn(one)
    return made


def _function(value: types.FunctionType, names: dict[str, Any], cells: tuple[Any, ...]) -> types.FunctionType:
    scope = {**value.__globals__, **names} if names else value.__globals__
    made = types.FunctionType(value.__code__, scope, value.__name__, value.__defaults__, cells or None)
    made.__kwdefaults__ = value.__kwdefaults__
    made.__module__ = value.__module__
    return made


def hook_copied(hook: Any, turn: Turn) -> Any:
    """Give a hook that keeps things of its own: closures, defaults and containers of its globals are copies."""
    if isinstance(hook, types.FunctionType) and not hook.__module__.startswith("torch."):
        if not all(map(_full, hook.__closure__ or ())):
            return hook
        cells = tuple(types.CellType(turn(cell.cell_contents)) for cell in hook.__closure__ or ())
        named = {name: hook.__globals__[name] for name in hook.__code__.co_names if name in hook.__globals__}
        names = {name: turn(value) for name, value in named.items() if _kept_by_hand(value)}
        made = _function(hook, names, cells)
        made.__defaults__ = None if hook.__defaults__ is None else tuple(map(turn, hook.__defaults__))
        return made
    if isinstance(hook, types.BuiltinMethodType) and isinstance(hook.__self__, BOXES):
        return getattr(turn(hook.__self__), hook.__name__)
    return turn(hook)


def _kept_by_hand(value: Any) -> bool:
    plain = isinstance(value, (*BOXES, types.FunctionType))
    return plain or (hasattr(value, "__dict__") and not isinstance(value, (nn.Module, *_SHARED)))


def _full(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
