"""Input: another number of channels, or another image size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import model_validator

from torchgraft.edits.base import Edit
from torchgraft.edits.surgery import twin
from torchgraft.errors import EditError
from torchgraft.schema import Count

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchgraft.edits.surgery import Surgery

__all__ = ["Input"]


class Input(Edit):
    """Make the model take images of other channels or another size.

    The weights of the first convolutions are folded or repeated so that an image whose channels are all the
    same keeps its first activation: fewer channels get the sums of those they stand for, more channels share.
    """

    channels: Count | None = None
    size: tuple[Count, Count] | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.channels is None and self.size is None:
            raise ValueError("an input edit names channels, size or both")
        return self

    def given(self, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """Give the shape of one input after the edit."""
        if shape is None or len(shape) != 3:
            return shape
        return (self.channels or shape[0], *(self.size or shape[1:]))

    def apply(self, surgery: Surgery) -> Input:
        """Put new first convolutions in; the size needs no change of a convolutional model."""
        from torchgraft.trace import input_layers

        if self.channels is None:
            return self
        traced = surgery.look(False)
        for path in input_layers(traced):
            layer = surgery.module(path)
            if getattr(layer, "in_channels", None) != self.channels:
                surgery.put(path, _with_channels(layer, self.channels, path))
                surgery.added.pop()
        return self

    def sentence(self) -> str:
        """Say what the model takes now."""
        parts = [f"{self.channels} channels" if self.channels else "", "×".join(map(str, self.size or ()))]
        return f"the input is now {' of '.join(part for part in parts if part)}"


def _with_channels(layer: nn.Module, channels: int, path: str) -> nn.Module:
    """Give a twin of a convolution that takes `channels` channels and shares all but the weight."""
    from torch import nn

    if not isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) or layer.groups != 1:
        raise EditError(
            f"the input is read by {type(layer).__name__}, whose channels can't be changed",
            where=path,
            hint="replace it with a module of your own, or convert the images",
        )
    made = twin(layer, path)
    weight: Any = layer.weight
    made.weight = nn.Parameter(fold(weight.detach(), channels), requires_grad=weight.requires_grad)
    vars(made)["in_channels"] = channels
    return made


def fold(weight: Tensor, channels: int) -> Tensor:
    """Turn a convolution weight `[O, I, …]` into `[O, channels, …]`.

    Input channel j of the new weight stands for the old channels that are j modulo `channels` (summed), or
    shares old channel j modulo I with its copies (divided). The sum over input channels is kept, so an image
    with equal channels gives the same activation, for every number of channels.
    """
    import torch

    old = weight.shape[1]
    if channels <= old:
        parts = [weight[:, start::channels].sum(1) for start in range(channels)]
    else:
        copies = [len(range(start, channels, old)) for start in range(old)]
        parts = [weight[:, place % old] / copies[place % old] for place in range(channels)]
    return torch.stack(parts, dim=1)
