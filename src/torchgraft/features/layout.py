"""How a tensor lies: where its channels stand, and how tokens make a map again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torchgraft.trace.layout import side

if TYPE_CHECKING:
    from torch import Tensor

    from torchgraft.trace import Trace

__all__ = ["Grids", "Sides", "maps_of"]


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


_EXTRA = 8
"""So many tokens may stand beside the places of the image where the trace saw its map: class, registers."""

_USUAL = (0, 1, 2, 5)
"""How many there may be where it saw none: none, a class token, distillation too, or four registers."""

_BENT = 0.3
"""The logarithm by which the shape of a map may differ from that of the image."""


@dataclass(frozen=True)
class Grids:
    """What is known of how tokens lie on an image.

    Attributes:
        image: height and width of the image.
        known: heights and widths of the maps that the trace saw.
        tokens: lengths of the rows of tokens that it saw.
    """

    image: tuple[int, int]
    known: tuple[tuple[int, int], ...] = ()
    tokens: frozenset[int] = frozenset()

    @staticmethod
    def of(image: tuple[int, int], trace: Trace | None) -> Grids:
        """Read the sizes of the maps off a trace."""
        if trace is None:
            return Grids(image)
        shapes = {one.shape for one in trace.values if len(one.shape) == 4 and one.shape[0] == trace.batch}
        sizes = {size for shape in shapes for size in (shape[2:], shape[1:3])}
        rows = {one.shape[1] for one in trace.values if len(one.shape) == 3 and one.shape[0] == trace.batch}
        return Grids(image, tuple(sorted((a, b) for a, b in sizes)), frozenset(rows))

    def as_traced(self, trace: Trace) -> Grids:
        """Give the same for the image of the trace: those that are looked at may have another size."""
        sizes = [shape[-2:] for number in trace.inputs if len(shape := trace.values[number].shape) == 4]
        return replace(self, image=(sizes[0][0], sizes[0][1])) if sizes else self

    def fits(self, size: tuple[int, int]) -> bool:
        """Tell whether a map may be one of the image: about of its shape, and not of tokens by tokens."""
        return self._bent(size) <= _BENT and not self.tokens.issuperset(size)

    def of_tokens(self, count: int) -> tuple[int, int, int] | None:
        """Give height, width, and how many tokens stand before those of the image; None where it is no grid."""
        found = [(h, w, count - h * w) for h, w in self.known if h > 1 and w > 1 and 0 <= count - h * w <= _EXTRA]
        found += [(h, w, extra) for extra in _USUAL if (size := self._sides(count - extra)) for h, w in [size]]
        return min(found, key=lambda one: (self._bent(one), one[2]), default=None)

    def _sides(self, count: int) -> tuple[int, int] | None:
        if count < 4:
            return None
        height = round(math.sqrt(count * self.image[0] / self.image[1]))
        return (height, count // height) if height > 1 and count % height == 0 and count > height else None

    def _bent(self, one: tuple[int, ...]) -> float:
        """Tell how far the shape of a grid is from that of the image."""
        return round(abs(math.log((one[0] / one[1]) / (self.image[0] / self.image[1]))), 1)


def maps_of(tensor: Tensor, side: int, grids: Grids) -> Tensor | None:
    """Lay a tensor out as maps `[N, C, H, W]`; None where it has no map: vectors, or places that are no grid.

    Args:
        tensor: `[N, C, H, W]`, `[N, H, W, C]`, or tokens `[N, L, C]`; those that are no place go.
        side: the dimension of the channels.
        grids: how tokens may lie.
    """
    if tensor.dim() == 4:
        found = tensor if side % 4 == 1 else tensor.permute(0, 3, 1, 2)
        return found if found.shape[2] * found.shape[3] > 1 else None
    if tensor.dim() != 3 or side % 3 != 2:
        return None
    grid = grids.of_tokens(tensor.shape[1])
    if grid is None:
        return None
    height, width, extra = grid
    return tensor[:, extra:].transpose(1, 2).reshape(tensor.shape[0], tensor.shape[2], height, width)
