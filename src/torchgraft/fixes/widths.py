"""Widths: a recurrent or attention layer is given other features than it was built for."""

from __future__ import annotations

from collections.abc import Iterator

from torchgraft.blocks.projection import Projection
from torchgraft.edits.resize import Resize
from torchgraft.fixes.cause import Cause, Fault, Proposal
from torchgraft.fixes.channels import maker_layer
from torchgraft.fixes.places import before_module, before_operands
from torchgraft.rules.breaks import misfits

__all__ = ["Widths"]


class Widths(Cause):
    """A layer of torch that declares its width: recurrent layers and cells, attention."""

    def proposals(self, fault: Fault) -> Iterator[Proposal]:
        """Project what arrives, or resize the layer that made it."""
        calls = fault.run.calls_of(fault.at.path) if fault.at is not None else []
        given = calls[-1].given if calls else ()
        wrong = dict(misfits(fault.modules.get(calls[-1].path), fault.run, given)) if calls else {}
        if not wrong:
            return
        if 0 in wrong and len({given[place] for place in wrong}) == 1:
            value, width = given[0], wrong[0]
            if not fault.has_weights(value):
                return  # what the model is given is for the user to say
            maker = maker_layer(fault, value)
            yield Proposal("project", before_module(fault, _projection(fault, value, width)))
            if maker is not None:
                yield Proposal("resize-maker", ((Resize(at=maker, outputs=width),),))
        else:
            specs = {place: _projection(fault, given[place], width) for place, width in wrong.items()}
            yield Proposal("project", before_operands(fault, specs))


def _projection(fault: Fault, value: int, width: int) -> object:
    shape = fault.shape(value)
    return Projection(out=(*shape[1:-1], width), given=shape[1:], channels="last")
