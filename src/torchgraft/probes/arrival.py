"""Arrival: what the data look like, and what of them reaches the first BatchNorm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchgraft.probes.batch import Lengths
from torchgraft.probes.records import Labels, Norm, Seen

if TYPE_CHECKING:
    from torch import Tensor

    from torchgraft.probes.batch import Batch
    from torchgraft.probes.double import Double
    from torchgraft.probes.evaluation import Evaluation

__all__ = ["Arrival", "arrival", "seen"]


@dataclass(frozen=True)
class Arrival:
    """What the data look like to the model.

    Attributes:
        samples: how many were read.
        inputs: each input tensor.
        labels: the targets, where they are one tensor.
        lengths: how the loader cuts the data.
        weights: the dtype of the model's weights.
        remedy: what had to be done to the inputs before the model took them: `dtype`, `channels`, or `swapped`
            with the targets.
        norm: the first trained BatchNorm that data reach.
        expects: (mean, std) of the base's own preprocessing.
    """

    samples: int
    inputs: tuple[Seen, ...]
    labels: Labels | None = None
    lengths: Lengths | None = None
    weights: str = ""
    remedy: tuple[str, ...] = ()
    norm: Norm | None = None
    expects: tuple[tuple[float, ...], tuple[float, ...]] | None = None


def arrival(double: Double, batch: Batch) -> tuple[Arrival, Batch, Evaluation]:
    """Describe a batch, and try whether the model takes it as it is.

    Returns:
        the record, the batch as the model takes it (another dtype or channels first where that is what it needs),
        and the pass in evaluation mode that showed it.
    """
    import torch

    from torchgraft.probes.witness import labels_of

    weights = next((p.dtype for p in double.module.parameters() if p.is_floating_point()), torch.float32)
    taken, remedy, run = _taken(double, batch, weights)
    return (
        Arrival(
            samples=batch.size,
            inputs=tuple(seen(one) for one in batch.inputs),
            labels=labels_of(batch.targets) if isinstance(batch.targets, torch.Tensor) else None,
            lengths=batch.lengths,
            weights=str(weights).removeprefix("torch."),
            remedy=remedy,
            norm=run.norm,
        ),
        taken,
        run,
    )


def seen(tensor: Tensor) -> Seen:
    """Describe a tensor."""
    import torch

    plain = tensor.detach()
    shape, dtype = tuple(plain.shape), str(plain.dtype).removeprefix("torch.")
    if not plain.numel() or plain.is_complex():
        return Seen(shape, dtype, 0, 0, 0, False, 0, False)
    plain = plain.float() if plain.dtype in (torch.bool, torch.float16, torch.bfloat16) else plain
    fine = torch.isfinite(plain) if plain.is_floating_point() else torch.ones_like(plain, dtype=torch.bool)
    finite = plain if bool(fine.all()) else plain[fine]
    rows = plain.reshape(plain.shape[0], -1) if plain.dim() > 1 else plain.reshape(1, -1)
    several = plain.dim() > 1 and rows.shape[0] > 1
    return Seen(
        shape=shape,
        dtype=dtype,
        low=float(finite.min()) if finite.numel() else 0.0,
        high=float(finite.max()) if finite.numel() else 0.0,
        odd=int((~fine).sum()),
        whole=not plain.is_floating_point() or bool((finite == finite.round()).all()),
        flat=int((rows.amax(1) == rows.amin(1)).sum()) if rows.shape[1] > 1 else 0,
        equal=several and rows.shape[1] > 1 and bool((rows == rows[:1]).all()),
    )


def _taken(double: Double, batch: Batch, weights: Any) -> tuple[Batch, tuple[str, ...], Evaluation]:
    """Try the batch as it is, then with each remedy: what makes the pass work was the cause."""
    from torchgraft.probes.evaluation import evaluation

    first = evaluation(double, batch)
    if first.broke is None:
        return batch, (), first
    for remedy, change in (
        (("dtype",), lambda one: one.to(weights)),
        (("channels",), _channels_first),
        (("dtype", "channels"), lambda one: _channels_first(one.to(weights))),
    ):
        candidate = _mapped(batch, change)
        run = evaluation(double, candidate)
        if run.broke is None:
            return candidate, remedy, run
    return _swapped(double, batch) or (batch, (), first)


def _swapped(double: Double, batch: Batch) -> tuple[Batch, tuple[str, ...], Evaluation] | None:
    """Try the targets as inputs, where they are the only one of the two that is made of numbers with a comma."""
    from dataclasses import replace

    import torch

    from torchgraft.probes.evaluation import evaluation

    given = batch.args[0] if len(batch.args) == 1 and not batch.kwargs else None
    if not isinstance(given, torch.Tensor) or not isinstance(batch.targets, torch.Tensor):
        return None
    if given.is_floating_point() or not batch.targets.is_floating_point():
        return None
    candidate = replace(batch, args=(batch.targets,), targets=given)
    run = evaluation(double, candidate)
    return (candidate, ("swapped",), run) if run.broke is None else None


def _mapped(batch: Batch, change: Any) -> Batch:
    from dataclasses import replace

    from torchgraft.trace.tree import mapped

    return replace(batch, args=mapped(change, batch.args), kwargs=mapped(change, batch.kwargs))


def _channels_first(tensor: Tensor) -> Tensor:
    return tensor.movedim(-1, 1) if tensor.dim() == 4 and tensor.shape[-1] in (1, 3, 4) else tensor
