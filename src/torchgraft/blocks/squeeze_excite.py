"""Squeeze-and-excitation: weighs the channels of a feature map by what the whole map holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torchgraft.blocks.base import Start
from torchgraft.blocks.layout import Laid, Layout
from torchgraft.blocks.wiring import doubled_sigmoid
from torchgraft.schema import Count

if TYPE_CHECKING:
    from torch import nn

__all__ = ["SqueezeExcite"]


class SqueezeExcite(Laid):
    """Channel attention (Hu et al., 2018), as torchvision builds it; it keeps the shape.

    Attributes:
        reduction: how many times narrower the squeezed vector is than C; never below 1 channel.
        start: with `identity` the gate runs from 0 to 2 and its last layer starts at zero, so every channel starts
            with the weight 1.
    """

    layouts: ClassVar[tuple[Layout, ...]] = ("NCHW", "NHWC", "NLC", "NCL")
    reduction: Count = 16
    start: Start = None

    def core(self) -> nn.Module:
        """Build torchvision's SqueezeExcitation."""
        from torch import nn
        from torchvision.ops import SqueezeExcitation

        squeezed = max(self.width // self.reduction, 1)
        if self.start is None:
            module: nn.Module = SqueezeExcitation(self.width, squeezed)
            return module
        module = SqueezeExcitation(self.width, squeezed, scale_activation=doubled_sigmoid)
        nn.init.zeros_(module.fc2.weight)  # type: ignore[union-attr, arg-type]
        nn.init.zeros_(module.fc2.bias)  # type: ignore[union-attr, arg-type]
        return module
