"""Weights of any form brought to a model: opened, unwrapped, planned."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchgraft.errors import SourceError
from torchgraft.weights.plan import Plan, plan
from torchgraft.weights.reading import misnamed, read
from torchgraft.weights.unwrap import Found, states
from torchgraft.wording import named

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Fit", "fit"]


@dataclass(frozen=True)
class Fit:
    """Weights, and their places in one model.

    Attributes:
        origin: where they come from: a path, or `the given weights`.
        found: the state dict that was taken.
        plan: where each tensor of it goes.
        also: other state dicts that lie in the same checkpoint.
        misnamed: the hash that the file's name promises and the one it has, where they differ.
    """

    origin: str
    found: Found
    plan: Plan
    also: tuple[Found, ...] = ()
    misnamed: tuple[str, str] | None = None

    def changes(self) -> list[str]:
        """Say what had to be done to make the weights fit by name: what is never done in silence."""
        taken = [f"the weights lie in {self.found.path} of a checkpoint"] if self.found.inside else []
        others = [f"{' and '.join(one.path for one in self.also)} lie beside them"] if self.also else []
        return [*taken, *others, *self.plan.changes()]


def fit(model: nn.Module, weights: Any) -> Fit:
    """Find the place of every tensor of `weights` in a model; nothing is changed.

    Args:
        model: what the weights are for.
        weights: a state dict, a whole training checkpoint, a module, or a file of any of these. Of several state
            dicts in a checkpoint the one that fits best is taken, the model itself before an average of it.

    Raises:
        SourceError: the file can't be read, or holds no weights.
    """
    origin, held = ("the given weights", weights)
    named = None
    if isinstance(weights, (str, os.PathLike)):
        origin, held = os.fspath(weights), read(weights)
        named = misnamed(weights)
    found = states(held)
    if not found:
        raise SourceError(_nothing_in(held), where=origin, hint="give a state dict: model.state_dict()")
    plans = [plan(model, one.state) for one in found]
    best = max(range(len(found)), key=lambda number: (len(plans[number].taken), -number))
    also = tuple(one for number, one in enumerate(found) if number != best)
    return Fit(origin, found[best], plans[best], also, named)


def _nothing_in(held: Any) -> str:
    if isinstance(held, dict) and "param_groups" in held:
        return "it is the state of an optimizer, which holds no weights"
    if isinstance(held, dict):
        return f"it holds no weights: its keys are {', '.join(map(str, list(held)[:6])) or 'none'}"
    return f"{named(held)} is no state dict"
