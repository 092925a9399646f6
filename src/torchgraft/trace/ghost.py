"""Ghosts: structural copies of modules whose tensors are stand-ins.

A ghost shares no module object with the model, so tracing it can't touch a buffer, a flag or a hook list
of the original; a fake one holds no weights, so it costs no memory. Objects that are neither modules nor tensors
are shared, but their references to modules of the tree are turned to the ghost's, and what a plain function hook
keeps in closures and globals is copied.
"""

from __future__ import annotations

import copy
import functools
import types
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

__all__ = ["HOOKS", "Turn", "fake", "fill", "real", "shell"]

HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_BOXES = (dict, list, set, deque)


def fake(mode: FakeTensorMode, tensor: Tensor) -> Tensor:
    """Make the fake twin of a tensor: same shape, strides, dtype and device, no data."""
    if isinstance(tensor, FakeTensor):
        tensor = tensor.to("meta") if tensor.fake_mode is not mode else tensor
    if tensor.layout != torch.strided or isinstance(tensor, (nn.UninitializedParameter, nn.UninitializedBuffer)):
        return tensor
    twin = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    device = torch.device("cpu") if tensor.device.type == "meta" else tensor.device
    made = FakeTensor(mode, twin, device)
    if isinstance(tensor, nn.Parameter):
        made._is_param = True  # isinstance(made, nn.Parameter) must hold
    return made


def real(tensor: Tensor) -> Tensor:
    """Make a real twin: a parameter shares its data, anything else is copied, since a pass may change it."""
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(tensor.detach(), requires_grad=False)
    return tensor.detach().clone()


def shell(module: nn.Module) -> nn.Module:
    """Make an empty ghost of a module's class; its parts are filled in once all shells are there."""
    if isinstance(module, torch.jit.ScriptModule):  # its parts live outside of Python: a real copy is run
        return copy.deepcopy(module)
    made: nn.Module = object.__new__(type(module))  # some classes, such as GraphModule, make a class in __new__
    return made


class Turn:
    """Gives the ghost's version of an attribute's value, and notes modules that it met outside of `_modules`."""

    def __init__(self, ghosts: Mapping[int, nn.Module], tensor: Callable[[Tensor], Tensor]) -> None:
        self._ghosts = ghosts
        self._tensor = tensor
        self.hidden: set[int] = set()

    def __call__(self, value: Any, depth: int = 0) -> Any:
        """Turn one value."""
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, nn.Module):
            self.hidden.add(id(value))
            return self._ghosts.get(id(value), value)
        if depth < 3 and isinstance(value, (*_BOXES, tuple)):
            return _copied(value, lambda one: self(one, depth + 1))
        if isinstance(value, types.MethodType) and isinstance(value.__self__, nn.Module):
            self.hidden.add(id(value.__self__))
            return types.MethodType(value.__func__, self._ghosts.get(id(value.__self__), value.__self__))
        if isinstance(value, functools.partial):
            parts = [self(one, depth + 1) for one in value.args]
            named = {key: self(one, depth + 1) for key, one in value.keywords.items()}
            return functools.partial(self(value.func, depth + 1), *parts, **named)
        return value


def fill(module: nn.Module, ghost: nn.Module, turn: Turn, note: Callable[[], None]) -> None:
    """Give a ghost the attributes of its module.

    Args:
        module: the original.
        ghost: its shell, or a ghost that is filled anew.
        turn: gives the ghost's version of a value.
        note: called when a forward hook of the module's gives something back, which replaces what passes there.
    """
    held = ghost.__dict__
    held.clear()
    for name, value in module.__dict__.items():
        if name == "_modules":
            held[name] = {key: turn(child) for key, child in value.items()}
        elif name in HOOKS and value:
            held[name] = _copied(value, lambda hook: _watched(turn(_apart(hook)), note))
        else:
            held[name] = turn(value)
    turn.hidden -= {id(child) for child in module._modules.values()}
    held["_compiled_call_impl"] = None  # a compiled call would compile for fake tensors


def _copied(value: Any, turn: Callable[[Any], Any]) -> Any:
    """Copy a container of any class, so that what the ghost adds to it stays in the ghost."""
    if isinstance(value, tuple):
        items = [turn(one) for one in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    made = copy.copy(value)
    if isinstance(value, dict):
        for key, one in value.items():
            made[key] = turn(one)
    elif isinstance(value, (list, deque)):
        for place, one in enumerate(value):
            made[place] = turn(one)
    return made


def _watched(hook: Callable[..., Any], note: Callable[[], None]) -> Callable[..., Any]:
    if (getattr(hook, "__module__", None) or type(hook).__module__).startswith("torch."):
        return hook  # torch's own, such as those of weight norm

    def watched(*args: Any, **kwargs: Any) -> Any:
        result = hook(*args, **kwargs)
        if result is not None:
            note()
        return result

    return watched


def _apart(hook: Any) -> Any:
    """Give a function the same code over copies of the containers that it keeps, so that the user's stay clean."""
    if not isinstance(hook, types.FunctionType) or hook.__module__.startswith("torch."):
        return hook
    cells = tuple(types.CellType(_twin(cell.cell_contents)) for cell in hook.__closure__ or () if _full(cell))
    if len(cells) != len(hook.__closure__ or ()):
        return hook
    named = {name: hook.__globals__[name] for name in hook.__code__.co_names if name in hook.__globals__}
    boxes = {name: _twin(value) for name, value in named.items() if isinstance(value, _BOXES)}
    made = types.FunctionType(
        hook.__code__, {**hook.__globals__, **boxes}, hook.__name__, hook.__defaults__, cells or None
    )
    made.__kwdefaults__ = hook.__kwdefaults__
    return made


def _twin(value: Any) -> Any:
    return copy.copy(value) if isinstance(value, _BOXES) else value


def _full(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
