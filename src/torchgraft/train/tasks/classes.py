"""One class of several: cross-entropy, and how often the model is right."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from torchgraft.train.task import LOSS, Kind, Meter
from torchgraft.train.tasks.mask import mask_answers
from torchgraft.train.tasks.outputs import main_of
from torchgraft.train.tasks.single import Given, Single
from torchgraft.train.tasks.sums import macro_f1, share
from torchgraft.train.tasks.weigh import padded

__all__ = ["Classes"]

MANY = 10
"""With more classes than this, the true one among the five likeliest is counted too."""


class Classes(Single):
    """One class of several.

    Args:
        count: of the classes of the data; the model may have more outputs.
        weight: of each output in the loss, `[outputs]`.
        smoothing: the share of the target that is spread over all classes (Szegedy et al., 2016).
        device: where the outputs will be.
        given: a loss in the place of cross-entropy.
    """

    kind: Kind = "classes"
    metric = "accuracy"

    def __init__(
        self,
        count: int,
        *,
        weight: Tensor | None = None,
        smoothing: float = 0.0,
        device: torch.device | None = None,
        given: Given | None = None,
    ) -> None:
        self.count, self.smoothing, self.device, self.given = count, smoothing, device, given
        self.weight = None if weight is None else weight.to(device)
        self.names = ("accuracy", *(["top5"] if count > MANY else []), "f1", LOSS)

    def one(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Give the cross-entropy in fp32; targets are class numbers `[N]` or shares `[N, C]`, as mixup makes them.

        Weighted losses are divided by the number of samples, not by the sum of their weights as torch does it:
        only so do parts of a batch, in several processes or one after the other, add up to the whole.
        """
        if self.weight is None:
            return functional.cross_entropy(scores.float(), targets, label_smoothing=self.smoothing)
        self.weight = padded(self.weight, scores.shape[1])
        total = functional.cross_entropy(
            scores.float(), targets, self.weight, label_smoothing=self.smoothing, reduction="sum"
        )
        return total / len(targets)

    def meter(self, *, train: bool = False) -> Meter:
        """Count what is right; without `train` also by class."""
        return _Right(self.device) if train else _ByClass(self.count, self.device)

    def answers(self, output: Any) -> dict[str, Any]:
        """Give the probability of every class, `[N, C]`; of maps of classes what `Mask` says."""
        scores = main_of(output).float()
        if scores.dim() == 4:
            return mask_answers(scores)
        return {"probabilities": scores.softmax(1).tolist()}


class _Right(Meter):
    """How many are right: the dominant class counts, where targets are shares."""

    def __init__(self, device: torch.device | None) -> None:
        self.seen = 0
        self.right, self.count = torch.zeros(2, dtype=torch.long, device=device)

    def add(self, output: Any, targets: Tensor) -> None:
        scores = output if isinstance(output, Tensor) else main_of(output)
        wanted = targets if targets.dim() == 1 else targets.argmax(1)
        self.right.add_(torch.eq(scores.argmax(1), wanted).sum())
        self.seen += len(wanted)

    def sums(self) -> dict[str, Tensor]:
        self.count += self.seen  # counted in Python and put in when asked: one operation a batch less
        self.seen = 0
        return {"right": self.right, "count": self.count}

    def figures(self) -> dict[str, float]:
        right, count = (int(one) for one in self.sums().values())
        return {"accuracy": share(right, count)}


class _ByClass(Meter):
    """How many of each class there are, were found, and were guessed; classes beyond the data's are one more."""

    def __init__(self, count: int, device: torch.device | None) -> None:
        self.count = count
        self.sum = torch.zeros(3, count + 1, dtype=torch.long, device=device)
        self.near = torch.zeros(1, dtype=torch.long, device=device)

    def add(self, output: Any, targets: Tensor) -> None:
        scores = main_of(output)
        wanted = targets if targets.dim() == 1 else targets.argmax(1)
        guessed = scores.argmax(1).clamp(max=self.count)
        right = guessed[guessed == wanted]
        for row, found in enumerate((right, guessed, wanted)):
            self.sum[row] += torch.bincount(found, minlength=self.count + 1)
        if self.count > MANY:
            self.near += (scores.topk(5, dim=1).indices == wanted[:, None]).sum()

    def sums(self) -> dict[str, Tensor]:
        return {"by_class": self.sum, "near": self.near}

    def figures(self) -> dict[str, float]:
        found, guessed, there = self.sum.tolist()
        count = sum(there)
        figures = {"accuracy": share(sum(found), count)}
        if self.count > MANY:
            figures["top5"] = share(int(self.near), count)
        return {**figures, "f1": macro_f1(found[:-1], guessed[:-1], there[:-1])}
