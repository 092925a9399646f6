"""Successors: a module of another class made for the place of an old one, from the old one's own sizes.

No trace is needed where the class asks for what the old module has: sizes, geometry, rates and flags of the same
name are taken over, and so are the tensors that mean the same, in new tensors.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from torchgraft.errors import EditError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Gone", "groups_for", "settings", "taken_over"]

_WIDTHS = ("num_features", "num_channels", "channels", "dim", "planes", "normalized_shape")
"""What norms call their width."""

_OWN = frozenset({"device", "dtype", "track_running_stats", "training", "weight", "num_groups"})
"""Arguments that follow no attribute of the old module."""

_FAMILIES = ("ConvTranspose", "Conv", "Norm", "Linear", "Embedding", "PReLU")

Gone = dict[int, "nn.Parameter"]
"""New parameters by the id of the old one that each stands for: what was tied stays tied."""


def settings(old: nn.Module, cls: Any, given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give the arguments for a class that is to stand where `old` does; None where the old one can't tell them.

    Args:
        old: its sizes and settings are taken over under the same names.
        cls: what is built.
        given: what the user wrote, which wins.
    """
    args = dict(given)
    for name, asked in _signature(cls).parameters.items():
        if name in args or asked.kind in (asked.VAR_POSITIONAL, asked.VAR_KEYWORD):
            continue
        found = _statistics(old, cls) if name == "track_running_stats" else _held(old, name)
        if found is not None:
            args[name] = found
        elif asked.default is asked.empty and name != "num_groups":
            return None
    return args


@cache
def _signature(cls: Any) -> inspect.Signature:
    return inspect.signature(cls)


def _statistics(old: Any, cls: Any) -> bool | None:
    """Say whether statistics are kept, which only another batch norm is told: an InstanceNorm keeps none."""
    from torch.nn.modules.batchnorm import _BatchNorm

    return bool(old.track_running_stats) if isinstance(old, _BatchNorm) and issubclass(cls, _BatchNorm) else None


def _held(old: Any, name: str) -> Any:
    """Give what the old module has under the name of an argument, or None."""
    if name in _OWN:
        return None
    if name == "bias" and "bias" in old._parameters:
        return old.bias is not None
    if name in ("affine", "elementwise_affine"):
        return next((vars(old)[one] for one in ("affine", "elementwise_affine") if one in vars(old)), None)
    if name == "normalized_shape" and family(old) == "Norm":
        return vars(old).get(name) or (width(old),)
    if name in vars(old):
        value = vars(old)[name]
        return value if isinstance(value, (bool, int, float, str, tuple)) else None
    return width(old) if name in _WIDTHS and family(old) == "Norm" else None


def width(norm: Any) -> int | None:
    """Give the channels or features of a norm."""
    for name in _WIDTHS:
        size = vars(norm).get(name)
        if size is not None:
            return int(size[-1] if isinstance(size, tuple) else size)
    return int(norm.weight.numel()) if getattr(norm, "weight", None) is not None else None


def family(module: nn.Module) -> str:
    """Say what a module is, so far as its tensors mean the same: a norm, a convolution, …"""
    kind: Any = type(module)
    return _family(kind)


@cache
def _family(cls: Any) -> str:
    names = [one.__name__ for one in cls.__mro__]
    return next((one for one in _FAMILIES if any(one in name for name in names)), names[0])


def groups_for(channels: int, asked: int) -> int:
    """Give the divisor of `channels` nearest to the groups asked for, with two channels a group at least.

    With one channel a group, a GroupNorm would be an InstanceNorm, which nobody asked for.
    """
    if channels % asked == 0:
        return asked
    divisors = [n for n in range(1, channels // 2 + 1) if channels % n == 0] or [1]
    return min(divisors, key=lambda n: (abs(n - asked), n))


def taken_over(old: nn.Module, new: nn.Module, gone: Gone) -> bool:
    """Give the new module copies of the old one's tensors where both mean the same, its place and its flags.

    Returns:
        whether all parameters of the new one are such copies.
    """
    from torch import nn

    held, made = _tensors(old), _tensors(new)
    first = next((one for one in held if one.is_floating_point()), None)
    if first is not None and any((one.device, one.dtype) != (first.device, first.dtype) for one in made):
        new.to(device=first.device, dtype=first.dtype)
    trained = [one.requires_grad for one in held if isinstance(one, nn.Parameter)]
    if trained and not any(trained):
        new.requires_grad_(False)
    wanted = sum(isinstance(one, nn.Parameter) for one in made)
    if family(old) != family(new):
        return not wanted
    copied = 0
    theirs: dict[str, Tensor | None] = {**old._parameters, **old._buffers}
    tables: tuple[dict[str, Any], ...] = (new._parameters, new._buffers)
    for table in tables:
        for name, tensor in table.items():
            source = theirs.get(name)
            if tensor is None or source is None or source.shape != tensor.shape:
                continue
            copy = source.detach().clone()
            if table is new._parameters:
                flag = source.requires_grad if isinstance(source, nn.Parameter) else True
                copy = gone.setdefault(id(source), nn.Parameter(copy, requires_grad=flag))
                copied += 1
            table[name] = copy
    return copied == wanted


def _tensors(module: nn.Module) -> list[Tensor]:
    """Give the parameters and buffers of a module; of a single layer without the names that torch makes up."""
    if module._modules:
        return [*module.parameters(), *module.buffers()]
    return [one for one in (*module._parameters.values(), *module._buffers.values()) if one is not None]


def refuse_axis(old: nn.Module, of: str, path: str) -> None:
    """Refuse a LayerNorm or RMSNorm where channels come first: it would normalise the width of the image.

    Raises:
        EditError: the old norm is of channels, or of a kind of its own, whose scale may mean something else
            (Gemma's counts from one).
    """
    from torch import nn
    from torch.nn.modules.batchnorm import _NormBase

    kind = type(old).__name__
    if of not in ("nn.LayerNorm", "nn.RMSNorm"):
        return
    if isinstance(old, (nn.LayerNorm, nn.RMSNorm, nn.BatchNorm1d)) and "2d" not in kind:
        return
    if "2d" in kind or isinstance(old, (_NormBase, nn.GroupNorm)):
        raise EditError(
            f"{of} normalises the last dimension, the {kind} the channels, which are the second",
            where=path,
            hint="swap to LayerNorm2d, which is over the channels of [N, C, H, W], or to nn.GroupNorm",
        )
    raise EditError(
        f"that {of} can stand for a {kind} is not known",
        where=path,
        hint=f"where it can, replace one at a time: replace('{path}', '{of}'), whose scale starts at one",
    )
