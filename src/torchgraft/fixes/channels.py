"""Channels: a layer or norm is given a map with another number of channels than its weights are for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torchgraft.blocks.projection import Projection
from torchgraft.edits.input import Input
from torchgraft.edits.resize import Resize
from torchgraft.fixes.cause import Cause, Fault, Proposal
from torchgraft.fixes.places import before_break

if TYPE_CHECKING:
    from torchgraft.trace import Mismatch

__all__ = ["Channels", "maker_layer"]

_NORMS = ("batch_norm", "instance_norm", "group_norm")


class Channels(Cause):
    """The input has other channels, or two modules in a row do not agree."""

    def proposals(self, fault: Fault) -> Iterator[Proposal]:
        """Fit the input, project between the two, or resize one of them."""
        at, shape = fault.at, fault.arrived
        if at is None or len(shape) < 2:
            return
        is_norm = at.op.startswith(_NORMS)
        takes = fault.held("num_features") or fault.held("num_channels") if is_norm else fault.held("in_channels")
        if not fault.has_weights(at.inputs[0]):
            yield from _input(fault)
        elif takes and takes != shape[1] and at.params:
            yield from _between(fault, at, takes)


def _input(fault: Fault) -> Iterator[Proposal]:
    """Fold the first layer for the channels that the example has."""
    if len(fault.example) == 1 and len(fault.example[0]) > 2:
        channels = fault.example[0][1]
        yield Proposal("channels", ((Input(channels=channels),),))


def _between(fault: Fault, at: Mismatch, takes: int) -> Iterator[Proposal]:
    shape = fault.arrived
    yield Proposal("resize", ((Resize(at=at.path, inputs=shape[1]),),))
    maker = maker_layer(fault, at.inputs[0])
    if maker is not None:
        yield Proposal("resize-maker", ((Resize(at=maker, outputs=takes),),))
    if not at.op.startswith(_NORMS):
        projection = Projection(out=(takes, *shape[2:]), given=shape[1:])
        yield Proposal("project", before_break(fault, 0, projection))


def maker_layer(fault: Fault, value: int) -> str | None:
    """Find the layer that gave a tensor its channels, behind what keeps them."""
    for op in fault.run.upstream(value):
        if op.params and not op.name.endswith("_norm"):
            layer = fault.modules.get(op.path)
            return op.path if layer is not None and hasattr(layer, "weight") else None
    return None
