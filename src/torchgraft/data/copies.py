"""Samples of one content, which may come up twice: figures judged on what was trained on say too much."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from torchgraft.data.base import Task, halves

__all__ = ["apart", "copies"]


def copies(train: Iterable[Hashable], val: Iterable[Hashable]) -> int:
    """Count the validation samples whose content (a digest, a text) some training sample has."""
    trained = set(train) - {b"", ""}
    return sum(one in trained for one in val)


def apart(
    targets: Sequence[Any], contents: Sequence[Hashable], *, task: Task, seed: int, where: str, keys: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Draw the halves as `halves` does, all samples of one content and target on the same side.

    An empty content is not known. Where every class has one content only, its copies are drawn like others.

    Args:
        targets: of each sample.
        contents: what tells their inputs apart: digests of images, or the texts themselves.
        task: what the targets are.
        seed: draws.
        where: what the user called the set.
        keys: what a sample is drawn by.
    """
    groups: dict[Hashable, list[int]] = {}
    for place, content in enumerate(contents):
        groups.setdefault((targets[place], content) if content else place, []).append(place)
    firsts = sorted(min(places, key=lambda place: keys[place]) for places in groups.values())
    chosen = [targets[place] for place in firsts]
    if len(firsts) == len(keys) or len(set(chosen) if task == "classes" else {0}) == len(firsts):
        return halves(targets, task=task, seed=seed, where=where, keys=keys)
    train, _ = halves(chosen, task=task, seed=seed, where=where, keys=[keys[place] for place in firsts])
    trained = {firsts[number] for number in train}
    sides: tuple[list[int], list[int]] = ([], [])
    for places in groups.values():
        sides[0 if trained & set(places) else 1].extend(places)
    return sorted(sides[0]), sorted(sides[1])
