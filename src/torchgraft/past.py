"""What the edits of a graft did to its model: what they put in, and what was the base's before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torchgraft.surgery.journal import Surgery, held
from torchgraft.weights.plan import tensors_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchgraft.edits.base import Edit

__all__ = ["Past", "added", "base_tensors", "new_parameters", "put_in"]

Past = Sequence[tuple["Edit", Surgery]]
"""The edits in their order, each with the journal of its changes."""


def added(model: nn.Module, past: Past) -> dict[str, int]:
    """Give the paths of the modules that edits put in, and the number of the edit."""
    return {
        path: number
        for number, (_, surgery) in enumerate(past, 1)
        for path, module in surgery.placed.items()
        if held(model, path) is module
    }


def new_parameters(model: nn.Module, past: Past) -> dict[int, int]:
    """Count the parameters that each edit put in, by the number of the edit."""
    sizes: dict[int, int] = {}
    for path, number in added(model, past).items():
        module = held(model, path)
        if module is not None:
            sizes[number] = sizes.get(number, 0) + sum(one.numel() for one in module.parameters())
    return sizes


def put_in(past: Past) -> set[int]:
    """Give ids of the parameters that edits put in or drew."""
    placed = (one for _, surgery in past for part in surgery.placed.values() for one in part.parameters())
    drawn = (one for _, surgery in past for one in surgery.drawn)
    return {id(one) for one in (*placed, *drawn)}


def base_tensors(model: nn.Module, past: Past) -> dict[str, Tensor]:
    """Give the tensors of the base, by its names and as it held them, those that edits took out too."""
    for _, surgery in reversed(past):
        surgery.undo()
    try:
        return tensors_of(model)
    finally:
        for _, surgery in past:
            surgery.redo()
