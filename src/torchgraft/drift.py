"""How far the outputs move at step 0: what edits do to what was trained, before anything is trained again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchgraft.errors import EditError
from torchgraft.trace import outputs

if TYPE_CHECKING:
    from torch import Tensor

    from torchgraft.graft import Graft

__all__ = ["between", "drift", "looked"]

_MACS = 3 * 10**9
"""A pass of so many multiply-accumulates is taken without being asked for: some tenths of a second on one core."""


def drift(graft: Graft) -> float:
    """Say how far the edits move the outputs of the base: 0.0 is not at all.

    One sample of normal noise, drawn from the recipe's seed, goes through the base and through the edited model in
    evaluation mode. Given back is the norm of the difference over the norm of the base's outputs.

    Args:
        graft: the model under change; it is as it was afterwards.

    Raises:
        EditError: the outputs have other shapes now, so they can't be compared.
    """
    after = _outputs(graft)
    done = [surgery for _, surgery in graft._history]
    for surgery in reversed(done):
        surgery.undo()
    try:
        before = _outputs(graft, shape=graft.recipe.input)
    finally:
        for surgery in done:
            surgery.redo()
    found = between(before, after)
    if found is None:
        raise EditError(
            "the outputs have other shapes than those of the base, so there is no drift",
            where=graft.name,
            hint="ask before the head is replaced",
        )
    return found


def looked(graft: Graft) -> list[Tensor] | None:
    """Give the outputs of the model as it stands on one sample; None where that is not cheap, or not possible."""
    run = graft.trace()
    weighed = any(parameter.is_meta for parameter in graft.module.parameters())
    if weighed or run.mismatch is not None or run.macs > _MACS or graft._example is not None:
        return None
    return _outputs(graft)


def _outputs(graft: Graft, shape: tuple[int, ...] | None = None) -> list[Tensor]:
    import torch

    given: Any = graft._inputs()
    if isinstance(given, torch.Tensor) and given.is_meta:
        given = given.new_empty((1, *(shape or given.shape[1:])))
    return outputs(graft.module, given, seed=graft.recipe.seed)


def between(before: list[Tensor] | None, after: list[Tensor] | None) -> float | None:
    """Give the norm of the difference over the norm of what was; None where shapes differ."""
    if not before or not after or [one.shape for one in before] != [one.shape for one in after]:
        return None
    import torch

    moved = torch.cat([(one - other).double().flatten() for one, other in zip(after, before, strict=True)])
    whole = torch.cat([one.double().flatten() for one in before])
    return float(moved.norm() / whole.norm().clamp_min(1e-12))
