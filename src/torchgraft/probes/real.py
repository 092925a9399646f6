"""The real probes, one after the other on one double of the model; the model itself is only read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torchgraft.probes.records import Broke
from torchgraft.probes.step import Step, dry_step

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.probes.arrival import Arrival
    from torchgraft.probes.batch import Batch
    from torchgraft.probes.double import Double
    from torchgraft.probes.independence import Independence
    from torchgraft.probes.padding import Padding
    from torchgraft.probes.state import State

__all__ = ["Real", "real"]

ELEMENTS = 2**16
MACS = 8_000_000_000
"""A pass is kept below so many multiply-accumulates, about 0.2 s on two cores, but for the fewest samples."""
MOST = 64


@dataclass(frozen=True)
class Real:
    """What the real probes recorded; None where one had nothing to look at."""

    step: Step | None = None
    arrival: Arrival | None = None
    state: State | None = None
    independence: Independence | None = None
    padding: Padding | None = None


def real(model: nn.Module, batch: Batch, *, loss: Any = None, optimizer: Any = None, macs: int = 0) -> Real:
    """Run a few samples of a batch through a double of the model.

    Nothing of the model, of the optimizer and of the random numbers is changed, whatever happens.

    Args:
        model: neither run nor changed.
        batch: what the data gave.
        loss: `loss(outputs, targets)`.
        optimizer: what will train the model; a copy of it is used.
        macs: multiply-accumulates of one sample, if known: it decides how many samples run.
    """
    import torch

    from torchgraft.probes.arrival import arrival
    from torchgraft.probes.captures import captures_kept
    from torchgraft.probes.double import Double
    from torchgraft.probes.evaluation import evaluation
    from torchgraft.probes.independence import independence
    from torchgraft.probes.padding import padding
    from torchgraft.probes.state import state
    from torchgraft.rng import rng_kept

    model = model.module if isinstance(model, torch.nn.parallel.DistributedDataParallel) else model
    absent = _absent(model)
    if absent:
        return Real(Step(broke=Broke("copy", "", "", "", absent)))
    stale = tuple(name for name, one in model.named_parameters() if one.grad is not None)
    judge = loss if isinstance(loss, torch.nn.Module) else None
    with rng_kept(), _gradients_apart(model, judge), captures_kept(model, loss), _quiet():
        double = _double(model)
        if isinstance(double, Broke):
            return Real(Step(broke=double))
        loss = Double(judge).module if judge is not None else loss
        device = next((one.device for one in model.parameters()), None)
        few = batch.few(_count(batch, macs)).apart(device)
        known, few, run = arrival(double, few)
        apart = independence(double, few, run) if run.broke is None else None
        filled = padding(few, run.outputs, lambda other: evaluation(double, other).outputs)
        step = dry_step(double, few, loss=loss, optimizer=optimizer, stale=stale)
        return Real(step, _of_all(known, batch), state(run), apart, filled)


def _of_all(known: Arrival, whole: Batch) -> Arrival:
    """Describe all samples that were read, not only those that ran."""
    import torch

    from torchgraft.probes.arrival import seen
    from torchgraft.probes.witness import labels_of

    labels = labels_of(whole.targets) if isinstance(whole.targets, torch.Tensor) else None
    inputs = tuple(seen(one) for one in whole.inputs)
    return replace(known, samples=whole.size, inputs=inputs, labels=labels)


def _absent(model: nn.Module) -> str:
    """Say why the weights are not all here; empty where they are."""
    if any(parameter.is_meta for parameter in model.parameters()):
        return "the weights are on the meta device: they have no values"
    spread = any(hasattr(parameter, "placements") for parameter in model.parameters())
    return "the weights are spread over processes" if spread else ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from warning and from compiling."""
    import warnings

    import torch

    with warnings.catch_warnings(), torch.compiler.set_stance("force_eager"):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _gradients_apart(*modules: nn.Module | None) -> Iterator[None]:
    """Put gradients aside: a loss that reads the model itself, for a penalty, would add to them."""
    kept = [(one, one.grad) for module in modules if module is not None for one in module.parameters()]
    for parameter, _ in kept:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in kept:
            parameter.grad = gradient


def _double(model: nn.Module) -> Double | Broke:
    from torchgraft.probes.double import Double

    try:
        return Double(model)
    except Exception as error:  # no memory left, or an object that can't be copied
        return Broke("copy", "", "", type(error).__name__, str(error))


def _count(batch: Batch, macs: int) -> int:
    """Choose how many samples run: few large ones, many small ones; an integer stands for a vector."""
    size = max(batch.size, 1)
    elements = sum(one.numel() * (1 if one.is_floating_point() or one.dim() > 3 else 512) for one in batch.inputs)
    room = ELEMENTS * size // max(elements, 1)
    if macs:
        room = min(room, MACS // macs)
    fewest = 2 if 2 * macs > MACS else 4
    return max(fewest, min(MOST, room))
