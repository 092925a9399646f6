"""Independence: one sample of a batch is changed; the others' outputs in evaluation mode must not move."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torchgraft.probes.records import Place

if TYPE_CHECKING:
    from torch import Tensor

    from torchgraft.probes.batch import Batch
    from torchgraft.probes.double import Double
    from torchgraft.probes.evaluation import Evaluation

__all__ = ["Independence", "independence"]

NEAR = 1e-5
"""Share of the outputs' greatest value that counts as equal: some 80 times the step of float32 at 1."""


@dataclass(frozen=True)
class Independence:
    """Whether samples see each other.

    Attributes:
        samples: how many went in.
        mixed: the share by which the outputs of unchanged samples moved, 0 where they did not.
        place: the first operation whose rows mixed, where one was found.
        rows: rows of the first output, where they are not one a sample.
        same: the outputs are the same for every sample, though the inputs differ.
        unsteady: two passes over the very same batch differ, so nothing can be told.
    """

    samples: int
    mixed: float = 0.0
    place: Place | None = None
    rows: int | None = None
    same: bool = False
    unsteady: bool = False


def independence(double: Double, batch: Batch, run: Evaluation) -> Independence | None:
    """Compare two evaluation passes that differ in the first sample; None where there is nothing to compare.

    Args:
        double: what runs.
        batch: a batch that it takes.
        run: the pass of that batch.
    """
    from torchgraft.probes.evaluation import evaluation

    other = _changed(batch)
    if batch.size < 2 or other is None:
        return None
    first, second = run.outputs, evaluation(double, other).outputs
    pairs = [(a, b) for a, b in zip(first, second, strict=False) if a.shape == b.shape and a.is_floating_point()]
    rows = next((int(one.shape[0]) for one, _ in pairs if one.dim() > 1), None)
    kept = [(a, b) for a, b in pairs if a.dim() and a.shape[0] == batch.size]
    if not kept:
        return Independence(batch.size, rows=rows if rows != batch.size else None)
    mixed = max(_moved(a, b) for a, b in kept)
    if mixed and any(_moved(a, b) for a, b in zip(first, evaluation(double, batch).outputs, strict=False)):
        return Independence(batch.size, unsteady=True)
    place = _located(double, batch, other) if mixed else None
    wide = next((a for a, _ in kept if a.dim() > 1), None)
    same = wide is not None and batch.size > 1 and bool((wide == wide[:1]).all())
    same = same and any(_differ(one) for one in batch.inputs)
    return Independence(batch.size, mixed, place, rows if rows != batch.size else None, same)


def _changed(batch: Batch) -> Batch | None:
    """Put the second sample in the first's place; where they are equal, turn and shift the first."""
    from torchgraft.trace.tree import mapped

    size = batch.size
    seen: list[bool] = []

    def swap(one: Tensor) -> Tensor:
        if one.dim() < 1 or one.shape[0] != size or size < 2:
            return one
        made = one.clone()
        made[0] = one[1]
        if bool((made[0] == one[0]).all()):
            made[0] = one[0] + 1 if one.is_floating_point() else one[0].flip(-1) if one.dim() > 1 else one[0]
        seen.append(not bool((made[0] == one[0]).all()))
        return made

    args, kwargs = mapped(swap, (batch.args, batch.kwargs))
    return replace(batch, args=args, kwargs=kwargs) if any(seen) else None


def _moved(one: Tensor, other: Tensor) -> float:
    """Give how far all rows but the first moved, as a share of the greatest value; 0 where that is rounding."""
    import torch

    before, after = (torch.nan_to_num(tensor[1:].float()) for tensor in (one, other))
    share = float((before - after).abs().max()) / max(float(before.abs().max()), 1e-12) if before.numel() else 0.0
    half = one.dtype in (torch.float16, torch.bfloat16)
    return share if share > (1e-2 if half else NEAR) else 0.0


def _differ(tensor: Tensor) -> bool:
    return tensor.dim() > 1 and not bool((tensor == tensor[:1]).all())


def _located(double: Double, batch: Batch, other: Batch) -> Place | None:
    """Run both passes again, keep sums of the rows after each operation, and find the first that moved."""
    first, second = _sums(double, batch), _sums(double, other)
    for (place, one), (_, two) in zip(first, second, strict=False):
        if one.shape == two.shape and _moved(one, two):
            return place
    return None


def _sums(double: Double, batch: Batch) -> list[tuple[Place, Tensor]]:
    from torchgraft.probes.evaluation import evaluation
    from torchgraft.trace.tree import tensors

    found: list[tuple[Place, Tensor]] = []

    def each(result: Any, place: Place) -> None:
        for one in tensors(result):
            if one.dim() > 1 and one.shape[0] == batch.size and one.is_floating_point():
                rows = one.detach().reshape(one.shape[0], -1).double()
                found.append((place, rows.abs().sum(1)))

    evaluation(double, batch, each)
    return found
