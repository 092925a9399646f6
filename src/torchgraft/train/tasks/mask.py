"""A class for every pixel: cross-entropy over maps, and how well regions overlap."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from torchgraft.train.task import LOSS, Kind, Meter
from torchgraft.train.tasks.outputs import main_of
from torchgraft.train.tasks.single import Given, Single
from torchgraft.train.tasks.sums import mean, share
from torchgraft.train.tasks.weigh import padded

__all__ = ["IGNORED", "Mask", "mask_answers", "overlaps", "resized"]

IGNORED = 255
"""Pixels of this class are in no loss and no figure, as in Pascal VOC (Everingham et al., 2010)."""


class Mask(Single):
    """A class for every pixel.

    Args:
        count: of the classes of the data; the model may have more outputs.
        weight: of each output in the loss, `[outputs]`.
        smoothing: the share of the target that is spread over all classes.
        device: where the outputs will be.
        given: a loss in the place of cross-entropy, of scores `[N, C, H, W]` and classes `[N, H, W]`.
    """

    kind: Kind = "mask"
    metric = "mean_iou"
    names = ("mean_iou", "pixel_accuracy", LOSS)

    def __init__(
        self,
        count: int,
        *,
        weight: Tensor | None = None,
        smoothing: float = 0.0,
        device: torch.device | None = None,
        given: Given | None = None,
    ) -> None:
        self.count, self.smoothing, self.device = count, smoothing, device
        self.given = None if given is None else lambda scores, targets: given(resized(scores, targets), targets)
        self.weight = None if weight is None else weight.to(device)

    def one(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Give the mean over images of the mean cross-entropy of their pixels, in fp32; targets are `[N, H, W]`.

        Each image counts alike, however many of its pixels are ignored: so parts of a batch add up to the whole.
        """
        weight = self.weight = None if self.weight is None else padded(self.weight, scores.shape[1])
        targets = targets.long()
        pixels = functional.cross_entropy(
            resized(scores.float(), targets), targets, weight,
            ignore_index=IGNORED, label_smoothing=self.smoothing, reduction="none",
        )  # fmt: skip
        judged = (targets != IGNORED).sum((1, 2)).clamp(min=1)
        return (pixels.sum((1, 2)) / judged).mean()

    def meter(self, *, train: bool = False) -> Meter:
        """Count the pixels that are right; without `train` also by class."""
        return _Pixels(self.device) if train else _ByClass(self.count, self.device)

    def answers(self, output: Any) -> dict[str, Any]:
        """Give the class of every pixel, `[N, h, w]`, in the size that the model gives, and each class's share."""
        return mask_answers(main_of(output))


def mask_answers(scores: Tensor) -> dict[str, Any]:
    """Say of maps `[N, C, h, w]` which class each pixel is of, and which share of the pixels each class has."""
    guesses = scores.argmax(1)
    areas = functional.one_hot(guesses, scores.shape[1]).float().mean((1, 2))
    return {"mask": guesses.tolist(), "areas": areas.tolist()}


def resized(scores: Tensor, targets: Tensor) -> Tensor:
    """Bring scores `[N, C, h, w]` to the size of the masks `[N, H, W]`, bilinearly."""
    size = targets.shape[-2:]
    if scores.shape[-2:] == size:
        return scores
    return functional.interpolate(scores, size, mode="bilinear", align_corners=False)


class _Pixels(Meter):
    """How many pixels are right."""

    def __init__(self, device: torch.device | None) -> None:
        self.sum = torch.zeros(2, dtype=torch.long, device=device)

    def add(self, output: Any, targets: Tensor) -> None:
        guessed = resized(main_of(output).detach(), targets).argmax(1)
        self.sum += torch.stack([(guessed == targets).sum(), (targets != IGNORED).sum()])

    def sums(self) -> dict[str, Tensor]:
        return {"pixels": self.sum}

    def figures(self) -> dict[str, float]:
        right, count = self.sum.tolist()
        return {"pixel_accuracy": share(right, count)}


class _ByClass(Meter):
    """How many pixels of each class there are, were found, and were guessed; the model's others are one."""

    def __init__(self, count: int, device: torch.device | None) -> None:
        self.sum = torch.zeros(3, count + 1, dtype=torch.long, device=device)

    def add(self, output: Any, targets: Tensor) -> None:
        scores = resized(main_of(output).detach().float(), targets)
        self.sum += overlaps(scores.argmax(1), targets, self.sum.shape[1] - 1)

    def sums(self) -> dict[str, Tensor]:
        return {"pixels": self.sum}

    def figures(self) -> dict[str, float]:
        found, guessed, there = self.sum.tolist()
        pairs = zip(found[:-1], guessed[:-1], there[:-1], strict=True)
        every = [share(hit, one + other - hit) for hit, one, other in pairs]
        return {"mean_iou": mean(every), "pixel_accuracy": share(sum(found), sum(there))}


def overlaps(guessed: Tensor, targets: Tensor, count: int) -> Tensor:
    """Count the pixels of each class that were found, guessed, and are there, `[3, count + 1]`.

    Args:
        guessed: classes, `[N, H, W]`; those from `count` on are taken together.
        targets: classes, or 255 for what is ignored.
        count: of the classes.
    """
    wanted = targets != IGNORED
    guess, truth = guessed[wanted].clamp(max=count), targets[wanted].long()
    rows = (guess[guess == truth], guess, truth)
    return torch.stack([torch.bincount(row, minlength=count + 1) for row in rows])
