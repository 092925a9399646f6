"""The cause of a broken step, by one more pass: who made the first NaN, who overwrote what backward needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchgraft.probes.records import Place

if TYPE_CHECKING:
    from torch import Tensor

    from torchgraft.probes.batch import Batch
    from torchgraft.probes.double import Double

__all__ = ["first_odd", "overwritten"]


def first_odd(double: Double, batch: Batch, loss: Any) -> Place | None:
    """Find the first operation that gives NaN or infinity; masks made of infinity alone do not count."""
    from torchgraft.trace.tree import tensors

    found: list[Place] = []

    def each(result: Any, place: Place) -> None:
        import torch

        if not found and any(
            one.is_floating_point() and bool(torch.isnan(one).any() | (one == float("inf")).any())
            for one in tensors(result)
        ):
            found.append(place)

    _run(double, batch, loss, each)
    return found[0] if found else None


@dataclass
class _Saved:
    tensor: Tensor
    version: int
    place: Place


def overwritten(double: Double, batch: Batch, loss: Any) -> tuple[Place, Place] | None:
    """Find a tensor that the backward pass needs and an in-place operation changed: (who needs it, who wrote)."""
    import torch

    saved: list[_Saved] = []
    guilty: list[tuple[Place, Place]] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(_Saved(tensor, tensor._version, Place("", "")))
        return tensor

    def each(result: Any, place: Place) -> None:
        for one in saved:
            if not one.place.op:
                one.place = place
            elif one.tensor._version != one.version and not guilty:
                guilty.append((one.place, place))

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _run(double, batch, loss, each)
    return guilty[0] if guilty else None


def _run(double: Double, batch: Batch, loss: Any, each: Any) -> None:
    import torch

    from torchgraft.probes.double import seeded
    from torchgraft.probes.loss import forward, judged
    from torchgraft.probes.witness import Witness

    seeded()
    double.module.train()
    witness = Witness(double.module, each=each)
    try:
        with torch.enable_grad(), witness.watching():
            output = forward(double.module, batch)
            witness.judging = True
            judged(output, batch, loss)
    except Exception:  # that it breaks is told already
        return
