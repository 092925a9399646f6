"""What the callbacks have in common: stages of unfreezing, and what to say where a package is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from torchgraft.errors import RecipeError
from torchgraft.select import parameters

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Stages", "Unfreezing", "missing"]

Unfreezing = Mapping[int, str | Iterable[str]]
"""Epoch, from 1 -> selectors of what is trained from its start on."""


class Stages:
    """What is trained from which epoch on, by flags alone.

    The optimizer holds everything from the start: what is frozen has no gradient, and no optimizer of torch
    touches what has none. So the groups are the same at every epoch, and any checkpoint can be resumed.
    """

    def __init__(self, model: nn.Module, wanted: Unfreezing) -> None:
        """Find the parameters of each stage.

        Raises:
            SelectionError: a selector matches nothing.
            RecipeError: an epoch is none.
        """
        odd = [epoch for epoch in wanted if not (isinstance(epoch, int) and epoch > 1)]
        if odd:
            raise RecipeError(
                f"there is nothing to unfreeze at epoch {odd[0]}",
                where="unfreeze",
                hint="epochs count from 1, and what is trained in the first is not frozen: {3: 'layer4'}",
            )
        held = dict(model.named_parameters(remove_duplicate=False))
        self._stages = [
            (epoch, [held[name] for name in parameters(model, at)]) for epoch, at in sorted(wanted.items())
        ]

    def hold(self, epoch: int) -> None:
        """Set the flags as they are in an epoch, counted from 1, whatever came before."""
        for start, held in self._stages:
            for one in held:
                one.requires_grad_(epoch >= start)


def missing(package: str) -> ImportError:
    """Say what to install."""
    return ImportError(f"{package} is not installed here: pip install {package}")
