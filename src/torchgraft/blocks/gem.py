"""Generalised-mean pooling: between the average and the maximum, by a learnable exponent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from torchgraft.blocks.layout import Laid, Layout, arranged
from torchgraft.blocks.wiring import wired

if TYPE_CHECKING:
    from torch import nn

__all__ = ["GeM"]


class GeM(Laid):
    """A map to a vector, `[N, C, H, W]` -> `[N, C]`: the root of the mean power (Radenović et al., 2018).

    Values below 1e-6 count as 1e-6, so it belongs behind a ReLU.

    Attributes:
        p: what the exponent starts at: 1 is the average, a large one the maximum.
    """

    layouts: ClassVar[tuple[Layout, ...]] = ("NCHW", "NHWC", "NLC", "NCL")
    p: Annotated[float, Field(strict=True, ge=1)] = 3.0

    def build(self) -> nn.Module:
        """Build the pooling; what it gives has one layout."""
        return arranged(self.core(), self.layout or "NCHW", back=False)

    def core(self) -> nn.Module:
        """Build a graph with one parameter, `p`."""
        import torch
        from torch import nn

        return wired(
            "GeM",
            lambda net, x: x.clamp(min=1e-6).pow(net.p).mean((-2, -1)).pow(1 / net.p),
            p=nn.Parameter(torch.tensor(self.p)),
        )
