"""The state of a training at one moment, as data: tensors by name, and notes that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = ["Snapshot", "flat", "nested"]

_TENSOR = "tensor:"


@dataclass(frozen=True)
class Snapshot:
    """Everything that it takes to go on.

    Attributes:
        tensors: by a path such as `model/fc.weight`, `optimizer/state/3/exp_avg`, `rng/cpu`.
        notes: what is no tensor: counters, figures, settings.
    """

    tensors: dict[str, Tensor]
    notes: dict[str, Any] = field(default_factory=dict)


def flat(state: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Take the tensors out of nested dicts and lists; what is left is plain data with their names in their places.

    Args:
        state: dicts, lists, tuples, numbers, words, None, tensors.
        path: what the names begin with.
        tensors: gets each tensor by its name.
    """
    if isinstance(state, Tensor):
        tensors[path] = state
        return f"{_TENSOR}{path}"
    if isinstance(state, Mapping):
        return {"": [[key, flat(value, f"{path}/{key}", tensors)] for key, value in state.items()]}
    if isinstance(state, (list, tuple)):
        return [flat(value, f"{path}/{place}", tensors) for place, value in enumerate(state)]
    return state


def nested(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Put the tensors back where `flat` took them out; tuples have become lists."""
    if isinstance(plain, str) and plain.startswith(_TENSOR):
        return tensors[plain.removeprefix(_TENSOR)]
    if isinstance(plain, Mapping):
        return {_key(key): nested(value, tensors) for key, value in plain[""]}
    if isinstance(plain, list):
        return [nested(value, tensors) for value in plain]
    return plain


def _key(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else key


def to_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU, so that training may go on while they are written."""
    return {name: torch.empty_like(one, device="cpu").copy_(one) for name, one in tensors.items()}
