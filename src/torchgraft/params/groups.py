"""Parameter groups: every trainable parameter in exactly one, no frozen one in any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torchgraft.select import Roles, selected

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
    """
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
