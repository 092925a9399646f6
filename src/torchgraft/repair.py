"""Make an edit fit: each way applies further edits to the model that the edit was made on.

adapt      restores the contract of the edited place: the new module's inside is fitted to what arrives, and its
           output is projected back to what the place gave before. No other parameter is touched.
propagate  resizes what consumes the new shape, wherever it goes, keeping the weights that overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from torch import nn

from torchgraft.blocks.projection import Projection
from torchgraft.edits.append import Append
from torchgraft.edits.base import Edit
from torchgraft.edits.insert import Insert, is_sequence
from torchgraft.edits.remove import Remove
from torchgraft.edits.replace import Replace
from torchgraft.edits.resize import Resize
from torchgraft.modulespec import ModuleSpec
from torchgraft.rules.finding import Fix

if TYPE_CHECKING:
    from torchgraft.trace import Mismatch, Trace, Value

__all__ = ["WAYS", "Bench", "Way", "adapt", "described", "propagate", "size_of"]

_INSIDE, _OUTSIDE = 24, 400
"""So many layers are fitted inside a new module, and resized outside of it, before a way is given up."""

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.LayerNorm)
_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)


class Bench(Protocol):
    """Where a repair works: a model under trial that takes edits unjudged."""

    module: nn.Module

    def trace(self, *, train: bool = False) -> Trace:
        """Trace the model as it stands."""

    def do(self, edit: Edit) -> list[str]:
        """Apply an edit unjudged, and give the paths of the modules it put in."""


def adapt(bench: Bench, edit: Edit, added: list[str], before: Trace) -> None:
    """Restore the contract of the edited place.

    Args:
        bench: the model, with the edit applied.
        edit: the edit that does not fit.
        added: the paths that it put in.
        before: the trace in evaluation mode from before the edit.
    """
    if isinstance(edit, Remove):
        _bridge(bench, edit, before)
        return
    contract = _contract(edit, before)
    if contract is None or len(added) != 1:
        return
    _fit_inside(bench, added[0])
    _restore(bench, added[0], contract, before)


def _contract(edit: Edit, before: Trace) -> Value | None:
    """Give the tensor that the place must give: what it gave, or what passed there, before."""
    if isinstance(edit, Insert):
        values = before.gave(edit.at) if edit.after else before.given(edit.at)[:1]
    elif isinstance(edit, (Replace, Append)):
        values = before.gave(edit.at)
    else:
        return None
    return values[0] if len(values) == 1 else None


def _fit_inside(bench: Bench, place: str) -> None:
    """Fit the layers of a new module to what arrives, one mismatch after the other."""
    for _ in range(_INSIDE):
        run = bench.trace()
        if run.mismatch is None or not _within(run.mismatch.path, place):
            return
        step = _inner(bench.module, run, run.mismatch, place)
        if step is None:
            return
        bench.do(step)


def _inner(model: nn.Module, run: Trace, at: Mismatch, place: str) -> Edit | None:
    module = dict(model.named_modules()).get(at.path)
    size = _arriving(module, run, at)
    if size is not None:
        return Resize(at=at.path, inputs=size)
    if isinstance(module, _POOLS):
        return Remove(at=at.path)
    return _agree(model, run, at, lambda path: _within(path, place))


def _arriving(module: nn.Module | None, run: Trace, at: Mismatch) -> int | None:
    """Give the size that a layer or norm should take; None where that is not the fault."""
    if not at.inputs or not at.params or not isinstance(module, (*_LAYERS, *_NORMS)):
        return None
    shape = run.values[at.inputs[0]].shape
    last = isinstance(module, (nn.Linear, nn.LayerNorm))
    if len(shape) < 2 or (not last and isinstance(module, _LAYERS) and len(shape) != module.weight.dim()):
        return None
    size = shape[-1] if last else shape[1]
    takes = {"in_features", "in_channels", "num_features", "num_channels"}
    held = next((int(getattr(module, name)) for name in takes if hasattr(module, name)), None)
    return size if size != held else None


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
            return Resize(at=path, outputs=shapes[other][place])
    return None


def _source(model: nn.Module, run: Trace, value: int, may_change: Callable[[str], bool]) -> str | None:
    """Find the layer that gave a tensor its channels: the nearest one upstream that has weights."""
    modules = dict(model.named_modules())
    for op in run.upstream(value):
        if op.params and isinstance(modules.get(op.path), _LAYERS):
            return op.path if may_change(op.path) else None
    return None


def _restore(bench: Bench, place: str, contract: Value, before: Trace) -> None:
    """Project what the new module gives back to what the place gave."""
    run = bench.trace()
    gave = run.gave(place)
    is_output = any(before.values[number] is contract for number in before.outputs)
    if len(gave) != 1 or is_output or gave[0].shape == contract.shape or gave[0].shape[:1] != contract.shape[:1]:
        return
    projection = _projection(gave[0].shape, contract.shape, run)
    if projection is not None:
        bench.do(Insert(module=ModuleSpec.model_validate(projection), after=place, name="fit"))


def _projection(given: tuple[int, ...], out: tuple[int, ...], run: Trace) -> Projection | None:
    """Describe the projection between two shapes, or None where there is no sensible one."""
    last_only = len(given) == len(out) > 2 and given[:-1] == out[:-1]
    by_last = run.mismatch is not None and run.mismatch.op in ("linear", "layer_norm")
    if last_only and (len(out) == 3 or by_last):
        return Projection(out=out[1:], given=given[1:], channels="last")
    if len(given) == len(out) or 2 in (len(given), len(out)):
        return Projection(out=out[1:], given=given[1:])
    return None


def _bridge(bench: Bench, edit: Remove, before: Trace) -> None:
    """Put a projection where a module was taken out."""
    given, gave = before.given(edit.at), before.gave(edit.at)
    if len(given) != 1 or len(gave) != 1 or given[0].shape == gave[0].shape:
        return
    projection = _projection(given[0].shape, gave[0].shape, bench.trace())
    if projection is None:
        return
    spec = ModuleSpec.model_validate(projection)
    home, _, name = edit.at.rpartition(".")
    parent = dict(bench.module.named_modules())[home]
    if not is_sequence(parent):
        bench.do(Insert(module=spec, after=edit.at, name="fit"))
        return
    prefix = f"{home}." if home else ""
    siblings = [
        path for path in before.kinds if path.startswith(prefix) and "." not in path[len(prefix) :] and path
    ]
    place = siblings.index(edit.at)
    if place:
        bench.do(Insert(module=spec, after=siblings[place - 1], name=f"{name}_fit"))
    elif len(siblings) > 1:
        bench.do(Insert(module=spec, before=siblings[1], name=f"{name}_fit"))


def propagate(bench: Bench, edit: Edit, added: list[str], before: Trace) -> None:
    """Resize every layer that meets the new shape, in evaluation and in training mode."""
    if len(added) == 1:
        _fit_inside(bench, added[0])
    changed = list(added)
    for train in (False, True):
        for _ in range(_OUTSIDE):
            run = bench.trace(train=train)
            if run.mismatch is None:
                break
            step = _outer(bench.module, run, run.mismatch, changed)
            if step is None:
                return
            bench.do(step)
            changed.append(step.at)


def _outer(model: nn.Module, run: Trace, at: Mismatch, changed: list[str]) -> Resize | None:
    module = dict(model.named_modules()).get(at.path)
    size = _arriving(module, run, at)
    if size is not None:
        return Resize(at=at.path, inputs=size)
    step = _agree(model, run, at, lambda path: not any(_within(path, place) for place in changed))
    return step if isinstance(step, Resize) else None


def _within(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place}.")


Way = Literal["adapt", "propagate"]
WAYS: dict[Way, Callable[[Bench, Edit, list[str], Trace], None]] = {"adapt": adapt, "propagate": propagate}


def described(way: Way, steps: Sequence[Edit], parameters: int) -> Fix:
    """Describe a way that works: the edits it takes after the one that does not fit, and their price."""
    told = "; ".join(step.sentence() for step in steps[:3])
    more = f"; and {len(steps) - 3} more" if len(steps) > 3 else ""
    kept = "keeps every trained weight" if way == "adapt" else "new input slices start at zero"
    return Fix(way, f"{told}{more}   {parameters:+,} parameters, {kept}", tuple(steps))


def size_of(model: nn.Module) -> int:
    """Count the parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters())
