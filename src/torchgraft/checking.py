"""Check a model in one line, wherever it comes from: `tg.check(model, example)`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from torch import nn

from torchgraft.fixing import with_fixes
from torchgraft.loading import load
from torchgraft.probes.sets import sets
from torchgraft.probes.step import dry_step
from torchgraft.probes.weights import match
from torchgraft.rules import Finding, judge
from torchgraft.rules.rule import DataFacts

if TYPE_CHECKING:
    import torch

    from torchgraft.graft import Graft

__all__ = ["check", "judged"]


def check(
    model: nn.Module | str,
    example: Any = None,
    *,
    data: Any = None,
    optimizer: torch.optim.Optimizer | None = None,
    loss: Any = None,
    weights: Any = None,
    trust: bool = False,
) -> tuple[Finding, ...]:
    """Judge a model on fake tensors, in evaluation and in training mode; it is neither changed nor run.

    Args:
        model: any module, or a source such as `torchvision:resnet18@none`.
        example: a tensor with its batch, a tuple of arguments, or the shape of one input without the batch;
            a source may know its own.
        data: a batch `(inputs, targets)`, or an iterable of batches such as a DataLoader: one small real step is
            run as well, and all it moved is put back.
        optimizer: what will train the model: its groups are compared with the parameters.
        loss: what the outputs are judged by, `loss(outputs, targets)`; cross-entropy when left out.
        weights: a state dict, a whole checkpoint or a file of either that the model should hold.
        trust: whether code of the user's own may be run.

    Returns:
        what was found, errors first; empty when all is well.
    """
    graft = load(model, input=example, trust=trust)
    return judged(graft, data, optimizer=optimizer, loss=loss, weights=weights)


def judged(
    graft: Graft,
    data: Any = None,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    loss: Any = None,
    weights: Any = None,
    facts: DataFacts | None = None,
) -> tuple[Finding, ...]:
    """Judge a graft as it stands: what the probes recorded, read by every rule, with fixes that were tried.

    Args:
        graft: the model under change.
        data: see `check`.
        optimizer: see `check`.
        loss: see `check`.
        weights: see `check`.
        facts: what is known of the data without running the model.
    """
    model = graft.module
    evidence = dataclasses.replace(
        graft.evidence(),
        data=facts,
        sets=sets(model, optimizer),
        match=None if weights is None else match(model, weights),
        step=None if data is None else dry_step(model, data, loss=loss, optimizer=optimizer),
    )
    return with_fixes(graft, judge(evidence))
