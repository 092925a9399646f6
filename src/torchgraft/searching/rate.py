"""The learning-rate range test: raise the rate at every step, and see where the loss falls and where it breaks.

Smith (2017), "Cyclical learning rates for training neural networks", section 3.3; as Gugger and Howard do it: the
rate grows by a constant factor each step, and the test ends when the loss is four times the best.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from torchgraft.errors import TrainError
from torchgraft.params.still import train_mode
from torchgraft.train.pace import Smooth

if TYPE_CHECKING:
    from torchgraft.train.feed import Batch
    from torchgraft.train.session import Session

__all__ = ["RateSearch", "judged", "range_test"]

BREAK = 4.0
"""The test ends where the smoothed loss is so many times the best."""

FALLEN = 0.95
"""The fall of the loss is as good as over after this share of it."""

FIRST = 10
"""So many steps are taken at least."""


@dataclass(frozen=True)
class RateSearch:
    """What a range test found. All rates are those of the optimizer; groups keep their ratio to it.

    Attributes:
        rates: that were tried, in order.
        losses: of the step at each rate; the mean over its batches.
        smooth: the same, smoothed over neighbouring rates on both sides, so that nothing is shifted.
        broke: the loss blew up before the last rate.
        own: the optimizer's rate in the plan.
        groups: the other rates of the plan, by what they are of.
        steepest: the rate at which the loss falls fastest per decade (Gugger, 2018).
        tenth: a tenth of the rate at which the fall is as good as over (`FALLEN`); fastai's `minimum` takes that
            of the least loss, which is anywhere where a model has learnt all there is before the rate is too high.
        valley: the middle of the longest fall (fastai's `valley`).
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smooth: tuple[float, ...]
    broke: bool
    own: float
    groups: tuple[tuple[str, float], ...]
    steepest: float
    tenth: float
    valley: float

    @property
    def suggestion(self) -> float:
        """The rate to take, with two digits: that of the steepest fall.

        In short trainings it came nearest to the best of a grid of rates; `valley` was ten times lower, and learnt
        little in the same time. docs/train.md has the figures.
        """
        return rounded(self.steepest)

    @property
    def factor(self) -> float:
        """What every rate of the plan is multiplied by for the suggestion."""
        return self.suggestion / self.own

    @property
    def scaled(self) -> tuple[tuple[str, float], ...]:
        """The rates of the groups that go with the suggestion."""
        return tuple((name, rounded(rate * self.factor)) for name, rate in self.groups)

    def as_data(self) -> dict[str, Any]:
        """Give all of it as plain data, for JSON."""
        names = ("rates", "losses", "smooth")
        lists = {name: list(getattr(self, name)) for name in names}
        marks = {name: getattr(self, name) for name in ("steepest", "tenth", "valley", "suggestion", "own")}
        return {**marks, "groups": dict(self.scaled), "broke": self.broke, **lists}

    def __str__(self) -> str:
        from torchgraft.searching.sketch import rate_text

        return rate_text(self)


def rounded(value: float) -> float:
    """Keep two digits: a range test knows no more."""
    return float(f"{value:.1e}")


def range_test(session: Session, *, low: float, high: float, steps: int) -> tuple[list[float], list[float], bool]:
    """Train at rates from `low` to `high`, one optimizer step each, until the loss breaks.

    Args:
        session: that is spoilt by it.
        low: the first rate of the optimizer; every group has its own ratio to it.
        high: the last one.
        steps: how many rates.

    Returns:
        the rates, the losses, and whether the loss broke before the end.

    Raises:
        TrainError: the first step can't be taken.
    """
    own = reference(session)
    ratios = [group.get("initial_lr", group["lr"]) / own for group in session.optimizer.param_groups]
    rates: list[float] = []
    losses: list[float] = []
    smooth, best = Smooth(0.9), math.inf
    train_mode(session.model)
    batches = _endless(session)
    for step in range(steps):
        rate = low * (high / low) ** (step / max(steps - 1, 1))
        try:
            loss = _step(session, batches, [rate * ratio for ratio in ratios])
        except TrainError:
            if not losses:
                raise
            return rates, losses, True
        rates.append(rate)
        losses.append(loss)
        smooth.add(loss)
        best = min(best, smooth.value) if step >= FIRST else best
        if step >= FIRST and smooth.value > BREAK * best:
            return rates, losses, True
    return rates, losses, False


def reference(session: Session) -> float:
    """Give the rate that all others are told by: the optimizer's own, or the largest where that is 0.

    Raises:
        TrainError: every rate is 0.
    """
    largest = max(group.get("initial_lr", group["lr"]) for group in session.optimizer.param_groups)
    own = session.plan.optimizer.lr or largest
    if not own:
        raise TrainError(
            "every learning rate is 0", where="train.optimizer", hint="give one, such as adamw: {lr: 0.001}"
        )
    return float(own)


def _endless(session: Session) -> Iterator[Batch]:
    """Give the batches of one epoch after the other."""
    epoch = 1
    while True:
        session.batch = 0
        empty = True
        for batch in session.feeds.train.batches(epoch):
            empty = False
            yield batch
        if empty:
            raise TrainError("there are no training samples", where="train.data", hint="name other data")
        epoch += 1


def _step(session: Session, batches: Iterator[Batch], rates: Sequence[float]) -> float:
    """Take one optimizer step at given rates, and give the mean loss of its batches."""
    number, losses = session.number, []
    while session.number == number:
        batch = next(batches)
        for group, rate in zip(session.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate  # before each batch, since the schedule sets its own after each step
        losses.append(session.step(batch).loss)
    return math.fsum(losses) / len(losses)


def judged(
    rates: Sequence[float],
    losses: Sequence[float],
    *,
    broke: bool,
    own: float,
    groups: Sequence[tuple[str, float]],
) -> RateSearch:
    """Read the suggestions off the losses.

    Raises:
        TrainError: there are too few, or the loss falls nowhere.
    """
    if len(losses) < FIRST:
        raise TrainError(
            f"the loss broke after {len(losses)} steps, at a rate of {rates[-1] if rates else 0:.1e}",
            where="rate",
            hint="begin lower: --low 1e-9; or look at the data and the loss",
        )
    logs = np.log10(np.asarray(rates))
    smooth = smoothed(np.asarray(losses))
    least = int(smooth.argmin())
    if least == 0 or smooth[least] > smooth[0] * 0.99:
        raise TrainError(
            "the loss falls at no rate",
            where="rate",
            hint="look at the data and the loss, at what is frozen, or take more steps: --steps 300",
        )
    over = int((smooth <= smooth[least] + (smooth[0] - smooth[least]) * (1 - FALLEN)).argmax())
    slopes = np.gradient(smooth[: least + 1], logs[: least + 1])
    return RateSearch(
        rates=tuple(rates),
        losses=tuple(losses),
        smooth=tuple(float(one) for one in smooth),
        broke=broke,
        own=own,
        groups=tuple(groups),
        steepest=float(rates[int(slopes.argmin())]),
        tenth=float(rates[over]) / 10,
        valley=float(rates[_valley(smooth)]),
    )


def smoothed(losses: np.ndarray[Any, Any], width: float = 3.0) -> np.ndarray[Any, Any]:
    """Smooth by a Gaussian over neighbours on both sides; a mean of the past alone would shift every mark up."""
    places = np.arange(len(losses))
    weights = np.exp(-0.5 * ((places[:, None] - places[None, :]) / width) ** 2)
    made: np.ndarray[Any, Any] = weights @ losses / weights.sum(axis=1)
    return made


def _valley(losses: np.ndarray[Any, Any]) -> int:
    """Give the middle of the longest fall, as fastai.callback.schedule.valley has it.

    The fall may leave out places between: it is the longest decreasing subsequence, taken as one stretch.
    """
    lengths = [1] * len(losses)
    for place in range(1, len(losses)):
        longest = [lengths[before] for before in range(place) if losses[place] < losses[before]]
        lengths[place] = 1 + max(longest, default=0)
    end = int(np.argmax(lengths))
    start = max(end - lengths[end], 0)
    return start + (end - start) // 2
