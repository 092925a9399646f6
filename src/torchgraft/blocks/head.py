"""A head: what makes classes out of the features of a backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from torchgraft.blocks.gem import GeM
from torchgraft.blocks.layers import Activation
from torchgraft.blocks.layout import Laid, Layout, arranged
from torchgraft.blocks.mlp import MLP
from torchgraft.schema import Count, Share

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Head"]


class Head(Laid):
    """Pooling, then linear layers: a map, a sequence or a vector to `[N, classes]`.

    Attributes:
        classes: what it gives.
        hidden: the widths of layers in between, each with activation and dropout.
        dropout: after each hidden layer; without one, before the last layer.
        pool: over the places; none for a vector.
        activation: after each hidden layer.
        norm: LayerNorm or BatchNorm after each hidden layer.
    """

    layouts: ClassVar[tuple[Layout, ...]] = ("NCHW", "NHWC", "NLC", "NCL", "NC")
    classes: Count
    hidden: tuple[Count, ...] = ()
    dropout: Share = 0.0
    pool: Literal["avg", "max", "avgmax", "gem"] = "avg"
    activation: Activation = "relu"
    norm: Literal["layer", "batch"] | None = None

    def build(self) -> nn.Module:
        """Build a Sequential."""
        from torch import nn

        mlp = MLP(
            widths=(*self.hidden, self.classes),
            features=self.width,
            dropout=self.dropout,
            activation=self.activation,
            norm=self.norm,
        ).build()
        linear = list(mlp.children())
        drop = [nn.Dropout(self.dropout)] if self.dropout and not self.hidden else []
        pool = [] if self.layout == "NC" else [arranged(self.core(), self.layout or "NCHW", back=False)]
        return nn.Sequential(*pool, *drop, *linear)

    def core(self) -> nn.Module:
        """Build the pooling over `[N, C, H, W]`."""
        from timm.layers import SelectAdaptivePool2d

        if self.pool == "gem":
            return GeM(channels=self.width).core()
        made: nn.Module = SelectAdaptivePool2d(pool_type=self.pool, flatten=True)
        return made
