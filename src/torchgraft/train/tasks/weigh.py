"""How much each class counts in the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchgraft.errors import TrainError

if TYPE_CHECKING:
    from torchgraft.recipe import TrainPlan

__all__ = ["padded", "positive_weight", "weight_of"]


def weight_of(plan: TrainPlan, count: int, balance: Sequence[float]) -> Tensor | None:
    """Give the weight of each class, `[C]`; None where the plan asks for none.

    Balanced weights are `1 / (C × share)` (King and Zeng, 2001), over the C classes that have samples.

    Args:
        plan: says how classes are weighed.
        count: how many there are.
        balance: the share of the training samples, or their number, of each class.

    Raises:
        TrainError: the list has another length, or nobody counted the classes.
    """
    if plan.class_weights is None:
        return None
    if plan.class_weights == "balanced":
        counted = _counted(count, balance)
        present = sum(one > 0 for one in counted)
        return torch.tensor([sum(counted) / (present * one) if one else 1.0 for one in counted])
    return _listed(plan.class_weights, count)


def positive_weight(plan: TrainPlan, count: int, balance: Sequence[float]) -> Tensor | None:
    """Give what each label's yes counts against its no, `[L]`; balanced, both weigh the same in sum.

    Args:
        plan: says how labels are weighed.
        count: how many there are.
        balance: the share of the training samples that have each label.

    Raises:
        TrainError: the list has another length, or nobody counted the labels.
    """
    if plan.class_weights is None:
        return None
    if plan.class_weights == "balanced":
        return torch.tensor([(1 - one) / one if 0 < one < 1 else 1.0 for one in _counted(count, balance)])
    return _listed(plan.class_weights, count)


def padded(weight: Tensor, outputs: int) -> Tensor:
    """Weigh the outputs that no class of the data has by 1."""
    missing = outputs - len(weight)
    return torch.cat([weight, weight.new_ones(missing)]) if missing > 0 else weight


def _listed(given: Any, count: int) -> Tensor:
    if len(given) != count:
        raise TrainError(
            f"{len(given)} class weights are given, and there are {count} classes",
            where="train.class_weights",
            hint=f"give {count} weights in the order of the classes, or balanced",
        )
    return torch.tensor([float(one) for one in given])


def _counted(count: int, balance: Sequence[float]) -> list[float]:
    if len(balance) != count:
        raise TrainError(
            "how often each class occurs is not known",
            where="train.class_weights",
            hint=f"give {count} weights in the order of the classes instead of balanced",
        )
    return [float(one) for one in balance]
