"""State difference: parameters, buffers and random numbers before and after a pass in evaluation mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchgraft.probes.records import Broke, Place

if TYPE_CHECKING:
    from torchgraft.probes.evaluation import Evaluation

__all__ = ["State", "state"]


@dataclass(frozen=True)
class State:
    """What an evaluation pass left changed.

    Attributes:
        moved: names of parameters and buffers whose bytes changed in evaluation mode.
        random: the first operation of evaluation mode that drew random numbers.
        broke: where the evaluation pass broke off.
    """

    moved: tuple[str, ...] = ()
    random: Place | None = None
    broke: Broke | None = None


def state(run: Evaluation) -> State:
    """Read off a pass what it changed."""
    return State(run.moved, run.random, run.broke)
