"""What a training tells while it runs, as plain data; whoever wants it hands over functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchgraft.history import Epoch, History

if TYPE_CHECKING:
    from pathlib import Path

    from torchgraft.rules import Finding

__all__ = ["SILENT", "Begin", "Moment", "Watch", "both"]


@dataclass(frozen=True)
class Begin:
    """What is about to be trained.

    Attributes:
        epochs: how many there will be.
        steps: batches of one epoch; 0 where nobody knows.
        total: optimizer steps of the whole training.
        done: optimizer steps that were done before, where a training is resumed.
        epoch: the first that is run, from 1.
        samples: to train on; 0 where nobody knows.
        batch: samples of one pass, over all processes.
        effective: samples of one optimizer step, over all processes.
        processes: that train together.
        device: what this one computes on.
        metric: what states are judged by.
        higher: whether more of it is better.
        rates: gives the learning rate of each group by its name, as it is when it is asked.
    """

    epochs: int
    steps: int
    total: int
    done: int
    epoch: int
    samples: int
    batch: int
    effective: int
    processes: int
    device: str
    metric: str
    higher: bool
    rates: Callable[[], Mapping[str, float]] = dict


@dataclass(frozen=True, slots=True)
class Moment:
    """One batch that was trained on.

    Attributes:
        epoch: from 1.
        step: the batch in the epoch, from 1.
        steps: batches of the epoch; 0 where nobody knows.
        number: optimizer steps done, those before a stop included.
        loss: of the batch.
        lr: the largest learning rate, as it was at this batch.
        samples: of the batch, over all processes.
        norm: of all gradients before clipping; None where no optimizer step closed here.
    """

    epoch: int
    step: int
    steps: int
    number: int
    loss: float
    lr: float
    samples: int
    norm: float | None


@dataclass(frozen=True)
class Watch:
    """Functions that are called while a training runs, in the process that writes; each may be left out.

    Attributes:
        begin: before the first step.
        step: after each batch.
        epoch: after each epoch.
        saved: when the state of a training that was stopped is whole on the disk, with its place.
        found: when something is wrong, with the finding.
        end: after the last epoch, or Ctrl-C.
        note: with a sentence about how it is trained, such as what is computed once.
    """

    begin: Callable[[Begin], object] = lambda _: None
    step: Callable[[Moment], object] = lambda _: None
    epoch: Callable[[Epoch], object] = lambda _: None
    saved: Callable[[Path], object] = lambda _: None
    found: Callable[[Finding], object] = lambda _: None
    end: Callable[[History], object] = lambda _: None
    note: Callable[[str], object] = lambda _: None


SILENT = Watch()


def both(one: Watch, other: Watch) -> Watch:
    """Tell two, the first one first."""

    def chained(first: Callable[..., object], second: Callable[..., object]) -> Callable[..., object]:
        def call(news: object) -> None:
            first(news)
            second(news)

        return call

    names = ("begin", "step", "epoch", "saved", "found", "end", "note")
    return Watch(**{name: chained(getattr(one, name), getattr(other, name)) for name in names})
