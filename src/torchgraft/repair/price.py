"""What a way to make an edit fit costs, in words."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from torchgraft.blocks.projection import Projection
from torchgraft.edits.base import Edit
from torchgraft.edits.insert import Insert
from torchgraft.edits.reshape import Reshape
from torchgraft.edits.resize import Resize
from torchgraft.rules.finding import Fix

__all__ = ["described", "lost", "size_of"]


def described(way: str, steps: Sequence[Edit], parameters: int, drift: float | None = None) -> Fix:
    """Describe a way that works: the edits it takes after the one that does not fit, and their price.

    Args:
        way: its name.
        steps: the edits.
        parameters: how many they add.
        drift: how far they and the edit move the outputs of what was there, if that was looked at.
    """
    told = "; ".join(step.sentence() for step in steps[:3])
    more = f"; and {len(steps) - 3} more" if len(steps) > 3 else ""
    moved = [] if drift is None else [f"drift {drift:.2g} at step 0"]
    price = ", ".join([f"{parameters:+,} parameters", _kept(steps), *_start(steps), *moved])
    return Fix(way, f"{told}{more}   {price}", tuple(steps))


def _kept(steps: Sequence[Edit]) -> str:
    cut = lost(steps)
    return f"loses {cut:,} trained weights" if cut else "keeps every trained weight"


def _start(steps: Sequence[Edit]) -> list[str]:
    """Say with which values the new parts start."""
    told = []
    if any(isinstance(step, Resize) and step.inputs and step.trained for step in steps):
        told.append("new input slices start at zero")
    shared = [block.shared for block in map(_projection, steps) if block is not None]
    if shared:
        told.append(f"starts as the identity on {' and '.join(map(str, sorted(set(shared))))} channels")
    return told


def _projection(step: Edit) -> Projection | None:
    if isinstance(step, Insert) and step.module.of == "block.Projection":
        return Projection.model_validate(step.module.args)
    return None


def lost(steps: Sequence[Edit]) -> int:
    """Count the trained weights that edits do not keep."""
    return sum(step.drops for step in steps if isinstance(step, (Resize, Reshape)))


def size_of(model: nn.Module) -> int:
    """Count the parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters())
