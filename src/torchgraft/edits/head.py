"""Head: new output layers for another number of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError
from torchgraft.schema import Count, Names, Share

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.edits.surgery import Surgery

__all__ = ["Head"]


_COUNTS = ("num_classes", "n_classes", "nb_classes", "num_labels")
"""Attributes by which models say how many classes they have."""


class Head(Edit):
    """Replace the layers that make the output by new ones for `classes` classes.

    The layers are found by tracing which weights make the output, in training mode too, so that auxiliary
    heads follow. `hidden` and `dropout` shape the main head; auxiliary heads get a plain layer.
    """

    needs_fit: ClassVar[bool] = True
    classes: Count
    hidden: tuple[Count, ...] = ()
    dropout: Share = 0.0
    at: Names = ()

    def apply(self, surgery: Surgery) -> Head:
        """Find the output layers, unless `at` names them, and put new ones in their places."""
        from torchgraft.trace import output_layers

        main = output_layers(surgery.look(False))
        places = self.at or tuple(output_layers(surgery.look(True))) or tuple(main)
        if not places:
            raise EditError(
                "no layer with weights makes the output",
                where="head",
                hint="name the place: head(…, at='…'), or append a layer",
            )
        for place in places:
            _give_way(surgery, place, self, plain=place not in main and not self.at)
        return self.model_copy(update={"at": places})

    def sentence(self) -> str:
        """Say what the head is now."""
        shape = f" with hidden layers {', '.join(map(str, self.hidden))}" if self.hidden else ""
        drop = f", dropout {self.dropout:g}" if self.dropout else ""
        return f"new head for {self.classes} classes{shape}{drop}" + (
            f" at {', '.join(self.at)}" if self.at else ""
        )


def _give_way(surgery: Surgery, path: str, head: Head, *, plain: bool) -> None:
    import torch

    old = surgery.module(path) if path else surgery.model
    before = _width_of(old, path)
    hidden, dropout = ((), 0.0) if plain else (head.hidden, head.dropout)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(surgery.seed)
            new = _new_head(old, head.classes, hidden, dropout)
    except RuntimeError as error:  # no memory for layers as wide as that
        reason = str(error).splitlines()[0]
        raise EditError(
            f"the head can't be built: {reason}", where=path, hint="take fewer classes or features"
        ) from error
    weight = next(old.parameters())
    surgery.put(path, new.to(device=weight.device, dtype=weight.dtype))
    for module in surgery.model.modules():
        for name in _COUNTS:
            if vars(module).get(name) == before:
                surgery.set(module, name, head.classes)
    _follow(surgery, before, head.classes)


def _follow(surgery: Surgery, before: int, classes: int) -> None:
    """Let the configuration that transformers' models hold tell the new number of labels, or of words."""
    held_ones = (vars(module).get("config") for module in surgery.model.modules())
    configs = {id(one): one for one in held_ones if one is not None}
    for config in configs.values():
        held = getattr(config, "__dict__", {})
        names = held.get("id2label")
        if isinstance(names, dict) and len(names) == before:
            words = [names.get(number, f"LABEL_{number}") for number in range(classes)]
            surgery.set(config, "id2label", dict(enumerate(words)))
            surgery.set(config, "label2id", {word: number for number, word in enumerate(words)})
        if held.get("vocab_size") == before:
            surgery.set(config, "vocab_size", classes)


def _width_of(layer: nn.Module, path: str) -> int:
    """Give the number of outputs of an output layer."""
    for name in ("out_features", "out_channels"):
        if isinstance(getattr(layer, name, None), int):
            return int(getattr(layer, name))
    raise EditError(
        f"the output is made by {type(layer).__name__}, which is neither linear nor a convolution",
        where=path or "(the model itself)",
        hint="replace it with a module of your own: replace(…)",
    )


def _new_head(old: nn.Module, classes: int, hidden: tuple[int, ...], dropout: float) -> nn.Module:
    from torch import nn

    layers: list[nn.Module] = []
    width = int(getattr(old, "in_features", 0) or getattr(old, "in_channels", 0))
    for size in hidden:
        layers += [_layer(old, width, size), nn.ReLU(inplace=True)]
        layers += [nn.Dropout(dropout)] if dropout else []
        width = size
    if dropout and not hidden:
        layers.append(nn.Dropout(dropout))
    layers.append(_layer(old, width, classes))
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


def _layer(old: nn.Module, width: int, classes: int) -> nn.Module:
    """Build a plain layer of the old one's geometry: linear, or a convolution of the same rank."""
    from torch import nn

    bias = getattr(old, "bias", None) is not None
    if isinstance(old, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        kind: Any = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(old.kernel_size)]
        made: nn.Module = kind(width, classes, old.kernel_size, old.stride, old.padding, bias=bias)
        return made
    return nn.Linear(width, classes, bias=bias)
