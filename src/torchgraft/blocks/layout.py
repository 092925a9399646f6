"""Layouts: which dimension of a tensor holds the samples, the channels, and the places."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from torchgraft.blocks.base import Block, refused
from torchgraft.schema import Count

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MAPS", "Laid", "Layout", "arranged", "layout_of"]

Layout = Literal["NC", "NCL", "NLC", "NCHW", "NHWC"]
"""N samples, C channels, H·W places of a map, L places of a sequence."""

MAPS: tuple[Layout, ...] = ("NCHW", "NHWC")

_NAMES: dict[Layout, str] = {
    "NC": "features [N, C]",
    "NCL": "a sequence [N, C, L]",
    "NLC": "tokens [N, L, C]",
    "NCHW": "a feature map [N, C, H, W]",
    "NHWC": "a feature map with the channels last [N, H, W, C]",
}


def layout_of(rank: int, *, last: bool) -> Layout | None:
    """Name the layout of a tensor of so many dimensions, whose channels come last or not; None: there is none."""
    known: dict[int, tuple[Layout, Layout]] = {2: ("NC", "NC"), 3: ("NCL", "NLC"), 4: ("NCHW", "NHWC")}
    return known[rank][last] if rank in known else None


class Laid(Block, ABC):
    """A block whose channels stand in a dimension that its layout names.

    Attributes:
        channels: C of what arrives; read off the place when left out.
        layout: read off the place when left out; `fitted` alone takes channels first for a map, last for tokens.
    """

    layouts: ClassVar[tuple[Layout, ...]] = MAPS
    """What the block can stand in."""

    channels: Count | None = None
    layout: Layout | None = None

    def fitted(self, shape: tuple[int, ...]) -> Self:
        """Take the layout and the channels from the shape.

        Raises:
            EditError: the block can't stand where a tensor of that shape passes.
        """
        layout = self.layout or layout_of(len(shape), last=len(shape) == 3)
        if layout not in self.layouts or len(shape) != len(layout):
            needs = " or ".join(_NAMES[one] for one in self.layouts)
            gets = ["N", *map(str, shape[1:])]
            raise refused(
                self,
                f"takes {needs}, and is given [{', '.join(gets)}]"
                + (f" as {self.layout}" if self.layout and self.layout in self.layouts else ""),
                "put it where such a tensor passes: "
                + ("before the pooling" if len(shape) == 2 else "g.trace() tells what each module gives"),
            )
        done = {"layout": layout, "channels": self.channels or shape[layout.index("C")]}
        return self.model_copy(update=done)

    @property
    def width(self) -> int:
        """The channels that arrive.

        Raises:
            EditError: they are open.
        """
        if self.channels is None:
            raise refused(self, "has open sizes", "give channels=…, or a shape: fitted((2, 64, 8, 8))")
        return self.channels

    def build(self) -> nn.Module:
        """Build the module over `[N, C, H, W]`, between what turns other layouts into that."""
        return arranged(self.core(), self.layout or "NCHW")

    @abstractmethod
    def core(self) -> nn.Module:
        """Build the module over `[N, C, H, W]`."""


def arranged(module: nn.Module, layout: Layout, *, back: bool = True) -> nn.Module:
    """Turn a layout into `[N, C, H, W]` for a module, and what it gives back again (`back`)."""
    from torch import nn
    from torchvision.ops import Permute

    single: Callable[[], nn.Module] = lambda: nn.Unflatten(2, (-1, 1))  # noqa: E731  # a map of one column
    before: dict[Layout, list[nn.Module]] = {
        "NCHW": [],
        "NHWC": [Permute([0, 3, 1, 2])],
        "NCL": [single()],
        "NLC": [Permute([0, 2, 1]), single()],
        "NC": [nn.Unflatten(1, (-1, 1, 1))],
    }
    after: dict[Layout, list[nn.Module]] = {
        "NCHW": [],
        "NHWC": [Permute([0, 2, 3, 1])],
        "NCL": [nn.Flatten(2)],
        "NLC": [nn.Flatten(2), Permute([0, 2, 1])],
        "NC": [nn.Flatten(1)],
    }
    steps = [*before[layout], module, *(after[layout] if back else [])]
    return module if len(steps) == 1 else nn.Sequential(*steps)
