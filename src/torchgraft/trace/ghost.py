"""Ghosts: structural copies of a model whose tensors are fake.

A ghost shares no module object with the model, so tracing it can't touch a buffer, a flag or a hook list
of the original; it holds no weights, so it costs no memory. Objects that are neither modules nor tensors
are shared, but their references to modules of the tree are turned to the ghost's.
"""

from __future__ import annotations

import copy
import functools
import types
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

__all__ = ["fake", "ghost"]


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


def ghost(model: nn.Module, mode: FakeTensorMode) -> tuple[nn.Module, dict[int, Any]]:
    """Copy the structure of `model` with fake tensors.

    Returns:
        the ghost, and the map from the `id` of each original module or tensor to its ghost.
    """
    twins: dict[int, Any] = {}
    for module in model.modules():
        twins[id(module)] = _empty(module)
    for module in model.modules():
        if not isinstance(module, torch.jit.ScriptModule):
            _fill(module, twins, mode)
    return twins[id(model)], twins


def _empty(module: nn.Module) -> nn.Module:
    if isinstance(module, torch.jit.ScriptModule):  # its parts live outside of Python: a real copy is run
        return copy.deepcopy(module)
    made: nn.Module = object.__new__(type(module))  # some classes, such as GraphModule, make a class in __new__
    return made


def _fill(module: nn.Module, twins: dict[int, Any], mode: FakeTensorMode) -> None:
    copied = twins[id(module)].__dict__
    for name, value in module.__dict__.items():
        copied[name] = _turn(value, twins, mode)
    copied["_compiled_call_impl"] = None  # a compiled call would compile for fake tensors


def _turn(value: Any, twins: dict[int, Any], mode: FakeTensorMode, depth: int = 0) -> Any:
    """Give the ghost's version of an attribute's value."""
    if id(value) in twins:
        return twins[id(value)]
    if isinstance(value, Tensor):
        twins[id(value)] = fake(mode, value)
        return twins[id(value)]
    if depth < 3 and isinstance(value, (dict, list, tuple, set, deque)):
        return _copied(value, lambda one: _turn(one, twins, mode, depth + 1))
    if isinstance(value, types.MethodType) and id(value.__self__) in twins:
        return types.MethodType(value.__func__, twins[id(value.__self__)])
    if isinstance(value, functools.partial):
        parts = [_turn(one, twins, mode, depth + 1) for one in value.args]
        named = {key: _turn(one, twins, mode, depth + 1) for key, one in value.keywords.items()}
        return functools.partial(_turn(value.func, twins, mode, depth + 1), *parts, **named)
    return value


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
