"""Projection: brings a tensor to the shape that a place gave before."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from torchgraft.blocks.base import Block
from torchgraft.schema import Count

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Projection", "narrow"]


class Projection(Block):
    """Channels by a 1×1 convolution or a linear layer, the map or sequence by pooling or interpolation.

    It starts as the identity on the channels that both sides share, so that what was trained is disturbed least.

    Attributes:
        out: what it gives, the batch left out: `[C, H, W]`, `[C]`, or `[…, C]` where channels come last.
        given: what arrives, in the same way; read off the place when left out.
        channels: which dimension holds the channels of what it gives: `first` or `last`.
        arriving: the same for what arrives; as `channels` when left out.
    """

    out: tuple[Count, ...]
    given: tuple[Count, ...] | None = None
    channels: Literal["first", "last"] = "first"
    arriving: Literal["first", "last"] | None = None

    def fitted(self, shape: tuple[int, ...]) -> Projection:
        """Take what arrives from the shape."""
        return self if self.given else self.model_copy(update={"given": tuple(shape[1:])})

    def __str__(self) -> str:
        return f"a projection of {list(self.given or ())} to {list(self.out)}"

    @property
    def shared(self) -> int:
        """The channels that both sides share: on these it starts as the identity."""
        assert self.given is not None
        side = self.arriving or self.channels
        return min(self.given[-1 if side == "last" else 0], self.out[-1 if self.channels == "last" else 0])

    def build(self) -> nn.Module:
        """Build a Sequential of what is needed; an Identity where nothing is."""
        from torch import nn

        assert self.given is not None
        last = self.channels == "last", (self.arriving or self.channels) == "last"
        if last == (True, True) and self.given[:-1] == self.out[:-1]:
            steps = _features(self.given[-1], self.out[-1])
        else:
            steps = _turned(self.given, self.out, gives_last=last[0], takes_last=last[1])
        return steps[0] if len(steps) == 1 else nn.Sequential(*steps)


def _features(given: int, out: int) -> list[nn.Module]:
    """Only the last dimension differs."""
    from torch import nn

    return [narrow(given, out, 0)] if given != out else [nn.Identity()]


def _turned(
    given: tuple[int, ...], out: tuple[int, ...], *, gives_last: bool, takes_last: bool
) -> list[nn.Module]:
    """Bring the channels to the front, project there, and bring them back."""
    from torchvision.ops import Permute

    steps: list[nn.Module] = []
    wanted = (out[-1], *out[:-1]) if gives_last else out
    if takes_last and len(given) > 1:
        steps.append(Permute([0, len(given), *range(1, len(given))]))
        given = (given[-1], *given[:-1])
    steps += _first(given, wanted)
    if gives_last and len(out) > 1:
        steps.append(Permute([0, *range(2, len(out) + 1), 1]))
    return steps


def _first(given: tuple[int, ...], out: tuple[int, ...]) -> list[nn.Module]:
    """Channels come first on both sides: `[C, …]`."""
    from torch import nn

    steps: list[nn.Module] = []
    if len(given) != len(out):
        steps, given = _ranked(given, out)
    shrink = (
        len(given) > 1 and given[1:] != out[1:] and all(a >= b for a, b in zip(given[1:], out[1:], strict=True))
    )
    if shrink:  # fewer places first: the projection is then the cheaper
        steps.append(_average(given[1:], out[1:]))
    if given[0] != out[0]:
        steps.append(narrow(given[0], out[0], len(given) - 1))
    if len(given) > 1 and not shrink and given[1:] != out[1:]:
        steps.append(_grow(given[1:], out[1:]))
    return steps or [nn.Identity()]


def _ranked(given: tuple[int, ...], out: tuple[int, ...]) -> tuple[list[nn.Module], tuple[int, ...]]:
    """Bring a map or sequence to the wanted number of dimensions: average to a vector, or lay places in a row."""
    from torch import nn

    places = math.prod(given[1:])
    if len(out) == 1:
        return [_average(given[1:], (1,) * (len(given) - 1)), nn.Flatten()], given[:1]
    if len(given) == 1:
        shape = (given[0], *(1 for _ in out[1:]))
        return [nn.Unflatten(1, shape)], shape
    row: list[nn.Module] = [nn.Flatten(2)] if len(given) > 2 else []
    if len(out) == 2:
        return row, (given[0], places)
    wanted = math.prod(out[1:])
    if places != wanted:
        row.append(_average((places,), (wanted,)) if places > wanted else _grow((places,), (wanted,)))
    return [*row, nn.Unflatten(2, out[1:])], (given[0], *out[1:])


def narrow(given: int, out: int, rank: int) -> nn.Module:
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
