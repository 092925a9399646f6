"""How many rows and columns a layer has, and what a model tells of the sizes of its first and last ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torchgraft.surgery.told import Told, follow_classes

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.journal import Surgery

__all__ = ["gives", "is_single", "takes", "told"]

_WORDS = ("vocab_size", "n_tokens", "num_tokens")
_POSITIONS = ("max_position_embeddings", "n_positions")


def is_single(layer: nn.Module) -> bool:
    """Tell whether the rows of a layer are what `inputs` counts: entries of an embedding, features of a norm."""
    return "num_embeddings" in vars(layer) or _width(layer) is not None


def _width(layer: Any) -> int | None:
    for name in ("num_features", "num_channels"):
        if name in vars(layer):
            return int(vars(layer)[name])
    shape = vars(layer).get("normalized_shape")
    return int(shape[0]) if shape and len(shape) == 1 else None


def gives(layer: nn.Module) -> int | None:
    """Give the number of rows: outputs, features of a norm, entries of an embedding; None where there are none."""
    for name in ("out_features", "out_channels", "num_embeddings"):
        if isinstance(vars(layer).get(name), int):
            return int(vars(layer)[name])
    return _width(layer)


def takes(layer: nn.Module) -> int | None:
    """Give the number of columns: inputs, or features of an embedding; None where there are none."""
    for name in ("in_features", "in_channels"):
        if isinstance(vars(layer).get(name), int):
            return int(vars(layer)[name])
    return None


def told(surgery: Surgery, path: str, old: nn.Module, new: nn.Module, rows: Sequence[int]) -> None:
    """Let attributes and configurations follow where the layer makes the output, or holds words or positions."""
    before, now = gives(old), gives(new)
    if before is None or now is None or before == now:
        return
    if "num_embeddings" in vars(old):
        _table_follows(surgery, path, before, now)
    elif _counted(surgery, before):
        from torchgraft.trace import output_layers

        if path in output_layers(surgery.look(False)):
            kept = rows or range(min(before, now))
            follow_classes(surgery, before, now, dict(enumerate(kept)))


def _counted(surgery: Surgery, before: int) -> bool:
    names = ("num_classes", "n_classes", "nb_classes", "num_labels", *_WORDS)
    tellers = (vars(one) for one in _tellers(surgery))
    return any(own.get(name) == before for own in tellers if not own.keys().isdisjoint(names) for name in names)


def _tellers(surgery: Surgery) -> list[Any]:
    told = Told(surgery.model)
    return [*told.modules, *told.configs]


def _table_follows(surgery: Surgery, path: str, before: int, now: int) -> None:
    """A table of positions is known by its name; any other is one of words."""
    last = path.rpartition(".")[2]
    names = _POSITIONS if "pos" in last or last == "wpe" else _WORDS
    for one in _tellers(surgery):
        for name in names:
            if vars(one).get(name) == before:
                surgery.set(one, name, now)
