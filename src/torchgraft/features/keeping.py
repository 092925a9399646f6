"""How a tensor is kept as it is now: shared with the model until somebody writes to it, or only a part of it.

`torch._lazy_clone` gives a tensor that shares its memory with another until either is written to; the one that is
written to gets memory of its own then. So a later in-place ReLU does not reach what was kept, whoever calls it,
and what nobody writes to is never copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Keeping", "lasting", "storages"]

_PLAIN = (Tensor, nn.Parameter, nn.Buffer)
_SHARED_ENOUGH = 2
"""A view is kept with its whole memory where that is less than so many times its own size."""


@dataclass(frozen=True)
class Keeping:
    """What of each tensor is kept, and where.

    Attributes:
        samples: which of the first dimension.
        channels: which of the channels.
        device: where it goes; None leaves it where it is.
        part: what else is taken of each tensor.
        measured: what is kept in the stead of a tensor, from it and the dimension of its channels.
    """

    samples: slice | Sequence[int] | None = None
    channels: slice | Sequence[int] | None = None
    device: torch.device | None = None
    part: Callable[[Tensor], Tensor] | None = None
    measured: Callable[[Tensor, int], Tensor] | None = None

    @property
    def whole(self) -> bool:
        """Whether a tensor is kept as it is."""
        return self.samples is None and self.channels is None and self.part is None

    def of(self, tensor: Tensor, side: int) -> Tensor:
        """Give what is kept of a tensor, in the tensor's graph; it may share memory with the tensor.

        Args:
            tensor: any tensor.
            side: the dimension of the channels.
        """
        if self.samples is not None and tensor.dim():
            tensor = _cut(tensor, self.samples, 0)
        if self.channels is not None and tensor.dim() > 1:
            tensor = _cut(tensor, self.channels, side % tensor.dim())
        if self.part is not None:
            tensor = self.part(tensor)
        return tensor if self.device is None else tensor.to(self.device)

    def detached(self, tensor: Tensor, side: int, held: AbstractSet[int]) -> Tensor:
        """Give what is kept of a tensor, with a life of its own: outside of the graph, safe from later writing.

        Args:
            tensor: any tensor.
            side: the dimension of the channels.
            held: the memory of weights and arguments, see `storages`.
        """
        tensor = tensor.detach()
        if self.measured is not None:
            return self.measured(tensor, side)
        found = self.of(tensor, side)
        if found.device != tensor.device:
            return found
        return lasting(found, held) if self.whole else found.clone()


def _cut(tensor: Tensor, wanted: slice | Sequence[int], dim: int) -> Tensor:
    if isinstance(wanted, slice):
        return tensor[(slice(None),) * dim + (wanted,)]
    return tensor.index_select(dim, torch.as_tensor(list(wanted), device=tensor.device))


def lasting(tensor: Tensor, held: AbstractSet[int]) -> Tensor:
    """Give a tensor of the same values that no later writing reaches, in the graph of the tensor.

    Args:
        tensor: any tensor.
        held: memory that is copied at once: it belongs to the user, who may know its address.
    """
    if (
        type(tensor) not in _PLAIN
        or tensor.layout is not torch.strided
        or tensor.device.type not in ("cpu", "cuda")
    ):
        return tensor.clone()
    try:
        storage = tensor.untyped_storage()
        large = storage.nbytes() >= _SHARED_ENOUGH * tensor.numel() * tensor.element_size()
        return tensor.clone() if large or storage._cdata in held else torch._lazy_clone(tensor)
    except (RuntimeError, AttributeError):  # memory of numpy's, or a tensor of torch.func, which has none
        return tensor.clone()


def storages(*tensors: Tensor) -> set[int]:
    """Give the memory of tensors, to tell it again."""
    found = set()
    for one in tensors:
        if type(one) in _PLAIN and one.layout is torch.strided:
            with suppress(RuntimeError):  # a tensor of torch.func has none
                found.add(one.untyped_storage()._cdata)
    return found
