"""The gradients of one step, read once: their norms, the norm of all, and clipping by it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Reading", "clip", "read"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What one read of the gradients gave.

    Attributes:
        parameters: that have a gradient.
        norms: of each of these gradients; a tensor `[n]`, or one tensor each where they lie on several devices.
        total: the norm of all of them together; 0 where there are none.
    """

    parameters: Sequence[Tensor]
    norms: Sequence[Tensor] | Tensor
    total: float

    @property
    def finite(self) -> bool:
        """Tell whether a step may be taken."""
        return isfinite(self.total)

    def values(self) -> list[float]:
        """Give the norm of each gradient as a number."""
        return [float(one) for one in _local(self.norms)]


def read(parameters: Iterable[Tensor]) -> Reading:
    """Read the norms of all gradients; one number is fetched from the device.

    Args:
        parameters: those without a gradient are left out.
    """
    held = [one for one in parameters if one.grad is not None]  # no generator: it is resumed for each of them
    grads: list[Any] = [one.grad for one in held]
    if not grads:
        return Reading((), (), 0.0)
    norms, total = _norms(grads)
    return Reading(held, norms, total)


def _norms(grads: list[Tensor]) -> tuple[Sequence[Tensor] | Tensor, float]:
    """Give the norms; in one fused call where all gradients are alike, as nearly always."""
    first = grads[0]
    short = first.dtype in (torch.float16, torch.bfloat16)  # their own norms overflow where they do not
    try:
        each = torch.stack(torch._foreach_norm(grads, 2, dtype=torch.float32 if short else None))
    except (RuntimeError, NotImplementedError, TypeError):  # several devices or kinds, sparse
        return _one_by_one(grads)
    total = torch.linalg.vector_norm(each)
    return each, float(_whole(total))


def _one_by_one(grads: list[Tensor]) -> tuple[Sequence[Tensor], float]:
    plain = [grad.coalesce().values() if grad.is_sparse else grad for grad in grads]
    norms = [torch.linalg.vector_norm(_whole(one).float()) for one in plain]
    return norms, float(torch.linalg.vector_norm(torch.stack([one.cpu() for one in norms])))


def _whole(value: Tensor) -> Tensor:
    """Give a value that is shared out over processes as a whole."""
    made: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return made


def _local(norms: Sequence[Tensor] | Tensor) -> list[float]:
    if isinstance(norms, Tensor):
        values: list[float] = _whole(norms).tolist()
        return values
    return [float(one) for one in norms]


def clip(reading: Reading, most: float) -> None:
    """Scale the gradients that were read so that their norm is `most` at the largest (Pascanu et al., 2013).

    The same numbers as `torch.nn.utils.clip_grad_norm_`, without its second read, and without touching gradients
    that are small enough.

    Args:
        reading: of the gradients as they are; a finite one.
        most: the norm that they may have.
    """
    share = most / (reading.total + 1e-6)
    if share >= 1.0:
        return
    grads = [one.grad for one in reading.parameters if one.grad is not None]
    with torch.no_grad():
        if isinstance(reading.norms, Tensor) and not hasattr(reading.norms, "full_tensor"):
            torch._foreach_mul_(grads, _coefficient(reading.norms, most))
        else:
            for grad in grads:
                grad.mul_(share)


def _coefficient(norms: Tensor, most: float) -> Tensor:
    """Compute the share as torch does, in the precision of the gradients."""
    return torch.clamp(most / (torch.linalg.vector_norm(norms) + 1e-6), max=1.0)


def trained(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Give the parameters that an optimizer moves."""
    return [one for group in optimizer.param_groups for one in group["params"]]
