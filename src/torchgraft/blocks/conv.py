"""Convolutions with their norm and activation, plain and depthwise separable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from torchgraft.blocks.base import Start, refused
from torchgraft.blocks.layers import Activation, MapNorm, activation, map_norm
from torchgraft.blocks.layout import Laid
from torchgraft.blocks.wiring import gated
from torchgraft.schema import Count

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ConvNormAct", "DepthwiseSeparable"]


_B = TypeVar("_B", "ConvNormAct", "DepthwiseSeparable")


class ConvNormAct(Laid):
    """Convolution, norm, activation, as torchvision's Conv2dNormActivation; an odd kernel keeps the map's size.

    Attributes:
        out_channels: what it gives; as many as arrive when left out.
        kernel: its width.
        stride: 2 halves the map.
        dilation: between the cells that it looks at.
        groups: of the convolution.
        norm: None for none; the convolution then has a bias.
        activation: None for none.
        start: with `identity` it is added to what it takes through a gate that starts at zero.
    """

    out_channels: Count | None = None
    kernel: Count = 3
    stride: Count = 1
    dilation: Count = 1
    groups: Count = 1
    norm: MapNorm | None = "batch"
    activation: Activation | None = "relu"
    start: Start = None

    def fitted(self, shape: tuple[int, ...]) -> ConvNormAct:
        """Take what arrives from the shape."""
        return _shaped(super().fitted(shape))

    def core(self) -> nn.Module:
        """Build torchvision's Conv2dNormActivation."""
        out = self.out_channels or self.width
        sizes = (self.width, out, self.kernel, self.stride)
        made = _layer(*sizes, groups=self.groups, norm=self.norm, act=self.activation, dilation=self.dilation)
        return gated(made) if self.start else made


class DepthwiseSeparable(Laid):
    """A convolution of each channel alone, then a 1×1 over all, with norm and activation (Howard et al., 2017).

    Attributes:
        out_channels: what it gives; as many as arrive when left out.
        kernel: width of the first.
        stride: 2 halves the map.
        norm: after each; None for none.
        activation: after each; None for none.
        start: with `identity` it is added to what it takes through a gate that starts at zero.
    """

    out_channels: Count | None = None
    kernel: Count = 3
    stride: Count = 1
    norm: MapNorm | None = "batch"
    activation: Activation | None = "relu"
    start: Start = None

    def fitted(self, shape: tuple[int, ...]) -> DepthwiseSeparable:
        """Take what arrives from the shape."""
        return _shaped(super().fitted(shape))

    def core(self) -> nn.Module:
        """Build two of torchvision's Conv2dNormActivation."""
        from torch import nn

        wide, out = self.width, self.out_channels or self.width
        each = _layer(wide, wide, self.kernel, self.stride, groups=wide, norm=self.norm, act=self.activation)
        made = nn.Sequential(each, _layer(wide, out, 1, 1, groups=1, norm=self.norm, act=self.activation))
        return gated(made) if self.start else made


def _shaped(block: _B) -> _B:
    """Refuse a start that the shape forbids, and groups that do not divide the channels."""
    changes = block.stride != 1 or block.kernel % 2 == 0 or block.out_channels not in (None, block.width)
    if block.start and changes:
        raise refused(
            block,
            "can't start as the identity: what it gives has another shape than what it takes",
            f"stride=1, an odd kernel and out_channels={block.width}, or leave start out",
        )
    groups = block.groups if isinstance(block, ConvNormAct) else 1
    out = block.out_channels or block.width
    if block.width % groups or out % groups:
        raise refused(
            block,
            f"has {groups} groups, which do not divide {block.width} and {out} channels",
            "take groups that divide both",
        )
    return block


def _layer(
    given: int,
    out: int,
    kernel: int,
    stride: int,
    *,
    groups: int,
    norm: MapNorm | None,
    act: Activation | None,
    dilation: int = 1,
) -> nn.Module:
    from torchvision.ops import Conv2dNormActivation

    made: Any = Conv2dNormActivation(
        given,
        out,
        kernel,
        stride,
        groups=groups,
        dilation=dilation,
        norm_layer=map_norm(norm) if norm else None,
        activation_layer=(lambda: activation(act)) if act else None,
        inplace=None,
    )
    layer: nn.Module = made
    return layer
