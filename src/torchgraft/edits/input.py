"""Input: another number of channels, or another image size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import model_validator

from torchgraft.edits.base import Edit
from torchgraft.schema import Count
from torchgraft.surgery.stem import fitted, fold, rearranged, untransformed
from torchgraft.surgery.tables import resized
from torchgraft.surgery.told import configs

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.journal import Surgery
    from torchgraft.trace import Trace

__all__ = ["Input", "fold"]

_CHANNELS = ("in_chans", "in_channels", "input_channels", "num_channels")
_CONFIGURATIONS = ("default_cfg", "pretrained_cfg")


class Input(Edit):
    """Make the model take images of other channels or another size.

    The weights of the first layers are folded or repeated so that an image whose channels are all the same keeps
    its first activation: fewer channels get the sums of those they stand for, more channels share. Tables of
    positions are interpolated for another size; a model that has none takes it as it is.

    Attributes:
        channels: how many channels the images have.
        size: height and width.
        extra: how channels beyond the old ones start: `shared` with those they repeat, or at `zero`, so that the
            old channels count as before and the new ones are learnt.
    """

    channels: Count | None = None
    size: tuple[Count, Count] | None = None
    extra: Literal["shared", "zero"] = "shared"

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
        """Put new first layers in, and interpolate tables of positions.

        Raises:
            EditError: the input is read by what can't be changed, or the model can't take images of this size.
        """
        traced = surgery.look(False)
        shape = traced.values[traced.inputs[0]].shape if traced.inputs else ()
        if self.size is not None and len(shape) == 4:
            old = shape[1] if self.channels is None else _old_channels(surgery)
            resized(surgery, (shape[0], old, *self.size))
            _configured(surgery, size=self.size)
        if self.channels is not None:
            self._fold(surgery, traced, self.channels)
        return self

    def _fold(self, surgery: Surgery, traced: Trace, channels: int) -> None:
        readers = _readers(surgery, traced, self.size)
        untransformed(surgery, channels)
        for path in readers:
            layer = surgery.module(path) if path else surgery.model
            shape = traced.values[traced.inputs[0]].shape if traced.inputs else ()
            apart = len(shape) > 2 and path and not _direct(traced, path)
            moved = rearranged(surgery, layer, path, channels, shape) if apart else None
            made = moved or fitted(layer, channels, path, zero=self.extra == "zero")
            if made is not None:
                surgery.put(path, made)
                surgery.added.pop()
                _declare(surgery, path, channels)
        _configured(surgery, channels=channels)

    def sentence(self) -> str:
        """Say what the model takes now."""
        many = f"{self.channels} channel{'s' if self.channels != 1 else ''}" if self.channels else ""
        parts = [many, "×".join(map(str, self.size or ()))]
        zero = ", the new ones start at zero" if self.extra == "zero" else ""
        return f"the input is now {' of '.join(part for part in parts if part)}{zero}"


def _old_channels(surgery: Surgery) -> int:
    """Give the channels that the first convolution takes."""
    kernels = (module for module in surgery.model.modules() if "kernel_size" in vars(module))
    return next((size for size in map(_takes, kernels) if size), 3)


def _readers(surgery: Surgery, traced: Trace, size: tuple[int, int] | None) -> list[str]:
    """Find the layers that read the input, on what they were made for where the pass breaks off early."""
    from torchgraft.trace import input_layers, trace

    found = input_layers(traced)
    if traced.mismatch is None or not traced.inputs:
        return found
    import torch

    shape = traced.values[traced.inputs[0]].shape
    olds = [_takes(surgery.module(path)) for path in found if path] or [_old_channels(surgery)]
    for old in olds:
        if old and len(shape) > 2:
            run = trace(surgery.model, torch.empty((shape[0], old, *(size or shape[2:])), device="meta"))
            found = list(dict.fromkeys([*found, *input_layers(run)]))
    return found


def _direct(traced: Trace, path: str) -> bool:
    """Tell whether a layer is given the input itself, with nothing done to it before."""
    calls = traced.calls_of(path)
    return bool(calls) and all(set(call.given) <= set(traced.inputs) for call in calls)


def _takes(layer: nn.Module) -> int:
    held: dict[str, Any] = vars(layer)
    return int(held.get("in_channels") or held.get("num_features") or 0)


def _ancestors(surgery: Surgery, path: str) -> Iterator[nn.Module]:
    yield surgery.model
    parts = path.split(".")
    for end in range(1, len(parts)):
        yield surgery.module(".".join(parts[:end]))


def _declare(surgery: Surgery, path: str, channels: int) -> None:
    """Let attributes of the modules around the first layer follow."""
    for module in _ancestors(surgery, path):
        for name in _CHANNELS:
            if isinstance(vars(module).get(name), int) and name in vars(module):
                surgery.set(module, name, channels)


def _configured(surgery: Surgery, *, channels: int | None = None, size: tuple[int, int] | None = None) -> None:
    """Let timm's configuration, which transforms are made from, and that of transformers say the new input."""
    for name in _CONFIGURATIONS:
        held = vars(surgery.model).get(name)
        if isinstance(held, dict) and len(held.get("input_size") or ()) == 3:
            old = held["input_size"]
            surgery.set(surgery.model, name, {**held, "input_size": (channels or old[0], *(size or old[1:]))})
    for config in configs(surgery.model):
        old = vars(config)
        if channels is not None and type(old.get("num_channels")) is int:
            surgery.set(config, "num_channels", channels)
        if size is not None and isinstance(old.get("image_size"), (int, list, tuple)):
            square = isinstance(old["image_size"], int) and size[0] == size[1]
            surgery.set(config, "image_size", size[0] if square else list(size))
