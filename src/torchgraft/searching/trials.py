"""Steps of a training that are really taken, to see what they need and how fast they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchgraft.errors import TrainError
from torchgraft.memory.measure import measured
from torchgraft.params.still import train_mode
from torchgraft.searching.sessions import tried
from torchgraft.trace.tree import mapped
from torchgraft.train.feed import Batch
from torchgraft.train.loop import device_of

if TYPE_CHECKING:
    from torchgraft.plan import Planned
    from torchgraft.train.session import Session

__all__ = ["Trials"]

TIMED = (3, 10)
"""So many steps are timed after the first at least, and at most."""

ENOUGH = 0.5
"""No more steps are timed once they took so many seconds together."""


class Trials:
    """Trains a planned model on batches of any size, made of samples of its data again and again.

    Args:
        job: what is trained; its model is as it was after each trial.

    Raises:
        TrainError: there are no training samples.
    """

    def __init__(self, job: Planned) -> None:
        self.job = job
        self.device = device_of(job.train)
        with tried(job, job.train) as session:
            first = next(iter(session.feeds.train.batches(1)), None)
        if first is None:
            raise TrainError("there are no training samples", where="train.data", hint="name other data")
        self._first = first

    def batch(self, size: int) -> Batch:
        """Make a batch of a size."""
        rows = torch.arange(size) % self._first.count

        def sized(one: Tensor) -> Tensor:
            many = one.dim() > 0 and one.shape[0] == self._first.count
            return one[rows.to(one.device)] if many else one

        inputs, targets = mapped(sized, (self._first.inputs, self._first.targets))
        return Batch(inputs, targets, whole=size)

    def peak(self, size: int) -> int | None:
        """Give the bytes of tensors at the peak of two steps; None where a device has no memory left for them."""
        if self.device.type == "cpu":
            inputs = self.batch(size).inputs
            given = inputs if isinstance(inputs, (dict, tuple)) else (inputs,)
            plan = self.job.train.model_copy(update={"augment": "none"})
            return measured(self.job.graft, plan, given).peak()
        return self._allocated(size)

    def _allocated(self, size: int) -> int | None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        try:
            self._steps(size, (2, 2))
        except torch.OutOfMemoryError:
            return None
        finally:
            torch.cuda.empty_cache()
        return int(torch.cuda.max_memory_allocated(self.device))

    def speed(self, size: int) -> float | None:
        """Give the samples a second of the fastest training step, since what else runs here only slows it down;
        None where a device has no memory left for it."""
        try:
            return size / min(self._steps(size, (1 + TIMED[0], 1 + TIMED[1]))[1:])
        except torch.OutOfMemoryError:
            return None

    def _steps(self, size: int, counts: tuple[int, int]) -> list[float]:
        """Take optimizer steps at a rate of zero, and give the seconds of each.

        Args:
            size: samples of each.
            counts: how many at least, and at most.
        """
        plan = self.job.train.model_copy(update={"batch": size, "accumulate": 1})
        seconds: list[float] = []
        with tried(self.job, plan) as session:
            session.turns = []
            train_mode(session.model)
            batch = self.batch(size)
            while len(seconds) < counts[0] or (len(seconds) < counts[1] and sum(seconds) < ENOUGH):
                seconds.append(self._timed(lambda: _step(session, batch)))
        return seconds

    def _timed(self, call: Callable[[], object]) -> float:
        self._wait()
        start = time.perf_counter()
        call()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _step(session: Session, batch: Batch) -> None:
    for group in session.optimizer.param_groups:
        group["lr"] = 0.0
    session.batch = 0
    session.step(batch)
