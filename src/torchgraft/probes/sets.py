"""Sets: parameters, the optimizer's groups and the freeze flags, compared by identity and by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Sets", "sets"]


@dataclass(frozen=True)
class Sets:
    """What the model holds and what the optimizer holds."""


def sets(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Sets:
    """Compare a model's parameters with an optimizer's."""
    return Sets()
