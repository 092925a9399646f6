"""The largest batch that fits: memory grows nearly as a line with the batch, so a few predictions find it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["MOST", "largest"]

MOST = 1 << 16
"""No larger batch is looked for."""


def largest(need: Callable[[int], int], holds: Callable[[int], bool], room: int, start: int) -> int:
    """Find the largest batch whose memory a room holds; 0 where not even one sample does.

    Args:
        need: predicts the bytes of a batch; it is asked about few, the answer among them.
        holds: whether so many bytes fit.
        room: about so many bytes there are; it only guides the search.
        start: a batch to begin with.
    """
    known: dict[int, int] = {}

    def fits(batch: int) -> bool:
        known[batch] = need(batch)
        return holds(known[batch])

    low, high = (start, MOST + 1) if fits(start) else (0, start)
    while high - low > 1:
        guess = _guess(known, room, low, high, start)
        low, high = (guess, high) if fits(guess) else (low, guess)
    return low


def _guess(known: dict[int, int], room: int, low: int, high: int, start: int) -> int:
    """Follow the line through the two nearest predictions; where it leaves the bounds, halve."""
    near = sorted(known, key=lambda batch: abs(known[batch] - room))[:2]
    if len(near) < 2:
        return min(2 * start, high - 1) if low else max(start // 2, 1)
    one, other = near
    slope = (known[one] - known[other]) / (one - other)
    guess = one + int((room - known[one]) / slope) if slope > 0 else (low + high) // 2
    if len(known) > 8:
        guess = (low + high) // 2
    return min(max(guess, low + 1), high - 1)
