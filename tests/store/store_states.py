"""States to draw from, and how two are told apart: by their bytes."""

from __future__ import annotations

import math

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64,
    torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint64, torch.uint32, torch.uint16, torch.uint8, torch.bool,
    torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
)  # fmt: skip
WITH_DISK = settings(max_examples=40, deadline=None)  # each example waits for the disk
NAMES = st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__" and name.isprintable())


def same(one: Tensor, other: Tensor) -> bool:
    """Compare dtype, shape and bytes."""
    return one.dtype == other.dtype and one.shape == other.shape and bits(one) == bits(other)


def bits(tensor: Tensor) -> bytes:
    plain = tensor.resolve_conj().clone(memory_format=torch.contiguous_format)
    return bytes(plain.reshape(-1).view(torch.uint8).tolist())


def of_bytes(raw: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if not raw:
        return torch.empty(shape, dtype=dtype)
    return torch.tensor(list(raw), dtype=torch.uint8).view(dtype).reshape(shape)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """A tensor of any dtype, shape and bits (NaN payloads too), some transposed, strided or conjugated."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    count = math.prod(shape) * dtype.itemsize
    byte = st.integers(0, 1 if dtype is torch.bool else 255)
    tensor = of_bytes(bytes(draw(st.lists(byte, min_size=count, max_size=count))), dtype, shape)
    view = draw(st.sampled_from(["as it is", "transposed", "strided", "conjugated"]))
    if view == "transposed" and tensor.ndim > 1:
        return tensor.transpose(0, -1)
    if view == "strided" and tensor.ndim:
        return tensor[::2]
    return tensor.conj() if view == "conjugated" else tensor


@st.composite
def states(draw: st.DrawFn) -> dict[str, Tensor]:
    """A state dict in which some names may be tied to others."""
    state = draw(st.dictionaries(NAMES, tensors(), max_size=5))
    for name in draw(st.lists(NAMES, max_size=2)):
        if state:
            state[name] = state[draw(st.sampled_from(sorted(state)))]
    return state
