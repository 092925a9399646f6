"""Optimizer, schedule and loss, built from the plan on torch's own classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torchgraft.errors import TrainError, nearest
from torchgraft.recipe import TrainPlan

__all__ = ["AUXILIARY", "loss_of", "optimizer_of", "schedule_of", "scores_of"]

AUXILIARY = 0.3
"""The weight of the loss of an auxiliary head (Szegedy et al., 2015)."""


_UNFIT = {
    "lbfgs": "it evaluates the loss several times a step",
    "sparseadam": "it takes sparse gradients only",
}
"""The optimizers of torch that a loop of one forward and one backward pass a step can't run, and why."""


def optimizer_of(plan: TrainPlan, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:
    """Build the optimizer that the plan names, over parameter groups.

    Raises:
        TrainError: torch has no such optimizer, it does not take the settings, or the loop can't run it.
    """
    cls = _optimizer_class(plan.optimizer.name)
    try:
        made: torch.optim.Optimizer = cls([dict(group) for group in groups], **plan.optimizer.settings)
        return made
    except Exception as error:  # what torch makes of a wrong setting is of any kind
        raise TrainError(
            f"{plan.optimizer.name} does not take these settings: {error}",
            where="train.optimizer",
            hint="see its page in torch.optim",
        ) from error


def _optimizer_class(name: str) -> Any:
    known = {
        word.lower(): cls
        for word, cls in vars(torch.optim).items()
        if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer
    }
    fit = sorted(known.keys() - _UNFIT.keys())
    if name.lower() in _UNFIT:
        raise TrainError(
            f"torchgraft can't train with {name}: {_UNFIT[name.lower()]}",
            where="train.optimizer",
            hint=f"take one of {', '.join(fit)}",
        )
    if name.lower() not in known:
        raise TrainError(
            f"torch.optim has no '{name}'",
            where="train.optimizer",
            hint=nearest(name.lower(), fit) or f"one of {', '.join(fit)}",
        )
    return known[name.lower()]


def schedule_of(
    plan: TrainPlan, optimizer: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Build the schedule of the learning rates: a linear rise, then a cosine fall or a constant rate."""
    rise = max(round(plan.warmup * steps), 1) if plan.warmup else 0

    def share(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        if plan.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def scores_of(output: Any) -> Tensor:
    """Give the main scores `[N, classes]` of whatever a classifier returns."""
    return _all_scores(output)[0]


def loss_of(output: Any, targets: Tensor, plan: TrainPlan) -> Tensor:
    """Give the cross-entropy of the main scores, auxiliary heads added with their weight."""
    main, *others = (
        nn.functional.cross_entropy(scores.float(), targets, label_smoothing=plan.label_smoothing)
        for scores in _all_scores(output)
    )
    return main + AUXILIARY * sum(others) if others else main


def _all_scores(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if is_dataclass(output) and not isinstance(output, Mapping):
        output = vars(output)
    values = list(output.values()) if isinstance(output, Mapping) else list(output)
    return [value for value in values if isinstance(value, Tensor)]
