"""Freeze: parameters that training leaves as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import model_validator

from torchgraft.edits.base import Edit
from torchgraft.schema import Names
from torchgraft.select import selected

if TYPE_CHECKING:
    from torchgraft.edits.surgery import Surgery

__all__ = ["Freeze"]


class Freeze(Edit):
    """Freeze the parameters that `at` selects, or all but those that `all_but` selects.

    A part of the model whose parameters are all frozen is really still in torchgraft's training: its
    BatchNorm statistics do not move and its dropout is off.
    """

    structural: ClassVar[bool] = False
    at: Names = ()
    all_but: Names = ()

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.at) == bool(self.all_but):
            raise ValueError("a freeze names either what it freezes (at) or what it spares (all_but)")
        return self

    def apply(self, surgery: Surgery) -> Freeze:
        """Set the flags; `all_but` also makes sure that what is spared can be trained."""
        named = selected(surgery.model, self.at or self.all_but, roles=surgery.roles)
        for parameter in surgery.model.parameters():
            frozen = (id(parameter) in named) == bool(self.at)
            if frozen or self.all_but:
                surgery.set_grad(parameter, not frozen)
        return self

    def sentence(self) -> str:
        """Say what is frozen."""
        return f"{', '.join(self.at)} frozen" if self.at else f"everything but {', '.join(self.all_but)} is frozen"
