"""What hooks and losses of the user's keep of a pass: put back, so that no tensor of a probe stays there."""

from __future__ import annotations

import copy
import functools
import types
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["captures_kept"]

_BOXES = (dict, list, set, deque)


@contextmanager
def captures_kept(model: nn.Module, *functions: Any) -> Iterator[None]:
    """Put the containers, variables and attributes that forward hooks write to back as they were.

    Seen are what a function closes over or names in its module, and the attributes of a method's object.

    Args:
        model: whose hooks run.
        functions: others that run, such as a loss.
    """
    hooks = [
        hook
        for module in model.modules()
        for kind in (module._forward_hooks, module._forward_pre_hooks)
        for hook in kind.values()
    ]
    puts = [put for hook in (*hooks, *functions) for put in _puts(hook)]
    try:
        yield
    finally:
        for put in puts:
            put()


def _puts(hook: Any) -> Iterator[Callable[[], None]]:
    while isinstance(hook, functools.partial):
        for one in (*hook.args, *hook.keywords.values()):
            yield from _box(one)
        hook = hook.func
    if isinstance(hook, types.MethodType):
        yield from _attributes(hook.__self__)
        hook = hook.__func__
    if isinstance(hook, types.FunctionType) and not str(hook.__module__).startswith("torch."):
        yield from _variables(hook)
    elif hook is not None and hasattr(hook, "__dict__"):
        yield from _attributes(hook)


def _attributes(owner: Any) -> Iterator[Callable[[], None]]:
    from torch import nn

    held = getattr(owner, "__dict__", None)
    if held is None or isinstance(owner, (nn.Module, types.ModuleType, type)):
        return  # a module is copied as a whole
    yield from _box(held)
    for one in held.values():
        yield from _box(one)


def _variables(function: types.FunctionType) -> Iterator[Callable[[], None]]:
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # not filled yet
            continue
        yield functools.partial(setattr, cell, "cell_contents", value)
        yield from _box(value)
    space = function.__globals__
    for name in function.__code__.co_names:
        if name in space:
            yield functools.partial(space.__setitem__, name, space[name])
            yield from _box(space[name])


def _box(value: Any) -> Iterator[Callable[[], None]]:
    """Give what puts a container's content back."""
    if not isinstance(value, _BOXES):
        return
    kept = copy.copy(value)

    def put() -> None:
        value.clear()
        if isinstance(value, (list, deque)):
            value.extend(kept)
        else:
            value.update(kept)

    yield put
