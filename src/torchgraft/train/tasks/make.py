"""From a plan and a head to the task that is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from torchgraft.errors import TrainError, nearest
from torchgraft.history import LOWER
from torchgraft.recipe import TrainPlan
from torchgraft.train.task import Task
from torchgraft.train.tasks.beside import TORCHMETRICS, beside
from torchgraft.train.tasks.classes import Classes
from torchgraft.train.tasks.labels import Labels
from torchgraft.train.tasks.losses import OBJECT, given_loss, loss_named
from torchgraft.train.tasks.mask import Mask
from torchgraft.train.tasks.named import Named
from torchgraft.train.tasks.regression import Regression
from torchgraft.train.tasks.single import Given, Single
from torchgraft.train.tasks.weigh import positive_weight, weight_of

__all__ = ["task_of"]


def task_of(
    plan: TrainPlan,
    tasks: Mapping[str, str],
    classes: int | Sequence[str] | Mapping[str, Sequence[str]],
    *,
    balance: Sequence[float] = (),
    spread: Sequence[float] = (),
    kind: str = "classes",
    device: torch.device | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    trust: bool = False,
) -> Task:
    """Give what a plan trains a head for.

    Args:
        plan: says which loss, metric, smoothing and weights.
        tasks: of the recipe's head, by the names of its outputs; `edits.head.tasks` gives them.
        classes: of the data: their names or number, by output where there are several; of labels and quantities
            likewise.
        balance: the share of the training samples that each class or label has; of masks, of the pixels. Numbers
            do as well for classes and masks.
        spread: the standard deviation of each quantity of a regression, by which its loss is scaled.
        kind: the task where the head names none, such as that of the data.
        device: where the outputs will be.
        loss: one that was handed over from Python, for which the plan says `object:…`.
        trust: whether a loss of the user's own code may be imported.

    Raises:
        TrainError: there is no such loss or metric, or the weights do not fit the classes.
    """
    given = _given(plan, loss, trust=trust)
    if tasks and "" not in tasks:
        parts = {name: _one(plan, task, _count(classes, name), (), (), device, given)
                 for name, task in tasks.items()}  # fmt: skip
        return _measured(Named(parts), plan, device)
    made = _one(plan, _kind(tasks, kind), _count(classes, ""), balance, spread, device, given)
    return _measured(made, plan, device)


def _kind(tasks: Mapping[str, str], kind: str) -> str:
    """Take the head's word; a mask is what a head for classes gives where the data are masks."""
    told = tasks.get("", kind)
    return "mask" if told == "classes" and kind == "mask" else told


def _count(classes: Any, name: str) -> int:
    if isinstance(classes, Mapping):
        classes = classes.get(name, ())
    return classes if isinstance(classes, int) else len(classes)


def _given(plan: TrainPlan, loss: Callable[[Any, Any], Tensor] | None, *, trust: bool) -> Given | None:
    if loss is not None:
        return given_loss(loss)
    if plan.loss is None:
        return None
    if plan.loss.startswith(OBJECT):
        raise TrainError(
            f"the loss was an object of Python's, {plan.loss.removeprefix(OBJECT)}, which a recipe can't hold",
            where="train.loss",
            hint="hand it over again: train(…, loss=fn), or name it: loss: python:package.module:function",
        )
    return given_loss(loss_named(plan.loss, trust=trust))


def _one(
    plan: TrainPlan,
    kind: str,
    count: int,
    balance: Sequence[float],
    spread: Sequence[float],
    device: torch.device | None,
    given: Given | None,
) -> Single:
    if kind == "labels":
        return Labels(count, weight=positive_weight(plan, count, balance), device=device, given=given)
    if kind == "regression":
        return Regression(count, spread=spread, device=device, given=given)
    cls = Mask if kind == "mask" else Classes
    weight = weight_of(plan, count, balance)
    return cls(count, weight=weight, smoothing=plan.label_smoothing, device=device, given=given)


def _measured(task: Task, plan: TrainPlan, device: torch.device | None) -> Task:
    """Judge states by the figure that the plan names."""
    if plan.metric is None:
        return task
    if plan.metric.startswith(TORCHMETRICS):
        return beside(task, plan.metric, device)
    if plan.metric not in task.names:
        near = nearest(plan.metric, task.names)
        raise TrainError(
            f"these outputs have no figure '{plan.metric}'",
            where="train.metric",
            hint=f"{near} " * bool(near) + f"one of {', '.join(task.names)}, or torchmetrics:NAME",
        )
    task.metric = plan.metric
    task.higher = plan.metric.rpartition(".")[2] not in LOWER
    return task
