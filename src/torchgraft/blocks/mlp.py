"""A multi-layer perceptron from a list of widths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from torchgraft.blocks.base import Block
from torchgraft.schema import Count, Share

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MLP"]


class MLP(Block):
    """Linear layers with ReLU and dropout between them, `[N, …, features]` -> `[N, …, widths[-1]]`.

    Attributes:
        widths: the outputs of each linear layer; the last one has neither activation nor dropout.
        features: what arrives; read off the place when left out.
        dropout: probability after each hidden layer.
    """

    widths: Annotated[tuple[Count, ...], Field(min_length=1)]
    features: Count | None = None
    dropout: Share = 0.0

    def fitted(self, shape: tuple[int, ...]) -> MLP:
        """Take the features from the last dimension."""
        return self if self.features else self.model_copy(update={"features": shape[-1]})

    def build(self) -> nn.Module:
        """Build a Sequential."""
        from torch import nn

        assert self.features is not None
        layers: list[nn.Module] = []
        width = self.features
        for hidden in self.widths[:-1]:
            layers += [nn.Linear(width, hidden), nn.ReLU(inplace=True)]
            layers += [nn.Dropout(self.dropout)] if self.dropout else []
            width = hidden
        return nn.Sequential(*layers, nn.Linear(width, self.widths[-1]))
