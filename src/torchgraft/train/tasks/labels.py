"""Several labels, each yes or no: binary cross-entropy, and how well the samples of each label are found."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from torchgraft.train.task import LOSS, Kind, Meter
from torchgraft.train.tasks.outputs import main_of
from torchgraft.train.tasks.single import Given, Single
from torchgraft.train.tasks.sums import macro_f1, mean, share
from torchgraft.train.world import World

__all__ = ["Labels", "average_precision"]


class Labels(Single):
    """Any number of labels at once.

    Args:
        count: of the labels.
        weight: what each label's yes counts against its no, `[L]`.
        device: where the outputs will be.
        given: a loss in the place of BCE with logits.
    """

    kind: Kind = "labels"
    metric = "average_precision"
    names = ("average_precision", "f1", "exact_match", LOSS)

    def __init__(
        self,
        count: int,
        *,
        weight: Tensor | None = None,
        device: torch.device | None = None,
        given: Given | None = None,
    ) -> None:
        self.count, self.device, self.given = count, device, given
        self.weight = None if weight is None else weight.to(device)

    def one(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Give the binary cross-entropy in fp32; targets are 0 to 1, as mixup makes them, `[N, L]`."""
        return functional.binary_cross_entropy_with_logits(
            scores.float(), targets.to(torch.float32), pos_weight=self.weight
        )

    def meter(self, *, train: bool = False) -> Meter:
        """Count the rows that are right in all labels; without `train` also by label."""
        return _Exact(self.device) if train else _ByLabel(self.count, self.device)

    def answers(self, output: Any) -> dict[str, Any]:
        """Give the probability of every label, `[N, L]`, and whether it is over a half."""
        chances = main_of(output).float().sigmoid()
        return {"probabilities": chances.tolist(), "labels": (chances > 0.5).tolist()}


class _Exact(Meter):
    """How many samples are right in every label."""

    def __init__(self, device: torch.device | None) -> None:
        self.sum = torch.zeros(2, dtype=torch.long, device=device)

    def add(self, output: Any, targets: Tensor) -> None:
        right = ((main_of(output) > 0) == (targets > 0.5)).all(1)
        self.sum += torch.stack([right.sum(), right.new_full((), len(right), dtype=torch.long)])

    def sums(self) -> dict[str, Tensor]:
        return {"exact": self.sum}

    def figures(self) -> dict[str, float]:
        right, count = self.sum.tolist()
        return {"exact_match": share(right, count)}


class _ByLabel(Meter):
    """What was found of each label; and every score, since a precision over ranks can't be summed up."""

    def __init__(self, count: int, device: torch.device | None) -> None:
        self.exact = _Exact(device)
        self.sum = torch.zeros(3, count, dtype=torch.long, device=device)
        self.scores: list[Tensor] = []
        self.targets: list[Tensor] = []

    def add(self, output: Any, targets: Tensor) -> None:
        scores, wanted = main_of(output).detach().float(), targets > 0.5
        self.exact.add(scores, targets)
        guessed = scores > 0
        self.sum += torch.stack([(guessed & wanted).sum(0), guessed.sum(0), wanted.sum(0)])
        self.scores.append(scores)
        self.targets.append(wanted)

    def sums(self) -> dict[str, Tensor]:
        return {"by_label": self.sum, **self.exact.sums()}

    def gather(self, world: World) -> None:
        """Add the counts up, and lay the scores of all processes one after the other."""
        super().gather(world)
        if world.size == 1:
            return
        scores, targets = self._all()
        sizes = torch.zeros(world.size, dtype=torch.long, device=scores.device)
        sizes[world.rank] = len(scores)
        counts = world.total(sizes).tolist()
        begin = sum(counts[: world.rank])
        for name, mine in (("scores", scores), ("targets", targets.float())):
            whole = mine.new_zeros(sum(counts), mine.shape[1])
            whole[begin : begin + len(mine)] = mine
            setattr(self, name, [world.total(whole) if name == "scores" else world.total(whole) > 0.5])

    def figures(self) -> dict[str, float]:
        ranked = average_precision(*self._all())
        found, guessed, there = self.sum.tolist()
        return {
            "average_precision": mean(ranked),
            "f1": macro_f1(found, guessed, there),
            **self.exact.figures(),
        }

    def _all(self) -> tuple[Tensor, Tensor]:
        if not self.scores:
            empty = self.sum.new_zeros(0, self.sum.shape[1])
            return empty.float(), empty.bool()
        return torch.cat(self.scores), torch.cat(self.targets)


def average_precision(scores: Tensor, targets: Tensor) -> list[float]:
    """Give the average precision of each label, as scikit-learn has it; nan for one that no sample has.

    Args:
        scores: `[N, L]`; equal ones share a rank.
        targets: whether the sample has the label, `[N, L]`.
    """
    return [_average_precision(one, wanted) for one, wanted in zip(scores.T, targets.T, strict=True)]


def _average_precision(scores: Tensor, targets: Tensor) -> float:
    """Sum precision over the steps of recall, `Σ (Rₙ − Rₙ₋₁) Pₙ` (Manning et al., 2008)."""
    if not len(scores) or not targets.any():
        return math.nan
    ranked, order = scores.sort(descending=True)
    hits = targets[order].to(torch.double).cumsum(0)
    last = torch.ones_like(targets)  # of those with the same score, the last one has the counts of all
    last[:-1] = ranked[1:] != ranked[:-1]
    seen = torch.arange(1, len(scores) + 1, device=scores.device, dtype=torch.double)[last]
    hits = hits[last]
    gained = torch.diff(hits, prepend=hits.new_zeros(1))
    return float((gained * hits / seen).sum() / hits[-1])
