"""The bytes of tensors: what makes two the same, which share memory, and their digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING

from torchgraft.errors import StoreError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["digest", "digests", "dtype_name", "plain", "raw_bytes", "state_digest", "summed", "ties"]


def digest(tensor: Tensor) -> str:
    """Give the sha256 over dtype, shape and raw bytes; -0.0 is not 0.0, and each NaN is itself.

    Strides and device do not count. A tensor without plain values (meta, fake, lazy, sparse) is a StoreError.
    """
    return _digest(tensor, "")


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Give the sha256 over the sorted names and the digests of their tensors."""
    return summed(digests(state))


def digests(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Give the digest of every tensor; memory that several names share is read once."""
    seen: dict[Hashable, str] = {}
    return {name: _remembered(seen, tensor, name) for name, tensor in state.items()}


def _remembered(seen: dict[Hashable, str], tensor: Tensor, name: str) -> str:
    place = _place(tensor, name)
    if place not in seen:
        seen[place] = _digest(tensor, name)
    return seen[place]


def _digest(tensor: Tensor, name: str) -> str:
    values = plain(tensor, name)
    total = hashlib.sha256(f"{dtype_name(values)} {list(values.shape)}\n".encode())
    total.update(raw_bytes(values))
    return total.hexdigest()


def summed(parts: Mapping[str, str]) -> str:
    """Give the sha256 over sorted names and what stands under them."""
    return hashlib.sha256(json.dumps(sorted(parts.items())).encode()).hexdigest()


def ties(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Say which names are a second name of a tensor: the name -> the first name of the same memory.

    Only the very same view counts; a tensor that merely overlaps another is a tensor of its own.
    """
    first: dict[Hashable, str] = {}
    found: dict[str, str] = {}
    for name, tensor in state.items():
        owner = first.setdefault(_place(tensor, name), name)
        if owner != name:
            found[name] = owner
    return found


def _place(tensor: Tensor, name: str) -> Hashable:
    """Name the memory that a tensor shows, and how it shows it; an empty tensor shows only itself."""
    _refuse_unreadable(tensor, name)
    if not tensor.numel():
        return name
    flags = (tensor.is_conj(), tensor.is_neg())
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), flags)


def plain(tensor: Tensor, name: str) -> Tensor:
    """Give the tensor's values in memory order on the CPU, copied only where they are not so yet."""
    _refuse_unreadable(tensor, name)
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()


def raw_bytes(values: Tensor) -> memoryview:
    """Show the bytes of a plain tensor without copying them."""
    import torch

    flat = values.as_strided((values.numel(),), (1,))  # of one element or none, any stride is contiguous
    return flat.view(torch.uint8).numpy().data


def dtype_name(tensor: Tensor) -> str:
    """Give the dtype's name: `float32`."""
    return str(tensor.dtype).removeprefix("torch.")


def _refuse_unreadable(tensor: Tensor, name: str) -> None:
    why = _unreadable(tensor)
    if why:
        raise StoreError(
            f"a tensor that {why} can't be stored", name, "give it values first: a plain, dense tensor"
        )


def _unreadable(tensor: Tensor) -> str:
    import torch
    from torch.nn.parameter import is_lazy

    if not isinstance(tensor, torch.Tensor):
        return f"is a {type(tensor).__name__}"
    if is_lazy(tensor):
        return "waits for its first batch"
    if tensor.is_meta:
        return "is on meta and has no values"
    kind = type(tensor.detach())
    if kind is not torch.Tensor:  # fake, distributed, quantized: its bytes lie elsewhere, if anywhere
        return f"is a {kind.__name__}"
    if tensor.is_nested or tensor.is_quantized or tensor.layout != torch.strided:
        return "is nested, quantized or sparse"
    return ""
