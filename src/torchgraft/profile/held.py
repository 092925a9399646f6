"""Who holds memory when it is highest: every allocation of a step, put down to a kind and a module."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torchgraft.profile.events import OUTSIDE, Allocation
from torchgraft.profile.record import Peak
from torchgraft.trace.tree import tensors

__all__ = ["Held", "before", "gradients", "peak"]

KINDS = ("weights", "gradients", "optimizer state", "activations", "inputs", "temporary")
"""In the order in which they are told."""

_OF_PHASE = {"data": "inputs", "forward": "activations", "loss": "activations"}
"""What memory is that is taken in a phase and is no gradient; elsewhere it is temporary."""


@dataclass(frozen=True)
class Held:
    """One storage that was there before a step began."""

    kind: str
    path: str
    bytes: int


def before(model: nn.Module, optimizer: torch.optim.Optimizer | None, given: Any) -> list[Held]:
    """List the storages of the weights, of the optimizer's state and of the inputs, each once."""
    seen: set[int] = set()
    homes = _homes(model)

    def once(kind: str, path: str, one: Tensor) -> list[Held]:
        address = _address(one)
        if address in seen:
            return []
        seen.add(address)
        return [Held(kind, path, one.untyped_storage().nbytes())]

    found: list[Held] = []
    for one, path in homes.values():
        found += once("weights", path, one)
    for parameter, state in (optimizer.state if optimizer is not None else {}).items():
        path = homes.get(id(parameter), (None, OUTSIDE))[1]
        for one in tensors(list(state.values())):
            found += once("optimizer state", path, one)
    for one in tensors(given):
        found += once("inputs", OUTSIDE, one)
    return found


def gradients(model: nn.Module) -> dict[int, str]:
    """Give the modules whose gradients lie at which address."""
    found = {}
    for one, path in _homes(model).values():
        if one.grad is not None and not one.grad.is_sparse:
            found[_address(one.grad)] = path
    return found


def peak(
    allocations: Iterable[Allocation],
    held: Sequence[Held],
    graded: Mapping[int, str],
    *,
    since: int = 0,
    reserved: int = 0,
) -> Peak:
    """Find the highest sum of what was held before and what was allocated since, and who holds it.

    Args:
        allocations: in the order of time.
        held: what was there before the first of them.
        graded: see `gradients`, at the end of the last of them.
        since: the time from which on the peak is looked for; gradients are known of the last step alone.
        reserved: what the allocator of an accelerator holds.
    """
    listed = list(allocations)
    base = sum(one.bytes for one in held)
    place, top = _highest(listed, since)
    last = _alive(listed, len(listed))
    grown = {number: graded[address] for address, number in last.items() if address in graded}
    sums: dict[tuple[str, str], int] = defaultdict(int)
    for one in held:
        sums[one.kind, one.path] += one.bytes
    for number in _alive(listed, place).values():
        seen = listed[number]
        kind = "gradients" if number in grown else _OF_PHASE.get(seen.phase, "temporary")
        path = grown.get(number, seen.path)
        sums[kind, path] += seen.bytes
    kinds = {kind: sum(size for (one, _), size in sums.items() if one == kind) for kind in KINDS}
    holders = sorted(((path, kind, size) for (kind, path), size in sums.items() if size), key=lambda one: -one[2])
    at = listed[place - 1] if place else None
    return Peak(
        base + top, at.phase if at else "", at.path if at else "", {k: v for k, v in kinds.items() if v},
        tuple(holders), reserved,
    )  # fmt: skip


def _highest(listed: list[Allocation], since: int) -> tuple[int, int]:
    """Give after how many allocations the most bytes are alive, and how many."""
    now, place, top = 0, 0, 0
    for number, one in enumerate(listed, 1):
        now += one.bytes
        if now > top and one.at >= since:
            place, top = number, now
    return place, top


def _alive(listed: list[Allocation], count: int) -> dict[int, int]:
    """Give what is alive after the first so many allocations: its number by its address."""
    alive: dict[int, int] = {}
    for number, one in enumerate(listed[:count]):
        if one.bytes > 0:
            alive[one.address] = number
        else:
            alive.pop(one.address, None)
    return alive


def _homes(model: nn.Module) -> dict[int, tuple[Tensor, str]]:
    """Give each parameter and buffer with the first module that holds it."""
    found: dict[int, tuple[Tensor, str]] = {}
    for path, module in model.named_modules():
        for one in (*module._parameters.values(), *module._buffers.values()):
            if one is not None:
                found.setdefault(id(one), (one, path))
    return found


def _address(one: Tensor) -> int:
    return one.untyped_storage().data_ptr()
