"""Running statistics, which every process gathers over its own part of each batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

if TYPE_CHECKING:
    from torchgraft.train.world import World

__all__ = ["agree"]


@torch.no_grad()
def agree(model: nn.Module, world: World) -> None:
    """Let every process have the same buffers: the mean of the running statistics, and else those of the first.

    A running mean is linear in what it saw, so the mean over equal parts is what one process would have of the
    whole batches, whenever it is taken; weights never depend on it. The running variance is that within the parts.
    What was alike stays so bit for bit: only differences to the first process are averaged.
    """
    running = _running(model)
    kept = {id(one) for one in running}
    others = [one for one in model.buffers() if id(one) not in kept and one.numel()]
    for one in others:
        dist.broadcast(one, src=0)
    if not running:
        return
    own = torch.cat([one.flatten() for one in running])
    first = own.clone()
    dist.broadcast(first, src=0)
    mean = first + world.total(own - first) / world.size
    for one, value in zip(running, torch.split(mean, [one.numel() for one in running]), strict=True):
        one.copy_(value.view_as(one))


def _running(model: nn.Module) -> list[Tensor]:
    norms = [one for one in model.modules() if isinstance(one, _NormBase) and one.running_mean is not None]
    return [each for one in norms for each in (one.running_mean, one.running_var) if isinstance(each, Tensor)]
