"""Where fake tensors let pass what real ones refuse (torch 2.15): mixed dtypes, indices and classes out of range.

Whole numbers are followed by their least and greatest value, from the example through operations that only
rearrange, and from `arange`: enough to see an embedding whose table is too short. Of a part of a value only bounds
are known; it is refused only where the numbers are sure to be there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchgraft.trace.tree import tensors

if TYPE_CHECKING:
    from torchgraft.trace.memory import Range
    from torchgraft.trace.tape import Tape

__all__ = ["MixedTypesError", "OutOfRangeError", "check", "holds", "range_made", "range_of"]


class OutOfRangeError(IndexError):
    """An index or a class number that the table or the scores do not have."""


class MixedTypesError(RuntimeError):
    """Two tensors of different dtypes meet in a product, which a real pass refuses."""


_PRODUCTS = frozenset(
    {"linear", "matmul", "__matmul__", "mm", "bmm", "mv", "addmm", "baddbmm", "bilinear"}
    | {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
)
_KEEPS = frozenset(
    {"view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "squeeze", "unsqueeze", "expand"}
    | {"expand_as", "repeat", "contiguous", "clone", "detach", "to", "type", "long", "int", "cat"}
)
_WHOLE = {torch.int64: 2**63, torch.int32: 2**31, torch.int16: 2**15}


def check(tape: Tape, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse what a real pass would refuse.

    Raises:
        MixedTypesError: floating and other dtypes meet in a product.
        OutOfRangeError: an index is known to be out of range.
    """
    if name in _PRODUCTS:
        _same_types(tensors((args, kwargs)), name)
    elif name == "embedding":
        _within(tape, _asked(args, kwargs, 0, "input"), _asked(args, kwargs, 1, "weight"), 0, None)
    elif name in ("cross_entropy", "nll_loss"):
        spared = _asked(args, kwargs, 4, "ignore_index")
        scores, target = _asked(args, kwargs, 0, "input"), _asked(args, kwargs, 1, "target")
        _within(tape, target, scores, 1, -100 if spared is None else int(spared))


def _asked(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, name: str) -> Any:
    return args[place] if len(args) > place else kwargs.get(name)


def _same_types(met: list[Tensor], name: str) -> None:
    types = {one.dtype for one in met}
    if len(types) > 1 and not any(torch.is_autocast_enabled(one.device.type) for one in met[:1]):
        words = " and ".join(str(one.dtype)[6:] for one in met[:2])
        raise MixedTypesError(f"{name} of {words}")


def _within(tape: Tape, index: Any, table: Any, dim: int, spared: int | None) -> None:
    if not isinstance(index, Tensor) or not isinstance(table, Tensor):
        return
    found = tape.ranges.get(tape.numbers.get(id(index), -1))
    if found is None or table.dim() <= dim or not found[2]:
        return
    low, high, _ = found
    if spared is not None and low <= spared <= high:
        return
    if low < 0 or high >= table.shape[dim]:
        what = "rows in the table" if dim == 0 else "classes in the scores"
        raise OutOfRangeError(f"numbers run from {low} to {high}, {table.shape[dim]} {what}")


def range_of(tensor: Tensor) -> Range | None:
    """Read the least and greatest of a real tensor of whole numbers; None for any other."""
    if tensor.dtype not in _WHOLE or tensor.device.type == "meta" or not tensor.numel():
        return None
    if type(tensor) is not Tensor:
        return None
    return int(tensor.min()), int(tensor.max()), True


def range_made(tape: Tape, name: str, asked: tuple[Any, Any]) -> Range | None:
    """Give the range of what an operation makes, where it is known; forget all where one writes over numbers."""
    args, kwargs = asked
    if name == "arange":
        return _counted(args, kwargs)
    if not tape.ranges:
        return None
    if (name.endswith("_") and not name.startswith("__")) or name in ("__setitem__", "__iadd__", "__imul__"):
        tape.ranges.clear()  # a view may share what is written
        return None
    return _kept(tape, name, args, kwargs)


def holds(made: Any, found: Range) -> bool:
    """Tell whether a tensor has a type of whole numbers that is wide enough for a range."""
    size = _WHOLE.get(made.dtype) if isinstance(made, Tensor) else None
    return size is not None and -size <= found[0] and found[1] < size


def _kept(tape: Tape, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Range | None:
    def of(one: Tensor) -> Range | None:
        return tape.ranges.get(tape.numbers.get(id(one), -1))

    if name == "__getitem__":
        found = of(args[0]) if args and isinstance(args[0], Tensor) and id(args[0]) not in tape.names else None
        return (found[0], found[1], False) if found else None
    if name in _KEEPS:
        met = tensors((args, kwargs))
        ranges = [of(one) for one in met]
        known = [one for one in ranges if one is not None]
        if not known or len(known) < len(ranges) or any(id(one) in tape.names for one in met):
            return None
        return min(r[0] for r in known), max(r[1] for r in known), all(r[2] for r in known)
    if name in ("add", "__add__", "__radd__") and not kwargs and len(args) == 2:
        plus = [one for one in args if type(one) is int]
        first = next((of(one) for one in args if isinstance(one, Tensor)), None)
        return (first[0] + plus[0], first[1] + plus[0], first[2]) if first and len(plus) == 1 else None
    return None


def _counted(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Range | None:
    numbers = [int(one) for one in args if type(one) is int]
    numbers += [int(kwargs[name]) for name in ("start", "end", "step") if type(kwargs.get(name)) is int]
    if not numbers or len(numbers) > 3 or len(numbers) < len(args):
        return None
    held = range(*numbers)
    return (min(held[0], held[-1]), max(held[0], held[-1]), True) if held else None
