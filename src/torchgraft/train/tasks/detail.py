"""What an evaluation tells beside its figures: by sample, by class, by label, by quantity."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchgraft.history import GuessedMask
from torchgraft.train.task import Kind
from torchgraft.train.tasks.labels import average_precision
from torchgraft.train.tasks.mask import overlaps, resized
from torchgraft.train.tasks.sums import mean, share

__all__ = ["Detail", "detail_of"]

OVERLAYS = 3
"""So many masks are kept to be shown, those of the samples that went worst."""


class Detail(ABC):
    """Gathers outputs and targets on the CPU, batch by batch."""

    @abstractmethod
    def add(self, scores: Tensor, targets: Any, indices: Sequence[int]) -> None:
        """Take the main scores of one batch."""

    @abstractmethod
    def fields(self) -> dict[str, Any]:
        """Give fields of an `Evaluation`."""


def detail_of(kind: Kind, count: int) -> Detail:
    """Begin to gather what a task of this kind tells.

    Args:
        kind: of the task.
        count: classes, labels or quantities; as many as the outputs.
    """
    kinds: dict[Kind, Callable[[int], Detail]] = {
        "classes": _Classes,
        "labels": _Labels,
        "regression": _Quantities,
        "mask": _Masks,
        "several": _None,
    }
    return kinds[kind](count)


class _None(Detail):
    """Of several outputs by name there are figures alone."""

    def __init__(self, count: int) -> None:
        self.count = count

    def add(self, scores: Tensor, targets: Any, indices: Sequence[int]) -> None:
        """Nothing is kept."""

    def fields(self) -> dict[str, Any]:
        return {}


class _Rows(Detail):
    """Keeps scores and targets of every sample."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.scores: list[Tensor] = []
        self.targets: list[Tensor] = []

    def add(self, scores: Tensor, targets: Any, indices: Sequence[int]) -> None:
        self.scores.append(scores.float().cpu())
        self.targets.append(targets.cpu())

    def all(self) -> tuple[Tensor, Tensor]:
        return torch.cat(self.scores), torch.cat(self.targets)


class _Classes(_Rows):
    def fields(self) -> dict[str, Any]:
        scores, targets = self.all()
        chances, guesses = scores.softmax(1).max(1)
        confusion = torch.zeros(self.count, self.count, dtype=torch.long)
        confusion.index_put_((targets, guesses), torch.ones_like(targets), accumulate=True)
        return {
            "confusion": tuple(tuple(row) for row in confusion.tolist()),
            "targets": tuple(targets.tolist()),
            "predictions": tuple(guesses.tolist()),
            "confidence": tuple(round(chance, 6) for chance in chances.tolist()),
        }


class _Labels(_Rows):
    def fields(self) -> dict[str, Any]:
        scores, wanted = self.all()
        guessed, there = scores > 0, wanted > 0.5
        found = (guessed & there).sum(0).tolist()
        counts = zip(average_precision(scores, there), found, guessed.sum(0).tolist(), there.sum(0).tolist(),
                     strict=True)  # fmt: skip
        each = tuple(
            {
                "average_precision": ranked,
                "precision": share(hit, one),
                "recall": share(hit, other),
                "f1": share(2 * hit, one + other),
                "samples": float(other),
            }
            for ranked, hit, one, other in counts
        )
        return {"each": each}


class _Quantities(_Rows):
    def fields(self) -> dict[str, Any]:
        scores, truths = self.all()
        guesses = scores.reshape(len(scores), -1).double()
        truths = truths.reshape(guesses.shape).double()
        return {
            "each": tuple(_errors(one, other) for one, other in zip(guesses.T, truths.T, strict=True)),
            "truths": tuple(map(tuple, truths.tolist())),
            "guesses": tuple(map(tuple, guesses.tolist())),
        }


def _errors(guesses: Tensor, truths: Tensor) -> dict[str, float]:
    error = guesses - truths
    varied = float((truths - truths.mean()).square().sum())
    return {
        "rmse": float(error.square().mean().sqrt()),
        "mae": float(error.abs().mean()),
        "r2": 1 - float(error.square().sum()) / varied if varied else float("nan"),
        "lowest": float(truths.min()),
        "highest": float(truths.max()),
    }


class _Masks(Detail):
    """Sums over pixels; of single samples only those that went worst are kept."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.sum = torch.zeros(3, count + 1, dtype=torch.long)
        self.worst: list[tuple[float, int, GuessedMask]] = []

    def add(self, scores: Tensor, targets: Any, indices: Sequence[int]) -> None:
        guesses = resized(scores.float(), targets).argmax(1).cpu()
        for index, guess, truth in zip(indices, guesses, targets.cpu(), strict=True):
            counted = overlaps(guess, truth, self.count)
            self.sum += counted
            self._keep(index, mean(_ious(counted)), guess, truth)

    def _keep(self, index: int, iou: float, guess: Tensor, truth: Tensor) -> None:
        if iou != iou or (len(self.worst) == OVERLAYS and -iou <= self.worst[0][0]):
            return
        as_bytes = [one.to(torch.uint8).contiguous().numpy().tobytes() for one in (truth, guess)]
        size = (truth.shape[0], truth.shape[1])
        one = GuessedMask(index=index, iou=iou, size=size, truth=as_bytes[0], guess=as_bytes[1])
        push = heapq.heappush if len(self.worst) < OVERLAYS else heapq.heapreplace
        push(self.worst, (-iou, -index, one))

    def fields(self) -> dict[str, Any]:
        total = max(int(self.sum[2].sum()), 1)
        each = tuple(
            {"iou": iou, "share": there / total}
            for iou, there in zip(_ious(self.sum), self.sum[2].tolist(), strict=False)
        )
        masks = tuple(one for *_, one in sorted(self.worst, key=lambda entry: (-entry[0], -entry[1])))
        return {"each": each, "masks": masks}


def _ious(counted: Tensor) -> list[float]:
    """Give the overlap of each class, intersection over union; nan for one that does not occur."""
    pairs = zip(*(row[:-1] for row in counted.tolist()), strict=True)
    return [share(found, guessed + there - found) for found, guessed, there in pairs]
