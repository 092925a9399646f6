"""Residual blocks: two 3×3 convolutions beside a shortcut, or a bottleneck of 1×1, 3×3, 1×1."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, TypeVar

from torchgraft.blocks.base import Start, refused
from torchgraft.blocks.layers import MapNorm, last_norm_zero, map_norm
from torchgraft.blocks.layout import Laid
from torchgraft.blocks.wiring import residual
from torchgraft.schema import Count

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Bottleneck", "ResidualBlock"]


_B = TypeVar("_B", "ResidualBlock", "Bottleneck")


class ResidualBlock(Laid):
    """Two 3×3 convolutions and a shortcut (He et al., 2016), as torchvision's resnet18 has them.

    Attributes:
        out_channels: what it gives; as many as arrive when left out.
        stride: 2 halves the map.
        norm: after each convolution.
        start: with `identity` the last norm starts at zero (Goyal et al., 2017), and there is no ReLU behind the
            sum, which would cut what is negative.
    """

    out_channels: Count | None = None
    stride: Count = 1
    norm: MapNorm = "batch"
    start: Start = None

    def fitted(self, shape: tuple[int, ...]) -> ResidualBlock:
        """Take what arrives from the shape."""
        return _shaped(super().fitted(shape))

    def core(self) -> nn.Module:
        """Build torchvision's BasicBlock, or its layers beside a shortcut."""
        from torchvision.models.resnet import BasicBlock

        out = self.out_channels or self.width
        norm = map_norm(self.norm)
        block: Any = BasicBlock(self.width, out, self.stride, _shortcut(self, out), norm_layer=norm)
        names = ("conv1", "bn1", "relu", "conv2", "bn2")
        return _identity(block, names) if self.start else block


class Bottleneck(Laid):
    """1×1, 3×3, 1×1 and a shortcut (He et al., 2016; grouped: Xie et al., 2017), as torchvision's resnet50 has it.

    Attributes:
        out_channels: what it gives, a multiple of 4; as many as arrive when left out.
        stride: 2 halves the map.
        groups: of the 3×3 convolution.
        width_per_group: channels of each group, per 64 of `out_channels / 4`.
        norm: after each convolution.
        start: with `identity` the last norm starts at zero (Goyal et al., 2017), and there is no ReLU behind the
            sum, which would cut what is negative.
    """

    out_channels: Count | None = None
    stride: Count = 1
    groups: Count = 1
    width_per_group: Count = 64
    norm: MapNorm = "batch"
    start: Start = None

    def fitted(self, shape: tuple[int, ...]) -> Bottleneck:
        """Take what arrives from the shape.

        Raises:
            EditError: 4 does not divide the channels that it gives.
        """
        done = _shaped(super().fitted(shape))
        out = done.out_channels or done.width
        if out % 4:
            raise refused(self, f"gives a multiple of 4 channels, not {out}", f"out_channels={-(-out // 4) * 4}")
        return done

    def core(self) -> nn.Module:
        """Build torchvision's Bottleneck, or its layers beside a shortcut."""
        from torchvision.models.resnet import Bottleneck as Made

        out = self.out_channels or self.width
        block: Any = Made(
            self.width,
            out // 4,
            self.stride,
            _shortcut(self, out),
            self.groups,
            self.width_per_group,
            norm_layer=map_norm(self.norm),
        )
        names = ("conv1", "bn1", "relu", "conv2", "bn2", "relu", "conv3", "bn3")
        return _identity(block, names) if self.start else block


def _shaped(block: _B) -> _B:
    """Refuse a start that the shape forbids."""
    if block.start and (block.stride != 1 or block.out_channels not in (None, block.width)):
        raise refused(
            block,
            "can't start as the identity: what it gives has another shape than what it takes",
            f"stride=1 and out_channels={block.width}, or leave start out",
        )
    return block


def _shortcut(block: ResidualBlock | Bottleneck, out: int) -> nn.Module | None:
    from torch import nn

    if block.stride == 1 and out == block.width:
        return None
    return nn.Sequential(nn.Conv2d(block.width, out, 1, block.stride, bias=False), map_norm(block.norm)(out))


def _identity(block: Any, names: tuple[str, ...]) -> nn.Module:
    """Hold the layers of a block of torchvision in a body whose last norm starts at zero."""
    from torch import nn

    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name in names:
        layers[f"{name}_2" if name in layers else name] = getattr(block, name)
    last_norm_zero(layers[names[-1]])
    return residual(nn.Sequential(layers))
