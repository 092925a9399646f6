"""What a repair works on, and the small questions that it asks of it."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from torchgraft.edits.base import Edit
from torchgraft.trace import Trace

__all__ = ["LAYERS", "NORMS", "POOLS", "Bench", "free_name", "gives_size", "held_size", "within"]

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)


class Bench(Protocol):
    """Where a repair works: a model under trial that takes edits unjudged."""

    module: nn.Module

    def trace(self, *, train: bool = False) -> Trace:
        """Trace the model as it stands."""

    def do(self, edit: Edit) -> list[str]:
        """Apply an edit unjudged, and give the paths of the modules it put in."""


def within(path: str, place: str) -> bool:
    """Tell whether a path is a place or lies in it."""
    return path == place or path.startswith(f"{place}.")


def held_size(module: nn.Module) -> int | None:
    """Give the number of channels or features that a layer or norm takes."""
    for name in ("in_features", "in_channels", "num_features", "num_channels", "embed_dim"):
        if name in vars(module):
            return int(vars(module)[name])
    shape = vars(module).get("normalized_shape")
    return int(shape[-1]) if shape else None


def gives_size(module: nn.Module) -> int | None:
    """Give the number of channels or features that a layer gives; None where they are those that it takes."""
    held = vars(module)
    return next((int(held[name]) for name in ("out_features", "out_channels") if name in held), None)


def free_name(model: nn.Module, at: str, name: str = "fit") -> str:
    """Give a name that neither the module `at` nor its parent has for something else."""
    table = dict(model.named_modules(remove_duplicate=False))
    near = [table[at], table[at.rpartition(".")[0]]]
    number, free = 2, name
    while any(hasattr(module, free) for module in near):
        free, number = f"{name}_{number}", number + 1
    return free
