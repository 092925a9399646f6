"""The task of a recipe with a training plan: its real data, optimizer, precision and batch, as it is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchgraft.data import parse_data
from torchgraft.errors import DataError
from torchgraft.params.still import train_mode
from torchgraft.preprocess import Preprocess
from torchgraft.probes.batch import Batch
from torchgraft.profile.task import Random, Task, batch_of, double_of, moved
from torchgraft.train.augment import augmentation
from torchgraft.train.checkpointing import checkpointed_modules
from torchgraft.train.feed import Feed
from torchgraft.train.feeding import feed_for
from torchgraft.train.optimise import optimizer_of
from torchgraft.train.rates import groups_of, unfreezing
from torchgraft.train.schedule import schedule_of
from torchgraft.train.task import Task as Judge
from torchgraft.train.tasks import task_for
from torchgraft.train.tasks.losses import OBJECT, PYTHON

if TYPE_CHECKING:
    from torchgraft.graft import Graft
    from torchgraft.recipe import TrainPlan

__all__ = ["Fetching", "planned_task"]


TOGETHER = 4
"""So many batches are run at most for one optimizer step, where a plan gathers more."""

FIRST_EPOCH = (
    "the wait for data is that of a first epoch: later ones find up to 512 MB of transformed images in memory"
)


@dataclass
class Fetching:
    """The plan's batches, epoch after epoch; `passes` counts those that began."""

    feed: Feed
    passes: int = 0

    def __iter__(self) -> Iterator[Batch]:
        while True:
            self.passes += 1
            for batch in self.feed.batches(self.passes):
                given = batch.inputs
                if isinstance(given, Mapping):
                    yield Batch((), dict(given), targets=batch.targets)
                else:
                    yield Batch(given if isinstance(given, tuple) else (given,), targets=batch.targets)


def planned_task(
    graft: Graft, plan: TrainPlan, device: torch.device, *, data: bool = True
) -> tuple[Task, tuple[str, ...]]:
    """Give the task of a plan, and notes.

    Args:
        graft: whose model it is.
        plan: how it is trained.
        device: where.
        data: read the plan's own data; else random inputs of its batch.

    Raises:
        DataError: the data can't be read.
        TrainError: the optimizer is none of torch's, or a module can't be checkpointed.
        SelectionError: a selector of the plan matches nothing.
    """
    model = double_of(graft.module, device)
    _free(graft, plan, model)
    optimizer = _optimizer(graft, plan, model)
    notes: tuple[str, ...] = ()
    batches = 0
    if data:
        feed, judged = _feed(graft, plan, device)
        batches = len(feed.sizes() or ())
        source: Any = iter(Fetching(feed))
        notes = (FIRST_EPOCH,)
    else:
        judged = None
        random = Random(moved(batch_of(graft, plan.batch), device))
        source = iter(random)
    scaler = torch.amp.GradScaler(device.type, enabled=plan.precision == "fp16" and device.type != "cpu")

    def loss(output: Any, batch: Batch) -> Tensor:
        return random.loss(output, batch) if judged is None else judged.loss(output, batch.targets)

    task = Task(
        model, device, source, loss, optimizer, _facts(plan, judged), plan.precision, scaler, plan.clip,
        schedule_of(plan, optimizer, plan.epochs * math.ceil(batches / plan.accumulate))[0]
        if optimizer is not None and batches else None,
        _varying(plan) if plan.augment == "light" and not data else None,
        data, plan.workers if data else None, train_mode, min(plan.accumulate, TOGETHER),
        _again(graft, plan, model),
    )  # fmt: skip
    if plan.accumulate > TOGETHER:
        fewer = f"a step of the plan gathers {plan.accumulate} batches, {TOGETHER} are run"
        notes = (*notes, f"{fewer}: the optimizer's share is smaller")
    return task, notes


def _again(graft: Graft, plan: TrainPlan, model: nn.Module) -> tuple[nn.Module, ...]:
    """Find the double's modules that the plan checkpoints."""
    asked = checkpointed_modules(graft.module, plan.checkpointing, roles=graft.roles)
    return tuple(model.get_submodule(path) for path in asked)


def _free(graft: Graft, plan: TrainPlan, model: nn.Module) -> None:
    """Unfreeze in the double all that the plan unfreezes on the way."""
    names = {name for step in unfreezing(graft, plan) for name in step.names}
    every = any(one.every is not None for one in plan.unfreeze)
    for name, one in model.named_parameters():
        one.requires_grad_(one.requires_grad or every or name in names)


def _optimizer(graft: Graft, plan: TrainPlan, model: nn.Module) -> torch.optim.Optimizer | None:
    """Build the plan's optimizer over the double's parameters, in the groups of the model's."""
    twins = dict(zip(graft.module.parameters(), model.parameters(), strict=True))
    groups = [{**group, "params": [twins[one] for one in group["params"]]} for group in groups_of(graft, plan)]
    for group in groups:
        group.pop("names", None)
    known = {id(one) for group in groups for one in group["params"]}
    late = [one for one in model.parameters() if one.requires_grad and id(one) not in known]
    groups += [{"params": late}] if late else []
    return optimizer_of(plan, groups) if groups else None


def _varying(plan: TrainPlan) -> Callable[[Batch], Batch]:
    """Vary random inputs as a feed varies real ones."""
    varied = augmentation(plan)
    return lambda batch: replace(batch, args=(varied(batch.args[0]), *batch.args[1:]))


def _feed(graft: Graft, plan: TrainPlan, device: torch.device) -> tuple[Feed, Judge]:
    """Give the plan's training batches and what judges them; a loss of the user's own is the task's here."""
    opened = parse_data(plan.data).open(seed=graft.recipe.seed, strict=plan.strict)
    preprocess = graft.recipe.preprocess or (_preparation(graft) if opened.kind == "image" else None)
    own = plan.loss is not None and plan.loss.startswith((OBJECT, PYTHON))
    judged = task_for(graft, opened, plan.model_copy(update={"loss": None}) if own else plan, device=device)
    return feed_for(graft, opened, plan, preprocess, train=True, device=device), judged


def _preparation(graft: Graft) -> Preprocess:
    """Take the base's own preparation of images, or a plain one, for its input."""
    shape = graft.input_shape
    if shape is None or len(shape) != 3 or shape[0] not in (1, 3):
        raise DataError(
            f"{graft.name} does not take images: its input is {list(shape or ())}",
            where="train.data",
            hint="profile it with random inputs: --fake",
        )
    known = graft.preprocess or Preprocess(size=(shape[1], shape[2]))
    return known.with_size((shape[1], shape[2])).with_channels(1 if shape[0] == 1 else 3)


LOSSES = {
    "classes": "cross-entropy",
    "labels": "binary cross-entropy",
    "regression": "mean squares",
    "mask": "cross-entropy of the pixels",
    "several": "the sum over the outputs",
}
"""What each task takes."""


def _facts(plan: TrainPlan, judged: Judge | None) -> tuple[tuple[str, str], ...]:
    data = judged is not None
    workers = f", {plan.workers} worker{'s' if plan.workers != 1 else ''}" if data else ""
    return (
        ("batch", f"{plan.batch}, {plan.accumulate} of them a step" if plan.accumulate > 1 else str(plan.batch)),
        *([("checkpointing", ", ".join(plan.checkpointing))] if plan.checkpointing else []),
        ("data", f"{plan.data}{workers}" if data else f"random, in place of {plan.data}"),
        ("optimizer", plan.optimizer.name),
        ("precision", plan.precision),
        ("loss", LOSSES[judged.kind] if judged is not None else "cross-entropy"),
    )
