"""What a head is made of: its outputs as data, the layers that make them, and the rows of an old one to keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from torchgraft.errors import EditError, nearest
from torchgraft.schema import Count, Flag, Schema, Share

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchgraft.surgery.journal import Surgery

__all__ = [
    "QUANTITIES",
    "Above",
    "Activation",
    "Finite",
    "Keep",
    "Kind",
    "Norm",
    "Output",
    "Place",
    "Task",
    "copied",
    "layers",
    "named",
    "place_of",
    "rows",
]

Kind = Literal["linear", "cosine"]
Task = Literal["classes", "labels", "regression"]
"""One class of several (cross-entropy), any number of labels at once (BCE with logits), quantities (squares)."""
Activation = Literal["relu", "gelu", "silu", "tanh", "leaky_relu", "elu", "hardswish", "mish"]
Norm = Literal["none", "batch", "layer"]
Keep = tuple[int | str, ...] | dict[int, int | str]
"""Old classes by number or name: those of the first new ones in order, or of each new one."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Above = Annotated[float, Field(gt=0, allow_inf_nan=False)]

_CLASSES: Mapping[Activation, str] = {
    "relu": "ReLU",
    "gelu": "GELU",
    "silu": "SiLU",
    "tanh": "Tanh",
    "leaky_relu": "LeakyReLU",
    "elu": "ELU",
    "hardswish": "Hardswish",
    "mish": "Mish",
}


class Output(Schema):
    """One output of a head and the layers that lead to it; see `Head`."""

    classes: Count
    hidden: tuple[Count, ...] = ()
    dropout: Share = 0.0
    kind_: Kind = Field("linear", alias="kind")
    task: Task = "classes"
    activation: Activation = "relu"
    norm: Norm = "none"
    bias: Flag | None = None
    mean: tuple[Finite, ...] = ()
    std: tuple[Above, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> Output:
        if self.kind_ == "cosine" and self.bias:
            raise ValueError("a cosine head has no bias")
        if (self.mean or self.std) and self.task != "regression":
            raise ValueError("mean and std are those of quantities: task: regression")
        if any(given and len(given) != self.classes for given in (self.mean, self.std)):
            raise ValueError(f"mean and std have one number for each quantity: {self.classes}")
        return self

    @property
    def units(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """What the outputs are scaled by, and what is added then; None where they are taken as they are."""
        if not self.mean and not self.std:
            return None
        return self.std or (1.0,) * self.classes, self.mean or (0.0,) * self.classes

    def plain(self) -> Output:
        """Give the same output made by one layer alone, as an auxiliary head has it."""
        return Output(classes=self.classes, task=self.task, mean=self.mean, std=self.std)

    def __str__(self) -> str:
        what = {"classes": "classes", "labels": "labels, each yes or no", "regression": "quantities"}[self.task]
        what = (
            {"classes": "class", "labels": "label, yes or no", "regression": "quantity"}[self.task]
            if self.classes == 1
            else what
        )
        shape = f" with hidden layers {', '.join(map(str, self.hidden))}" if self.hidden else ""
        drop = f", dropout {self.dropout:g}" if self.dropout else ""
        units = " in the units of the data" if self.units is not None else ""
        return f"{self.classes} {what}{', by cosine' if self.kind_ == 'cosine' else ''}{shape}{drop}{units}"


@dataclass(frozen=True)
class Place:
    """Where a head stands.

    Attributes:
        path: of the module that is replaced.
        old: that module.
        takes: the features that arrive.
        gives: the outputs that it had.
        rank: the dimensions of the map that it convolves; 0 for a linear layer.
        tokens: whether more than one vector of features arrives for each sample.
    """

    path: str
    old: nn.Module
    takes: int
    gives: int
    rank: int
    tokens: bool

    @property
    def bias(self) -> bool:
        """Tell whether the old output layer has a bias; a module of several layers counts as having one."""
        return not hasattr(self.old, "weight") or getattr(self.old, "bias", None) is not None


def place_of(surgery: Surgery, path: str) -> Place:
    """Read off a place what a new head must take, and how many outputs the old one had.

    Raises:
        EditError: it is no output layer, nor a module of one vector or map in and one out.
    """
    old = surgery.module(path) if path else surgery.model
    run = surgery.look(False)
    run = run if run.given(path) else surgery.look(True)
    given, gave = run.given(path), run.gave(path)
    tokens = bool(given) and len(given[0].shape) > 2
    weight = old._parameters.get("weight")
    kernel = getattr(old, "kernel_size", None)
    if isinstance(kernel, tuple) and weight is not None and not getattr(old, "transposed", False):
        return Place(path, old, int(old.in_channels), int(weight.shape[0]), len(kernel), tokens)  # type: ignore[arg-type]
    if weight is not None and weight.dim() == 2 and kernel is None:
        turned = hasattr(old, "nf")  # the Conv1D of transformers keeps its weight the other way round
        gives, takes = weight.shape[::-1] if turned else weight.shape
        return Place(path, old, int(takes), int(gives), 0, tokens)
    ranks = {len(one.shape) for one in (*given, *gave)}
    if len(given) == 1 and gave and len(ranks) == 1 and any(True for _ in old.parameters()):
        side = -1 if len(given[0].shape) < 4 else 1
        gives = sum(one.shape[side] for one in gave)
        return Place(path, old, given[0].shape[side], gives, len(given[0].shape[2:]) if side == 1 else 0, tokens)
    raise EditError(
        f"the output is made by {type(old).__name__}, which is neither linear nor a convolution",
        where=path or "(the model itself)",
        hint="replace it with a module of your own: replace(…)",
    )


def named(outputs: Mapping[str, nn.Module]) -> nn.Module:
    """Give a module whose output is a dict: what each of the named ones makes of the same input.

    Raises:
        EditError: a name is taken by every module of PyTorch.
    """
    from torch import fx, nn

    from torchgraft.blocks.wiring import wired

    taken = next((name for name in outputs if hasattr(fx.GraphModule(nn.Module(), fx.Graph()), name)), None)
    if taken is not None:
        raise EditError(
            f"every module of PyTorch has a '{taken}' already", where="heads", hint=f"name it {taken}_"
        )
    names = tuple(outputs)
    return wired("Heads", lambda net, x: {name: getattr(net, name)(x) for name in names}, **outputs)


def layers(output: Output, place: Place) -> nn.Module:
    """Build the layers of one output for a place.

    Raises:
        EditError: the place can't have such layers.
    """
    from torch import nn

    _check(output, place)
    made: list[nn.Module] = []
    width, bias = place.takes, place.bias if output.bias is None else output.bias
    for size in output.hidden:
        made.append(_layer(place, width, size, bias=True, first=not made))
        made += [] if output.norm == "none" else [_norm(output.norm, size, place.rank)]
        made.append(_activation(output.activation))
        made += [nn.Dropout(output.dropout)] if output.dropout else []
        width = size
    if output.dropout and not output.hidden:
        made.append(nn.Dropout(output.dropout))
    made.append(_last(output, place, width, bias=bias, first=not output.hidden))
    whole = made[0] if len(made) == 1 else nn.Sequential(*made)
    return whole if output.units is None else _in_units(whole, *output.units)


def _in_units(module: nn.Module, scale: tuple[float, ...], shift: tuple[float, ...]) -> nn.Module:
    """Give what a module gives in the units of the data, so that it starts where the data are."""
    import torch

    from torchgraft.blocks.wiring import wired

    parts = {"scale": torch.nn.Buffer(torch.tensor(scale)), "shift": torch.nn.Buffer(torch.tensor(shift))}
    return wired(QUANTITIES, lambda net, x: net.layer(x) * net.scale + net.shift, layer=module, **parts)


QUANTITIES = "Quantities"
"""The class of the module that holds a head in the units of the data."""


def _check(output: Output, place: Place) -> None:
    if output.units is not None and place.rank:
        raise EditError(
            "mean and std are those of a row of quantities, and here a convolution makes the output",
            where=place.path,
            hint="leave them out",
        )
    if output.kind_ == "cosine" and place.rank:
        raise EditError(
            "a cosine head takes a vector of features, and here a convolution makes the output",
            where=place.path,
            hint="take kind='linear'",
        )
    if output.norm == "batch" and output.hidden and place.tokens and not place.rank:
        raise EditError(
            "here several vectors arrive for each sample, which BatchNorm1d would take for channels",
            where=place.path,
            hint="take norm='layer'",
        )


def _last(output: Output, place: Place, width: int, *, bias: bool, first: bool) -> nn.Module:
    from torchgraft.blocks.cosine import Cosine

    if output.kind_ == "cosine":
        return Cosine(classes=output.classes, features=width).build()
    return _layer(place, width, output.classes, bias=bias, first=first)


def _layer(place: Place, takes: int, gives: int, *, bias: bool, first: bool) -> nn.Module:
    """Build a plain layer: linear, or a convolution, of which the first has the old one's geometry."""
    from torch import nn

    if not place.rank:
        return nn.Linear(takes, gives, bias=bias)
    kind: Any = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[place.rank]
    names = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    shape = {name: getattr(place.old, name) for name in names if first and hasattr(place.old, name)}
    made: nn.Module = kind(takes, gives, **{"kernel_size": 1, **shape}, bias=bias)
    return made


def _norm(norm: Norm, size: int, rank: int) -> nn.Module:
    from torch import nn

    if norm == "layer":
        return nn.GroupNorm(1, size) if rank else nn.LayerNorm(size)
    kind: Any = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[rank]
    made: nn.Module = kind(size)
    return made


def _activation(name: Activation) -> nn.Module:
    from torch import nn

    kind: Any = getattr(nn, _CLASSES[name])
    made: nn.Module = kind() if name in ("gelu", "tanh") else kind(inplace=True)
    return made


def rows(keep: Keep, place: Place, classes: int, names: Sequence[str]) -> dict[int, int]:
    """Give the old row of each new class that keeps one.

    Args:
        keep: which, by number or name.
        place: of the old output layer.
        classes: how many new ones there are.
        names: of the old classes, as far as the model knows them.

    Raises:
        EditError: there is no such old class, or no such new one.
    """
    asked = dict(enumerate(keep)) if isinstance(keep, tuple) else dict(keep)
    found = {new: _row(old, place, names) for new, old in asked.items()}
    beyond = [new for new in found if not 0 <= new < classes]
    if beyond:
        raise EditError(
            f"there is no new class {beyond[0]}: the head has {classes}",
            where="keep",
            hint=f"ask for {max(found) + 1} classes or more",
        )
    return found


def _row(old: int | str, place: Place, names: Sequence[str]) -> int:
    if isinstance(old, str) and old in names:
        return names.index(old)
    if isinstance(old, str):
        known = (
            nearest(old, names) if names else "name the old classes by number: the model does not hold their names"
        )
        raise EditError(f"the base has no class '{old}'", where="keep", hint=known or "name it by number")
    if not 0 <= old < place.gives:
        raise EditError(
            f"the base has no class {old}: its {place.gives} outputs are numbered 0 to {place.gives - 1}",
            where="keep",
            hint="give numbers of old classes",
        )
    return old


def copied(new: nn.Module, place: Place, kept: Mapping[int, int]) -> None:
    """Copy the rows of old classes into the new layer's own tensors.

    Raises:
        EditError: the old one is no plain layer.
    """
    from torch import nn

    weight = place.old._parameters.get("weight")
    layer: Any = new[-1] if isinstance(new, nn.Sequential) else new
    if weight is None or layer.weight.shape[1:] != (weight.T if hasattr(place.old, "nf") else weight).shape[1:]:
        raise EditError(
            f"a {type(place.old).__name__} has no rows of classes to keep",
            where=place.path,
            hint="name the last layer alone: at='…'",
        )
    _copy_rows(weight.T if hasattr(place.old, "nf") else weight, layer.weight, kept)
    _copy_rows(getattr(place.old, "bias", None), getattr(layer, "bias", None), kept)


def _copy_rows(source: Tensor | None, target: Tensor | None, kept: Mapping[int, int]) -> None:
    import torch

    if source is not None and target is not None:
        with torch.no_grad():
            target[list(kept)] = source[list(kept.values())]
