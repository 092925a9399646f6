"""Take off again what `fully_shard` puts on a model: its classes, hooks and parts of parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

__all__ = ["Dress"]


class Dress:
    """A model as it was before it was shared out.

    Args:
        model: that is about to be shared out.
    """

    def __init__(self, model: nn.Module) -> None:
        self.before = {one: (type(one), _held(one)) for one in model.modules()}

    def free(self) -> None:
        """Give the memory of the whole parameters back; the parameters themselves are kept, for who holds them."""
        for _, held in self.before.values():
            for one in held["_parameters"].values():
                if one is not None:
                    one.data = one.data.new_empty(0)

    @torch.no_grad()
    def off(self, *, keep: bool) -> None:
        """Bring the parameters together, one after the other, and leave the plain model behind.

        Args:
            keep: hold the values; every process takes part, but those that do not keep have them on meta.
        """
        whole: dict[int, nn.Parameter] = {}
        for module, (kind, held) in self.before.items():
            shared = dict(module._parameters)
            module.__class__ = kind
            _put_back(module, held)
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else buffer.cpu()
            for name, one in held["_parameters"].items():
                if one is not None:
                    if id(one) not in whole:
                        whole[id(one)] = _filled(one, shared[name], keep=keep)
                    module._parameters[name] = whole[id(one)]


def _filled(one: nn.Parameter, part: Any, *, keep: bool) -> nn.Parameter:
    full: Tensor = part.full_tensor() if isinstance(part, DTensor) else part
    if not keep:
        return nn.Parameter(torch.empty_like(full, device="meta"), requires_grad=one.requires_grad)
    one.data = full.detach().cpu()  # what is shared out may be more than one device holds
    return one


def _held(module: nn.Module) -> dict[str, Any]:
    """Copy what a module holds, its tables as well, but nothing in them."""
    return {name: one.copy() if isinstance(one, dict) else one for name, one in module.__dict__.items()}


def _put_back(module: nn.Module, held: dict[str, Any]) -> None:
    """Leave buffers and settings as they are by now: the parameters and the hooks are those from before."""
    for name in list(module.__dict__):
        if name not in held and name != "forward":  # which `checkpointed` puts there, and takes away itself
            del module.__dict__[name]
        elif name == "_parameters" or name.endswith("hooks") or "hooks_" in name:
            module.__dict__[name] = held[name]
