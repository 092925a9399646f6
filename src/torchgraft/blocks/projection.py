"""Projection: brings a tensor to the shape that a place gave before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from torchgraft.blocks.base import Block
from torchgraft.schema import Count

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Projection"]


class Projection(Block):
    """Channels by a 1×1 convolution or a linear layer, the map by pooling or interpolation.

    It starts as the identity on the channels that both sides share, so that what was trained is disturbed least.

    Attributes:
        out: what it gives, the batch left out: `[C, H, W]`, `[C]`, or `[…, C]` where channels come last.
        given: what arrives, in the same way; read off the place when left out.
        channels: which dimension holds the channels: `first` or `last`.
    """

    out: tuple[Count, ...]
    given: tuple[Count, ...] | None = None
    channels: Literal["first", "last"] = "first"

    def fitted(self, shape: tuple[int, ...]) -> Projection:
        """Take what arrives from the shape."""
        return self if self.given else self.model_copy(update={"given": tuple(shape[1:])})

    def __str__(self) -> str:
        return f"a projection of {list(self.given or ())} to {list(self.out)}"

    def build(self) -> nn.Module:
        """Build a Sequential of what is needed; an Identity where nothing is."""
        from torch import nn

        assert self.given is not None
        steps = _last(self.given, self.out) if self.channels == "last" else _first(self.given, self.out)
        return steps[0] if len(steps) == 1 else nn.Sequential(*steps)


def _first(given: tuple[int, ...], out: tuple[int, ...]) -> list[nn.Module]:
    from torch import nn

    steps: list[nn.Module] = []
    if len(given) > 1 and len(out) == 1:
        steps += [_average(given[1:], (1,) * (len(given) - 1)), nn.Flatten()]
        given = given[:1]
    elif len(given) == 1 and len(out) > 1:
        steps.append(nn.Unflatten(1, (given[0], *(1 for _ in out[1:]))))
        given = (given[0], *(1 for _ in out[1:]))
    shrink = (
        len(given) > 1 and given[1:] != out[1:] and all(a >= b for a, b in zip(given[1:], out[1:], strict=True))
    )
    if shrink:  # fewer places first: the projection is then the cheaper
        steps.append(_average(given[1:], out[1:]))
    if given[0] != out[0]:
        steps.append(_narrow(given[0], out[0], len(given) - 1))
    if len(given) > 1 and not shrink and given[1:] != out[1:]:
        steps.append(_grow(given[1:], out[1:]))
    return steps or [nn.Identity()]


def _last(given: tuple[int, ...], out: tuple[int, ...]) -> list[nn.Module]:
    """Channels come last: `[N, …, C]`; other dimensions must agree."""
    from torch import nn

    return [_narrow(given[-1], out[-1], 0)] if given[-1] != out[-1] else [nn.Identity()]


def _narrow(given: int, out: int, rank: int) -> nn.Module:
    """Build a 1×1 convolution or linear layer that starts as the identity on the shared channels."""
    import torch
    from torch import nn

    kinds = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    layer: Any = kinds[rank](given, out, 1) if rank else nn.Linear(given, out)
    with torch.no_grad():
        layer.bias.zero_()
        layer.weight.copy_(torch.eye(out, given).reshape(layer.weight.shape))
    made: nn.Module = layer
    return made


def _average(given: tuple[int, ...], out: tuple[int, ...]) -> nn.Module:
    from torch import nn

    rank = len(given)
    steps = {a // b if a % b == 0 else 0 for a, b in zip(given, out, strict=True)}
    if len(steps) == 1 and 0 not in steps and out != (1,) * rank:
        plain: list[Any] = [nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d]
        made: nn.Module = plain[rank - 1](steps.pop())
    else:
        adaptive: list[Any] = [nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d]
        made = adaptive[rank - 1](out)
    return made


def _grow(given: tuple[int, ...], out: tuple[int, ...]) -> nn.Module:
    """Interpolate: adaptive pooling would only repeat cells."""
    from torch import nn

    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(given)]
    factors = {b // a if b % a == 0 else 0 for a, b in zip(given, out, strict=True)}
    if len(factors) == 1 and 0 not in factors:
        return nn.Upsample(scale_factor=factors.pop(), mode=mode, align_corners=False)
    return nn.Upsample(size=out, mode=mode, align_corners=False)
