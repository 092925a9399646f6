"""Ready-made modules to put into a model, as data: a block is described here and built as plain torch.nn."""

from __future__ import annotations

from torchgraft.blocks.base import Block
from torchgraft.blocks.mlp import MLP
from torchgraft.blocks.projection import Projection
from torchgraft.blocks.squeeze_excite import SqueezeExcite

__all__ = ["MLP", "Block", "Projection", "SqueezeExcite"]
