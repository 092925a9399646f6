"""Ready-made modules to put into a model, as data: a block is described here and built as plain torch.nn."""

from __future__ import annotations

from typing import Any

from torchgraft.blocks.attention import SelfAttention
from torchgraft.blocks.base import Block
from torchgraft.blocks.cbam import CBAM
from torchgraft.blocks.conv import ConvNormAct, DepthwiseSeparable
from torchgraft.blocks.cosine import Cosine
from torchgraft.blocks.eca import ECA
from torchgraft.blocks.gem import GeM
from torchgraft.blocks.head import Head
from torchgraft.blocks.mlp import MLP
from torchgraft.blocks.multi_path import MultiPath
from torchgraft.blocks.projection import Projection
from torchgraft.blocks.residual import Bottleneck, ResidualBlock
from torchgraft.blocks.scale import DropPath, LayerScale
from torchgraft.blocks.squeeze_excite import SqueezeExcite

__all__ = [
    "CBAM",
    "ECA",
    "MLP",
    "Block",
    "Bottleneck",
    "ConvNormAct",
    "Cosine",
    "DepthwiseSeparable",
    "DropPath",
    "GeM",
    "Head",
    "LayerScale",
    "MultiPath",
    "Projection",
    "ResidualBlock",
    "SelfAttention",
    "SqueezeExcite",
]


def __getattr__(name: str) -> Any:
    from torchgraft.errors import nearest

    if name.startswith("_"):
        raise AttributeError(name)
    raise AttributeError(f"there is no block '{name}'; {nearest(name, __all__) or 'docs/blocks.md lists them'}")
