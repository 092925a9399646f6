"""Check a model in one line, wherever it comes from: `tg.check(model, example)`."""

from __future__ import annotations

from typing import Any

from torch import nn

from torchgraft.loading import load
from torchgraft.rules import Finding

__all__ = ["check"]


def check(model: nn.Module | str, example: Any = None) -> tuple[Finding, ...]:
    """Judge a model on fake tensors, in evaluation and in training mode; it is neither changed nor run.

    Args:
        model: any module, or a source such as `torchvision:resnet18@none`.
        example: a tensor with its batch, a tuple of arguments, or the shape of one input without the batch;
            a source may know its own.

    Returns:
        what was found, errors first; empty when all is well.
    """
    return load(model, input=example).check()
