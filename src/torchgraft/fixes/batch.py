"""The batch: missing from the call, in another order, or folded together with other things."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from torchgraft.edits.replace import Replace
from torchgraft.edits.rewire import Rewire, number_of
from torchgraft.fixes.cause import Cause, Fault, Proposal
from torchgraft.fixes.features import PASSES
from torchgraft.fixes.places import module_of
from torchgraft.fixes.shape import flat
from torchgraft.modulespec import ModuleSpec
from torchgraft.rules.breaks import joined, joins_samples, sizes
from torchgraft.surgery.forward import plain

if TYPE_CHECKING:
    from torchgraft.trace import Mismatch, Op

__all__ = ["Folded", "Missing"]

_VIEWS = ("view", "reshape", "flatten")


class Missing(Cause):
    """The call is at fault: one sample without its batch, or channels last."""

    def proposals(self, fault: Fault) -> Iterator[Proposal]:
        """Give the call that the first layer takes."""
        if fault.at is None or len(fault.example) != 1:
            return
        shape = fault.example[0]
        for rank, channels in _first_layers(fault):
            for told, change, gives in _calls(shape, rank, channels):
                says = f"the model is as it should be: call it with {told}, so that {list(shape)} is {list(gives)}"
                yield Proposal("batch" if len(gives) > len(shape) else "order", says=says, call=change)


def _first_layers(fault: Fault) -> Iterator[tuple[int, int]]:
    """Give the rank with batch and the channels that the first layers of the pass take."""
    from torch import nn

    ranks: dict[type, int] = {nn.Conv1d: 3, nn.Conv2d: 4, nn.Conv3d: 5}
    seen: set[tuple[int, int]] = set()
    raw = [call.path for call in fault.run.calls if call.given and not fault.has_weights(call.given[0])]
    inside = [path for path in fault.modules if raw and path.startswith(f"{raw[-1]}.")]
    for path in (*raw, *inside[:1]):
        layer: Any = fault.modules.get(path)
        rank = next((ranks[cls] for cls in ranks if isinstance(layer, cls)), 0)
        if rank and (rank, layer.in_channels) not in seen:
            seen.add((rank, layer.in_channels))
            yield rank, layer.in_channels


_Call = tuple[str, Callable[[Any], Any], tuple[int, ...]]


def _calls(shape: tuple[int, ...], rank: int, channels: int) -> Iterator[_Call]:
    """List the calls that make an input of this shape what the first layer takes."""
    last = (rank - 1, *range(1, rank - 1))
    if len(shape) == rank and shape[1] != channels and shape[-1] == channels:
        order = (0, *last)
        yield f"x.permute{order}", lambda x: x.permute(order), tuple(shape[place] for place in order)
    if len(shape) == rank - 1 and shape[0] == channels:
        yield "x.unsqueeze(0)", lambda x: x.unsqueeze(0), (1, *shape)
    elif len(shape) == rank - 1 and shape[-1] == channels:
        order = tuple(place - 1 for place in last)
        told = f"x.permute{order}.unsqueeze(0)"
        yield told, lambda x: x.permute(order).unsqueeze(0), (1, *(shape[place] for place in order))
    if len(shape) == rank - 1 and channels == 1:
        yield "x.unsqueeze(1)", lambda x: x.unsqueeze(1), (shape[0], 1, *shape[1:])
    if len(shape) == rank - 2 and channels == 1:
        yield "x[None, None]", lambda x: x[None, None], (1, 1, *shape)


class Folded(Cause):
    """A view or a concatenation makes other rows than there are samples."""

    warnings: ClassVar[frozenset[str]] = frozenset({"S010"})

    def proposals(self, fault: Fault) -> Iterator[Proposal]:
        """Flatten from dimension 1, concatenate along it."""
        if fault.at is not None:
            yield from _broken(fault, fault.at)
            return
        if fault.finding is None or fault.finding.code not in self.warnings:
            return
        for output in fault.run.outputs:
            for op in fault.run.upstream(output):
                if op.path == fault.path and _folds(fault, op):
                    yield from _mended(fault, op)
                    return


def _broken(fault: Fault, at: Mismatch) -> Iterator[Proposal]:
    """A view to rows of a size that does not divide, or what folded the batch before the break."""
    if plain(at.op) in ("view", "reshape") and fault.arrived:
        if len(sizes(at)) == 2:  # rows of features: anything else parts heads, windows or maps
            yield from _flattened(at.path, at.op, number_of(fault.run, at.path, at.op))
    elif joins_samples(fault.run, at):
        yield from _along(fault, at.path, at.inputs, number_of(fault.run, at.path, at.op))
    elif at.inputs:
        folded = joined(fault.run, at.inputs[0])
        folded = folded or next((op for op in fault.through(at.inputs[0], PASSES) if _folds(fault, op)), None)
        if folded is not None:
            yield from _mended(fault, folded)


def _folds(fault: Fault, op: Op) -> bool:
    """Tell whether an operation takes the batch and gives another number of rows."""
    batch = fault.run.batch
    takes = [fault.shape(number) for number in op.inputs]
    gives = fault.shape(op.outputs[0]) if op.outputs else ()
    return bool(gives) and gives[0] != batch and any(shape and shape[0] == batch for shape in takes)


def _mended(fault: Fault, op: Op) -> Iterator[Proposal]:
    module = module_of(fault, op)
    calls = [call for call in fault.run.calls_of(op.path) if call.first_op <= op.index < call.last_op]
    first = calls[-1].first_op if calls else 0
    same = [one for one in fault.run.ops[first : op.index] if one.path == op.path]
    number = sum(plain(one.name) == plain(op.name) for one in same)
    if module is not None and op.name in _VIEWS:
        yield Proposal("flatten", ((Replace(at=module, with_=ModuleSpec.model_validate(flat())),),))
    elif op.name in _VIEWS:
        yield from _flattened(op.path, op.name, number)
    elif plain(op.name) == "cat":
        yield from _along(fault, op.path, op.inputs, number)


def _along(fault: Fault, path: str, met: tuple[int, ...], number: int) -> Iterator[Proposal]:
    """Concatenate along the channels, wherever they are."""
    rank = len(fault.shape(met[0]))
    last = rank > 2 and any(fault.channels_last(one) for one in met)
    dims = (rank - 1, 1) if last else (1, rank - 1)
    ways = tuple(
        (Rewire(at=path, operation="cat", number=number, arguments={"dim": dim}),)
        for dim in dict.fromkeys(dims)
        if dim > 0
    )
    yield Proposal("features", ways, "joins features, not samples")


def _flattened(path: str, name: str, number: int) -> Iterator[Proposal]:
    edit = Rewire(at=path, operation=plain(name), number=number, becomes="flatten", arguments={"start_dim": 1})
    yield Proposal("flatten", ((edit,),), "keeps the batch apart")
