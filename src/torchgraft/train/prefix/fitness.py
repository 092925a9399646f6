"""Models that no prefix is looked for in, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from torchgraft.trace.ghost import HOOKS

__all__ = ["hooked", "misfit", "unwrapped"]

_WRAPPERS = ("DistributedDataParallel",)


def unwrapped(model: nn.Module) -> nn.Module:
    """Give the module that DDP wraps; any other as it is."""
    inner = getattr(model, "module", None)
    return inner if type(model).__name__ in _WRAPPERS and isinstance(inner, nn.Module) else model


def misfit(model: nn.Module) -> str:
    """Say why the model can't be run in parts; nothing where it can."""
    kinds = {type(one).__name__ for one in model.modules()}
    if "OptimizedModule" in kinds or any(one._compiled_call_impl is not None for one in model.modules()):
        return "the model is compiled, and a compiled pass can't be run in parts"
    sharded = any(type(one).__name__ == "DTensor" for one in model.parameters())
    if sharded or any(kind in ("FullyShardedDataParallel", "FlatParameter") for kind in kinds):
        return "FSDP gathers the weights of a module when it is called, which the rest would leave out"
    if "DataParallel" in kinds:
        return "DataParallel copies the model for each pass"
    if isinstance(model, torch.jit.ScriptModule):
        return "the model is scripted, and nobody sees what happens in it"
    if any(one.is_meta for one in model.parameters()):
        return "the weights are not in memory"
    return ""


def hooked(module: nn.Module) -> str:
    """Name the class of a forward hook of the user's that would see nothing; torch's own are run as ever."""
    for kind in HOOKS:
        for hook in vars(module)[kind].values():
            if not _torch_own(hook):
                return getattr(hook, "__qualname__", type(hook).__name__)
    return ""


def _torch_own(hook: Callable[..., Any]) -> bool:
    home = getattr(hook, "__module__", None) or type(hook).__module__
    return home.startswith("torch.")
