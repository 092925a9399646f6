"""Where fake tensors let pass what real ones refuse (torch 2.15): mixed dtypes, indices and classes out of range.

Whole numbers are followed by their least and greatest value, from the example through operations that only
rearrange, and from `arange`: enough to see an embedding whose table is too short.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchgraft.trace.tree import tensors

if TYPE_CHECKING:
    from torchgraft.trace.tape import Tape

__all__ = ["OutOfRangeError", "check", "known", "range_of"]


class OutOfRangeError(IndexError):
    """An index or a class number that the table or the scores do not have."""


class MixedTypesError(RuntimeError):
    """Two tensors of different dtypes meet in a product, which a real pass refuses."""


_PRODUCTS = frozenset(
    {"linear", "matmul", "__matmul__", "mm", "bmm", "addmm", "baddbmm", "bilinear", "einsum"}
    | {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
)
_KEEPS = frozenset(
    {"view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "squeeze", "unsqueeze", "expand"}
    | {"expand_as", "repeat", "contiguous", "clone", "detach", "to", "type", "long", "int", "cat", "__getitem__"}
)


def check(tape: Tape, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse what a real pass would refuse.

    Raises:
        MixedTypesError: floating and other dtypes meet in a product.
        OutOfRangeError: an index is known to be out of range.
    """
    if name in _PRODUCTS:
        _same_types(tensors((args, kwargs)), name)
    elif name == "embedding":
        table = kwargs.get("weight", args[1] if len(args) > 1 else None)
        _within(tape, kwargs.get("input", args[0] if args else None), table, 0, None)
    elif name in ("cross_entropy", "nll_loss"):
        scores = kwargs.get("input", args[0] if args else None)
        target = kwargs.get("target", args[1] if len(args) > 1 else None)
        _within(tape, target, scores, 1, int(kwargs.get("ignore_index", -100)))


def _same_types(met: list[Tensor], name: str) -> None:
    types = {one.dtype for one in met}
    if len(types) > 1 and not torch.is_autocast_enabled("cpu"):
        words = " and ".join(str(one.dtype)[6:] for one in met[:2])
        raise MixedTypesError(f"{name} of {words}")


def _within(tape: Tape, index: Any, table: Any, dim: int, spared: int | None) -> None:
    if not isinstance(index, Tensor) or not isinstance(table, Tensor):
        return
    found = tape.ranges.get(tape.numbers.get(id(index), -1))
    if found is None or table.dim() <= dim or found[0] == spared:
        return
    low, high = found
    if low < 0 or high >= table.shape[dim]:
        what = "rows in the table" if dim == 0 else "classes in the scores"
        raise OutOfRangeError(f"numbers run from {low} to {high}, {table.shape[dim]} {what}")


def range_of(tensor: Tensor) -> tuple[int, int] | None:
    """Read the least and greatest of a real tensor of whole numbers; None for any other."""
    if tensor.dtype not in _WHOLE or tensor.device.type == "meta" or not tensor.numel():
        return None
    if type(tensor) is not Tensor:
        return None
    return int(tensor.min()), int(tensor.max())


_WHOLE = frozenset([torch.int64, torch.int32, torch.int16])


def known(tape: Tape, name: str, inputs: tuple[int, ...], asked: Any) -> tuple[int, int] | None:
    """Give the range of what an operation made, where it is known."""
    if name == "arange":
        return _counted(*asked)
    if not tape.ranges:
        return None
    ranges = [tape.ranges.get(number) for number in inputs]
    if name in _KEEPS and ranges and all(ranges):
        return min(r[0] for r in ranges if r), max(r[1] for r in ranges if r)
    if name in ("add", "__add__", "__radd__", "__iadd__") and len(ranges) == 1 and ranges[0]:
        plus = [one for one in asked[0] if type(one) is int]
        return (ranges[0][0] + plus[0], ranges[0][1] + plus[0]) if len(plus) == 1 else None
    return None


def _counted(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, int] | None:
    numbers = [int(one) for one in args if type(one) is int]
    numbers += [int(kwargs[name]) for name in ("start", "end", "step") if type(kwargs.get(name)) is int]
    if not numbers or len(numbers) > 3 or len(numbers) < len(args):
        return None
    held = range(*numbers)
    return (min(held[0], held[-1]), max(held[0], held[-1])) if held else None
