"""Padding: a model that reads the last token of each text does not know which token fills short ones up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torchgraft.edits.pad import Pad, pads
from torchgraft.fixes.cause import Cause, Fault, Proposal
from torchgraft.surgery.told import configs

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Padding"]


class Padding(Cause):
    """The model itself refuses a batch, and its configuration leaves the padding token open."""

    def proposals(self, fault: Fault) -> Iterator[Proposal]:
        """Fill up with the token that ends a text, since no text holds it in its midst."""
        at = fault.at
        open_ = at is not None and at.op == "forward" and at.error == "ValueError" and None in pads(fault.model)
        if open_:
            yield Proposal("pad", ((Pad(token=_ending(fault.model)),),), "no weight changes")


def _ending(model: nn.Module) -> int:
    """Give the token that ends a text; the first one where none does."""
    found = [getattr(one, "eos_token_id", None) for one in configs(model)]
    flat = [number for one in found for number in (one if isinstance(one, list) else [one])]
    return next((number for number in flat if isinstance(number, int) and number >= 0), 0)
