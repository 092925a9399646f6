"""The last touch to a batch: brought to the device, and varied there as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchgraft.train.augment import Light
from torchgraft.train.feeds.base import moved
from torchgraft.train.mix import Mix

__all__ = ["Finish"]


@dataclass(frozen=True)
class Finish:
    """What is done to every batch of a feed.

    Attributes:
        device: where batches are wanted.
        light: turns, shifts and scales images; None leaves them.
        mix: blends images and their targets; None leaves them.
        masks: targets are bytes [N, H, W], and become class numbers.
    """

    device: torch.device
    light: Light | None = None
    mix: Mix | None = None
    masks: bool = False

    @property
    def idle(self) -> bool:
        """Whether a batch stays as it is: every call that a step can spare is spared."""
        return self.device.type == "cpu" and not (self.light or self.mix or self.masks)

    def varies(self, views: int) -> bool:
        """Tell whether a sample gets other inputs each time, or each time it comes in the same view."""
        return self.mix is not None or (self.light is not None and views == 0)

    def targets(self, targets: Any) -> Any:
        """Bring targets to the device."""
        targets = moved(targets, self.device)
        return targets.long() if self.masks and isinstance(targets, Tensor) else targets

    def placed(
        self,
        inputs: Any,
        targets: Any,
        places: list[int],
        count: int,
        chance: int,
        moment: tuple[int, int],
    ) -> tuple[Any, Any]:
        """Bring a batch to the device and vary it.

        Args:
            inputs: prepared.
            targets: of these.
            places: which row of the table of random numbers each sample draws from.
            count: rows of that table.
            chance: what the table is drawn for: the epoch or the variant.
            moment: the epoch and the number of the batch: what blending is drawn for.
        """
        inputs, targets = moved(inputs, self.device), self.targets(targets)
        if self.light is not None:
            inputs, targets = self.light(inputs, targets, self.light.draws(places, count, chance))
        if self.mix is not None:
            inputs, targets = self.mix(inputs, targets, *moment)
        return inputs, targets
