"""The optimizer that a plan names, of torch's own or of timm's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from torchgraft.errors import TrainError, nearest
from torchgraft.trainplan import TrainPlan

__all__ = ["optimizer_class", "optimizer_of"]

_UNFIT = {
    "lbfgs": "it evaluates the loss several times a step",
    "sparseadam": "it takes sparse gradients only",
    "adahessian": "it takes second derivatives",
}
"""The optimizers of torch and timm that a loop of one forward and one backward pass a step can't run, and why."""


def optimizer_of(plan: TrainPlan, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:
    """Build the optimizer that the plan names, over parameter groups.

    Raises:
        TrainError: torch has no such optimizer, it does not take the settings, or the loop can't run it.
    """
    cls = optimizer_class(plan.optimizer.name)
    try:
        made: torch.optim.Optimizer = cls([dict(group) for group in groups], **plan.optimizer.settings)
        return made
    except Exception as error:  # what torch makes of a wrong setting is of any kind
        raise TrainError(
            f"{plan.optimizer.name} does not take these settings: {error}",
            where="train.optimizer",
            hint="see its page in torch.optim, or in timm.optim",
        ) from error


def optimizer_class(name: str) -> Any:
    """Give what builds the optimizer of this name in small letters: of torch.optim, or else of timm.optim.

    Raises:
        TrainError: there is none, or the loop can't run it.
    """
    word = name.lower()
    known = _of_torch()
    if word in _UNFIT:
        raise TrainError(
            f"torchgraft can't train with {name}: {_UNFIT[word]}",
            where="train.optimizer",
            hint=f"take one of {', '.join(sorted(known.keys() - _UNFIT.keys()))}",
        )
    found = known.get(word) or _of_timm(word)
    if found is None:
        fit = sorted(known.keys() - _UNFIT.keys())
        raise TrainError(
            f"neither torch.optim nor timm.optim has '{name}'",
            where="train.optimizer",
            hint=nearest(word, fit) or nearest(word, _timm_names()) or f"one of {', '.join(fit)}, or of timm's",
        )
    return found


def _of_torch() -> dict[str, Any]:
    return {
        word.lower(): cls
        for word, cls in vars(torch.optim).items()
        if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer
    }


def _of_timm(word: str) -> Any:
    """Give timm's optimizer, its variants with what makes them such."""
    if word not in _timm_names():
        return None
    from timm.optim import get_optimizer_class

    return get_optimizer_class(word)


def _timm_names() -> list[str]:
    """List what timm has that torch's loop can run: no second derivatives."""
    from timm.optim import list_optimizers

    return [name for name in list_optimizers() if name not in _UNFIT]
