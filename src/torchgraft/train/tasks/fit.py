"""Head and data put together: the task that both are for, or why they are for different ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchgraft.data.balance import balance
from torchgraft.data.base import DataSet
from torchgraft.edits.head import tasks
from torchgraft.errors import TrainError
from torchgraft.recipe import TrainPlan
from torchgraft.train.task import Task
from torchgraft.train.tasks.make import task_of

if TYPE_CHECKING:
    from torchgraft.graft import Graft

__all__ = ["balance_of", "check_outputs", "check_tasks", "spread_of", "task_for"]

WANTS = {
    "classes": "one class for each sample",
    "labels": "a yes or no for each label",
    "regression": "quantities",
    "mask": "a class for each pixel",
}


def task_for(
    graft: Graft,
    data: DataSet,
    plan: TrainPlan,
    *,
    device: torch.device | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    trust: bool = False,
) -> Task:
    """Give what a graft is trained for on a data set.

    Args:
        graft: whose head says what its outputs are for; those of an untouched model are for what the data have.
        data: what it is trained on.
        plan: how.
        device: where the outputs will be.
        loss: one that was handed over from Python.
        trust: whether a loss of the user's own code may be imported.

    Raises:
        TrainError: head and data are for different tasks; or there is no such loss or metric.
    """
    asked = tasks(graft.recipe.edits)
    check_tasks(asked, data)
    return task_of(
        plan,
        asked,
        data.classes,
        balance=balance_of(data) if plan.class_weights == "balanced" else (),
        spread=spread_of(data.train.labels) if data.task == "regression" else (),
        kind=data.task,
        device=device,
        loss=loss,
        trust=trust,
    )


def check_tasks(asked: Mapping[str, str], data: DataSet) -> None:
    """Refuse a head that such data can't train.

    Args:
        asked: the tasks of the head, by the names of its outputs; empty for a model whose head is as it was.
        data: what there is to train on.

    Raises:
        TrainError: they are for different tasks, or several outputs by name meet one target for each sample.
    """
    given, known = data.task, data.train.labels
    if asked and "" not in asked:
        if len(known) and not isinstance(known[0], Mapping):
            raise _unfit(f"wants targets by name ({', '.join(asked)})", given)
        return
    head = asked.get("", given)
    if head != given and (head, given) != ("classes", "mask"):
        raise _unfit(f"wants {WANTS[head]}", given)


def _unfit(wants: str, given: str) -> TrainError:
    task = f", task: {given}" if given in ("labels", "regression") else ""
    return TrainError(
        f"the head {wants}, and these data give {WANTS[given]}",
        where="edits.head",
        hint=f"take a head for such data: head: {{classes: …{task}}}",
    )


def check_outputs(graft: Graft, data: DataSet) -> None:
    """Refuse a model whose outputs the data's task can't be read of, in evaluation or in training mode.

    Rows of scores, one a sample, are what classes, labels and quantities take; maps of them are what masks take.
    Outputs by name have rows each.

    Raises:
        TrainError: an output has another shape or no floating-point numbers, or there are too few of them.
    """
    mask = data.task == "mask"
    form = "maps of scores [N, classes, H, W]" if mask else f"{_ROWS[data.task]} [N, {len(data.classes)}]"
    for run in (graft.trace(), graft.trace(train=True)):
        values = [run.values[number] for number in run.outputs]
        odd = [one for one in values if not _fits(one, run.batch, data)]
        if run.mismatch is not None or (values and not odd):
            continue
        got = f"{odd[0].dtype} {odd[0].show(run.batch)}" if odd else "no tensor"
        raise TrainError(
            f"the model gives {got} in {'training' if run.train else 'evaluation'} mode, not {form}",
            where=graft.name,
            hint=_MAPS if mask else f"take a new head: {{classes: {len(data.classes)}{_TASK.get(data.task, '')}}}",
        )


_MAPS = "take a model for segmentation, such as torchvision:lraspp_mobilenet_v3_large"
_ROWS = {"classes": "a row of scores for each sample,", "labels": "a row of scores for each sample,",
         "regression": "a row of quantities for each sample,"}  # fmt: skip
_TASK = {"labels": ", task: labels", "regression": ", task: regression"}


def _fits(value: Any, batch: int, data: DataSet) -> bool:
    rank, count = (4 if data.task == "mask" else 2), len(data.classes)
    shape = value.shape
    if len(shape) != rank or shape[0] != batch or "float" not in value.dtype:
        return False
    return bool(shape[1] == count if data.task in ("labels", "regression") else shape[1] >= count)


def balance_of(data: DataSet) -> list[float]:
    """Give the share of the training samples that each class or label has, or of the pixels."""
    counted = balance(data)
    return list(counted.shares) if counted is not None else []


def spread_of(labels: Sequence[Sequence[float]]) -> list[float]:
    """Give the standard deviation of each quantity; 1 for one that is always the same."""
    if not len(labels):
        return []
    found = []
    for column in zip(*labels, strict=True):
        middle = math.fsum(column) / len(column)
        found.append(math.sqrt(math.fsum((one - middle) ** 2 for one in column) / len(column)) or 1.0)
    return found
