"""A training as its loop tells it, without one."""

from __future__ import annotations

from dataclasses import replace

from torchgraft.history import Epoch, History
from torchgraft.train.watch import Begin, Moment, Watch

BEGIN = Begin(
    epochs=3, steps=4, total=12, done=0, epoch=1, samples=32, batch=8, effective=8, processes=1, device="cpu",
    metric="accuracy", higher=True, rates=lambda: {"fc": 0.01, "rest": 0.001},
)  # fmt: skip


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def moment(number: int, *, steps: int = 4, loss: float | None = None, norm: float | None = 1.5) -> Moment:
    """Give the batch that closes an optimizer step; its loss tells which it is."""
    epoch, step = (number - 1) // steps + 1, (number - 1) % steps + 1
    return Moment(epoch, step, steps, number, 1.0 / number if loss is None else loss, 0.01, 8, norm)


def epoch(number: int) -> Epoch:
    """Give the figures of an epoch."""
    return Epoch(
        number=number, train_loss=1.0 / number, val_loss=2.0 / number, train={"accuracy": 0.5},
        val={"accuracy": 0.2 * number, "mae": 3.25}, lr=0.01, seconds=1.5,
    )  # fmt: skip


def run(watch: Watch, *, first: int = 1, last: int = 12, begin: Begin = BEGIN, ended: str = "finished") -> None:
    """Tell the steps `first` to `last`, and the epochs that end there."""
    watch.begin(replace(begin, done=first - 1))
    for number in range(first, last + 1):
        watch.step(moment(number))
        if number % 4 == 0:
            watch.epoch(epoch(number // 4))
    epochs = tuple(epoch(one) for one in range(1, last // 4 + 1))
    if ended != "killed":
        watch.end(History(epochs=epochs, best=len(epochs), ended=ended, seconds=1.0))
