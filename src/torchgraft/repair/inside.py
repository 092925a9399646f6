"""Fit the inside of a new module to what arrives at its place."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from torchgraft.edits.base import Edit
from torchgraft.edits.remove import Remove
from torchgraft.edits.resize import Resize
from torchgraft.repair.bench import LAYERS, NORMS, POOLS, Bench, held_size, within
from torchgraft.trace import Mismatch, Trace

__all__ = ["fit_inside"]

_STEPS = 24
"""So many layers are fitted inside a new module before it is given up."""


def fit_inside(bench: Bench, place: str) -> None:
    """Fit the layers of a new module to what arrives, one mismatch after the other."""
    for _ in range(_STEPS):
        run = bench.trace()
        if run.mismatch is None or not within(run.mismatch.path, place):
            return
        step = _step(bench.module, run, run.mismatch, place)
        if step is None:
            return
        bench.do(step)


def _step(model: nn.Module, run: Trace, at: Mismatch, place: str) -> Edit | None:
    module = dict(model.named_modules()).get(at.path)
    size = _arriving(module, run, at)
    if size is not None:
        return Resize.of(at.path, inputs=size).untrained()
    if isinstance(module, POOLS) and at.path != place:
        return Remove(at=at.path)
    return _agree(model, run, at, lambda path: within(path, place))


def _arriving(module: nn.Module | None, run: Trace, at: Mismatch) -> int | None:
    """Give the size that a layer or norm should take; None where that is not the fault."""
    if not at.inputs or not at.params or not isinstance(module, (*LAYERS, *NORMS)):
        return None
    shape = run.values[at.inputs[0]].shape
    last = isinstance(module, (nn.Linear, nn.LayerNorm, nn.RMSNorm))
    if len(shape) < 2 or (not last and isinstance(module, LAYERS) and len(shape) != module.weight.dim()):
        return None
    size = shape[-1] if last else shape[1]
    return size if size != held_size(module) else None


def _agree(model: nn.Module, run: Trace, at: Mismatch, may_change: Callable[[str], bool]) -> Edit | None:
    """Resize the outputs of a layer so that two tensors that meet have the same channels."""
    if len(at.inputs) != 2:
        return None
    shapes = [run.values[number].shape for number in at.inputs]
    place = next((n for n in (1, -1) if all(len(s) > 1 for s in shapes) and shapes[0][n] != shapes[1][n]), None)
    if place is None:
        return None
    for mine, other in ((1, 0), (0, 1)):
        path = _source(model, run, at.inputs[mine], may_change)
        if path is not None:
            return Resize.of(path, outputs=shapes[other][place]).untrained()
    return None


def _source(model: nn.Module, run: Trace, value: int, may_change: Callable[[str], bool]) -> str | None:
    """Find the layer that gave a tensor its channels: the nearest one upstream that has weights."""
    modules = dict(model.named_modules())
    for op in run.upstream(value):
        if op.params and isinstance(modules.get(op.path), LAYERS):
            return op.path if may_change(op.path) else None
    return None
