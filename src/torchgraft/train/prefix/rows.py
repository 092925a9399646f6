"""How a tensor holds the samples of a batch, and its rows: one for each sample, in the order of its memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["Lie", "close", "lie_of", "same"]


@dataclass(frozen=True)
class Lie:
    """Where the samples of a tensor are.

    Attributes:
        axis: the dimension that they are in.
        each: entries of it that one sample has: windows of an image, heads of attention.
        order: the other dimensions, in the order in which they lie in memory.
    """

    axis: int
    each: int
    order: tuple[int, ...]

    @cached_property
    def plain(self) -> bool:
        """Whether the samples come first, and the memory is in the order of the dimensions."""
        return self.axis == 0 and self.order == tuple(range(1, len(self.order) + 1))

    def rows(self, tensor: Tensor, count: int) -> Tensor:
        """Give `[count, …]`, a row for each sample."""
        lined = tensor.permute(self.axis, *self.order)
        return lined.reshape(count, self.each, *lined.shape[1:]) if self.each != 1 else lined

    def whole(self, rows: Tensor) -> Tensor:
        """Put rows together to what the tensor was; its memory is in the same order if the samples come first."""
        lined = rows.flatten(0, 1) if self.each != 1 else rows
        if self.plain:
            return lined
        back = [0] * lined.dim()
        for place, dim in enumerate((self.axis, *self.order)):
            back[dim] = place
        return lined.permute(back)


def lie_of(one: Tensor, other: Tensor, counts: tuple[int, int]) -> Lie | None:
    """Find where the samples are, from the same tensor of two passes; None where it has no row a sample.

    Args:
        one: of the first pass.
        other: of the second.
        counts: of the samples of each.
    """
    if one.dim() != other.dim() or one.dtype != other.dtype:
        return None
    axes = [dim for dim in range(one.dim()) if one.shape[dim] != other.shape[dim]]
    if len(axes) != 1:
        return None
    axis = axes[0]
    each = one.shape[axis] // counts[0]
    if not each or one.shape[axis] != each * counts[0] or other.shape[axis] != each * counts[1]:
        return None
    rest = [dim for dim in range(one.dim()) if dim != axis]
    strides = one.stride()
    return Lie(axis, each, tuple(sorted(rest, key=lambda dim: (-strides[dim], dim))))


def same(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors are equal bit for bit."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.numel() or one.layout != torch.strided:
        return one is other or not one.numel()
    size = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(one.element_size(), torch.uint8)
    pair = [tensor.detach().contiguous().reshape(-1).view(size) for tensor in (one, other)]
    return torch.equal(*pair)


def close(one: Tensor, other: Tensor, *, ulps: float = 2.0**12) -> bool:
    """Tell whether two tensors are equal but for rounding: in so many units of the largest number's last place."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    largest = max(float(tensor.detach().abs().amax()) if tensor.numel() else 0.0 for tensor in (one, other))
    if not math.isfinite(largest):
        return torch.allclose(one, other, rtol=1e-3, equal_nan=True)
    apart = float((one.detach() - other.detach()).abs().amax()) if one.numel() else 0.0
    return apart <= ulps * torch.finfo(one.dtype).eps * largest
