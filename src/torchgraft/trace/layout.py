"""Which dimension of a tensor holds its channels."""

from __future__ import annotations

from typing import Literal

from torchgraft.trace.record import Trace, Value

__all__ = ["Side", "side"]

Side = Literal["first", "last"]

_FIRST = ("conv1d", "conv2d", "conv3d", "batch_norm", "group_norm")
_LAST = ("linear", "layer_norm", "rms_norm", "embedding")
_TURNS = ("permute", "transpose", "movedim")


def side(run: Trace, value: Value) -> Side:
    """Say which dimension holds the channels of a value: 1, or the last.

    A square map says it by its shape; else the nearest operation with weights that made the value does.
    """
    shape = value.shape
    if len(shape) == 3:
        return "first" if _made_by(run, value).startswith("conv") else "last"
    if len(shape) < 4 or shape[1] == shape[2] == shape[3]:
        return "first"
    square = shape[2:].count(shape[2]) == len(shape) - 2, shape[1:-1].count(shape[1]) == len(shape) - 2
    if square[0] != square[1]:
        return "first" if square[0] else "last"
    return "last" if _made_by(run, value) in _LAST else "first"


def _made_by(run: Trace, value: Value) -> str:
    """Name the nearest operation upstream that has weights; one that turned the map since says nothing."""
    number = next((n for n, one in enumerate(run.values) if one is value), None)
    for op in () if number is None else run.upstream(number):
        if op.name in _TURNS:
            return ""
        if op.params and op.name in (*_FIRST, *_LAST):
            return op.name
    return ""
