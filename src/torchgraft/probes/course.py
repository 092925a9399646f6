"""The course of the loss: a few real steps of a copy of the optimizer on one batch."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict, defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from torchgraft.probes.batch import Batch
    from torchgraft.probes.double import Double

__all__ = ["STEPS", "course"]

STEPS = 4
"""So many steps are taken: a rate that is much too high shows within a few (Smith, 2017, on range tests)."""


def course(double: Double, batch: Batch, loss: Any, optimizer: Any) -> tuple[float, ...] | None:
    """Give the loss before each step and after the last; None where the optimizer's class can't be copied."""
    from torchgraft.probes.double import seeded

    seeded()
    double.module.train()
    losses: list[float] = []
    try:
        mirror = _mirrored(optimizer, double)
        for _ in range(STEPS):
            mirror.step(lambda: _closure(double, batch, loss, losses))
            if not math.isfinite(losses[-1]):
                return tuple(losses)
        losses.append(float(_value(double, batch, loss)))
    except Exception:  # an optimizer of the user's own may want what a copy lacks
        return tuple(losses) if len(losses) > 1 else None
    return tuple(losses)


def _closure(double: Double, batch: Batch, loss: Any, losses: list[float]) -> Tensor:
    import torch

    for parameter in double.module.parameters():
        parameter.grad = None
    with torch.enable_grad():
        value = _value(double, batch, loss)
        value.backward()  # type: ignore[no-untyped-call]
    losses.append(float(value.detach()))
    return value


def _value(double: Double, batch: Batch, loss: Any) -> Tensor:
    from torchgraft.probes.loss import forward, judged

    value: Tensor = judged(forward(double.module, batch), batch, loss)[0].mean()
    return value


def _mirrored(optimizer: Any, double: Double) -> Any:
    """Copy an optimizer with its state and settings onto the double's parameters, without the user's hooks."""
    made = object.__new__(type(optimizer))
    kept = {name: value for name, value in vars(optimizer).items() if name != "step"}  # a scheduler wraps `step`
    hooks = [name for name in kept if name.startswith("_optimizer_")]
    made.__dict__.update({**kept, **{name: OrderedDict() for name in hooks}})
    made.param_groups = [
        {**_apart(group), "params": [double.twin(one) for one in group["params"]]}
        for group in optimizer.param_groups
    ]
    made.state = defaultdict(dict, {double.twin(one): _apart(held) for one, held in optimizer.state.items()})
    return made


def _apart(settings: Any) -> dict[str, Any]:
    """Copy settings or state, the tensors in them too."""
    return {name: one if name == "params" else copy.deepcopy(one) for name, one in settings.items()}
