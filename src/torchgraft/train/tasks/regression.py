"""Quantities: mean squares, and how far predictions lie from the truth in the units of the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from torchgraft.train.task import LOSS, Kind, Meter
from torchgraft.train.tasks.outputs import main_of
from torchgraft.train.tasks.single import Given, Single
from torchgraft.train.tasks.sums import mean

__all__ = ["Regression", "fitted"]


class Regression(Single):
    """One quantity or several.

    Args:
        count: of the quantities.
        spread: the standard deviation of each quantity among the training samples, by whose square its part of
            the loss is divided: quantities of different units then count alike, and 1 is the loss of always
            guessing the mean. 1 where it is left out.
        device: where the outputs will be.
        given: a loss in the place of mean squares.
    """

    kind: Kind = "regression"
    metric = "rmse"
    higher = False
    names = ("rmse", "mae", "r2", LOSS)

    def __init__(
        self,
        count: int,
        *,
        spread: Sequence[float] = (),
        device: torch.device | None = None,
        given: Given | None = None,
    ) -> None:
        self.count, self.device, self.given = count, device, given
        scale = [1 / one if one > 0 and math.isfinite(one) else 1.0 for one in spread]
        self.scale = torch.tensor(scale, device=device) if scale else None

    def one(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Give the mean squares in fp32; targets are `[N]` or `[N, Q]`, as many numbers as the outputs have."""
        scores, wanted = scores.float(), fitted(scores, targets)
        if self.scale is None:
            return functional.mse_loss(scores, wanted)
        return functional.mse_loss(scores * self.scale, wanted * self.scale)

    def meter(self, *, train: bool = False) -> Meter:
        """Sum up errors; both kinds cost next to nothing."""
        return _Errors(self.count, self.device)

    def answers(self, output: Any) -> dict[str, Any]:
        """Give the quantities, `[N, Q]`."""
        scores = main_of(output).float()
        return {"values": scores.reshape(len(scores), -1).tolist()}


def fitted(scores: Tensor, targets: Tensor) -> Tensor:
    """Give targets the shape of the outputs, as far as they have as many numbers, and fp32."""
    wanted = targets.to(torch.float32)
    return wanted if wanted.shape == scores.shape else wanted.reshape(scores.shape)


class _Errors(Meter):
    """Sums of errors, their squares, the truth and its squares, and how many: all that the figures take."""

    def __init__(self, count: int, device: torch.device | None) -> None:
        exact = torch.float32 if device is not None and device.type == "mps" else torch.float64
        self.sum = torch.zeros(5, count, dtype=exact, device=device)

    def add(self, output: Any, targets: Tensor) -> None:
        scores = main_of(output).detach()
        rows = scores.to(self.sum).reshape(len(scores), -1)
        wanted = targets.to(self.sum).reshape(rows.shape)
        error = rows - wanted
        parts = torch.stack([error.abs(), error.square(), wanted, wanted.square(), torch.ones_like(wanted)])
        self.sum += parts.sum(1)

    def sums(self) -> dict[str, Tensor]:
        return {"errors": self.sum}

    def figures(self) -> dict[str, float]:
        every = [_figures(*column) for column in zip(*self.sum.tolist(), strict=True)]
        return {name: mean([one[name] for one in every]) for name in ("rmse", "mae", "r2")}


def _figures(off: float, squares: float, truth: float, power: float, count: float) -> dict[str, float]:
    """Give the figures of one quantity; R² is 1 less the share of the variance that is left over."""
    if not count:
        return {"rmse": math.nan, "mae": math.nan, "r2": math.nan}
    varied = power - truth * truth / count
    left = 1 - squares / varied if varied > 0 else math.nan
    return {"rmse": math.sqrt(squares / count), "mae": off / count, "r2": left}
