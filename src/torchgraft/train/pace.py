"""How a training goes: smoothed loss, samples a second, seconds that are left, from what the loop tells."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from torchgraft.train.watch import Begin, Moment

__all__ = ["Pace", "Progress", "Smooth"]

WINDOW = 10.0
"""Speed is that of the last so many seconds of training."""


class Smooth:
    """A mean that forgets, without the pull to zero at its start (Kingma and Ba, 2015, section 3).

    Args:
        keep: the share of the old mean that stays at each new number; 0.98 looks back about 50 numbers.
    """

    __slots__ = ("_keep", "_sum", "_weight")

    def __init__(self, keep: float = 0.98) -> None:
        self._keep, self._sum, self._weight = keep, 0.0, 0.0

    def add(self, number: float) -> None:
        """Take a number in."""
        keep = self._keep
        self._sum = keep * self._sum + (1.0 - keep) * number
        self._weight = keep * self._weight + 1.0 - keep

    @property
    def value(self) -> float:
        """The mean; nan before the first number."""
        return self._sum / self._weight if self._weight else float("nan")


@dataclass(frozen=True)
class Progress:
    """Where a training is.

    Attributes:
        epoch: that is run, from 1.
        epochs: how many there will be.
        step: batches of the epoch that are done.
        steps: batches of the epoch; 0 where nobody knows.
        number: optimizer steps done, those before a stop included.
        total: optimizer steps of the whole training; 0 where nobody knows.
        loss: smoothed over about 50 batches.
        lr: the largest learning rate.
        speed: samples a second, in training; nan where nobody knows yet.
        left: seconds to the end of the whole training; None where nobody knows yet.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    number: int
    total: int
    loss: float
    lr: float
    speed: float
    left: float | None

    @property
    def share(self) -> float:
        """The share of the whole training that is done; 0 where nobody knows how long it is."""
        return min(self.number / self.total, 1.0) if self.total else 0.0

    @property
    def long(self) -> float | None:
        """Seconds that the steps of one epoch take; None where nobody knows."""
        if self.left is None or not self.total or self.number >= self.total:
            return None
        return self.left / (self.total - self.number) * self.total / max(self.epochs, 1)


class Pace:
    """Measures a training as it goes; a step costs it less than a microsecond.

    The clock stands still while an epoch is judged: that time is counted by itself, once for every epoch that is
    still to be judged.

    Args:
        begin: what is trained.
        clock: gives seconds.
    """

    def __init__(self, begin: Begin, clock: Callable[[], float] = time.perf_counter) -> None:
        self.begin, self._clock = begin, clock
        self._smooth = Smooth()
        self._samples = 0
        self._last: Moment | None = None
        self._seen: deque[tuple[float, int, int]] = deque([(clock(), 0, begin.done)])
        self._away = 0.0
        self._judging, self._done = 0.0, begin.epoch - 1
        self._fresh = True

    def step(self, moment: Moment) -> None:
        """Hear of a batch."""
        self._smooth.add(moment.loss)
        self._samples += moment.samples
        if self._fresh:  # the first step warms everything up, so that speed is counted from its end
            self._fresh = False
            self._seen = deque([(self._clock() - self._away, self._samples, moment.number)])
        self._last = moment

    def mark(self) -> None:
        """Note the time; called after a step, some times a second at most."""
        last = self._last
        if last is None:
            return
        now = self._clock() - self._away
        self._seen.append((now, self._samples, last.number))
        while len(self._seen) > 2 and now - self._seen[1][0] > WINDOW:
            self._seen.popleft()

    def judged(self, seconds: float) -> None:
        """Hear how long the judging of an epoch took."""
        self._away += seconds
        self._judging = seconds
        self._done += 1

    def now(self) -> Progress:
        """Say where the training is."""
        begin, last = self.begin, self._last
        number = last.number if last else begin.done
        return Progress(
            epoch=last.epoch if last else begin.epoch,
            epochs=begin.epochs,
            step=last.step if last else 0,
            steps=last.steps if last else begin.steps,
            number=number,
            total=begin.total,
            loss=self._smooth.value,
            lr=last.lr if last else float("nan"),
            speed=self._speed(),
            left=self._left(number),
        )

    def _speed(self) -> float:
        (since, before, _), (now, after, _) = self._seen[0], self._seen[-1]
        return (after - before) / (now - since) if now > since and after > before else float("nan")

    def _left(self, number: int) -> float | None:
        (since, _, before), (now, _, after) = self._seen[0], self._seen[-1]
        if after <= before or not self.begin.total:
            return None
        steps = max(self.begin.total - number, 0)
        return (now - since) / (after - before) * steps + self._judging * max(self.begin.epochs - self._done, 0)
