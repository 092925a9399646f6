"""How rules of a real step name parameters and places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchgraft.probes.records import Place

__all__ = ["at", "homes"]


def homes(names: Sequence[str], *, most: int = 4) -> str:
    """Name the modules of parameters, the first few of them."""
    homes = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    more = f" and {len(homes) - most} more" if len(homes) > most else ""
    return ", ".join(homes[:most]) + more


def at(place: Place) -> str:
    """Name an operation and its module."""
    return f"{place.op} in {place.path}" if place.path else f"{place.op} in the model's own forward"
