"""A fake copy of a model that a repair may change while it runs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from torchgraft.trace import Trace
from torchgraft.trace.ghost import Turn, fake, fill, shell

__all__ = ["fake_inputs", "ghost"]


def ghost(model: nn.Module, mode: FakeTensorMode) -> tuple[nn.Module, dict[int, str]]:
    """Copy the structure of a model with fake tensors.

    Returns:
        the copy, and the name of each of its parameters and buffers by `id`.
    """
    twins: dict[int, Tensor] = {}

    def turned(tensor: Tensor) -> Tensor:
        if id(tensor) not in twins:
            twins[id(tensor)] = fake(mode, tensor)
        return twins[id(tensor)]

    ghosts = {id(module): shell(module) for module in model.modules()}
    turn = Turn.over(ghosts, turned)
    for module in model.modules():
        if not isinstance(module, torch.jit.ScriptModule):
            fill(module, ghosts[id(module)], turn, lambda: None)
    listed = (*model.named_parameters(), *model.named_buffers())
    return ghosts[id(model)], {id(twins[id(one)]): name for name, one in listed if id(one) in twins}


def fake_inputs(run: Trace, mode: FakeTensorMode) -> tuple[Tensor, ...]:
    """Make what the model was given in a trace again: the tensors, in order."""
    values = [run.values[number] for number in run.inputs]
    real = (torch.empty(value.shape, dtype=getattr(torch, value.dtype), device="meta") for value in values)
    return tuple(fake(mode, one) for one in real)
