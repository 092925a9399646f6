"""Head and data put together: the task that both are for, or why they are for different ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
        raise _unfit(f"wants {WANTS[head]}", given, head)


def _unfit(wants: str, given: str, head: str = "") -> TrainError:
    task = f", task: {given}" if given in ("labels", "regression") else ""
    other = ""
    if head == "classes" and given in ("labels", "regression"):
        what = "numbers of classes, targets.argmax(1)" if given == "labels" else "whole numbers of classes"
        other = f"; or give {what}, where that is what they are; in a table say task=classes"
    return TrainError(
        f"the head {wants}, and these data give {WANTS[given]}",
        where="edits.head",
        hint=f"take a head for such data: head: {{classes: …{task}}}{other}",
    )


def check_outputs(graft: Graft, data: DataSet) -> None:
    """Refuse a model whose outputs the data's task can't be read of, in evaluation or in training mode.

    Rows of scores, one a sample, are what classes, labels and quantities take; maps of them are what masks take.
    Outputs by name have rows each.

    Raises:
        TrainError: an output has another shape or no floating-point numbers, or there are too few of them.
    """
    asked, named = _FORMS[data.task], "" not in tasks(graft.recipe.edits) and bool(tasks(graft.recipe.edits))
    count = 0 if named else len(data.classes)
    for run in (graft.trace(), graft.trace(train=True)):
        values = [run.values[number] for number in run.outputs]
        odd = [one for one in values if not asked.fits(one.shape, one.dtype, run.batch, count)]
        if run.mismatch is not None or (values and not odd):
            continue
        got = f"{odd[0].dtype} {odd[0].show(run.batch)}" if odd else "no tensor"
        raise TrainError(
            f"the model gives {got} in {'training' if run.train else 'evaluation'} mode, "
            f"not {asked.words.format(count or 'N')}",
            where=graft.name,
            hint=asked.hint(odd[0].shape if odd else (), count),
        )


@dataclass(frozen=True)
class _Form:
    """What outputs of a task look like.

    Attributes:
        words: what they are, and their shape.
        rank: how many dimensions they have.
        exact: as many columns as the data have, no more.
        task: what a head for it says of its task.
    """

    words: str
    rank: int = 2
    exact: bool = False
    task: str = ""

    def fits(self, shape: tuple[int, ...], dtype: str, batch: int, count: int) -> bool:
        """Tell whether an output can be judged; `count` is how many columns it needs, 0 where any will do."""
        if len(shape) != self.rank or shape[0] != batch or "float" not in dtype:
            return False
        return shape[1] == count if self.exact and count else shape[1] >= count

    def hint(self, shape: tuple[int, ...], count: int) -> str:
        """Say what would fit."""
        if len(shape) == self.rank:
            return f"take a new head, head: {{classes: {count}{self.task}}}, and let all that is given be such"
        if self.rank == 4:
            return "take a model for segmentation, such as torchvision:lraspp_mobilenet_v3_large"
        return "take a model whose outputs are rows, one a sample, or put layers at its end that make them such"


_FORMS = {
    "classes": _Form("scores [N, {}], a row for each sample"),
    "labels": _Form("scores [N, {}], a row for each sample", exact=True, task=", task: labels"),
    "regression": _Form("quantities [N, {}], a row for each sample", exact=True, task=", task: regression"),
    "mask": _Form("maps of scores [N, {}, H, W]", rank=4),
}


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
