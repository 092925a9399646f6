"""Convolutional block attention: weighs the channels of a feature map, then its places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchgraft.blocks.base import Start
from torchgraft.blocks.layout import Laid
from torchgraft.blocks.wiring import doubled_sigmoid
from torchgraft.schema import Count

if TYPE_CHECKING:
    from torch import nn

__all__ = ["CBAM"]


class CBAM(Laid):
    """Channel attention, then spatial attention (Woo et al., 2018), as timm builds it; it keeps the shape.

    Attributes:
        reduction: how many times narrower the squeezed vector is than C; never below 1 channel.
        kernel: how wide the convolution of the spatial attention looks, an odd number.
        start: with `identity` both gates run from 0 to 2 and start at 1.
    """

    reduction: Count = 16
    kernel: Count = 7
    start: Start = None

    def core(self) -> nn.Module:
        """Build timm's CbamModule."""
        from timm.layers.cbam import CbamModule
        from torch import nn

        module: Any = CbamModule(
            self.width,
            rd_channels=max(self.width // self.reduction, 1),
            spatial_kernel_size=self.kernel | 1,
            gate_layer=doubled_sigmoid if self.start else "sigmoid",
        )
        if self.start:
            nn.init.zeros_(module.channel.fc2.weight)
            nn.init.zeros_(module.spatial.conv.bn.weight)
        made: nn.Module = module
        return made
