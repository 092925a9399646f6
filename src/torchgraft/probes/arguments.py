"""What a forward takes: which names, how many arguments it can't do without, and what a dict or a tuple fills."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torchgraft.trace.tree import labelled

if TYPE_CHECKING:
    from torch import nn

__all__ = ["by_place", "input_names", "is_named", "needed", "several", "taken"]

_WRAPPED = ("module", "base_model", "model", "_orig_mod")
"""Where wrappers keep what they wrap."""

_OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _all(model: nn.Module) -> dict[str, inspect.Parameter]:
    try:
        found = dict(inspect.signature(model.forward).parameters)
    except (TypeError, ValueError):  # TorchScript and what is written in C
        return {}
    inner = _passes_on_to(model) if {one.kind for one in found.values()} == set(_OPEN) else None
    return found if inner is None else _all(inner)


def _passes_on_to(model: nn.Module) -> nn.Module | None:
    """Give what a wrapper passes all of its arguments on to: DataParallel, DDP, models of PEFT."""
    held = model._modules
    return next((one for name in _WRAPPED if (one := held.get(name)) is not None), None)


def taken(model: nn.Module) -> dict[str, inspect.Parameter]:
    """Give the parameters of a model's forward by name, without `*args` and `**kwargs`; none where hidden."""
    return {name: one for name, one in _all(model).items() if one.kind not in _OPEN}


def needed(model: nn.Module) -> list[str]:
    """Name the arguments that a forward can't do without."""
    return [name for name, one in taken(model).items() if one.default is one.empty]


def is_named(given: Any, model: nn.Module) -> bool:
    """Tell whether a value is a dict of arguments: its keys are names of the forward's parameters.

    A forward of `**kwargs` alone takes any names.
    """
    if not isinstance(given, Mapping) or not given:
        return False
    kinds = {one.kind for one in _all(model).values()}
    return given.keys() <= taken(model).keys() or kinds == {inspect.Parameter.VAR_KEYWORD}


def input_names(given: Any, model: nn.Module) -> tuple[str, ...]:
    """Name each tensor that goes into a model as its forward does: `ids`, `masks.0`; by its place where hidden."""
    if is_named(given, model):
        return tuple([name for name, _ in labelled(given)])
    entries = given if isinstance(given, tuple) else (given,)
    places = [*taken(model), *map(str, range(len(entries)))]
    return tuple([name for name, _ in labelled(dict(zip(places, entries, strict=False)))])


def by_place(given: Mapping[str, Any], model: nn.Module) -> tuple[Any, ...] | None:
    """Give named arguments in the order of the forward, defaults between them; None where that leaves one out."""
    known, values = taken(model), list[Any]()
    if not given.keys() <= known.keys():
        return None
    last = max(list(known).index(name) for name in given)
    for name, one in list(known.items())[: last + 1]:
        absent = name not in given and one.default is one.empty
        if absent or one.kind is one.KEYWORD_ONLY:
            return None
        values.append(given.get(name, one.default))
    return tuple(values)


def several(given: Any, model: nn.Module) -> bool:
    """Tell whether a tuple or list stands for as many arguments: the forward can't do with one."""
    if not isinstance(given, Sequence) or isinstance(given, str) or hasattr(given, "_fields"):
        return False
    places = [one for one in taken(model).values() if one.kind is not one.KEYWORD_ONLY]
    return 1 < len(needed(model)) <= len(given) <= len(places)
