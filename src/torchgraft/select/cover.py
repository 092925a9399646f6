"""The shortest selectors that select just some parameters: whole modules where all of a module is meant."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["covering"]


def covering(model: nn.Module, names: Collection[str]) -> tuple[str, ...]:
    """Give selectors of just the parameters that are named, in the model's order.

    Args:
        model: whose parameters they are.
        names: as `model.named_parameters()` gives them.
    """
    wanted = frozenset(names)
    every = frozenset(name for name, _ in model.named_parameters())
    return ("**",) if wanted and wanted >= every else tuple(_covering("", model, wanted, every))


def _covering(path: str, module: nn.Module, wanted: frozenset[str], every: frozenset[str]) -> Iterator[str]:
    for name in module._parameters:
        own = f"{path}.{name}" if path else name
        if own in wanted:
            yield own
    for name, child in module._modules.items():
        place = f"{path}.{name}" if path else name
        inside = frozenset(one for one in every if one.startswith(f"{place}."))
        if child is None or not inside & wanted:
            continue
        if inside <= wanted:
            yield place
        else:
            yield from _covering(place, child, wanted, every)
