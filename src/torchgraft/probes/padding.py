"""Padding: a text alone, and the same one filled up beside a longer one, must get the same answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from torchgraft.probes.batch import Batch

__all__ = ["Padding", "padding"]

NEAR = 1e-4
"""Share of the outputs' greatest value that counts as equal: sums over more tokens round otherwise."""

_MASK = "attention_mask"


@dataclass(frozen=True)
class Padding:
    """What filling up did to the shortest text of a batch.

    Attributes:
        moved: the share of the outputs' greatest value by which its outputs differ; 0 where they are the same.
        tokens: of the text.
        filled: tokens that it was filled up with.
        left: they stand before it.
    """

    moved: float
    tokens: int
    filled: int
    left: bool


def padding(batch: Batch, outputs: Sequence[Tensor], run: Callable[[Batch], Sequence[Tensor]]) -> Padding | None:
    """Run the shortest text of a batch without what it is filled up with; None where there is no such text.

    Args:
        batch: by name, with an attention mask `[N, L]`.
        outputs: what it gave in evaluation mode; the first row of scores for each sample is compared.
        run: gives the outputs of another batch.
    """
    mask = batch.kwargs.get(_MASK)
    scores = next((one for one in outputs if one.dim() == 2 and one.is_floating_point()), None)
    if mask is None or mask.dim() != 2 or scores is None or len(scores) != len(mask):
        return None
    lengths = mask.bool().sum(1)
    row = int(lengths.argmin())
    tokens, filled = int(lengths[row]), int(mask.shape[1] - lengths[row])
    if not tokens or not filled:
        return None
    alone = [one for one in run(_alone(batch, row, mask)) if one.dim() == 2 and one.is_floating_point()]
    if not alone or alone[0].shape != scores[row : row + 1].shape:
        return None
    apart = float((alone[0][0].float() - scores[row].float()).abs().max())
    share = apart / max(float(scores.float().abs().max()), 1e-12)
    return Padding(share if share > NEAR else 0.0, tokens, filled, left=not bool(mask[row, 0]))


def _alone(batch: Batch, row: int, mask: Tensor) -> Batch:
    """Give one sample without the places that its mask leaves out."""
    kept = mask[row].bool()

    def cut(one: Tensor) -> Tensor:
        return one[row : row + 1][:, kept] if one.shape == mask.shape else one[row : row + 1]

    named = {name: cut(one) if hasattr(one, "shape") and one.dim() else one for name, one in batch.kwargs.items()}
    return replace(batch, kwargs=named, targets=None)
