"""Efficient channel attention: weighs each channel by those beside it, with a handful of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torchgraft.blocks.base import Start
from torchgraft.blocks.layout import Laid, Layout
from torchgraft.blocks.wiring import doubled_sigmoid
from torchgraft.schema import Count

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ECA"]


class ECA(Laid):
    """Channel attention by a 1-d convolution over the pooled channels (Wang et al., 2020), as timm builds it.

    Attributes:
        kernel: how many neighbouring channels are seen, an odd number; from the number of channels when left out,
            by the formula of the paper.
        start: with `identity` the gate runs from 0 to 2 and its weights start at zero: every channel weighs 1.
    """

    layouts: ClassVar[tuple[Layout, ...]] = ("NCHW", "NHWC", "NLC", "NCL")
    kernel: Count | None = None
    start: Start = None

    def core(self) -> nn.Module:
        """Build timm's EcaModule."""
        from timm.layers import EcaModule
        from torch import nn

        gate: Any = doubled_sigmoid if self.start else "sigmoid"
        if self.kernel:
            module: nn.Module = EcaModule(kernel_size=self.kernel | 1, gate_layer=gate)
        else:
            module = EcaModule(channels=self.width, gate_layer=gate)
        if self.start:
            nn.init.zeros_(module.conv.weight)  # type: ignore[union-attr, arg-type]
        return module
