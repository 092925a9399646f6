"""What of a state each process has for itself: random numbers, counts, statistics of its part of the data.

In a snapshot of several processes the first one's stand under their plain names, so that one process alone can go
on from it; those of process 2 stand under `of 2/rng/cpu`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchgraft.store.tensors import digest
from torchgraft.train.snapshot import Snapshot

if TYPE_CHECKING:
    from torchgraft.train.world import World

__all__ = ["gathered", "needed", "own", "parted"]

_RANDOM, _COUNTS = "rng/", "meter/"
_NOTES = ("random", "sums")
"""The notes that every process has for itself: plain data of its generators, and sums that add up."""


def parted(snapshot: Snapshot, buffers: Collection[str], world: World) -> Snapshot:
    """Name what this process has for itself as its own; every process calls it.

    Args:
        snapshot: of this process.
        buffers: names of tensors that may differ from process to process; those that do not are left alone.
        world: the processes.
    """
    differ = _differing({name: snapshot.tensors[name] for name in buffers}, world)
    apart = {name for name in snapshot.tensors if name.startswith((_RANDOM, _COUNTS))} | differ
    tensors = {_name(name, world.rank) if name in apart else name: one for name, one in snapshot.tensors.items()}
    each = world.all({name: snapshot.notes[name] for name in _NOTES})
    return Snapshot(tensors, {**snapshot.notes, "processes": world.size, "apart": sorted(apart), "each": each})


def gathered(snapshot: Snapshot, world: World) -> Snapshot:
    """Bring what `parted` named to the first process, which writes it with all the rest; the others have none."""
    mine = {name: one.cpu() for name, one in snapshot.tensors.items() if name.startswith("of ")}
    every: dict[str, Tensor] = {name: one for part in world.all(mine) for name, one in part.items()}
    return Snapshot({**snapshot.tensors, **every} if world.writes else {}, snapshot.notes)


def own(snapshot: Snapshot, world: World) -> Snapshot:
    """Give what this process goes on with.

    With as many processes as there were, each has its own again. With more or fewer, statistics are the mean of
    all, counts go on in the first process, and who had no random numbers yet keeps its fresh ones.
    """
    notes = dict(snapshot.notes)
    processes, each = int(notes.pop("processes", 1)), notes.pop("each", [notes])
    plain = [name for name in snapshot.tensors if name.startswith((_RANDOM, _COUNTS))]
    tensors = {name: one for name, one in snapshot.tensors.items() if not name.startswith("of ")}
    for name in notes.pop("apart", plain):
        del tensors[name]
        values = {
            rank: snapshot.tensors[_name(name, rank)]
            for rank in range(processes)
            if _name(name, rank) in snapshot.tensors
        }
        if processes == world.size or name.startswith(_RANDOM):
            tensors |= {name: values[world.rank]} if world.rank in values else {}
        else:
            tensors[name] = _merged(name, list(values.values()), world)
    notes["random"] = each[world.rank]["random"] if world.rank < processes else None
    notes["sums"] = each[world.rank]["sums"] if processes == world.size else _summed(each, world)
    return Snapshot(tensors, notes)


def needed(names: Iterable[str], processes: int, world: World) -> list[str]:
    """Leave out what others have for themselves, where there are as many processes as before."""
    if processes != world.size:
        return list(names)
    mine = f"of {world.rank}/"
    return [name for name in names if not name.startswith("of ") or name.startswith(mine)]


def _name(name: str, rank: int) -> str:
    return f"of {rank}/{name}" if rank else name


def _differing(tensors: Mapping[str, Tensor], world: World) -> set[str]:
    seen: list[dict[str, str]] = world.all({name: digest(one) for name, one in tensors.items()})
    return {name for name in tensors if len({one[name] for one in seen}) > 1}


def _merged(name: str, values: list[Tensor], world: World) -> Tensor:
    if not name.startswith(_COUNTS):
        many = torch.stack([one.double() for one in values]).mean(0)
        return many.to(values[0].dtype) if values[0].is_floating_point() else values[0]
    total = torch.stack(values).sum(0)
    return total if world.writes else torch.zeros_like(total)


def _summed(each: list[dict[str, Any]], world: World) -> list[float]:
    columns = zip(*(one["sums"] for one in each), strict=True)
    return [sum(column) if world.writes else 0 for column in columns]
