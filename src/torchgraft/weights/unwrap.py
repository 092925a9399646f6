"""Checkpoints: a state dict may lie inside a training checkpoint, beside an optimizer, an epoch, an average."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Found", "states"]

_USUAL = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params", "state")
"""Keys that hold the weights, the most usual first: what is named here is taken before an average of it."""

_NEVER = ("optim", "sched", "scaler", "loss", "momentum")
"""Keys that hold tensors which are no weights."""


@dataclass(frozen=True)
class Found:
    """A state dict, and where in what was given it lay.

    Attributes:
        state: its tensors, by name.
        inside: the keys that lead to it; empty where the state dict itself was given.
        beside: what else lies next to it, and is left aside.
        others: entries of the state dict that are no tensors.
        parts: the keys of several state dicts that were joined under them, as a model has its children.
    """

    state: Mapping[str, Tensor]
    inside: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """How one reaches it in Python: `["model"]["state_dict"]`."""
        way = "".join(f'["{key}"]' for key in self.inside)
        return " and ".join(f'{way}["{part}"]' for part in self.parts) or way


def states(held: Any) -> list[Found]:
    """Give every state dict in what was given, the likeliest first; empty when there is none."""
    return sorted(_search(held, (), ()), key=_rank)


def _rank(found: Found) -> tuple[bool, int, int, int]:
    last = found.inside[-1].lower() if found.inside else ""
    usual = _USUAL.index(last) if last in _USUAL else len(_USUAL) + _is_average(last)
    return (bool(found.parts), sum(key not in _USUAL for key in found.inside), len(found.inside), usual)


def _search(held: Any, inside: tuple[str, ...], beside: tuple[str, ...]) -> Iterator[Found]:
    """Walk down: a dict whose values are mostly tensors is a state dict, unless a larger one lies in it."""
    held = _opened(held)
    if not isinstance(held, Mapping) or _is_optimizer(held) or len(inside) > 4:
        return
    tensors = {str(name): one for name, value in held.items() if (one := _tensor(value)) is not None}
    others = {key: value for key, value in held.items() if str(key) not in tensors}
    deeper = [found for key, value in others.items() for found in _below(held, key, value, inside)]
    larger = any(_weight(one.state) > _weight(tensors) for one in deeper)
    if tensors and len(tensors) * 2 >= len(held) and not larger:
        yield Found(tensors, inside, beside, tuple(str(name) for name in held if str(name) not in tensors))
    else:
        yield from deeper
        yield from _joined(deeper, inside, beside)


def _joined(deeper: Sequence[Found], inside: tuple[str, ...], beside: tuple[str, ...]) -> Iterator[Found]:
    """Join state dicts that lie side by side under names of their own: `{"encoder": …, "decoder": …}`."""
    near = {one.inside[-1]: one.state for one in deeper if len(one.inside) == len(inside) + 1 and not one.parts}
    parts = {key: state for key, state in near.items() if not (key.lower() in _USUAL or _is_average(key.lower()))}
    if len(parts) > 1:
        whole = {f"{key}.{name}": tensor for key, state in parts.items() for name, tensor in state.items()}
        yield Found(whole, inside, beside, parts=tuple(parts))


def _is_average(key: str) -> bool:
    return "ema" in key or "average" in key or "best" in key


def _weight(tensors: Mapping[str, Tensor]) -> int:
    """Count tensors that are more than one number: a step or a rate may be kept as a tensor too."""
    return sum(tensor.dim() > 0 for tensor in tensors.values())


def _below(held: Mapping[Any, Any], key: Any, value: Any, inside: tuple[str, ...]) -> Iterator[Found]:
    if not str(key).lower().startswith(_NEVER) and not str(key).endswith("_extra_state"):
        rest = tuple(str(other) for other in held if other != key)
        yield from _search(value, (*inside, str(key)), rest)


def _opened(held: Any) -> Any:
    """Give the mapping behind a module or a sequence."""
    from torch import nn

    if isinstance(held, nn.Module):
        return held.state_dict()
    if isinstance(held, (list, tuple)) and any(isinstance(one, Mapping) for one in held):
        return {str(number): one for number, one in enumerate(held)}
    return held


def _tensor(value: Any) -> Tensor | None:
    """Give a value as a tensor, if it is one that has values; arrays count."""
    import numpy as np
    import torch
    from torch.nn.parameter import is_lazy

    if isinstance(value, torch.Tensor):
        if is_lazy(value):
            return None
        return value.detach().to_dense() if value.layout == torch.sparse_coo else value.detach()
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.as_tensor(value)
    return None


def _is_optimizer(held: Mapping[Any, Any]) -> bool:
    return "param_groups" in held or all(isinstance(key, int) for key in held)
