"""Frozen means unmoved: parts whose parameters are all frozen stay in evaluation mode while training."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["train_mode"]


def train_mode(model: nn.Module) -> None:
    """Put a model into training mode, its frozen parts into evaluation mode.

    A part is frozen when it has parameters and none of them is trainable: its BatchNorm statistics do not move
    and its dropout is off, as if it were not trained at all.
    """
    model.train()
    _still(model)


def _still(module: nn.Module) -> None:
    flags = [parameter.requires_grad for parameter in module.parameters()]
    if flags and not any(flags):
        module.eval()
        return
    for child in module.children():
        _still(child)
