"""Check a model in one line, wherever it comes from: `tg.check(model, example)`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from torch import nn

from torchgraft.edits.head import tasks
from torchgraft.fixing import with_fixes
from torchgraft.loading import load
from torchgraft.probes.captures import captures_kept
from torchgraft.probes.loss import loss_by
from torchgraft.probes.named import check_loss, loss_name
from torchgraft.probes.real import Real, real
from torchgraft.probes.roundtrip import roundtrip
from torchgraft.probes.sets import sets
from torchgraft.probes.weights import match
from torchgraft.reading import read, traced_with
from torchgraft.rules import Finding, judge
from torchgraft.rules.rule import DataFacts

if TYPE_CHECKING:
    import torch

    from torchgraft.graft import Graft
    from torchgraft.probes.batch import Batch

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
    real: bool = False,
) -> tuple[Finding, ...]:
    """Judge a model on fake tensors, in evaluation and in training mode; with data, on a few real samples as well.

    The model is not changed, and not run itself: real samples go through a copy.

    Args:
        model: any module, or a source such as `torchvision:resnet18@none`.
        example: a tensor with its batch, a tuple of arguments, a dict of arguments by the names of the forward's
            parameters, or the shape of one input without the batch; a source may know its own. With a batch, a
            Dataset or a loader as `data` it may be left out.
        data: a batch `(inputs, targets)`, where several inputs are a tuple or a dict, or one dict of both; a
            Dataset, a DataLoader or another iterable of batches, a data source such as `folder:./images`, or
            `plan` for the data of the recipe's plan. A few samples are run forward and backward on a copy of the
            model; an iterator loses the batch that is read.
        optimizer: what will train the model: its groups are compared with the parameters, and with data a copy of
            it takes a few steps.
        loss: what the outputs are judged by, `loss(outputs, targets)`; cross-entropy when left out.
        weights: a state dict, a whole checkpoint or a file of either that the model should hold.
        trust: whether code of the user's own may be run.
        real: trace on small real tensors instead of fake ones, for a model whose flow depends on values.

    Returns:
        what was found, errors first; empty when all is well.

    Raises:
        RecipeError: the example, the loss or the optimizer is none.
        DataError, SourceError: the data or the model can't be had.
    """
    if example is None and isinstance(model, nn.Module) and data is not None:
        data, example = _example(model, data)
    graft = load(model, input=example, trust=trust, real=real)
    return judged(graft, data, optimizer=optimizer, loss=loss, weights=weights)


def _example(model: nn.Module, data: Any) -> tuple[Any, Any]:
    """Read a batch, and give it with what of it the model is traced with."""
    if isinstance(data, str):
        return data, None
    batch = read(load(model), data).batch
    return batch, None if batch is None else traced_with(batch, model)


_LOSSES = {"labels": "binary_cross_entropy_with_logits", "regression": "mse_loss"}
"""What a head of the recipe is judged by, where it is not for classes."""


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

    Raises:
        RecipeError: the loss or the optimizer is none.
    """
    check_loss(loss)
    asked = tasks(graft.recipe.edits)
    name = loss_name(loss) if loss is not None else _LOSSES.get(asked.get("", ""), "")
    if loss is None and asked and asked != {"": "classes"}:
        loss = loss_by(asked)
    with captures_kept(graft.module):  # the trace runs hooks of the user's too
        given = read(graft, data)
        own_loop = optimizer is None and given.optimizer is not None
        optimizer = optimizer or given.optimizer
        seen = graft.evidence()
        evidence = dataclasses.replace(
            seen,
            data=facts or given.facts,
            sets=seen.sets
            if optimizer is None
            else dataclasses.replace(sets(graft.module, optimizer), kept=own_loop),
            match=None if weights is None else match(graft.module, weights),
            trip=roundtrip(graft.module, real=given.batch is not None),
            loss=name,
            **vars(_shown(graft, given.batch, loss, optimizer)),
        )
        return with_fixes(graft, judge(evidence))


def _shown(graft: Graft, batch: Batch | None, loss: Any, optimizer: Any) -> Real:
    """Run the real probes where there are data, and add what the base was trained with, if its source says so."""
    if batch is None:
        return Real()
    shown = real(graft.module, batch, loss=loss, optimizer=optimizer, macs=graft.trace().macs)
    if shown.arrival is None or graft.preprocess is None:
        return shown
    expects = (graft.preprocess.mean, graft.preprocess.std)
    return dataclasses.replace(shown, arrival=dataclasses.replace(shown.arrival, expects=expects))
