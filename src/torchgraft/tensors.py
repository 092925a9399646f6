"""Tensors that are taken as they are: whether a model takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torchgraft.data import DataSet
from torchgraft.data.known import generators_kept
from torchgraft.data.loaders import Loaded, first_inputs
from torchgraft.errors import DataError
from torchgraft.graft import Graft
from torchgraft.looks import Looks

__all__ = ["check_tensors"]


def check_tensors(graft: Graft, data: DataSet) -> None:
    """Refuse tensors that the model breaks on, found by a pass on fake ones of the same shapes and types.

    A model that was traced with small real tensors is not judged: nobody knows what values it wants.

    Raises:
        DataError: says what they are, what the model takes, and what would make them fit.
    """
    usual = torch.empty(2, *graft.input_shape, device="meta") if graft.input_shape is not None else None
    batch = _fake(_batch(data))
    if _like(batch, usual) or graft.trace().mismatch is not None or graft.trace().real:
        return
    mismatch = Looks(graft.module, lambda: batch).of("eval").mismatch
    if mismatch is None:
        return
    wanted = f", which takes {list(graft.input_shape)} of floats" if graft.input_shape is not None else ""
    raise DataError(
        f"the model{wanted}, does not run on {_described(batch)}: {mismatch.message.splitlines()[0]}",
        where=mismatch.path or graft.name,
        hint=_hint(batch, graft.input_shape),
    )


def _batch(data: DataSet) -> Any:
    """Make two samples of the first, or take the first batch of a loader; no generator moves."""
    if isinstance(data.train, Loaded):
        return first_inputs(data.train.loader)
    with generators_kept():
        return _each(data.train[0][0], lambda one: one.expand(2, *one.shape))


def _each(given: Any, change: Any) -> Any:
    if isinstance(given, Mapping):
        return {name: _each(one, change) for name, one in given.items()}
    if isinstance(given, (tuple, list)):
        return tuple(_each(one, change) for one in given)
    return change(given) if isinstance(given, Tensor) else given


def _fake(batch: Any) -> Any:
    return _each(batch, lambda one: torch.empty(one.shape, dtype=one.dtype, device="meta"))


def _like(batch: Any, usual: Tensor | None) -> bool:
    """Tell whether a batch is what the model is traced with anyway."""
    if usual is None or not isinstance(batch, Tensor):
        return False
    return batch.shape[1:] == usual.shape[1:] and batch.dtype == usual.dtype


def _described(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return ", ".join(f"{name} {_described(one)}" for name, one in batch.items())
    if isinstance(batch, tuple):
        return ", ".join(map(_described, batch))
    if not isinstance(batch, Tensor):
        return type(batch).__name__
    return f"{str(batch.dtype).removeprefix('torch.')} {['N', *batch.shape[1:]]}".replace("'", "")


def _hint(batch: Any, wanted: tuple[int, ...] | None) -> str:
    """Say what would make of it what the model takes."""
    if not isinstance(batch, Tensor) or wanted is None:
        return "give the model's own inputs: a tensor, a tuple of them by place, a dict by name"
    steps, shape = [], tuple(batch.shape[1:])
    if batch.dtype != torch.float32:
        steps.append("make them float32")
    if len(shape) == len(wanted) - 1 and wanted[0] == 1:
        steps.append("add the channel, inputs[:, None]")
    elif len(shape) == len(wanted) == 3 and shape[0] != wanted[0] and shape[-1] in (1, 3, wanted[0]):
        steps.append("put the channels first, inputs.transpose(0, 3, 1, 2) of an array, .permute of a tensor")
    elif len(shape) == len(wanted) == 3 and shape[0] != wanted[0]:
        steps.append(f"let the model take them: g.input(channels={shape[0]})")
    elif shape != wanted:
        steps.append(f"make them {list(wanted)}")
    return "; ".join(steps)
