"""Frozen means unmoved: parts whose parameters are all frozen stay in evaluation mode while training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchgraft.surgery.stillness import still_parts

if TYPE_CHECKING:
    from torch import nn

__all__ = ["train_mode"]


def train_mode(model: nn.Module) -> None:
    """Put a model into training mode, its frozen parts into evaluation mode.

    A part is frozen when it has parameters and none of them is trainable: its BatchNorm statistics do not move
    and its dropout is off, as if it were not trained at all. A norm without parameters goes with the layer before
    it, dropout between frozen layers of a Sequential with these; dropout right before what is trained is on.
    """
    model.train()
    for _, part in still_parts(model, lambda one: not one.requires_grad):
        part.eval()
