"""Weights of any form brought to a model: opened, unwrapped, planned."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchgraft.errors import SourceError
from torchgraft.weights.hashes import misnamed
from torchgraft.weights.kinds import peculiar
from torchgraft.weights.plan import Plan, plan_of, tensors_of
from torchgraft.weights.reading import part_of, read
from torchgraft.weights.unwrap import Found, states
from torchgraft.wording import named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

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
        read: whether the tensors were read off a file, and belong to nobody else.
        said: what else was done to make them fit.
    """

    origin: str
    found: Found
    plan: Plan
    also: tuple[Found, ...] = ()
    misnamed: tuple[str, str] | None = None
    read: bool = False
    said: tuple[str, ...] = ()

    def changes(self) -> list[str]:
        """Say what had to be done to make the weights fit by name: what is never done in silence."""
        taken = [f"the weights lie in {self.found.path} of a checkpoint"] if self.found.path else []
        beside = [one.path for one in self.also if not one.parts and one.inside[-1:] not in self._joined]
        others = [f"{' and '.join(beside)} lie beside them"] if beside else []
        return [*taken, *others, *self.said, *self.plan.changes()]

    @property
    def _joined(self) -> set[tuple[str, ...]]:
        return {(part,) for part in self.found.parts}

    def doubts(self) -> list[str]:
        """Say what speaks against the file itself: another hash than its name says, a part of several."""
        said = [part_of(self.origin)] if self.read and part_of(self.origin) else []
        if self.misnamed:
            promised, real = self.misnamed
            said.append(f"its name promises the sha256 {promised}…, it is {real}…: a damaged or another file")
        return said

    def why_not(self, hint: str) -> tuple[str, str]:
        """Say why the weights are not for the model, and what to do: `hint`, unless the weights tell more."""
        what = ", ".join(self.plan.sentences()) or "it has no tensors"
        if self.read and (part := part_of(self.origin)):
            return f"{what}; {part}", "name the ….index.json that lies beside the parts: all of them are read"
        told = peculiar(self.found.state)
        return (f"{what}; {told[0]}", told[1]) if told else (what, hint)


def fit(model: nn.Module | Mapping[str, Tensor], weights: Any, *, sha256: str = "") -> Fit:
    """Find the place of every tensor of `weights` in a model; nothing is changed.

    Args:
        model: what the weights are for: a module, or tensors by the names that the weights call them.
        weights: a state dict, a whole training checkpoint, a module, or a file of any of these. Of several state
            dicts in a checkpoint the one that fits best is taken, the model itself before an average of it.
        sha256: what a file must have, or its first digits.

    Raises:
        SourceError: the file can't be read, is another than promised, or holds no weights.
    """
    from torch import nn

    origin, held = ("the given weights", weights)
    promise = None
    from_file = isinstance(weights, (str, os.PathLike))
    if isinstance(weights, (str, os.PathLike)):
        origin, held = os.fspath(weights), read(weights, sha256=sha256)
        promise = misnamed(weights)
    found = states(held)
    if not found:
        raise SourceError(_nothing_in(held), where=origin, hint="give a state dict: model.state_dict()")
    if all(one.is_meta for state in found for one in state.state.values()):
        raise SourceError(
            "they lie on meta, and hold no values",
            where=origin,
            hint="save the state dict of a model that has its weights",
        )
    kept = tensors_of(model) if isinstance(model, nn.Module) else model
    plans = [plan_of(kept, one.state) for one in found]
    best = max(range(len(found)), key=lambda number: (len(plans[number].taken), -number))
    also = tuple(one for number, one in enumerate(found) if number != best)
    return Fit(origin, found[best], plans[best], also, promise, from_file)


def _nothing_in(held: Any) -> str:
    if isinstance(held, dict) and "param_groups" in held:
        return "it is the state of an optimizer, which holds no weights"
    if isinstance(held, dict):
        return f"it holds no weights: its keys are {', '.join(map(str, list(held)[:6])) or 'none'}"
    return f"{named(held)} is no state dict"
