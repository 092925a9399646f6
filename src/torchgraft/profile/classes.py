"""The parts of a run by the class of module: what kind of layer takes the time, and what limits it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from torchgraft.profile.record import Part, Run

__all__ = ["Kind", "kinds"]


@dataclass(frozen=True)
class Kind:
    """All modules of one class: how many were called, their own seconds, work and bytes, and what bounds most."""

    name: str
    modules: int
    seconds: float
    share: float
    flops: float
    bytes: float
    bound: str


def kinds(run: Run) -> list[Kind]:
    """Give the classes of modules by what they take themselves, without what is inside them; most first."""
    gathered: dict[str, list[Part]] = defaultdict(list)
    for part in run.parts:
        if part.seconds:
            gathered[part.kind].append(part)
    found = []
    for name, parts in gathered.items():
        by: dict[str, float] = defaultdict(float)
        for part in parts:
            by[part.bound] += part.seconds
        seconds = sum(part.seconds for part in parts)
        flops, moved = sum(part.flops for part in parts), sum(part.bytes for part in parts)
        share = seconds / max(run.seconds, 1e-12)
        found.append(Kind(name, len(parts), seconds, share, flops, moved, max(by, key=lambda one: by[one])))
    return sorted(found, key=lambda one: -one.seconds)
