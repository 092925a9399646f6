"""Cosine classifier: scores by the angle between features and one learnt direction for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from torchgraft.blocks.base import Block
from torchgraft.schema import Count

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Cosine"]


class Cosine(Block):
    """Cosines times a learnt scale, `[N, …, features]` -> `[N, …, classes]` (Gidaris and Komodakis, 2018).

    Features and weights count by their direction alone, so that classes of few samples are not drowned by others.

    Attributes:
        classes: the number of directions.
        features: what arrives; read off the place when left out.
        scale: where the learnt scale starts.
    """

    classes: Count
    features: Count | None = None
    scale: Annotated[float, Field(gt=0)] = 10.0

    def fitted(self, shape: tuple[int, ...]) -> Cosine:
        """Take the features from the last dimension."""
        return self if self.features else self.model_copy(update={"features": shape[-1]})

    def build(self) -> nn.Module:
        """Build a graph of torch.fx with the parameters `weight` and `scale`."""
        import torch
        from torch import nn

        from torchgraft.blocks.wiring import wired

        assert self.features is not None
        weight = nn.Parameter(torch.empty(self.classes, self.features))
        nn.init.kaiming_uniform_(weight, a=5**0.5)  # as nn.Linear draws them
        scale = nn.Parameter(torch.tensor(float(self.scale)))
        return wired("Cosine", _cosines, weight=weight, scale=scale)


def _cosines(net: Any, x: Any) -> Any:
    """Multiply by the weight itself and divide by its length after: no second copy of it is made."""
    import torch
    from torch.nn import functional as F

    length = torch.linalg.vector_norm(net.weight, dim=1).clamp(min=1e-12)
    return net.scale * (F.linear(F.normalize(x, dim=-1), net.weight) / length)
