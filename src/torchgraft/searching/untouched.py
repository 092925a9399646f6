"""A model that is trained for a moment, and is then as it was, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["untouched"]


@dataclass
class _Kept:
    """One tensor of a model: where it hangs, its storage as it was, and a copy of its values."""

    holder: dict[str, Tensor | None] | dict[str, nn.Parameter | None]
    name: str
    tensor: Tensor
    data: Tensor
    values: Tensor
    trains: bool
    grad: Tensor | None
    slope: Tensor | None

    @classmethod
    def of(
        cls, holder: dict[str, Tensor | None] | dict[str, nn.Parameter | None], name: str, one: Tensor
    ) -> _Kept:
        grad = one.grad if one.is_leaf else None
        copied = None if grad is None else grad.detach().clone()
        return cls(holder, name, one, one.data, one.detach().clone(), one.requires_grad, grad, copied)

    def put(self) -> None:
        """Put it back: the same object at the same place, the same storage, the same values."""
        self.data.copy_(self.values)
        if self.tensor.device != self.data.device or self.tensor.data_ptr() != self.data.data_ptr():
            self.tensor.data = self.data
        self.holder[self.name] = self.tensor  # type: ignore[assignment]
        if self.tensor.is_leaf:
            self.tensor.requires_grad_(self.trains)
            if self.grad is not None and self.slope is not None:
                self.grad.data.copy_(self.slope)
            self.tensor.grad = self.grad


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put a model back after the block: weights, buffers, gradients, what is trainable, modes, bit for bit.

    Tensors are the same objects as before, so that an optimizer of the user's own goes on with them. It holds a
    copy of every tensor meanwhile.
    """
    kept = [
        _Kept.of(holder, name, one)
        for module in model.modules()
        for holder in (module._parameters, module._buffers)
        for name, one in holder.items()
        if one is not None
    ]
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        with torch.no_grad():
            for one in kept:
                one.put()
        for module, mode in modes:
            module.training = mode
