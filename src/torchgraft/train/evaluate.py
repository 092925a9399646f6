"""Judge a model on labelled samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchgraft.history import Evaluation
from torchgraft.train.optimise import scores_of

__all__ = ["evaluate", "probabilities", "tally"]


@torch.no_grad()
def _scored(model: nn.Module, batches: Iterable[Any], device: torch.device) -> tuple[Tensor, Tensor]:
    model.eval()
    scores, targets = [], []
    for images, labels in batches:
        scores.append(scores_of(model(images.to(device))).float().cpu())
        targets.append(labels)
    return torch.cat(scores), torch.cat(targets)


def tally(model: nn.Module, batches: Iterable[Any], device: torch.device) -> tuple[float, float]:
    """Give the mean cross-entropy and the accuracy (a share of 1) in evaluation mode."""
    scores, targets = _scored(model, batches, device)
    loss = nn.functional.cross_entropy(scores, targets)
    return float(loss), float((scores.argmax(1) == targets).float().mean())


def evaluate(model: nn.Module, batches: Iterable[Any], classes: Sequence[str], device: torch.device) -> Evaluation:
    """Judge a model sample by sample."""
    scores, targets = _scored(model, batches, device)
    chances, guesses = scores.softmax(1).max(1)
    confusion = torch.zeros(len(classes), len(classes), dtype=torch.long)
    confusion.index_put_((targets, guesses), torch.ones_like(targets), accumulate=True)
    return Evaluation(
        classes=tuple(classes),
        accuracy=float((guesses == targets).float().mean()),
        loss=float(nn.functional.cross_entropy(scores, targets)),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        targets=tuple(targets.tolist()),
        predictions=tuple(guesses.tolist()),
        confidence=tuple(round(chance, 6) for chance in chances.tolist()),
    )


@torch.no_grad()
def probabilities(model: nn.Module, images: Tensor) -> Tensor:
    """Give the class probabilities `[N, classes]` of a batch `[N, C, H, W]`, in evaluation mode."""
    model.eval()
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return scores_of(model(images.to(device))).float().softmax(1).cpu()
