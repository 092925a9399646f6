"""Unfreeze: parameters that training may change again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torchgraft.edits.base import Edit
from torchgraft.errors import SelectionError
from torchgraft.schema import Flag, Names
from torchgraft.select import modules, selected

if TYPE_CHECKING:
    from torchgraft.edits.surgery import Surgery

__all__ = ["Unfreeze"]


class Unfreeze(Edit):
    """Let training change the parameters that `at` selects.

    Attributes:
        at: selectors of what is trained.
        moving: let the norms in `at` move again that `freeze(still=True)` or `eval_mode` held still; dropout that
            they took out stays out (undo the edit to have it back).
    """

    at: Names = ("**",)
    moving: Flag = False

    structural: ClassVar[Any] = property(lambda self: self.moving)

    def apply(self, surgery: Surgery) -> Unfreeze:
        """Set the flags."""
        moved = _move(surgery, self.at) if self.moving else 0
        try:
            chosen = selected(surgery.model, self.at, roles=surgery.roles)
        except SelectionError:
            if not moved:
                raise
            return self
        for parameter in chosen.values():
            if parameter.is_floating_point():
                surgery.set_grad(parameter, True)
        return self

    def sentence(self) -> str:
        """Say what is trainable again."""
        return f"{', '.join(self.at)} unfrozen" + (", and its norms move again" if self.moving else "")


def _move(surgery: Surgery, at: tuple[str, ...]) -> int:
    """Put BatchNorms back in the place of still ones, around the same tensors."""
    from torchgraft.edits.eval_mode import moving

    homes = set(modules(surgery.model, at, roles=surgery.roles))
    found = [
        (path, made)
        for path, module in surgery.model.named_modules()
        if any(path == home or path.startswith(f"{home}.") for home in homes)
        and (made := moving(module)) is not None
    ]
    for path, made in found:
        surgery.put(path, made)
        surgery.added.pop()
    return len(found)
