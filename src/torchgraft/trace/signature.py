"""Signatures: a module's own settings as a value. Modules of one signature do the same to the same input."""

from __future__ import annotations

import functools
import itertools
import types
import weakref
from collections import deque
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

from torchgraft.trace.tree import PLAIN

__all__ = ["LAZY", "SKIPPED", "signature", "spec", "token"]

SKIPPED = frozenset(
    {"training", "_modules", "_parameters", "_buffers", "_compiled_call_impl", "_non_persistent_buffers_set"}
    | {"_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook", "_state_dict_hooks"}
    | {"_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"}
)
"""What a forward pass does not depend on, or what a signature holds in another way."""

_DROPS = frozenset({"Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "StochasticDepth", "DropPath"})
LAZY = (nn.UninitializedParameter, nn.UninitializedBuffer)
_ATOMS = (torch.dtype, torch.device, torch.Size, torch.memory_format, torch.layout)


def spec(tensor: Tensor) -> Hashable:
    """Tell what of a tensor its stand-in has: class, shape, strides, dtype, device."""
    if isinstance(tensor, LAZY):
        return None
    return (type(tensor), tensor.shape, tensor.stride() if tensor.layout == torch.strided else None, tensor.dtype,
            tensor.device)  # fmt: skip


def signature(module: nn.Module) -> Hashable:
    """Write a module's own settings as a value: equal ones behave alike."""
    held = module.__dict__
    settings = [
        (name, _frozen(value, module))
        for name, value in held.items()
        if name not in SKIPPED and not (name.endswith("hooks") and not value)
    ]
    if type(module).__name__ in _DROPS:  # how much is dropped changes no shape; whether at all may
        settings = [
            (name, (held[name] is None, held[name] == 0, held[name] == 1) if name in ("p", "drop_prob") else one)
            for name, one in settings
        ]
    tensors = (*module._parameters, *module._buffers)
    empty = tuple(
        name for box in (module._parameters, module._buffers) for name, one in box.items() if one is None
    )
    return (type(module), tuple(settings), tensors, empty)


def _frozen(value: Any, owner: nn.Module, depth: int = 0) -> Hashable:
    kind = type(value)
    if kind in PLAIN or isinstance(value, _ATOMS):
        return (kind, value)
    if isinstance(value, Tensor):
        return ("tensor", spec(value))
    if depth < 3 and isinstance(value, (list, tuple, deque)):
        return (kind, *[_frozen(one, owner, depth + 1) for one in value])
    if depth < 3 and isinstance(value, dict):
        return (kind, *[(_key(key), _frozen(one, owner, depth + 1)) for key, one in value.items()])
    if isinstance(value, types.MethodType):
        return ("method", token(value.__func__), "own" if value.__self__ is owner else token(value.__self__))
    if isinstance(value, functools.partial) and depth < 3:
        parts = (value.func, value.args, value.keywords)
        return ("partial", *[_frozen(one, owner, depth + 1) for one in parts])
    held = getattr(value, "__dict__", None)
    if depth < 2 and isinstance(held, dict) and not isinstance(value, (nn.Module, type, types.FunctionType)):
        plain = [(name, type(one), one) for name, one in held.items() if type(one) in PLAIN]
        return ("object", token(value), tuple(plain))
    return ("object", token(value))


def _key(key: Any) -> Hashable:
    return (type(key), key if type(key) in PLAIN else token(key))


_tokens: dict[int, tuple[Any, int]] = {}
_serial = itertools.count()


def token(value: Any) -> int:
    """Give a number that no other object has or will have; an id may be given again once its object is gone."""
    known = _tokens.get(id(value))
    if known is not None and known[0]() is value:
        return known[1]
    number = next(_serial)
    try:
        held: Any = weakref.ref(value)
    except TypeError:  # some objects can't be watched: they are kept
        held = functools.partial(_same, value)
    if len(_tokens) > _MOST:
        for key in [key for key, (ref, _) in _tokens.items() if ref() is None]:
            del _tokens[key]
    _tokens[id(value)] = (held, number)
    return number


_MOST = 10_000


def _same(value: Any) -> Any:
    return value
