"""Propagate: resize what meets the new shape, all at once, and keep the weights that overlap."""

from __future__ import annotations

from typing import Literal

from torch import nn

from torchgraft.edits.base import Edit
from torchgraft.edits.insert import Insert
from torchgraft.edits.remove import Remove
from torchgraft.edits.reshape import Reshape
from torchgraft.edits.resize import Resize
from torchgraft.modulespec import ModuleSpec
from torchgraft.repair.adapt import fitted, restore
from torchgraft.repair.bench import Bench, free_name
from torchgraft.repair.contract import contract, projection, side
from torchgraft.repair.elastic import Elastic, Shapes
from torchgraft.repair.mould import Table
from torchgraft.trace import Trace, Value

__all__ = ["propagate"]


def propagate(bench: Bench, edit: Edit, added: list[str], before: Trace) -> None:
    """Resize every layer and parameter that meets the new shape, in evaluation and in training mode.

    What can't be resized, such as a fixed view, is given what it took before by a projection; where nothing behind
    the place can take the new shape, that projection stands at the place itself.

    Args:
        bench: the model, with the edit applied.
        edit: the edit that does not fit.
        added: the paths that it put in.
        before: the trace in evaluation mode from before the edit.
    """
    place = fitted(bench, edit, added[0], before) if len(added) == 1 else getattr(edit, "at", "")
    wanted = None if isinstance(edit, Remove) else contract(edit, before)
    for train in (False, True):
        if train and bench.trace(train=True).mismatch is None:
            return
        elastic = _settled(bench.module, before, place, wanted, train=train)
        if elastic is None:
            if wanted is not None:
                restore(bench, place, wanted, before)
            return
        for step in elastic.mould.resizes(bench.module, place):
            bench.do(
                edit.followed(step, bench.module.get_submodule(step.at)) if isinstance(edit, Resize) else step
            )
        for name, table in elastic.mould.params.items():
            bench.do(_reshape(name, table))
        _project(bench, elastic, before)


def _settled(model: nn.Module, before: Trace, place: str, wanted: Value | None, *, train: bool) -> Elastic | None:
    """Resize the partners of the new shape too; where that ends nowhere, only what comes behind it."""
    for partners in (True, False):
        elastic = Elastic(model, before, place, wanted, partners=partners)
        if elastic.settle(train=train):
            return elastic
    return None


def _reshape(name: str, table: Table) -> Reshape:
    """Positions are interpolated; channels that multiply start at the mean."""
    rank = len(table.shape)
    row = rank - 2
    positions = rank in (2, 3) and row in table.dims and table.shape[-1] > 1
    start: Literal["mean", "zero"] = "mean" if table.scales else "zero"
    return Reshape(at=name, shape=table.shape, start=start, along=row if positions else None)


def _project(bench: Bench, elastic: Elastic, before: Trace) -> None:
    """Put the projections in, in the order of the pass; paths move while that goes on, modules do not."""
    table = dict(bench.module.named_modules())
    wanted = [(path, True, shapes) for path, shapes in elastic.fronts.items()]
    wanted += [(path, False, shapes) for path, shapes in elastic.backs.items()]
    wanted.sort(key=lambda one: _when(before, one[0], one[1]))
    for path, front, shapes in wanted:
        if shapes[0] != shapes[1]:
            _put(bench, table[path], path, front, shapes, before)


def _when(before: Trace, path: str, front: bool) -> tuple[int, int]:
    calls = before.calls_of(path)
    if not calls:
        return (len(before.ops), 0)
    return (calls[0].first_op, -len(path)) if front else (calls[0].last_op, len(path))


def _put(bench: Bench, module: nn.Module, was: str, front: bool, shapes: Shapes, before: Trace) -> None:
    path = next(name for name, one in bench.module.named_modules() if one is module)
    values = before.given(was)[:1] if front else before.gave(was)
    where = side(before, values[0]) if values else "first"
    spec = ModuleSpec.model_validate(projection(*shapes, where))
    name = free_name(bench.module, path)
    place = {"before": path} if front else {"after": path}
    bench.do(Insert.model_validate({"module": spec, "name": name, **place}))
