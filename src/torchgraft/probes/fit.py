"""What is known of the memory of training against what there is."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Fit"]


@dataclass(frozen=True)
class Fit:
    """The memory of training and the room for it; all sizes in bytes.

    Attributes:
        need: of all tensors alive at the peak.
        standing: of that, weights, buffers, gradients and the state of the optimizer: what no batch changes.
        allowance: set aside beside the tensors.
        room: what there is.
        place: what the room is, in words.
        batch: samples at once.
        most: the largest batch that fits; 0 where not even one sample does.
        moment: when the peak is, in words.
        holders: who holds most at the peak, in words.
    """

    need: int
    standing: int
    allowance: int
    room: int
    place: str
    batch: int
    most: int
    moment: str
    holders: str

    @property
    def fits(self) -> bool:
        """Tell whether it fits."""
        return self.need + self.allowance <= self.room
