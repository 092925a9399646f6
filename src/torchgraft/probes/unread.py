"""Settings of an optimizer's groups that it never reads: torch takes any key, and says nothing."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from torchgraft.params.groups import ALIASES

if TYPE_CHECKING:
    import torch

__all__ = ["unread"]

_NEAR = 0.75
"""Likeness (of difflib) from which a name is a misspelt one; `lr_mult`, which loops of one's own read, has 0.4."""


def unread(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Give settings of a group that its optimizer does not know, each with the one that was meant.

    Only torch's own optimizers are looked at: others may read what they like. A name that stands for something of
    one's own (`name`, `lr_scale`, `weight_decay_mult`), or that a schedule keeps there, is no fault. For a
    setting of another optimizer of torch, which was not misspelt, what was meant is empty.
    """
    if not type(optimizer).__module__.startswith("torch.optim"):
        return ()
    known = optimizer.defaults
    pairs = ((name, _meant(name, known)) for name in group if name not in known and name not in _PLAIN)
    return tuple((name, meant) for name, meant in pairs if meant is not None)


_PLAIN = ("params", "names", "param_names", "name", "initial_lr", "max_lr", "min_lr", "swa_lr", "lr_scale")


def _meant(name: str, known: Collection[str]) -> str | None:
    """Give the setting that a name stands for, empty for one of another optimizer; None for one's own."""
    low = name.lower().replace("-", "_")
    if low in known or ALIASES.get(low) in known:
        return low if low in known else ALIASES[low]
    if name in ("momentum", "betas", "weight_decay", "nesterov", "eps", "alpha"):
        return ""
    if any(low.startswith(f"{one}_") or low.endswith(f"_{one}") for one in known):
        return None
    near = difflib.get_close_matches(low, known, n=1, cutoff=_NEAR)
    return near[0] if near else None
