"""The learning rates of an optimizer by names that say what learns at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

__all__ = ["rates_by_name"]


def rates_by_name(groups: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Give the rate of each group, named by the module that holds its parameters.

    Args:
        groups: of the optimizer, with the `names` of their parameters.

    Returns:
        `{"fc": 0.01, "fc no decay": 0.01, "rest": 0.001}`; `all` where none has a module of its own.
    """
    rates: dict[str, float] = {}
    decays = any(group.get("weight_decay") for group in groups)
    places = [_place(group.get("names", ())) for group in groups]
    others = "rest" if any(places) else "all"
    for group, place in zip(groups, places, strict=True):
        name = place or others
        name += " no decay" if decays and not group.get("weight_decay") else ""
        number, own = 2, name
        while name in rates:
            name, number = f"{own} {number}", number + 1
        rates[name] = float(group["lr"])
    return rates


def _place(names: Sequence[str]) -> str:
    """Give the innermost module that holds all of them."""
    columns = zip(*(name.split(".")[:-1] for name in names), strict=False)
    return ".".join(parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, columns))
