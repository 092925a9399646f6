"""What would make a refused edit fit: every way is tried on the graft, and those that work are described."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchgraft.drift import between, looked
from torchgraft.errors import TorchgraftError
from torchgraft.repair import WAYS, Way, described, size_of

if TYPE_CHECKING:
    from torch import Tensor

    from torchgraft.edits.base import Edit
    from torchgraft.graft import Graft
    from torchgraft.rules import Fix

__all__ = ["offers"]


def offers(graft: Graft, edit: Edit) -> tuple[Fix, ...]:
    """Try every way to mend an edit, and describe those that work; the graft is as it was."""
    if not edit.structural:
        return ()
    before = looked(graft)
    kept: list[Fix] = []
    for fix in (_offer(graft, edit, way, before) for way in WAYS):
        if fix is not None and fix.edits not in [one.edits for one in kept]:
            kept.append(fix)
    return tuple(kept)


def _offer(graft: Graft, edit: Edit, way: Way, before: list[Tensor] | None) -> Fix | None:
    mark, count = graft._mark(), len(graft.recipe.edits)
    try:
        if graft._errors(edit, way):
            return None
        steps = graft.recipe.edits[count + 1 :]
        with_them = size_of(graft.module)
        drift = between(before, looked(graft) if before else None)
        graft._back_to((graft._history[: count + 1], *graft._mark()[1:]))
        return described(way, steps, with_them - size_of(graft.module), drift)
    except TorchgraftError:
        return None
    finally:
        graft._back_to(mark)
