"""The arguments of a module that is built: sizes off the place, modules and functions of torch among them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torchgraft.errors import EditError, nearest
from torchgraft.modulespec import POSITIONAL, ModuleSpec

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.trace.layout import Side

__all__ = ["Place", "arguments", "resolved"]

_FROM_CHANNELS = ("Conv", "BatchNorm", "InstanceNorm", "GroupNorm", "SyncBatchNorm")

_CHANNELS = (
    "in_channels", "in_channel", "in_chans", "in_chs", "in_ch", "inplanes", "in_planes", "c_in", "ch_in",
    "channels", "channel", "num_channels", "n_channels", "chs", "ch", "num_features", "n_features",
    "dim", "in_dim", "input_dim", "d_model", "embed_dim", "in_features", "features", "normalized_shape",
)  # fmt: skip
"""What people call the channels or features that a class of their own is given."""


@dataclass(frozen=True)
class Place:
    """What arrives where a module is built.

    Attributes:
        where: the place, for messages.
        shape: batch included; None where no tensor arrives that fits.
        side: which dimension holds the channels.
    """

    where: str
    shape: tuple[int, ...] | None
    side: Side = "first"

    def inside(self, name: object) -> Place:
        """Give the place of a part, which is given the same."""
        return replace(self, where=f"{self.where}.{name}")

    def known(self, of: str) -> tuple[int, ...]:
        """Give the shape.

        Raises:
            EditError: no tensor arrives that fits.
        """
        if self.shape is None:
            raise EditError(
                f"the sizes of {of} can't be read off its place, which is given no tensor that fits",
                where=self.where,
                hint="write the sizes out, or correct the module before it",
            )
        return self.shape


def _open_size(kind: str) -> str | None:
    """Name the argument of a torch.nn class that its place determines: `Conv2d` -> `in_channels`."""
    if kind.startswith("Conv"):
        return "in_channels"
    if kind.startswith(("BatchNorm", "InstanceNorm", "SyncBatchNorm")):
        return "num_features"
    return {
        "Linear": "in_features",
        "GroupNorm": "num_channels",
        "LayerNorm": "normalized_shape",
        "RMSNorm": "normalized_shape",
        "LSTM": "input_size",
        "GRU": "input_size",
        "RNN": "input_size",
        "MultiheadAttention": "embed_dim",
        "TransformerEncoderLayer": "d_model",
        "TransformerDecoderLayer": "d_model",
    }.get(kind)


def arguments(spec: ModuleSpec, cls: Any, place: Place) -> dict[str, Any]:
    """Give the arguments by name, with the sizes of the place written out.

    Raises:
        EditError: there are too many, or one is given twice, or the place says no size.
    """
    taken = _parameters(cls)
    args = _by_name(spec, taken, place)
    if ":" in spec.of:
        missing = [one.name for one in taken.values() if one.default is one.empty and one.name not in args]
        open_ones = [name for name in missing if name in _CHANNELS]
        return {**{name: _channels(spec, place, name) for name in open_ones}, **args}
    name = _open_size(spec.of.removeprefix("nn."))
    if name is None or name in args:
        return args
    kind, arrives = spec.of.removeprefix("nn."), place.known(spec.of)
    size = arrives[1] if kind.startswith(_FROM_CHANNELS) and len(arrives) > 1 else arrives[-1]
    return {name: size, **args}


def _channels(spec: ModuleSpec, place: Place, name: str) -> int:
    shape = place.known(spec.of)
    last = place.side == "last" or name in ("in_features", "normalized_shape") or len(shape) < 2
    return shape[-1 if last else 1]


def _parameters(cls: Any) -> dict[str, inspect.Parameter]:
    """Name the arguments of a class or function; none where it does not say."""
    try:
        found = inspect.signature(cls).parameters
    except (TypeError, ValueError):
        return {}
    return {name: one for name, one in found.items() if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}


def _by_name(spec: ModuleSpec, taken: Mapping[str, inspect.Parameter], place: Place) -> dict[str, Any]:
    """Give arguments that were written in their order the names that they have in the signature."""
    args = dict(spec.args)
    ordered = args.pop(POSITIONAL, [])
    names = [name for name, one in taken.items() if one.kind is not one.KEYWORD_ONLY]
    if len(ordered) > len(names):
        raise EditError(
            f"{spec.of} was given {len(ordered)} arguments by their order and takes {len(names)}",
            where=place.where,
            hint=f"it takes {', '.join(names) or 'none'}",
        )
    both = [name for name in names[: len(ordered)] if name in args]
    if both:
        raise EditError(f"{spec.of} was given '{both[0]}' twice", where=place.where, hint="leave one of them out")
    return {**dict(zip(names, ordered, strict=False)), **args}


# from data to what a class takes


def resolved(
    args: Mapping[str, Any], place: Place, make: Callable[[ModuleSpec, Place], tuple[nn.Module, ModuleSpec]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build the modules among arguments, and look up what names a class or function of torch.

    Returns:
        what the class is called with, and what is written down.
    """
    called, written = {}, {}
    for key, value in args.items():
        called[key], written[key] = _one(value, place.inside(key), make)
    return called, written


def _one(value: Any, place: Place, make: Any) -> tuple[Any, Any]:
    if isinstance(value, ModuleSpec):
        made: tuple[Any, Any] = make(value, place)
        return made
    if isinstance(value, (list, tuple)):
        pairs = [_one(one, place.inside(number), make) for number, one in enumerate(value)]
        return [called for called, _ in pairs], [written for _, written in pairs]
    if isinstance(value, str) and value.startswith(("torch.", "nn.")):
        return _of_torch(value, place), value
    return value, value


def _of_torch(name: str, place: Place) -> Any:
    """Look up what is named: `nn.GELU`, `torch.nn.functional.gelu`, `torch.tanh`, `torch.float16`.

    Only what computes is found there, not what reads files or runs code.
    """
    import torch
    from torch import nn

    home, _, last = name.rpartition(".")
    homes: dict[str, Any] = {"nn": nn, "torch.nn": nn, "torch.nn.functional": nn.functional, "torch": torch}
    found = getattr(homes.get(home), last, None)
    is_class = home.endswith("nn") and isinstance(found, type) and issubclass(found, nn.Module)
    is_function = home == "torch.nn.functional" and callable(found) and not last.startswith("_")
    is_plain = home == "torch" and (isinstance(found, torch.dtype) or inspect.isbuiltin(found))
    if is_class or is_function or is_plain:
        return found
    known = [one for one in dir(homes.get(home, nn)) if not one.startswith("_")]
    raise EditError(
        f"'{name}' is no class, function or dtype of torch",
        where=place.where,
        hint=nearest(last, known) or "write nn.<Class>, torch.nn.functional.<function> or torch.<function>",
    )
