"""What a fix costs, and what makes it no fix: read off its edits and the parameters before and now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torchgraft.edits.input import Input
from torchgraft.edits.insert import Insert
from torchgraft.edits.reshape import Reshape
from torchgraft.edits.resize import Resize

if TYPE_CHECKING:
    from torch import Tensor

    from torchgraft.edits.base import Edit
    from torchgraft.trace import Trace

__all__ = ["is_shared", "lost", "turns_back"]


def turns_back(edits: Sequence[Edit]) -> bool:
    """Tell whether a layer is resized twice on the same side: what it lost first does not come back."""
    sides = [
        (edit.at, side)
        for edit in edits
        if isinstance(edit, Resize)
        for side in ("inputs", "outputs")
        if getattr(edit, side)
    ]
    return len(sides) != len(set(sides))


def is_shared(edit: Edit, run: Trace) -> bool:
    """Tell whether an insert wrapped a layer that is called more than once."""
    return isinstance(edit, Insert) and bool(edit.moved) and len(run.calls_of(edit.at)) > 1


def lost(before: Mapping[str, Tensor], now: Mapping[str, Tensor], edits: Sequence[Edit]) -> int:
    """Count the values of the parameters before that are in no parameter now."""
    held = {id(tensor) for tensor in now.values()}
    folded = any(isinstance(edit, Input) for edit in edits)
    resized = {edit.at for edit in edits if isinstance(edit, Resize)}
    reshaped = {
        edit.at: edit.drops if edit.along is None else 0  # positions that are interpolated are still there
        for edit in edits
        if isinstance(edit, Reshape)
    }
    count = 0
    for name, tensor in before.items():
        if id(tensor) in held:
            continue
        new = now.get(name)
        if new is not None and name in reshaped:
            count += reshaped[name]
            continue
        if new is not None and folded and name.rpartition(".")[0] not in resized:
            continue
        kept = 0
        if new is not None and name.rpartition(".")[0] in resized and new.dim() == tensor.dim():
            kept = 1
            for ours, theirs in zip(new.shape, tensor.shape, strict=True):
                kept *= min(ours, theirs)
        count += tensor.numel() - kept
    return count
