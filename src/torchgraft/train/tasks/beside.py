"""A figure of torchmetrics beside the task's own: `metric: torchmetrics:CohenKappa`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchgraft.errors import TrainError, nearest
from torchgraft.train.task import Meter, Task
from torchgraft.train.tasks.mask import IGNORED, resized
from torchgraft.train.tasks.outputs import main_of
from torchgraft.train.tasks.regression import fitted
from torchgraft.train.world import World

__all__ = ["TORCHMETRICS", "Beside", "beside"]

TORCHMETRICS = "torchmetrics:"
"""What begins the name of a figure of torchmetrics."""


def beside(task: Task, text: str, device: torch.device | None) -> Task:
    """Give a task that is judged by a figure of torchmetrics as well.

    Args:
        task: of one output.
        text: `torchmetrics:CohenKappa`.
        device: where the outputs will be.

    Raises:
        TrainError: torchmetrics is not installed, has no such figure, or says not whether more of it is better.
    """
    name = text.removeprefix(TORCHMETRICS)
    found = _known().get(name)
    if found is None or task.kind == "several":
        why = "outputs by name have figures of their own" if found is not None else f"torchmetrics has no '{name}'"
        raise TrainError(
            why, where="train.metric", hint=nearest(name, _known()) or f"one of {', '.join(task.names)}"
        )
    return Beside(task, found, name, device)


def _known() -> dict[str, Any]:
    """Give the figures that torchmetrics has at hand, by their names."""
    try:
        import torchmetrics
    except ImportError as error:
        raise TrainError(
            "figures of torchmetrics are asked for, and it is not installed",
            where="train.metric",
            hint="pip install 'torchgraft[metrics]'",
        ) from error
    kinds = {name: one for name, one in vars(torchmetrics).items() if isinstance(one, type)}
    return {name: one for name, one in kinds.items() if issubclass(one, torchmetrics.Metric)}


class Beside(Task):
    """A task with one more figure, by which states are judged."""

    def __init__(self, inner: Task, kind: Any, name: str, device: torch.device | None) -> None:
        self.inner, self.of, self.device = inner, kind, device
        self.kind = inner.kind
        self.metric = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
        self.names = (self.metric, *inner.names)
        made = self.build(2)
        if made.higher_is_better is None:
            raise TrainError(
                f"torchmetrics does not say whether more of {name} is better",
                where="train.metric",
                hint=f"take another one, or one of {', '.join(inner.names)}",
            )
        self.higher = bool(made.higher_is_better)

    def build(self, outputs: int) -> Any:
        """Build the figure for so many outputs.

        Raises:
            TrainError: it is not for such a task.
        """
        of_kind: dict[str, dict[str, Any]] = {
            "classes": {"task": "multiclass", "num_classes": outputs},
            "labels": {"task": "multilabel", "num_labels": outputs},
            "regression": {"num_outputs": outputs},
            "mask": {"task": "multiclass", "num_classes": outputs, "ignore_index": IGNORED},
        }
        asked = of_kind[self.kind]
        takes = inspect.signature(self.of.__new__ if "task" in asked else self.of.__init__).parameters
        wrong = "task" in asked and "task" not in takes
        try:
            if wrong:
                raise ValueError("it has no task of this kind")
            made = self.of(**{name: value for name, value in asked.items() if "task" in asked or name in takes})
            return made.to(self.device) if self.device is not None else made
        except Exception as error:  # what torchmetrics makes of a task is of any kind
            raise TrainError(
                f"{self.of.__name__} is no figure of {self.kind}: {str(error).splitlines()[0]}",
                where="train.metric",
                hint=f"one of {', '.join(self.inner.names)}",
            ) from error

    def loss(self, output: Any, targets: Any) -> Tensor:
        """Give the loss of the task."""
        return self.inner.loss(output, targets)

    def meter(self, *, train: bool = False) -> Meter:
        """Gather the figure too, of validation samples."""
        return self.inner.meter(train=True) if train else _Meters(self.inner.meter(), self)

    def answers(self, output: Any) -> dict[str, Any]:
        """Give the answers of the task."""
        return self.inner.answers(output)


class _Meters(Meter):
    """The task's own figures, and one of torchmetrics, which adds itself up over processes."""

    def __init__(self, own: Meter, task: Beside) -> None:
        self.own, self.task = own, task
        self.other: Any = None

    def add(self, output: Any, targets: Tensor) -> None:
        self.own.add(output, targets)
        scores = main_of(output).detach().float()
        if self.other is None:
            self.other = self.task.build(scores.shape[1] if scores.dim() > 1 else 1)
        self.other.update(*_PREPARED[self.task.kind](scores, targets))

    def sums(self) -> dict[str, Tensor]:
        return self.own.sums()

    def gather(self, world: World) -> None:
        self.own.gather(world)

    def figures(self) -> dict[str, float]:
        value = self.other.compute() if self.other is not None else torch.tensor(float("nan"))
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise TrainError(
                f"{self.task.metric} gives no single number", where="train.metric",
                hint=f"one of {', '.join(self.task.inner.names)}",
            )  # fmt: skip
        return {self.task.metric: float(value), **self.own.figures()}


def _of_quantities(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    wanted = fitted(scores, targets)
    return (
        (scores.squeeze(1), wanted.squeeze(1)) if scores.dim() == 2 and scores.shape[1] == 1 else (scores, wanted)
    )


_PREPARED: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "classes": lambda scores, targets: (scores.softmax(1), targets if targets.dim() == 1 else targets.argmax(1)),
    "labels": lambda scores, targets: (scores.sigmoid(), (targets > 0.5).long()),
    "regression": _of_quantities,
    "mask": lambda scores, targets: (resized(scores, targets).softmax(1), targets.long()),
}
