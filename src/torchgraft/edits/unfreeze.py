"""Unfreeze: parameters that training may change again."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, ClassVar

from torchgraft.edits.base import Edit
from torchgraft.errors import SelectionError, TorchgraftWarning
from torchgraft.schema import Flag, Places
from torchgraft.select import modules, selected
from torchgraft.surgery.journal import inside

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.journal import Surgery

__all__ = ["Unfreeze"]


class Unfreeze(Edit):
    """Let training change the parameters that `at` selects.

    Attributes:
        at: selectors of what is trained.
        moving: let the norms in `at` move again that `freeze(still=True)` or `eval_mode` held still; dropout that
            they took out stays out (undo the edit to have it back).
    """

    at: Places = ("**",)
    moving: Flag = False

    structural: ClassVar[Any] = property(lambda self: self.moving)

    def apply(self, surgery: Surgery) -> Unfreeze:
        """Set the flags."""
        norms = _stopped(surgery, self.at)
        if self.moving:
            surgery.trade(norms)
        elif norms:
            warnings.warn(_words(self.at, len(norms)), TorchgraftWarning, stacklevel=2)
        try:
            chosen = selected(surgery.model, self.at, roles=surgery.roles)
        except SelectionError:
            if not (norms and self.moving):
                raise
            return self
        surgery.set_grad((one for one in chosen.values() if one.is_floating_point()), True)
        return self

    def sentence(self) -> str:
        """Say what is trainable again."""
        return f"{', '.join(self.at)} unfrozen" + (", and its norms move again" if self.moving else "")


def _words(at: tuple[str, ...], count: int) -> str:
    return (
        f"{', '.join(at)}: {count} norms were made to stand still for good, and go on doing so; "
        "unfreeze(…, moving=True) lets them move again"
    )


def _stopped(surgery: Surgery, at: tuple[str, ...]) -> dict[nn.Module, nn.Module]:
    """Find the norms that an edit made still, and give the BatchNorms that they were, around the same tensors."""
    from torchgraft.edits.eval_mode import moving

    try:
        homes = modules(surgery.model, at, roles=surgery.roles)
    except SelectionError:  # parameters are meant
        return {}
    found = inside(surgery.model, homes).values()
    return {module: made for module in found if (made := moving(module)) is not None}
