"""How far two tensors are apart: bytes first, so that NaN and -0.0 count as what they are, then by size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Distance", "distance", "kept_part", "plain"]

_CHUNK = 1 << 20
"""So many numbers are compared at once: what a comparison takes beside the two tensors is a few of these."""


@dataclass(frozen=True)
class Distance:
    """How far two tensors of one shape are apart, `before` and `after`.

    Attributes:
        size: how many numbers were compared; a complex one counts as two.
        changed: how many of them differ in a bit; where the dtype differs, in value.
        max_abs: the largest |after - before|, of the numbers that are finite on both sides.
        relative: ||after - before|| / ||before|| in the Euclidean norm; None where `before` is all zero.
        cosine: of the angle between the two, over all their numbers; None where one is all zero.
        broken: numbers that were finite and are NaN or infinite now.
        mended: numbers that were NaN or infinite and are finite now.
    """

    size: int
    changed: int
    max_abs: float = 0.0
    relative: float | None = None
    cosine: float | None = None
    broken: int = 0
    mended: int = 0

    @property
    def bits_alone(self) -> bool:
        """Whether nothing but the sign of zeros or the bits of NaNs differ."""
        return bool(self.changed and not self.max_abs and not self.broken and not self.mended)


def distance(before: Tensor, after: Tensor) -> Distance:
    """Compare two tensors of one shape, piece by piece in double precision; neither is copied as a whole."""
    size = before.numel() * (2 if before.is_complex() else 1)
    if not size or before is after:
        return Distance(size, 0)
    before, after = plain(before), plain(after)
    if _same_memory(before, after):
        return Distance(size, 0)
    sums = _Sums()
    for one, other in zip(_pieces(before), _pieces(after), strict=True):
        sums.add(one, other.to(one.device))
    return sums.told(size)


def kept_part(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor] | None:
    """Give the part that two tensors of different shapes share, from the first number of each dimension on."""
    if before.dim() != after.dim() or not before.dim():
        return None
    place = tuple(slice(min(pair)) for pair in zip(before.shape, after.shape, strict=True))
    return plain(before)[place], plain(after)[place]


def plain(tensor: Tensor) -> Tensor:
    """Give a tensor whose numbers can be read in order; a sparse one with its zeros."""
    import torch

    dense = tensor.detach() if tensor.layout == torch.strided else tensor.detach().to_dense()
    return dense.resolve_conj().resolve_neg()


class _Sums:
    """What is added up over the pieces."""

    def __init__(self) -> None:
        self.changed = self.broken = self.mended = 0
        self.largest = self.apart = self.first = self.second = self.product = 0.0

    def add(self, before: Tensor, after: Tensor) -> None:
        """Take a piece of each side in."""
        import torch

        differ = _differ(before, after)
        count = int(differ.sum())
        self.changed += count
        one, other = _double(before), _double(after)
        finite = torch.isfinite(one), torch.isfinite(other)
        both = finite[0] & finite[1]
        one, other = torch.where(both, one, 0.0), torch.where(both, other, 0.0)
        self.first += float(one.dot(one))
        self.second += float(other.dot(other))
        self.product += float(one.dot(other))
        if count:
            self.broken += int((finite[0] & ~finite[1]).sum())
            self.mended += int((finite[1] & ~finite[0]).sum())
            gap = other - one
            self.apart += float(gap.dot(gap))
            self.largest = max(self.largest, float(gap.abs().max()))

    def told(self, size: int) -> Distance:
        """Say what the sums come to."""
        if not self.changed:
            return Distance(size, 0)
        norms = math.sqrt(self.first), math.sqrt(self.second)
        relative = math.sqrt(self.apart) / norms[0] if norms[0] else None
        cosine = min(max(self.product / norms[0] / norms[1], -1.0), 1.0) if norms[0] and norms[1] else None
        return Distance(size, self.changed, self.largest, relative, cosine, self.broken, self.mended)


def _same_memory(before: Tensor, after: Tensor) -> bool:
    place = [(one.device, one.data_ptr(), one.dtype, one.shape, one.stride()) for one in (before, after)]
    return place[0] == place[1]


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    """Give the numbers in order, flat, piece by piece; complex ones as pairs."""
    import torch

    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return iter(torch.split(real.reshape(-1), _CHUNK))


def _differ(before: Tensor, after: Tensor) -> Tensor:
    """Mark the numbers that differ in a bit; in value, where the two have different dtypes."""
    import torch

    if before.dtype != after.dtype:
        one, other = _double(before), _double(after)
        return (one != other) & ~(one.isnan() & other.isnan())
    kind = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[before.element_size()]
    return before.contiguous().view(kind) != after.contiguous().view(kind)


def _double(piece: Tensor) -> Tensor:
    import torch

    return piece.to(torch.float64)
