"""Structures that hold tensors: walk over them, and build them again around other tensors."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["PLAIN", "Open", "frozen", "labelled", "mapped", "tensors"]

PLAIN = frozenset([int, float, str, bool, bytes, complex, type(None)])
"""Types whose values say all about themselves."""


class Open(Exception):  # noqa: N818
    """A structure holds something that can't be told by its value."""


def tensors(tree: Any) -> list[Tensor]:
    """List the tensors of any structure: containers, mappings, dataclasses and model outputs."""
    found: list[Tensor] = []
    _gather(tree, found)
    return found


def _gather(tree: Any, found: list[Tensor]) -> None:
    if isinstance(tree, Tensor):
        found.append(tree)
    elif type(tree) in PLAIN:
        return
    elif isinstance(tree, Mapping):
        for one in tree.values():
            _gather(one, found)
    elif isinstance(tree, (list, tuple, set, frozenset)):
        for one in tree:
            _gather(one, found)
    elif is_dataclass(tree) and not isinstance(tree, type):
        for entry in fields(tree):
            _gather(getattr(tree, entry.name, None), found)


def labelled(tree: Any) -> list[tuple[str, Tensor]]:
    """List the tensors of a structure as `tensors` does, each with its name there: `logits`, `0.boxes`.

    Where nothing but places in tuples and lists leads to a tensor, it has none.
    """
    return [
        (".".join(map(str, steps)) if any(isinstance(step, str) for step in steps) else "", one)
        for steps, one in _reached(tree, ())
    ]


def _reached(tree: Any, steps: tuple[str | int, ...]) -> list[tuple[tuple[str | int, ...], Tensor]]:
    if isinstance(tree, Tensor):
        return [(steps, tree)]
    if type(tree) in PLAIN:
        return []
    return [pair for key, one in _entries(tree) for pair in _reached(one, (*steps, key))]


def _entries(tree: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(tree, Mapping):
        return [(str(key), one) for key, one in tree.items()]
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return list(zip(tree._fields, tree, strict=True))
    if isinstance(tree, (list, tuple, set, frozenset)):
        return enumerate(tree)
    if is_dataclass(tree) and not isinstance(tree, type):
        return [(entry.name, getattr(tree, entry.name, None)) for entry in fields(tree)]
    return []


def mapped(change: Callable[[Any], Any], tree: Any, *, strict: bool = False, leaf: type = Tensor) -> Any:
    """Build a structure again with every tensor changed.

    Args:
        change: gives what stands in for a tensor.
        tree: tuples, lists, mappings and dataclasses, nested as they like.
        strict: raise `Open` for any object that is not understood, instead of sharing it.
        leaf: what is changed, where it is not tensors.
    """
    if isinstance(tree, leaf):
        return change(tree)
    if type(tree) in PLAIN:
        return tree
    if strict and not _plain_structure(tree):
        raise Open(type(tree).__name__)
    again = functools.partial(mapped, change, strict=strict, leaf=leaf)
    if isinstance(tree, (tuple, list)):
        items = [again(one) for one in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    if isinstance(tree, dict):
        return _mapping(tree, {key: again(one) for key, one in tree.items()})
    if is_dataclass(tree) and not isinstance(tree, type):
        made = copy.copy(tree)
        for entry in fields(tree):
            object.__setattr__(made, entry.name, again(getattr(tree, entry.name)))
        return made
    return tree


def _mapping(tree: dict[Any, Any], pairs: dict[Any, Any]) -> Any:
    if is_dataclass(tree):  # a model output of transformers: a mapping and a dataclass
        return type(tree)(**pairs)
    return pairs if type(tree) is dict else _filled(tree, pairs)


def _plain_structure(tree: Any) -> bool:
    """Tell whether a structure is known to be built again from its parts alone."""
    if isinstance(tree, (tuple, list)):
        return type(tree) in (tuple, list, torch.Size) or hasattr(tree, "_fields")
    if isinstance(tree, dict):
        return is_dataclass(tree) or not getattr(tree, "__dict__", None)
    return is_dataclass(tree) and not isinstance(tree, type)


def _filled(tree: dict[Any, Any], pairs: dict[Any, Any]) -> dict[Any, Any]:
    made = copy.copy(tree)
    made.update(pairs)
    return made


def frozen(tree: Any, tensor: Callable[[Tensor], Hashable]) -> Hashable:
    """Turn the arguments of a call into a value that says all about them.

    Raises:
        Open: something can't be told by its value.
    """
    kind = type(tree)
    if kind in PLAIN:
        return (kind, tree)
    if isinstance(tree, Tensor):
        return tensor(tree)
    if kind is tuple or kind is list:
        return (kind, *[frozen(one, tensor) for one in tree])
    if kind is dict:
        return (kind, *[(key, frozen(one, tensor)) for key, one in tree.items()])
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return (kind, *[frozen(one, tensor) for one in tree])
    if type(tree).__module__ == "torch" and kind.__hash__ is not None:  # Size, dtype, device, memory_format
        return (kind, tree)
    raise Open(kind.__name__)
