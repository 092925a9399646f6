"""LayerScale and DropPath: what stands at the end of a residual branch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from torchgraft.blocks.base import Block, Start
from torchgraft.blocks.layout import Laid, Layout, arranged
from torchgraft.schema import Share

if TYPE_CHECKING:
    from torch import nn

__all__ = ["DropPath", "LayerScale"]


class LayerScale(Laid):
    """A learnable factor for each channel (Touvron et al., 2021), as timm builds it.

    Attributes:
        value: what the factors start at.
        start: with `identity` they start at 1.
    """

    layouts: ClassVar[tuple[Layout, ...]] = ("NCHW", "NHWC", "NLC", "NCL", "NC")
    value: Annotated[float, Field(strict=True, gt=0)] = 1e-5
    start: Start = None

    def build(self) -> nn.Module:
        """Build timm's LayerScale, or LayerScale2d where the channels come first."""
        from timm.layers import LayerScale as Last

        if (self.layout or "NCHW") in ("NCHW", "NCL"):
            return arranged(self.core(), self.layout or "NCHW")
        made: nn.Module = Last(self.width, 1.0 if self.start else self.value)
        return made

    def core(self) -> nn.Module:
        """Build timm's LayerScale2d."""
        from timm.layers import LayerScale2d

        made: nn.Module = LayerScale2d(self.width, 1.0 if self.start else self.value)
        return made


class DropPath(Block):
    """Drops samples at random in training (Huang et al., 2016), as timm builds it; for any shape.

    It belongs at the end of a residual branch: a sample that is dropped there goes through the shortcut alone.

    Attributes:
        rate: how many of the samples are dropped.
        start: in evaluation mode it is the identity at any time, so this changes nothing.
    """

    rate: Share = 0.1
    start: Start = None

    def fitted(self, shape: tuple[int, ...]) -> DropPath:
        """Nothing is open."""
        return self

    def build(self) -> nn.Module:
        """Build timm's DropPath."""
        from timm.layers import DropPath as Made

        made: nn.Module = Made(self.rate)
        return made
