"""Judge a model on labelled samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchgraft.errors import DataError
from torchgraft.history import Evaluation
from torchgraft.train.feed import Feed, moved
from torchgraft.train.task import Task
from torchgraft.train.tasks.detail import detail_of
from torchgraft.train.tasks.outputs import main_of

__all__ = ["evaluate", "given", "probabilities"]


@torch.no_grad()
def evaluate(
    model: nn.Module, feed: Feed, task: Task, classes: Sequence[str], device: torch.device | str = "cpu"
) -> Evaluation:
    """Judge a model on the samples of a feed, in evaluation mode; of several processes, each does all.

    Args:
        model: in fp32, whatever it was trained in.
        feed: of the validation samples, in their order.
        task: what the outputs are for.
        classes: of the data; outputs beyond them have no name of their own.
        device: where the model is.

    Raises:
        DataError: there is not one sample.
    """
    model.eval()
    meter, names, detail = task.meter(), tuple(classes), None
    lost, count, indices = 0.0, 0, list[int]()
    for batch in feed.batches(1):
        if not batch.count:
            continue
        targets = moved(batch.targets, torch.device(device))
        output = given(model, moved(batch.inputs, torch.device(device)))
        if detail is None:
            names = _names(task, classes, output)
            detail = detail_of(task.kind, len(names))
        lost += float(task.loss(output, targets)) * batch.count
        meter.add(output, targets)
        known = list(batch.indices) or list(range(count, count + batch.count))
        if task.kind != "several":
            detail.add(main_of(output), targets, known)
        count, indices = count + batch.count, indices + known
    if detail is None:
        raise DataError("there is no sample to judge by", hint="give validation samples that can be read")
    return Evaluation(
        task=task.kind,
        classes=names,
        loss=lost / count,
        figures=meter.figures(),
        count=count,
        indices=tuple(indices),
        **detail.fields(),
    )


def given(model: nn.Module, inputs: Any) -> Any:
    """Run a model on the inputs of a batch: a dict by name, a tuple by place."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def _names(task: Task, classes: Sequence[str], output: Any) -> tuple[str, ...]:
    """Name every output: those beyond the data's classes have no name of their own."""
    known = tuple(classes)
    if task.kind == "several":
        return known
    scores = main_of(output)
    outputs = scores.shape[1] if scores.dim() > 1 else 1
    word = {"regression": "quantity", "labels": "label"}.get(task.kind, "class")
    return (*known, *(f"({word} {number})" for number in range(len(known), outputs)))


@torch.no_grad()
def probabilities(model: nn.Module, images: Tensor) -> Tensor:
    """Give the class probabilities `[N, classes]` of a batch `[N, C, H, W]`, in evaluation mode."""
    model.eval()
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return main_of(model(images.to(device))).float().softmax(1).cpu()
