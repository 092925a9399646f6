"""A multi-layer perceptron from a list of widths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from torchgraft.blocks.base import Block, Start, refused
from torchgraft.blocks.layers import Activation, activation
from torchgraft.blocks.wiring import residual
from torchgraft.schema import Count, Flag, Share

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MLP"]


class MLP(Block):
    """Linear layers with activation and dropout between them, `[N, …, features]` -> `[N, …, widths[-1]]`.

    Attributes:
        widths: the outputs of each linear layer; the last one has neither norm nor activation nor dropout.
        features: what arrives; read off the place when left out.
        dropout: probability after each hidden layer.
        activation: after each hidden layer.
        norm: before each activation: `layer`, or `batch` for `[N, features]` alone.
        residual: layers that keep the width are added to what they take.
        start: with `identity`, which needs the last width to be that of what arrives, the whole is added to what
            it takes, and its last layer starts at zero.
    """

    widths: Annotated[tuple[Count, ...], Field(min_length=1)]
    features: Count | None = None
    dropout: Share = 0.0
    activation: Activation = "relu"
    norm: Literal["layer", "batch"] | None = None
    residual: Flag = False
    start: Start = None

    def fitted(self, shape: tuple[int, ...]) -> MLP:
        """Take the features from the last dimension.

        Raises:
            EditError: the widths forbid to start as the identity, or the shape forbids the norm.
        """
        done = self if self.features else self.model_copy(update={"features": shape[-1]})
        if self.start and self.widths[-1] != done.features:
            raise refused(
                self,
                f"can't start as the identity: it gives {self.widths[-1]} features of {done.features}",
                f"let the last of widths be {done.features}, or leave start out",
            )
        if self.norm == "batch" and len(shape) != 2:
            raise refused(
                self, f"has a batch norm over [N, C], and is given {len(shape)} dimensions", "norm=layer"
            )
        return done

    def build(self) -> nn.Module:
        """Build a Sequential, beside a shortcut where it starts as the identity."""
        from torch import nn

        if self.features is None:
            raise refused(self, "has open sizes", "give features=…, or take them from a shape: fitted((2, 512))")
        layers: list[nn.Module] = []
        width = self.features
        for hidden in self.widths[:-1]:
            layers += self._step(width, hidden)
            width = hidden
        last = nn.Linear(width, self.widths[-1])
        if self.start is None:
            return nn.Sequential(*layers, last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        return residual(nn.Sequential(*layers, last))

    def _step(self, width: int, hidden: int) -> list[nn.Module]:
        """Build a hidden layer and what stands behind it."""
        from torch import nn

        kinds = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d}
        layers: list[nn.Module] = [nn.Linear(width, hidden)]
        layers += [kinds[self.norm](hidden)] if self.norm else []
        layers.append(activation(self.activation))
        layers += [nn.Dropout(self.dropout)] if self.dropout else []
        return [residual(nn.Sequential(*layers))] if self.residual and width == hidden else layers
