"""How a tensor lies: where its channels stand, and how tokens make a map again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchgraft.trace.layout import side

if TYPE_CHECKING:
    from torch import Tensor

    from torchgraft.trace import Trace

__all__ = ["Layout", "Sides", "as_maps", "layout_of"]


class Sides:
    """Tells which dimension of what a module gave holds its channels: by its trace, or by its shape alone."""

    def __init__(self, trace: Trace | None) -> None:
        self._trace = trace

    def of(self, path: str) -> Callable[[Tensor], int]:
        """Give what tells the dimension, for the tensors of one module."""
        return lambda tensor: self._side(path, tensor)

    def _side(self, path: str, tensor: Tensor) -> int:
        if self._trace is not None:
            for value in self._trace.gave(path):
                if value.shape[1:] == tuple(tensor.shape[1:]):
                    return 1 if side(self._trace, value) == "first" else -1
        return 1 if tensor.dim() != 3 else -1
