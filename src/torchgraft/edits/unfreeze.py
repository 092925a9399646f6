"""Unfreeze: parameters that training may change again."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torchgraft.edits.base import Edit
from torchgraft.schema import Names
from torchgraft.select import selected

if TYPE_CHECKING:
    from torchgraft.edits.surgery import Surgery

__all__ = ["Unfreeze"]


class Unfreeze(Edit):
    """Let training change the parameters that `at` selects."""

    structural: ClassVar[bool] = False
    at: Names = ("**",)

    def apply(self, surgery: Surgery) -> Unfreeze:
        """Set the flags."""
        for parameter in selected(surgery.model, self.at, roles=surgery.roles).values():
            if parameter.is_floating_point():
                surgery.set_grad(parameter, True)
        return self

    def sentence(self) -> str:
        """Say what is trainable again."""
        return f"{', '.join(self.at)} unfrozen"
