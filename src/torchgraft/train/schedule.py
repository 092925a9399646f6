"""The learning rates over the steps of a training."""

from __future__ import annotations

import math

import torch

from torchgraft.errors import TrainError
from torchgraft.trainplan import Schedule, TrainPlan

__all__ = ["Course", "schedule_of"]


class Course:
    """The share of its rate that every group has at a step; what a plateau has taken off is part of its state.

    Args:
        plan: says the schedule and the warm-up.
        total: optimizer steps of the whole training.
        per_epoch: optimizer steps of one epoch; 0 where nobody knows.

    Raises:
        TrainError: rates are to fall every so many epochs, and nobody knows how long one is.
    """

    def __init__(self, plan: TrainPlan, total: int, per_epoch: int) -> None:
        one_cycle = plan.schedule.name == "one_cycle"
        self.schedule, self.total = plan.schedule, total
        self.rise = 0 if one_cycle or not plan.warmup else max(round(plan.warmup * total), 1)
        self.every = _every(plan, total, per_epoch)
        self.taken = 1.0
        self.best, self.waited = math.inf, 0

    def __call__(self, step: int) -> float:
        """Give the share at a step, from 0."""
        if step < self.rise:
            return (step + 1) / self.rise
        return self.taken * self._fall(step)

    def _fall(self, step: int) -> float:
        name = self.schedule.name
        if name == "cosine":
            gone = min((step - self.rise) / max(self.total - self.rise, 1), 1.0)
            return _between(1.0, self.schedule.floor, gone)
        if name == "one_cycle":
            return _cycle(self.schedule, step, self.total)
        if name == "step":
            return self.schedule.factor ** (step // self.every)
        return 1.0

    def judged(self, loss: float) -> bool:
        """Hear the validation loss of an epoch; a plateau may take something off. Tells whether it did."""
        if self.schedule.name != "plateau":
            return False
        self.best, self.waited = (loss, 0) if loss < self.best else (self.best, self.waited + 1)
        if self.waited <= self.schedule.patience:
            return False
        self.taken, self.waited = self.taken * self.schedule.factor, 0
        return True

    def state(self) -> dict[str, float]:
        """Give what it remembers."""
        return {"taken": self.taken, "best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, float]) -> None:
        """Remember again what `state` gave."""
        self.taken, self.best, self.waited = state["taken"], state["best"], int(state["waited"])


def _every(plan: TrainPlan, total: int, per_epoch: int) -> int:
    """Count the steps from one fall of `step` to the next."""
    every = plan.schedule.every
    if every is None:
        return max(total // 3 if plan.steps is not None else max(plan.epochs // 3, 1) * per_epoch, 1)
    if not per_epoch and plan.schedule.name == "step":
        raise TrainError(
            f"rates can't fall every {every} epochs: nobody knows how long an epoch is",
            where="train.schedule",
            hint="leave `every` out: a third of all steps; or take another schedule",
        )
    return max(every * per_epoch, 1)


def _between(start: float, end: float, gone: float) -> float:
    """Go from one share to another along half a cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * gone))


def _cycle(schedule: Schedule, step: int, total: int) -> float:
    """Rise from `start` to 1 and fall to `floor`, on the steps of torch's OneCycleLR."""
    peak = schedule.rise * total - 1
    if step <= peak:
        return _between(schedule.start, 1.0, step / max(peak, 1))
    return _between(1.0, schedule.floor, min((step - max(peak, 0)) / max(total - 1 - max(peak, 0), 1), 1.0))


def schedule_of(
    plan: TrainPlan, optimizer: torch.optim.Optimizer, total: int, per_epoch: int = 1
) -> tuple[torch.optim.lr_scheduler.LambdaLR, Course]:
    """Put the course of a plan onto the groups of an optimizer, by torch's own schedule of that kind."""
    course = Course(plan, total, per_epoch)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, course), course
