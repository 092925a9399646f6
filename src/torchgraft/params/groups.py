"""Parameter groups: every trainable parameter in exactly one, no frozen one in any."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torchgraft.errors import RecipeError
from torchgraft.select import Roles, selected
from torchgraft.wording import named

if TYPE_CHECKING:
    from torch import nn

__all__ = ["parameter_groups"]


def parameter_groups(
    model: nn.Module,
    settings: Mapping[str, Mapping[str, Any]],
    default: Mapping[str, Any],
    *,
    roles: Roles | None = None,
) -> list[dict[str, Any]]:
    """Sort trainable parameters into groups.

    Args:
        model: whose parameters are sorted.
        settings: selector -> settings of its group; where several select a parameter, the last wins.
        default: settings of the group for all others.
        roles: selector names that stand for paths.

    Returns:
        one dict a group with `params`, their `names`, and its settings; empty groups are left out.

    Raises:
        SelectionError: a selector matches nothing.
        RecipeError: what stands beside a selector are no settings, or one is misspelt.
    """
    if not isinstance(settings, Mapping):
        raise RecipeError(f"{named(settings)} names no groups", where="groups", hint="{'head': {'lr': 1e-3}}")
    for text, given in [("", default), *settings.items()]:
        _check(text, given)
    owner: dict[int, str] = {}
    for text in settings:
        for number in selected(model, text, roles=roles):
            owner[number] = text
    sorted_in: dict[str, list[tuple[str, nn.Parameter]]] = {"": [], **{text: [] for text in settings}}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            sorted_in[owner.get(id(parameter), "")].append((name, parameter))
    return [
        {
            "params": [parameter for _, parameter in members],
            "names": [name for name, _ in members],
            **default,
            **settings.get(text, {}),
        }
        for text, members in sorted_in.items()
        if members
    ]


_NEAR = 0.75
"""Likeness (of difflib) from which an unknown setting is a misspelt one: `lrr` and `lr` have 0.8, `lr_scale` and
`lr`, of timm's layer-wise decay, 0.4."""


def _check(text: str, given: Any) -> None:
    """Refuse settings that are none, and names that come near one that optimizers take; others may be meant."""
    where = f"groups, {text}" if text else "groups"
    if not isinstance(given, Mapping):
        raise RecipeError(
            f"{given!r:.40} are no settings", where=where, hint=f"write {{{text!r}: {{'lr': 1e-3}}}}: a dict"
        )
    known = _known()
    for name in given:
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=_NEAR) if name not in known else []
        if near:
            raise RecipeError(f"no optimizer takes '{name}'", where=where, hint=f"did you mean {near[0]}?")


def _known() -> frozenset[str]:
    """Give the settings that the optimizers of torch take, and that its schedules keep in a group."""
    import torch

    made = [one for one in vars(torch.optim).values() if isinstance(one, type)]
    taken = {
        name
        for one in made
        if issubclass(one, torch.optim.Optimizer)
        for name in inspect.signature(one.__init__).parameters
    }
    return frozenset(taken - {"self", "params", "defaults"} | {"initial_lr", "max_lr", "min_lr"})
