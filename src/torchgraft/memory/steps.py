"""The steps that memory is counted over: what the training loop does, on a model of fake or of real tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torchgraft.memory.counter import Counter
from torchgraft.memory.course import Course, of_kinds
from torchgraft.memory.loss import Judge
from torchgraft.params.still import train_mode
from torchgraft.probes.loss import main_of
from torchgraft.recipe import TrainPlan
from torchgraft.trace.tree import tensors
from torchgraft.train.checkpointing import checkpointed
from torchgraft.train.optimise import optimizer_class, optimizer_of
from torchgraft.train.step import Stepper

__all__ = ["STEPS", "Job", "again", "walk"]

STEPS = 2
"""Optimizer steps that are counted: the first makes the state of the optimizer, the second is like all others."""


@dataclass
class Job:
    """What is trained.

    Attributes:
        model: of fake or of real tensors; it may be spoilt.
        plan: how.
        groups: of the optimizer, over parameters of the model.
        given: makes one batch: positional arguments, arguments by name, and what the loader holds beside them.
        judge: gives the loss.
        device: where the tensors are, or are said to be.
        again: modules whose activations are computed again.
        fakes: the tensors have no values.
        accelerated: the optimizer works on all parameters at once, as it does on a GPU.
    """

    model: nn.Module
    plan: TrainPlan
    groups: list[Mapping[str, Any]]
    given: Callable[[], tuple[tuple[Any, ...], dict[str, Any], Any]]
    judge: Judge
    device: torch.device
    again: Iterable[nn.Module] = ()
    fakes: bool = True
    accelerated: bool = False

    @property
    def together(self) -> int:
        """Count the batches of one optimizer step that are run: a third would find what the second found."""
        return min(self.plan.accumulate, 2)

    def optimizer(self) -> torch.optim.Optimizer:
        """Build the optimizer; on a GPU torch takes the form that works on lists of tensors."""
        settings = dict(self.plan.optimizer.settings)
        takes = inspect.signature(optimizer_class(self.plan.optimizer.name)).parameters
        if self.accelerated and "foreach" in takes and not settings.get("fused"):
            settings.setdefault("foreach", True)
        made = self.plan.optimizer.model_copy(update={"settings": settings})
        return optimizer_of(self.plan.model_copy(update={"optimizer": made}), self.groups)


def walk(job: Job, counter: Counter) -> None:
    """Train for some steps as the loop does, and let a counter see it."""
    _see_model(job.model, counter)
    train_mode(job.model)
    optimizer = job.optimizer()
    stepper = Stepper(job.plan, optimizer, job.device, scaled=not job.fakes)
    together = job.together
    scores: Any = None  # the loop has those of the last batch until the next is done
    with checkpointed(job.again):
        for number in range(STEPS * together):
            counter.step, counter.phase = number // together + 1, "load"
            batch = job.given()
            counter.name(tensors(batch), "batch", "")
            closes = number % together == together - 1
            scores = _step(job, batch, stepper, counter, opens=number % together == 0, closes=closes)
        counter.stop()
    del scores


def again(job: Job, counter: Counter, known: Course) -> int:
    """Run one step like all but the first, with the optimizer's part taken from a course that was counted before.

    Args:
        job: what is trained; its optimizer and its trained weights are those of `known`.
        counter: sees it.
        known: whose optimizer is taken over.

    Returns:
        bytes that the loop holds meanwhile of the step before.
    """
    _see_model(job.model, counter)
    train_mode(job.model)
    counter.step, counter.phase = 1, "optimizer"
    counter.assume(of_kinds(known.standing(), "optimizer"))
    stepper = Stepper(job.plan, torch.optim.SGD(job.model.parameters()), job.device, scaled=False)
    scores: Any = None
    with checkpointed(job.again):
        for number in range(job.together):
            counter.phase = "load"
            batch = job.given()
            counter.name(tensors(batch), "batch", "")
            scores = _step(job, batch, stepper, counter, opens=number == 0, closes=False)
        counter.phase = "optimizer"
        counter.bump(known.bump())
        counter.stop()
    return 0 if job.together > 1 else int(scores.untyped_storage().nbytes())


def _step(job: Job, batch: Any, stepper: Stepper, counter: Counter, *, opens: bool, closes: bool) -> Tensor:
    """Run what the loop does with one batch."""
    args, kwargs, _ = batch
    if opens:
        stepper.open()
    counter.phase = "forward"

    def judged(output: Any) -> Tensor:
        counter.phase = "loss"
        value = job.judge(output, batch[:2])
        counter.name(tensors(job.judge.made), "batch", "")
        return value

    output, loss = stepper.forward(lambda: job.model(*args, **kwargs), judged)
    counter.keep()
    counter.phase = "backward"
    stepper.backward(loss, 1 / job.together)
    for name, one in job.model.named_parameters():
        if one.grad is not None:
            counter.name([one.grad], "gradients", _home(name))
    if closes:
        _move(job.model, stepper, counter)
    return main_of(output).detach()


def _move(model: nn.Module, stepper: Stepper, counter: Counter) -> None:
    counter.phase = "optimizer"
    stepper.close()
    for name, one in model.named_parameters():
        counter.name(tensors(dict(stepper.optimizer.state.get(one, {}))), "optimizer", _home(name))


def _see_model(model: nn.Module, counter: Counter) -> None:
    for name, one in model.named_parameters():
        counter.name([one], "weights", _home(name))
    for name, held in model.named_buffers():
        counter.name([held], "buffers", _home(name))


def _home(name: str) -> str:
    return name.rpartition(".")[0]
