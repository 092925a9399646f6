"""An optimizer that follows the edits of its model: new parameters come in, the old ones leave, the rest stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from torchgraft.errors import EditError

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["follow", "named_of"]

_NAMES = ("names", "param_names")
"""Where a group keeps the names of its parameters: `g.groups` and torch's own named groups."""

_Group = dict[str, Any]


def named_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Give every parameter by its first name."""
    return dict(model.named_parameters())


def follow(
    optimizer: torch.optim.Optimizer, before: Mapping[str, nn.Parameter], after: Mapping[str, nn.Parameter]
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Say how an optimizer follows an edit: what to do, and what takes it back exactly.

    What the model does not hold any more, or holds frozen, leaves its group, with its state. A trainable parameter
    that no group holds comes into the group that its name had before, or else that of the nearest names: those
    that share the most leading parts. Groups are never taken away or put in a new order, so schedules go on.

    Args:
        optimizer: what trains the model.
        before: the model's parameters before the edit, by name.
        after: the parameters now.

    Raises:
        EditError: the optimizer holds parameters, but none of the model's.
    """
    groups = optimizer.param_groups
    homes = {id(one): number for number, group in enumerate(groups) for one in group["params"]}
    places = _HOMES.setdefault(optimizer, {})
    places.update({name: homes[id(one)] for name, one in before.items() if id(one) in homes})
    if homes and not places:
        raise EditError(
            "the optimizer holds no parameter of this model",
            where="optimizer",
            hint="give the optimizer that was built from it: optimizer=torch.optim.SGD(g.groups(lr=…))",
        )
    wanted = {id(one) for one in after.values() if one.requires_grad}
    gone = {id(one) for one in before.values()} - wanted
    old = [_kept(group) for group in groups]
    made = [_without(group, gone) for group in groups]
    for name, one in after.items():
        if one.requires_grad and id(one) not in homes:
            _put(made[_nearest(name, places)], name, one)
    parked: dict[Any, Any] = {}
    return lambda: _set(optimizer, made, parked), lambda: _set(optimizer, old, parked)


_HOMES: WeakKeyDictionary[torch.optim.Optimizer, dict[str, int]] = WeakKeyDictionary()
"""Which group each name was in last: what is frozen and unfrozen again comes back to where it was."""


def _kept(group: _Group) -> _Group:
    return {key: list(group[key]) for key in ("params", *_NAMES) if key in group}


def _without(group: _Group, gone: set[int]) -> _Group:
    keep = [place for place, one in enumerate(group["params"]) if id(one) not in gone]
    return {key: [held[place] for place in keep if place < len(held)] for key, held in _kept(group).items()}


def _put(group: _Group, name: str, parameter: nn.Parameter) -> None:
    group["params"].append(parameter)
    for key in _NAMES:
        if key in group:
            group[key].append(name)


def _nearest(name: str, places: Mapping[str, int]) -> int:
    """Give the group of the same name, or of the names that share the most leading parts; the last of equals."""
    if name in places or not places:
        return places.get(name, 0)
    parts = name.split(".")
    return places[max(reversed(list(places)), key=lambda other: _shared(parts, other.split(".")))]


def _shared(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Count the leading parts that two names have in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False)))


def _set(optimizer: torch.optim.Optimizer, groups: Sequence[_Group], parked: dict[Any, Any]) -> None:
    """Give an optimizer its groups; the state of what leaves is parked, that of what comes back taken up again."""
    for group, wanted in zip(optimizer.param_groups, groups, strict=True):
        group.update({key: list(held) for key, held in wanted.items()})
    stay = {one for group in groups for one in group["params"]}
    for one in [one for one in optimizer.state if one not in stay]:
        parked[one] = optimizer.state.pop(one)
    for one in [one for one in parked if one in stay]:
        optimizer.state[one] = parked.pop(one)
