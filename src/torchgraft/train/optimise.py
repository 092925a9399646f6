"""Optimizer, schedule and loss, built from the plan on torch's own classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from torchgraft.errors import TrainError, nearest
from torchgraft.probes.loss import loss_by, named_outputs
from torchgraft.recipe import TrainPlan

__all__ = ["check_tasks", "loss_of", "optimizer_class", "optimizer_of", "schedule_of", "scores_of"]

_CLASSES = {"": "classes"}

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
    cls = optimizer_class(plan.optimizer.name)
    try:
        made: torch.optim.Optimizer = cls([dict(group) for group in groups], **plan.optimizer.settings)
        return made
    except Exception as error:  # what torch makes of a wrong setting is of any kind
        raise TrainError(
            f"{plan.optimizer.name} does not take these settings: {error}",
            where="train.optimizer",
            hint="see its page in torch.optim",
        ) from error


def optimizer_class(name: str) -> Any:
    """Give the class of torch.optim of this name in small letters.

    Raises:
        TrainError: there is none, or the loop can't run it.
    """
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
    scores: Tensor = named_outputs(output, _CLASSES)[0]
    return scores


def loss_of(output: Any, targets: Any, plan: TrainPlan, tasks: Mapping[str, str] | None = None) -> Tensor:
    """Give the loss of the outputs by their tasks, auxiliary heads added with their weight.

    Args:
        output: what the model gave.
        targets: class numbers; what the tasks ask for where they are others, by name where the heads are.
        plan: says how classes are smoothed.
        tasks: of the recipe's head; cross-entropy where it names none.
    """
    return loss_by(tasks or _CLASSES, smoothing=plan.label_smoothing)(output, targets)


def check_tasks(tasks: Mapping[str, str]) -> None:
    """Refuse a head that data of one class number for each sample can't train.

    Raises:
        TrainError: it is for several labels, for quantities, or gives several outputs by name.
    """
    if not tasks or dict(tasks) == _CLASSES:
        return
    wants = {
        "labels": "a yes or no for each label",
        "regression": "quantities",
        "classes": f"targets by name ({', '.join(tasks)})",
    }[tasks.get("", "classes")]
    raise TrainError(
        f"the head wants {wants}, and these data give one class for each sample",
        where="edits.head",
        hint="train such a head in a loop of your own, or take a head for classes: head(classes)",
    )
