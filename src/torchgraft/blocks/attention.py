"""Self-attention over the places of a map or sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from torchgraft.blocks.base import Start, refused
from torchgraft.blocks.layout import Laid, Layout
from torchgraft.blocks.wiring import wired
from torchgraft.schema import Count, Share

if TYPE_CHECKING:
    from torch import nn

__all__ = ["SelfAttention"]


class SelfAttention(Laid):
    """Every place looks at every other, beside a shortcut (Vaswani et al., 2017; over maps: Wang et al., 2018).

    LayerNorm, then torch's MultiheadAttention over the H·W places, added to what arrives.

    Attributes:
        heads: they divide the channels; about one for 32 channels when left out.
        dropout: of the attention weights, in training.
        start: with `identity` the last projection starts at zero.
    """

    layouts: ClassVar[tuple[Layout, ...]] = ("NCHW", "NHWC", "NLC", "NCL")
    heads: Count | None = None
    dropout: Share = 0.0
    start: Start = None

    def fitted(self, shape: tuple[int, ...]) -> Self:
        """Take the channels from the shape, and as many heads as divide them.

        Raises:
            EditError: the heads do not divide the channels.
        """
        done = super().fitted(shape)
        width = done.width
        heads = done.heads or max(n for n in range(1, max(width // 32, 1) + 1) if width % n == 0)
        if width % heads:
            near = max(n for n in range(1, heads) if width % n == 0)
            raise refused(self, f"has {heads} heads, which do not divide {width} channels", f"heads={near}")
        return done.model_copy(update={"heads": heads})

    def build(self) -> nn.Module:
        """Build the graph for the layout at hand."""
        return self.core()

    def core(self) -> nn.Module:
        """Build a graph of a LayerNorm, a MultiheadAttention and a sum."""
        from torch import nn

        layout = self.layout or "NCHW"
        attention = nn.MultiheadAttention(self.width, self.heads or 1, dropout=self.dropout, batch_first=True)
        if self.start:
            nn.init.zeros_(attention.out_proj.weight)
            nn.init.zeros_(attention.out_proj.bias)

        def forward(net: Any, x: Any) -> Any:
            tokens = x.flatten(2).transpose(1, 2) if layout.startswith("NC") else x.flatten(1, -2)
            seen = net.norm(tokens)
            given = net.attention(seen, seen, seen, need_weights=False)[0]
            return x + (given.transpose(1, 2) if layout.startswith("NC") else given).reshape(x.shape)

        return wired("SelfAttention", forward, norm=nn.LayerNorm(self.width), attention=attention)
