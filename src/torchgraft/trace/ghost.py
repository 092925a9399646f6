"""Ghosts: structural copies of modules whose tensors are stand-ins.

A ghost shares no module object with the model, so tracing it can't touch a buffer, a flag or a hook list
of the original; a fake one holds no weights, so it costs no memory. See `copies` for what else a module holds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from torchgraft.trace.copies import Turn, box_copied, hook_copied

__all__ = ["HOOKS", "Turn", "fake", "fill", "real", "shell"]

HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_PLUMBING = frozenset(
    {"_modules", "_parameters", "_buffers", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks"}
    | {"_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"}
    | {"_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs"}
    | {"_non_persistent_buffers_set", *HOOKS}
)
"""The containers that every module has: copied one by one, since no two modules share them."""


def fake(mode: FakeTensorMode, tensor: Tensor) -> Tensor:
    """Make the fake twin of a tensor: same shape, strides, dtype and device, no data."""
    if isinstance(tensor, FakeTensor):
        tensor = tensor.to("meta") if tensor.fake_mode is not mode else tensor
    if tensor.layout != torch.strided or isinstance(tensor, (nn.UninitializedParameter, nn.UninitializedBuffer)):
        return tensor
    with torch._C._DisableTorchDispatch():
        twin = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        device = torch.device("cpu") if tensor.device.type == "meta" else tensor.device
        made = FakeTensor(mode, twin, device)
    if isinstance(tensor, nn.Parameter):
        made.__dict__.update(tensor.__dict__)  # tags that the user gave it
        made._is_param = True  # isinstance(made, nn.Parameter) must hold
    return made


def real(tensor: Tensor) -> Tensor:
    """Make a real twin: copied when something writes to it, and not before."""
    if tensor.layout != torch.strided or tensor.is_quantized:
        return tensor.detach().clone()
    twin: Tensor = torch._lazy_clone(tensor.detach())
    return nn.Parameter(twin, requires_grad=False) if isinstance(tensor, nn.Parameter) else twin


def shell(module: nn.Module) -> nn.Module:
    """Make an empty ghost of a module's class; its parts are filled in once all shells are there."""
    if isinstance(module, torch.jit.ScriptModule):  # its parts live outside of Python: a real copy is run
        return copy.deepcopy(module)
    made: nn.Module = object.__new__(type(module))  # some classes, such as GraphModule, make a class in __new__
    return made


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
    hidden = turn.hidden
    for name, value in module.__dict__.items():
        if name == "_modules":
            turn.hidden = set()
            held[name] = {key: turn(child) for key, child in value.items()}
            turn.hidden = hidden
        elif name in HOOKS and value:
            held[name] = box_copied(value, lambda hook: _watched(hook_copied(hook, turn), note))
        elif name in _PLUMBING:
            held[name] = box_copied(value, turn) if isinstance(value, dict) else copy.copy(value)
        else:
            held[name] = turn(value)
    held["_compiled_call_impl"] = None  # a compiled call would compile for fake tensors


def _watched(hook: Callable[..., Any], note: Callable[[], None]) -> Callable[..., Any]:
    if (getattr(hook, "__module__", None) or type(hook).__module__).startswith("torch."):
        return hook  # torch's own, such as those of weight norm

    def watched(*args: Any, **kwargs: Any) -> Any:
        result = hook(*args, **kwargs)
        if result is not None:
            note()
        return result

    return watched
