"""What a place is really given: how many arguments, under which names, and where the tensors are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from torchgraft.repair.ghosts import fake_inputs, ghost
from torchgraft.trace import Trace
from torchgraft.trace.tree import tensors

__all__ = ["Given", "asked"]


@dataclass(frozen=True)
class Given:
    """The arguments of a call: their names, and which one a module of one input should get.

    `feed` None means the tensors of the first argument, joined along `dim`.
    """

    names: tuple[str, ...]
    feed: int | None
    dim: int


class _Seen(BaseException):
    """The place was called; nothing else of the pass matters."""


def asked(model: nn.Module, place: str, run: Trace) -> Given | None:
    """Run the model on fake tensors up to a place, and read how it is called.

    Args:
        model: the model; it is copied, not run.
        place: the path of the module.
        run: a trace of the model, whose inputs are taken.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    twin, _ = ghost(model, mode)
    twin.eval()
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        seen.append((args, kwargs))
        raise _Seen

    twin.get_submodule(place).__dict__["forward"] = call
    try:
        with torch.no_grad(), mode:
            twin(*fake_inputs(run, mode))
    except (_Seen, Exception):  # whatever the model raises before it calls the place
        pass
    return _read(*seen[0]) if seen else None


def _read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Given | None:
    names = (*(f"given_{number}" for number in range(len(args))), *kwargs)
    values = (*args, *kwargs.values())
    for number, value in enumerate(values):
        if isinstance(value, Tensor):
            return Given(names, number, 1)
    first = tensors(values[0]) if values else []
    if not first:
        return None
    joined = isinstance(values[0], (list, tuple)) and _agree([tuple(one.shape) for one in first])
    return Given(names, None, 1) if joined else None


def _agree(shapes: list[tuple[int, ...]]) -> bool:
    """Tell whether tensors can be joined along dimension 1."""
    return len({(*shape[:1], *shape[2:]) for shape in shapes}) == 1 and len(shapes[0]) > 1
