"""Ghosts: structural copies of a model whose tensors are fake.

A ghost shares no module object with the model, so tracing it can't touch a buffer, a flag or a hook list
of the original; it holds no weights, so it costs no memory. Objects that are neither modules nor tensors
are shared, but their references to modules of the tree are turned to the ghost's.
"""

from __future__ import annotations

import functools
import types
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
        _fill(module, twins, mode)
    return twins[id(model)], twins


def _empty(module: nn.Module) -> nn.Module:
    if isinstance(module, torch.jit.ScriptModule):
        return module
    return type(module).__new__(type(module))


def _fill(module: nn.Module, twins: dict[int, Any], mode: FakeTensorMode) -> None:
    twin = twins[id(module)]
    if twin is module:
        return
    copied = twin.__dict__
    for name, value in module.__dict__.items():
        copied[name] = _turn(value, twins, mode)


def _turn(value: Any, twins: dict[int, Any], mode: FakeTensorMode, depth: int = 0) -> Any:
    """Give the ghost's version of an attribute's value."""
    if id(value) in twins:
        return twins[id(value)]
    if isinstance(value, Tensor):
        twins[id(value)] = fake(mode, value)
        return twins[id(value)]
    if depth < 3 and type(value) in _CONTAINERS:
        return _CONTAINERS[type(value)](value, lambda one: _turn(one, twins, mode, depth + 1))
    if isinstance(value, types.MethodType) and id(value.__self__) in twins:
        return types.MethodType(value.__func__, twins[id(value.__self__)])
    if isinstance(value, functools.partial):
        parts = [_turn(one, twins, mode, depth + 1) for one in value.args]
        named = {key: _turn(one, twins, mode, depth + 1) for key, one in value.keywords.items()}
        return functools.partial(_turn(value.func, twins, mode, depth + 1), *parts, **named)
    return value


def _each_value(kind: Any) -> Any:
    return lambda value, turn: kind((key, turn(one)) for key, one in value.items())


def _each_item(kind: Any) -> Any:
    return lambda value, turn: kind(turn(one) for one in value)


_CONTAINERS: dict[type, Any] = {
    dict: _each_value(dict),
    type(nn.Module().__dict__["_forward_hooks"]): _each_value(type(nn.Module().__dict__["_forward_hooks"])),
    list: _each_item(list),
    tuple: _each_item(tuple),
    set: lambda value, turn: set(value),
}
