"""Activations and norms by name, for blocks that let one choose."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Activation", "MapNorm", "activation", "last_norm_zero", "map_norm"]

Activation = Literal["relu", "gelu", "silu", "tanh", "sigmoid", "elu", "leaky_relu", "mish", "hardswish", "prelu"]
MapNorm = Literal["batch", "group", "layer", "instance"]


def activation(name: Activation) -> nn.Module:
    """Build an activation."""
    from torch import nn

    kinds: dict[Activation, Callable[[], nn.Module]] = {
        "relu": lambda: nn.ReLU(inplace=True),
        "gelu": nn.GELU,
        "silu": lambda: nn.SiLU(inplace=True),
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
        "elu": nn.ELU,
        "leaky_relu": lambda: nn.LeakyReLU(0.1),
        "mish": nn.Mish,
        "hardswish": nn.Hardswish,
        "prelu": nn.PReLU,
    }
    return kinds[name]()


def map_norm(name: MapNorm) -> Callable[[int], nn.Module]:
    """Give what builds a norm over `[N, C, H, W]` from C."""
    from torch import nn

    def layer(channels: int) -> nn.Module:
        from timm.layers import LayerNorm2d

        made: nn.Module = LayerNorm2d(channels)
        return made

    def group(channels: int) -> nn.Module:
        return nn.GroupNorm(math.gcd(32, channels), channels)

    kinds: dict[MapNorm, Callable[[int], nn.Module]] = {
        "batch": nn.BatchNorm2d,
        "group": group,  # groups as in Wu and He, 2018
        "layer": layer,
        "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    }
    return kinds[name]


def last_norm_zero(norm: nn.Module) -> nn.Module:
    """Let a norm give zero at the start (Goyal et al., 2017): a residual block is then the identity."""
    from torch import nn

    weight = norm.weight
    assert isinstance(weight, nn.Parameter)
    nn.init.zeros_(weight)
    return norm
