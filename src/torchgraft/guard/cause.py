"""What is wrong with a step that would spoil the weights: asked once something is, so it may cost something."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from torchgraft.guard.gradients import Reading
from torchgraft.guard.look import told
from torchgraft.guard.statistics import Statistics
from torchgraft.probes.live import Live
from torchgraft.probes.records import Place
from torchgraft.rules.finding import Finding

__all__ = ["cause"]


def cause(
    model: nn.Module,
    step: int,
    reading: Reading,
    *,
    loss: float | None = None,
    statistics: Statistics | None = None,
    arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = None,
) -> Finding | None:
    """Say which parameter and module got NaN or infinity first, as far as it shows; None where all is finite.

    Args:
        model: what is trained.
        step: its number, from 1.
        reading: of the gradients; `read(())` where there was no backward pass yet.
        loss: of the batch, where it is not finite.
        statistics: of the model's norms; they tell where in the forward pass it began, and are put back.
        arguments: what the model was given last; the pass is run once more on a copy, to find the operation.
    """
    names = {id(one): name for name, one in model.named_parameters()}
    norms: dict[str, float | None] = {name: None for name, one in model.named_parameters() if one.requires_grad}
    norms |= {
        names[id(one)]: value
        for one, value in zip(reading.parameters, reading.values(), strict=True)
        if id(one) in names
    }
    odd = tuple(name for name, one in model.named_parameters() if name in norms and _odd(one.grad))
    spoilt = statistics.odd() if statistics is not None else ()
    if statistics is not None:
        statistics.restore()
    live = Live(
        step,
        loss=loss,
        norms=norms,
        odd=odd,
        large=not reading.finite and not odd,
        weights=tuple(name for name, one in model.named_parameters() if _odd(one)),
        statistics=spoilt,
        first=_first(model, arguments) if arguments is not None else None,
    )
    found = told(model, live, codes=("T020",))
    return found[0] if found else None


def _odd(values: torch.Tensor | None) -> bool:
    if values is None:
        return False
    plain = values.coalesce().values() if values.is_sparse else values
    plain = getattr(plain, "_local_tensor", plain)
    return not bool(torch.isfinite(plain).all())


def _made_odd(values: torch.Tensor) -> bool:
    """Tell NaN and infinity from masks, which are made of minus infinity."""
    return values.is_floating_point() and bool((torch.isnan(values) | (values == float("inf"))).any())


def _first(model: nn.Module, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> Place | None:
    """Run the pass again on a copy, and give the operation that first made NaN or infinity of finite values."""
    from torchgraft.probes.double import Double
    from torchgraft.probes.witness import Witness
    from torchgraft.trace.tree import tensors

    found: list[Place] = []

    def each(result: Any, place: Place) -> None:
        if not found and any(_made_odd(one) for one in tensors(result)):
            found.append(place)

    if any(_made_odd(one) for one in tensors(arguments)):
        return Place("", "")
    try:
        double = Double(model)
        double.module.train(model.training)
        witness = Witness(double.module, each=each)
        with torch.random.fork_rng(), torch.no_grad(), witness.watching():
            double.module(*arguments[0], **arguments[1])
    except Exception:  # a model that can't be copied, or breaks: what is known is told without it
        return found[0] if found else None
    return found[0] if found else None
