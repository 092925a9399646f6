"""How names are sorted and listed in what is said of data."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["listing", "natural", "several"]

NAMED = 5
"""How many names an error lists before it says how many more there are."""


def natural(name: str) -> tuple[list[str | int], str]:
    """Sort '10' behind '9': odd parts of the split are always numbers, so only like is compared with like."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if odd % 2 else part for odd, part in enumerate(parts)], name


def several(what: str, names: Sequence[str]) -> str:
    """Say what is so, of how many and of which first."""
    return f"{what} ({len(names)}): {listing(names)}"


def listing(names: Sequence[str]) -> str:
    """Name the first few and count the others."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
