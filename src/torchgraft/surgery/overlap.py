"""What a layer keeps of its weights when it gets other sizes, and what the rest starts as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["copy_overlap", "fill"]


def copy_overlap(old: nn.Module, new: nn.Module, rows: Sequence[int] = (), columns: Sequence[int] = ()) -> int:
    """Copy what both layers hold, and count the old parameters that found a place.

    Args:
        old: where from.
        new: where to.
        rows: which old outputs, features or entries come first; as many as fit when left out.
        columns: which old inputs come first.
    """
    import torch

    theirs, trained = old.state_dict(), dict(old.named_parameters())
    theirs = {name: _chosen(tensor, rows, columns) for name, tensor in theirs.items()}
    kept = 0
    with torch.no_grad():
        for name, tensor in new.state_dict().items():
            if name not in theirs or tensor.dim() != theirs[name].dim():
                continue
            count = _copied(old, new, name, theirs[name], tensor)
            kept += count if name in trained else 0
    return kept


def _chosen(tensor: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    if rows and tensor.dim():
        tensor = tensor[list(rows)]
    return tensor[:, list(columns)] if columns and tensor.dim() > 1 else tensor


def fill(old: nn.Module, new: nn.Module, kept: int, start: str) -> None:
    """Let the rows after the first `kept` start at zero, or at the mean of the old ones (Hewitt, 2021)."""
    import torch

    theirs = old.state_dict()
    with torch.no_grad():
        for name, tensor in new.state_dict().items():
            if not tensor.dim() or name not in theirs or tensor.shape[0] <= kept or tensor.is_meta:
                continue
            tensor[kept:].zero_()
            if start == "mean":
                mean = theirs[name].double().mean(0).to(tensor.dtype)
                shared = tuple(slice(min(sizes)) for sizes in zip(tensor.shape[1:], mean.shape, strict=True))
                tensor[(slice(kept, None), *shared)] = mean[shared]


def _copied(old: Any, new: Any, name: str, source: Tensor, target: Tensor) -> int:
    if name.startswith("in_proj"):  # query, key and value lie below one another
        pairs = zip(source.chunk(3), target.chunk(3), strict=True)
        return sum(_copy(one, other) for one, other in pairs)
    if name == "weight" and getattr(old, "groups", 1) > 1 and getattr(new, "groups", 1) != old.groups:
        return _copy_groups(source, target, old.groups, new.groups)
    return _copy(source, target)


def _copy(old: Tensor, new: Tensor) -> int:
    shared = tuple(slice(min(ours, theirs)) for ours, theirs in zip(new.shape, old.shape, strict=True))
    if new.device.type != "meta":
        if new.dim() > 1 and new.shape[1] > old.shape[1]:
            new[: old.shape[0], old.shape[1] :].zero_()
        new[shared].copy_(old[shared])
    return old[shared].numel()


def _copy_groups(old: Tensor, new: Tensor, groups: int, now: int) -> int:
    """Place each old group on the diagonal of the weight that has `now` groups; `[out, in/groups, …]`."""
    rows, columns = old.shape[0] // groups, old.shape[1]
    high, wide = new.shape[0] // now, new.shape[1]
    kept = 0
    if new.device.type != "meta":
        new[: old.shape[0]].zero_()
    for number in range(groups):
        top = number * rows
        left = number * columns - (top // high) * wide if high else 0
        part = new[top : top + rows, max(left, 0) : max(left, 0) + columns]
        source = old[top : top + part.shape[0], :, ...][:, : part.shape[1]]
        if left >= 0 and part.shape == source.shape:
            kept += source.numel()
            if new.device.type != "meta":
                part.copy_(source)
    return kept
