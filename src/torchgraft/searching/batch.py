"""The batch-size search: predicted by the memory model, proved by training, advised by speed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["BatchSearch", "Size", "advised", "ladder", "proved"]

NEAR = 0.95
"""A batch is as fast as the fastest from this share of its samples a second on."""

LINEAR = frozenset({"sgd", "asgd"})
"""Optimizers whose step is the rate times the gradient; the others divide by what gradients were."""


@dataclass(frozen=True)
class Size:
    """One size of a batch.

    Attributes:
        batch: samples.
        predicted: bytes at the peak; None where they were not asked for.
        peak: bytes at the peak of two steps that were really run; None where they were not.
        fits: whether they fit.
        speed: samples a second of the training step, without reading data; None where it was not measured.
    """

    batch: int
    predicted: int | None
    peak: int | None
    fits: bool
    speed: float | None = None


@dataclass(frozen=True)
class BatchSearch:
    """Which batches fit, and which of them is worth its memory.

    Attributes:
        name: of the model.
        place: where it has to fit, in words.
        largest: the largest batch that fits; 0 where none does.
        power: the largest power of two that does.
        fastest: the smallest batch that is as fast as any that was tried, to 5 %; 0 where none was timed.
        advised: that which to take: the plan's own where it is as fast, else the fastest; the largest power of two
            where none was timed.
        proved: two steps of the largest were really run; else it is predicted alone.
        samples: there are to train on; a batch is never larger. 0 where nobody knows.
        own: the plan's batch.
        accumulate: batches of one optimizer step in the plan.
        optimizer: of the plan, by name.
        rate: of the optimizer in the plan.
        sizes: that were tried, small ones first.
    """

    name: str
    place: str
    largest: int
    power: int
    fastest: int
    advised: int
    proved: bool
    samples: int
    own: int
    accumulate: int
    optimizer: str
    rate: float
    sizes: tuple[Size, ...]

    @property
    def rule(self) -> str:
        """How the rate goes with the batch: `linear` (Goyal et al., 2017) for SGD; `square root` for optimizers
        that divide by the size of the gradient (Malladi et al., 2022)."""
        return "linear" if self.optimizer in LINEAR else "square root"

    @property
    def scaled(self) -> float:
        """The rate that goes with the advised batch by the rule."""
        factor = self.advised / self.own if self.own else 1.0
        return float(f"{self.rate * (factor if self.rule == 'linear' else math.sqrt(factor)):.2g}")

    def advice(self) -> list[str]:
        """Say what to do."""
        if not self.largest:
            return ["not even one sample fits: torchgraft memory tells what would help"]
        fits = f"fits up to {self.largest}{'' if self.proved else ' by prediction: it was not run here'}"
        whole = " (all samples that there are)" if self.largest == self.samples else ""
        fast = f"; as fast as any that was tried from {self.fastest} on" if self.fastest else ""
        lines = [f"{fits}{whole}{fast}", f"advised: train.batch = {self.advised}  (the plan has {self.own})"]
        if self.advised != self.own and self.rate:
            source = "Goyal et al., 2017" if self.rule == "linear" else "Malladi et al., 2022"
            lines.append(
                f"with it, by the {self.rule} rule for {self.optimizer} ({source}): lr {self.scaled:g} "
                f"instead of {self.rate:g}, groups alike; torchgraft find rate measures it"
            )
        return lines

    def as_data(self) -> dict[str, Any]:
        """Give all of it as plain data, for JSON."""
        return {**asdict(self), "rule": self.rule, "scaled": self.scaled, "advice": self.advice()}

    def __str__(self) -> str:
        from torchgraft.searching.sketch import batch_text

        return batch_text(self)


def proved(most: int, runs: Callable[[int], bool], *, tries: int = 6) -> int:
    """Find the largest batch that really runs, from a prediction on: at the first failure halve, then close in.

    Args:
        most: the predicted largest.
        runs: runs a batch and tells whether it fitted.
        tries: how often it closes in at the most, after it halved.

    Returns:
        the largest batch that ran; 0 where none did.
    """
    low, high = most, most + 1
    while low and not runs(low):
        low, high = low // 2, low
    for _ in range(tries):
        if not low or high - low <= max(low // 50, 1):
            break
        middle = (low + high) // 2
        low, high = (middle, high) if runs(middle) else (low, middle)
    return low


def ladder(largest: int, own: int) -> list[int]:
    """Give the batches whose speed is measured: eight powers of two at most, the plan's own, and the largest."""
    powers = [2**n for n in range(1, largest.bit_length()) if 2**n <= largest]
    return sorted({*powers[-8:], largest, min(own, largest)} - {0})


def advised(sizes: Sequence[Size], own: int) -> int:
    """Give the smallest batch that is as fast as any; the plan's own where it is; 0 where no speed is known."""
    speeds = {one.batch: one.speed for one in sizes if one.fits and one.speed is not None}
    if not speeds:
        return 0
    fast = [batch for batch, speed in speeds.items() if speed >= NEAR * max(speeds.values())]
    return own if own in fast else min(fast)
