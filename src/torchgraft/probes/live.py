"""What steps of a real training showed, as plain data: rules read it without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torchgraft.probes.records import Place

__all__ = ["Live"]


@dataclass(frozen=True)
class Live:
    """One step of an optimizer, seen right before it moves anything, and what is known of the step before.

    Attributes:
        step: its number, from 1.
        loss: where it was told and is not finite.
        norms: of the gradient of each trainable parameter by name, None where there is none; empty where they were
            not read.
        earlier: the same of the step before.
        odd: names of the parameters whose gradient is not finite, in the model's order.
        large: no gradient holds NaN or infinity, but their norm overflows.
        weights: names of parameters that are not finite themselves.
        statistics: names of running statistics that are not finite, in the model's order.
        first: the first operation that made NaN or infinity, where the pass was run again.
        moved: names of frozen parameters that the step moved.
    """

    step: int
    loss: float | None = None
    norms: Mapping[str, float | None] = field(default_factory=dict)
    earlier: Mapping[str, float | None] = field(default_factory=dict)
    odd: tuple[str, ...] = ()
    large: bool = False
    weights: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()
    first: Place | None = None
    moved: tuple[str, ...] = ()

    @property
    def spoilt(self) -> bool:
        """Tell whether this step would spoil the weights."""
        return self.loss is not None or bool(self.odd) or self.large
