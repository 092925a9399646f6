"""What a prefix relies on, summed up: whether anything of it was changed since."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from torchgraft.trace.tree import PLAIN
from torchgraft.train.prefix.fitness import hooked
from torchgraft.train.prefix.rows import same

__all__ = ["Stamp", "noted"]

Notes = dict[tuple[int, str], Any]

PROBES = 256
"""So many numbers of each frozen weight are kept: what is written through `.data` leaves no other trace."""


class Stamp:
    """A model as it stands.

    Args:
        model: the whole of it.
        parts: modules that are left out, or run in part.
        moving: notes of them that move at every pass.
    """

    def __init__(self, model: nn.Module, parts: Iterable[nn.Module], moving: Iterable[tuple[int, str]]) -> None:
        self.model, self.parts, self.moving = model, tuple(parts), frozenset(moving)
        self._facts, self._notes = _facts(model), self._noted()
        self._still = _buffers(model)
        self._was = [one.clone() for one in self._still]
        self._probes = _probes([*_frozen(model), *self._loose()])

    def stands(self) -> str:
        """Say what was changed since; nothing where all is as it was."""
        if _facts(self.model) != self._facts:
            return "the model was changed since: parameters, modes or hooks"
        if not all(map(same, self._still, self._was)):
            return "a buffer of the frozen part was written to"
        if self._noted() != self._notes:
            return "a setting of the frozen part was changed"
        now = _probes([*_frozen(self.model), *self._loose()])
        if now.keys() != self._probes.keys() or not all(same(now[kind], self._probes[kind]) for kind in now):
            return "a frozen weight was written to"
        return ""

    def _noted(self) -> Notes:
        return {key: value for key, value in noted(self.parts).items() if key not in self.moving}

    def _loose(self) -> list[Tensor]:
        """List tensors that are plain attributes."""
        pairs = ((place, name, one) for place, part in enumerate(self.parts) for name, one in vars(part).items())
        return [one for place, name, one in pairs if isinstance(one, Tensor) and (place, name) not in self.moving]


def noted(parts: Iterable[nn.Module]) -> Notes:
    """List what modules hold in attributes, by the module's place and the name; objects are not looked into."""
    pairs = ((place, name, value) for place, part in enumerate(parts) for name, value in vars(part).items())
    return {(place, name): _note(value) for place, name, value in pairs if name not in _TORCH_OWN}


_TORCH_OWN = frozenset(vars(nn.Module()))


def _note(value: Any) -> Any:
    """Copy a plain value; of anything else, say which object it is."""
    if type(value) in (tuple, list):
        return tuple(map(_note, value))
    if type(value) in (dict, OrderedDict):
        return tuple((key, _note(one)) for key, one in value.items())
    return value if type(value) in PLAIN else id(value)


def _facts(model: nn.Module) -> tuple[Any, ...]:
    """List what is trained, what is in training mode, every frozen weight's version, and hooks."""
    parameters = list(model.parameters())
    return (
        [one.requires_grad for one in parameters],
        [part.training for part in model.modules()],
        [0 if one.requires_grad or one.is_inference() else one._version for one in parameters],
        [id(one) for one in parameters],
        [hooked(part) for part in model.modules()],
    )


def _frozen(model: nn.Module) -> list[Tensor]:
    return [one for one in model.parameters() if not one.requires_grad]


def _buffers(model: nn.Module) -> list[Tensor]:
    return [one for part in model.modules() if not part.training for one in part.buffers(recurse=False)]


def _probes(found: Iterable[Tensor]) -> dict[tuple[torch.dtype, torch.device], Tensor]:
    kinds = defaultdict[tuple[torch.dtype, torch.device], list[Tensor]](list)
    for one in found:
        if one.numel():
            kinds[one.dtype, one.device].append(_probe(one.detach()))
    return {kind: torch.cat(parts) for kind, parts in kinds.items()}


def _probe(one: Tensor) -> Tensor:
    """Give some numbers of a tensor, from all over it."""
    step = -(-one.numel() // PROBES)
    dense = one.is_contiguous() or (one.dim() == 4 and one.is_contiguous(memory_format=torch.channels_last))
    if not dense:
        return one.reshape(-1)[::step]
    return one.as_strided((-(-one.numel() // step),), (step,))
