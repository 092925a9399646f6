"""The model and the optimizer inside of what trainers wrap around them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["bare", "bare_optimizer"]

_WRAPPERS = frozenset(
    {"DistributedDataParallel", "DataParallel", "FullyShardedDataParallel", "_FabricModule", "OptimizedModule"}
)


def bare(model: nn.Module) -> nn.Module:
    """Give the model that DDP, FSDP1, Fabric or torch.compile wraps, so that its names are the user's."""
    while type(model).__name__ in _WRAPPERS:
        inner: Any = getattr(model, "_orig_mod", None)
        model = inner if inner is not None else getattr(model, "module")  # noqa: B009
    return model


def bare_optimizer(optimizer: Any) -> torch.optim.Optimizer:
    """Give the optimizer of torch inside of what Accelerate, Fabric, Lightning or fastai makes of it."""
    for name in ("optimizer", "_optimizer", "opt"):
        inner = getattr(optimizer, name, None)
        if isinstance(inner, torch.optim.Optimizer) and inner is not optimizer:
            return bare_optimizer(inner)
    made: torch.optim.Optimizer = optimizer
    return made
