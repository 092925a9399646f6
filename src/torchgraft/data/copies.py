"""Samples that are in both halves: a figure that was judged on them says too much."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

__all__ = ["apart", "copies"]


def copies(train: Iterable[Hashable], val: Iterable[Hashable]) -> int:
    """Count the validation samples whose content (a digest, a text) some training sample has."""
    trained = set(train) - {b"", ""}
    return sum(one in trained for one in val)


def apart(train: list[int], val: list[int], contents: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """Let a drawn half train on what is a copy of a training sample; but for that, and where all are, as drawn.

    `contents` has what tells samples apart, their targets included: two of one input and another target may part.
    """
    trained = {contents[place] for place in train}
    moved = {place for place in val if contents[place] in trained}
    if not moved or len(moved) == len(val):
        return train, val
    return sorted([*train, *moved]), [place for place in val if place not in moved]
