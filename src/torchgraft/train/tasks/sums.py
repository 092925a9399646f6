"""Figures out of counts that add up over batches and processes."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["macro_f1", "mean", "share"]


def share(part: float, whole: float) -> float:
    """Give a share of 1; nan where there is nothing to share."""
    return part / whole if whole else math.nan


def mean(values: Sequence[float]) -> float:
    """Give the mean of those that are numbers; nan where none is."""
    known = [value for value in values if not math.isnan(value)]
    return share(sum(known), len(known))


def macro_f1(found: Sequence[int], guessed: Sequence[int], there: Sequence[int]) -> float:
    """Give the mean F1 over the classes that occur, in truth or in guesses (van Rijsbergen, 1979).

    Args:
        found: of each class, how many were guessed rightly.
        guessed: how many were guessed.
        there: how many there are.
    """
    return mean([share(2 * hit, one + other) for hit, one, other in zip(found, guessed, there, strict=True)])
