"""Features: a linear layer is given another last dimension, after a lost flatten or on a map of another size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from torchgraft.blocks.projection import Projection
from torchgraft.edits.remove import Remove
from torchgraft.edits.resize import Resize
from torchgraft.edits.rewire import Rewire
from torchgraft.fixes.cause import Cause, Fault, Proposal
from torchgraft.fixes.channels import maker_layer
from torchgraft.fixes.places import before_break, before_op, module_of
from torchgraft.fixes.shape import flat, grid, grow, pool, pool_flat, times

if TYPE_CHECKING:
    from torchgraft.trace import Mismatch, Op

__all__ = ["PASSES", "Dimensions", "Features"]

_FLATTENS = frozenset({"flatten", "view", "reshape"})
PASSES = frozenset({*_FLATTENS, "dropout", "relu", "relu_", "gelu", "contiguous", "squeeze"})


_GROWS = 8
"""A map is stretched so many times at most; beyond, something else is wrong."""


class Features(Cause):
    """A linear layer or layer norm is given a last dimension that it is not for."""

    def proposals(self, fault: Fault) -> Iterator[Proposal]:
        """Flatten, pin the map, project, or resize."""
        at, shape = fault.at, fault.arrived
        if at is None or at.op not in ("linear", "layer_norm", "rms_norm") or not at.params or not shape:
            return
        takes = _takes(fault, at)
        if not takes or takes == shape[-1]:
            return
        if at.op == "linear":
            yield from _flattened(fault, at, takes)
        flattened = next((op for op in fault.through(at.inputs[0], PASSES) if _is_flatten(fault, op)), None)
        if flattened is not None and len(shape) == 2:
            was = _other_channels(fault, flattened, takes)
            if was:
                yield from _widened(fault, at, flattened, was)
                return
            yield from _pinned(fault, flattened, takes)
        yield from _resized(fault, at, takes, scrambled=flattened is not None)


def _takes(fault: Fault, at: Mismatch) -> int:
    sizes = {name: tuple(tensor.shape) for name, tensor in fault.model.named_parameters()}
    return sizes.get(at.params[0], (0,))[-1]


def _is_flatten(fault: Fault, op: Op) -> bool:
    given, gives = fault.shape(op.inputs[0]), fault.shape(op.outputs[0])
    return op.name in _FLATTENS and len(gives) == 2 < len(given) and math.prod(given[2:]) > 1


def _flattened(fault: Fault, at: Mismatch, takes: int) -> Iterator[Proposal]:
    """Put the flatten back that was lost, behind a pooling where the map is larger than it was."""
    shape = fault.arrived
    if len(shape) < 3 or fault.channels_last(at.inputs[0]):
        return
    channels, sizes = shape[1], shape[2:]
    if channels * math.prod(sizes) == takes:
        yield Proposal("flatten", before_break(fault, 0, flat()))
    elif takes % channels == 0:
        cells = grid(takes // channels, sizes)
        if cells is not None and all(a >= b for a, b in zip(sizes, cells, strict=True)):
            says = f"averages the {times(sizes)} map to {times(cells)}"
            yield Proposal("pool", before_break(fault, 0, pool_flat(cells)), says, harm=1)


def _other_channels(fault: Fault, op: Op, takes: int) -> int:
    """Give the channels of the map that a layer was made for, where it is of this size; else 0.

    That is so where a step of the fix changed the channels, or where no map of another size has as many cells.
    """
    shape = fault.shape(op.inputs[0])
    cells = math.prod(shape[2:])
    if takes % cells:
        return 0
    maker = maker_layer(fault, op.inputs[0])
    changed = any(isinstance(edit, Resize) and edit.at == maker and edit.outputs for edit in fault.steps)
    fits = takes % shape[1] == 0 and grid(takes // shape[1], shape[2:]) is not None
    return takes // cells if changed or not fits else 0


def _widened(fault: Fault, at: Mismatch, op: Op, was: int) -> Iterator[Proposal]:
    """Fit the channels before a flatten: they come first in it, so that those which stay keep their weights."""
    shape = fault.shape(op.inputs[0])
    yield Proposal("resize", ((Resize(at=at.path, inputs=fault.arrived[-1]),),))
    maker = maker_layer(fault, op.inputs[0])
    if maker is not None:
        yield Proposal("resize-maker", ((Resize(at=maker, outputs=was),),))
    projection = Projection(out=(was, *shape[2:]), given=shape[1:])
    yield Proposal("project", before_op(fault, op, 0, projection))


def _pinned(fault: Fault, op: Op, takes: int) -> Iterator[Proposal]:
    """Bring the map back to the size that the linear layer was made for: nothing changes at that size."""
    shape = fault.shape(op.inputs[0])
    channels, sizes = shape[1], shape[2:]
    cells = grid(takes // channels, sizes) if takes % channels == 0 else None
    if cells is None:
        return
    shrinks = all(a >= b for a, b in zip(sizes, cells, strict=True))
    if max(b / a for a, b in zip(sizes, cells, strict=True)) > _GROWS:
        return
    word = "averages" if shrinks else "stretches"
    spec = pool(cells) if shrinks else grow(cells)
    says = f"{word} the {times(sizes)} map to {times(cells)}, and changes nothing where it is {times(cells)}"
    yield Proposal("pin", before_op(fault, op, 0, spec), says, harm=1)


def _resized(fault: Fault, at: Mismatch, takes: int, *, scrambled: bool) -> Iterator[Proposal]:
    """Resize the layer or the one before it, or project between them."""
    shape = fault.arrived
    if (
        len(shape) > 3
        and not fault.channels_last(at.inputs[0])
        and (takes % shape[1] == 0 or shape[-2:] == (1, 1))
    ):
        return  # a map whose flatten was lost
    layer = fault.modules.get(at.path)
    lost = sum(one.numel() for one in layer.parameters(recurse=False)) if layer is not None and scrambled else 0
    says = "its old weights meet other places of the map" if scrambled else ""
    yield Proposal("resize", ((Resize(at=at.path, inputs=shape[-1]),),), says, scrambles=lost)
    if scrambled or not fault.has_weights(at.inputs[0]):
        return
    maker = maker_layer(fault, at.inputs[0])
    if maker is not None:
        yield Proposal("resize-maker", ((Resize(at=maker, outputs=takes),),))
    if len(shape) > 1:
        projection = Projection(out=(*shape[1:-1], takes), given=shape[1:], channels="last")
        yield Proposal("project", before_break(fault, 0, projection))


class Dimensions(Cause):
    """A convolution or pooling is given a vector, because a flatten stands before it, or no channel dimension."""

    def proposals(self, fault: Fault) -> Iterator[Proposal]:
        """Take the flatten out, or give the dimensions back."""
        at, shape = fault.at, fault.arrived
        if at is None or len(shape) != 2 or not ("conv" in at.op or "pool" in at.op or at.op == "forward"):
            return
        layer = fault.modules.get(at.path)
        rank = (
            len(getattr(layer, "kernel_size", ())) if not isinstance(getattr(layer, "kernel_size", 0), int) else 0
        )
        op = next((one for one in fault.through(at.inputs[0], PASSES) if _is_flatten(fault, one)), None)
        if op is not None:
            module = module_of(fault, op)
            taken = Remove(at=module) if module else Rewire(at=op.path, operation=op.name, becomes="nothing")
            yield Proposal("unflatten", ((taken,),))
        if rank and fault.held("in_channels") == shape[1]:
            size = [shape[1], *([1] * rank)]
            yield Proposal(
                "unflatten", before_break(fault, 0, {"nn.Unflatten": {"dim": 1, "unflattened_size": size}})
            )
        elif rank == 1 and fault.held("in_channels") == 1:
            size = [1, shape[1]]
            yield Proposal(
                "unflatten", before_break(fault, 0, {"nn.Unflatten": {"dim": 1, "unflattened_size": size}})
            )
