"""Operations that were seen before with tensors of the same geometry: their results are made without running them.

A fake tensor costs much more to compute than to make. Only operations whose results depend on nothing but the
geometry of what they take are remembered; a view is made as a view of the same storage again.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from torchgraft.trace.tree import PLAIN, Open

__all__ = ["REPEATED", "Made", "Repeats", "asked", "made_again", "made_of"]

REPEATED = frozenset(
    {"view", "reshape", "transpose", "permute", "unsqueeze", "squeeze", "expand", "expand_as", "flatten"}
    | {"__getitem__", "cat", "stack", "add", "sub", "mul", "div", "__add__", "__radd__", "__sub__", "__rsub__"}
    | {"__mul__", "__rmul__", "__truediv__", "neg", "pow", "rsqrt", "mean", "sum", "softmax", "matmul", "bmm"}
    | {
        "linear",
        "scaled_dot_product_attention",
        "layer_norm",
        "rms_norm",
        "gelu",
        "silu",
        "relu",
        "sigmoid",
        "tanh",
    }
    | {
        "tensor",
        "conv1d",
        "conv2d",
        "embedding",
        "masked_fill",
        "where",
        "roll",
        "pad",
        "interpolate",
        "contiguous",
    }
)
"""Operations that write to nothing and draw nothing."""


class Made(NamedTuple):
    """A result that can be made again.

    Attributes:
        spec: its shape, strides, dtype and device.
        base: which of the tensors that were taken it is a view of.
        offset: where in that one it begins.
        macs: multiply-accumulates of the operation.
        constant: the values that it is known to have: none, where it is empty.
    """

    spec: tuple[torch.Size, tuple[int, ...], torch.dtype, torch.device]
    base: int | None
    offset: int
    macs: int
    constant: Tensor | None = None


Repeats = dict[Hashable, Made]
"""Results by the operation and the geometry of its arguments."""


def asked(func: Any, args: Any, kwargs: Any, given: list[Tensor]) -> Hashable | None:
    """Write an operation and its arguments as a value, and list its tensors; None where it can't be told."""
    try:
        key = (func, _frozen(args, given), _frozen(kwargs, given))
        hash(key)
    except (Open, TypeError):
        return None
    return key


def _frozen(one: Any, given: list[Tensor]) -> Hashable:
    kind = type(one)
    if kind is FakeTensor:
        return _geometry(one, given)
    if kind in PLAIN:
        return (kind, one)
    if kind is tuple or kind is list or kind is torch.Size:
        return (kind, *[_frozen(part, given) for part in one])
    if kind is dict:
        return tuple([(name, _frozen(part, given)) for name, part in one.items()])
    if kind is slice:
        return (kind, _frozen(one.start, given), _frozen(one.stop, given), _frozen(one.step, given))
    if one is Ellipsis or kind is torch.dtype or kind is torch.memory_format:
        return (kind, one)
    if kind is torch.device and (one.type == "cpu" or one.index is not None):  # else it is the current one
        return (kind, one)
    raise Open(kind.__name__)


def _geometry(one: FakeTensor, given: list[Tensor]) -> Hashable:
    if _has_values(one) or one.requires_grad or one.layout != torch.strided:
        raise Open("a tensor with values, or without strides")
    given.append(one)
    return (one.shape, one.stride(), one.dtype, one.fake_device, one.is_conj(), one.is_neg())


def _has_values(one: FakeTensor) -> bool:
    """Tell whether a tensor's values are known, so that an operation may read them."""
    return one.constant is not None and one.constant.numel() > 0


def made_of(result: Any, given: list[Tensor], macs: int) -> Made | None:
    """Describe a result; None where it could not be made again by that."""
    if type(result) is not FakeTensor or any(result is one for one in given) or _has_values(result):
        return None
    if result.layout != torch.strided or result.requires_grad or result.is_conj() or result.is_neg():
        return None
    spec = (result.shape, result.stride(), result.dtype, result.fake_device)
    place = result.untyped_storage()._cdata
    bases = [number for number, one in enumerate(given) if one.untyped_storage()._cdata == place]
    if not bases:
        return None if result.storage_offset() else Made(spec, None, 0, macs, result.constant)
    base = given[bases[0]]
    if len(bases) > 1 or base.dtype != result.dtype:
        return None
    return Made(spec, bases[0], int(result.storage_offset() - base.storage_offset()), macs)


def made_again(mode: FakeTensorMode, made: Made, given: list[Tensor]) -> Tensor:
    """Make a result again, as a view of what it was a view of, or in a storage of its own."""
    shape, stride, dtype, device = made.spec
    with torch._C._DisableTorchDispatch():
        if made.base is None:
            twin = torch.empty_strided(shape, stride, dtype=dtype, device="meta")
            return FakeTensor(mode, twin, device, constant=made.constant)
        base = given[made.base]
        twin = torch.empty(0, dtype=dtype, device="meta")
        twin.set_(base.untyped_storage(), made.offset + base.storage_offset(), shape, stride)
        return FakeTensor(mode, twin, device)
