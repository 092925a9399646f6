"""Squeeze-and-excitation: weighs the channels of a feature map by what the whole map holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchgraft.blocks.base import Block
from torchgraft.schema import Count

if TYPE_CHECKING:
    from torch import nn

__all__ = ["SqueezeExcite"]


class SqueezeExcite(Block):
    """Channel attention, `[N, C, H, W]` -> `[N, C, H, W]` (Hu et al., 2018), as torchvision builds it.

    Attributes:
        channels: C; read off the place when left out.
        reduction: how many times narrower the squeezed vector is than C; never below 1 channel.
    """

    channels: Count | None = None
    reduction: Count = 16

    def fitted(self, shape: tuple[int, ...]) -> SqueezeExcite:
        """Take the channels from dimension 1."""
        return self if self.channels else self.model_copy(update={"channels": shape[1]})

    def build(self) -> nn.Module:
        """Build torchvision's SqueezeExcitation."""
        from torchvision.ops import SqueezeExcitation

        assert self.channels is not None
        module: nn.Module = SqueezeExcitation(self.channels, max(self.channels // self.reduction, 1))
        return module
