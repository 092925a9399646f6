"""Descriptions of the plain modules that fixes put in, by the rank of the map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["crop", "flat", "grid", "grow", "pool", "pool_flat", "replicate", "times"]


def times(sizes: Sequence[int]) -> str:
    """Write sizes as people do: `32×32`."""
    return "×".join(map(str, sizes))


def flat() -> dict[str, Any]:
    """Describe a flatten that keeps the batch."""
    return {"nn.Flatten": {"start_dim": 1}}


def pool(size: Sequence[int]) -> dict[str, Any]:
    """Describe an average pooling to a map of this size."""
    return {f"nn.AdaptiveAvgPool{len(size)}d": {"output_size": list(size)}}


def pool_flat(size: Sequence[int]) -> list[dict[str, Any]]:
    """Describe an average pooling to this size with a flatten behind it."""
    return [pool(size), flat()]


def grow(size: Sequence[int]) -> dict[str, Any]:
    """Describe an interpolation to a map of this size: adaptive pooling would only repeat cells."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return {"nn.Upsample": {"size": list(size), "mode": mode, "align_corners": False}}


def crop(over: Sequence[int]) -> dict[str, Any]:
    """Describe what cuts rows off at the end of each dimension: a padding below zero."""
    pads = [pad for gap in reversed(over) for pad in (0, -gap)]
    return {f"nn.ConstantPad{len(over)}d": {"padding": pads, "value": 0.0}}


def replicate(missing: Sequence[int]) -> dict[str, Any]:
    """Describe a padding at the end of each dimension that repeats the border."""
    pads = [pad for gap in reversed(missing) for pad in (0, gap)]
    return {f"nn.ReplicationPad{len(missing)}d": {"padding": pads}}


def grid(cells: int, like: Sequence[int]) -> tuple[int, ...] | None:
    """Give the map of so many cells whose sides are nearest in proportion to those of `like`.

    Sides that are the same in `like` are the same here: a square map comes from a square one, so that 128 cells
    are no 8×16 map for one of 16×16, but other channels. None where there is no such map.
    """
    found = _nearest(cells, like)
    if found is None:
        return None
    pairs = set(zip(like, found, strict=True))
    return found if len(pairs) == len({side for side, _ in pairs}) else None


def _nearest(cells: int, like: Sequence[int]) -> tuple[int, ...] | None:
    if len(like) == 1:
        return (cells,)
    found: tuple[float, tuple[int, ...]] | None = None
    for side in range(1, cells + 1):
        if cells % side:
            continue
        rest = _nearest(cells // side, like[1:])
        if rest is not None:
            sizes = (side, *rest)
            ratios = [size / given for size, given in zip(sizes, like, strict=True)]
            off = max(ratios) / min(ratios)
            found = min(found, (off, sizes)) if found else (off, sizes)
    return found[1] if found else None
