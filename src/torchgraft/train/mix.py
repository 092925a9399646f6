"""Images blended in pairs, and their targets with them."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from torchgraft.train.draws import mixed

__all__ = ["Mix", "cutmix", "mixup"]


@dataclass(frozen=True)
class Mix:
    """Blends each image of a batch with another one of it; where both ways are on, one is drawn for each batch.

    How strongly, and which patch, is drawn from the seed, the epoch and the number of the batch. Each process
    blends within its own part, so that other images meet than in one process.

    Attributes:
        mixup: both parameters of the Beta distribution of shares (Zhang et al., 2018); 0 is off.
        cutmix: likewise, for swapped patches (Yun et al., 2019).
        classes: how many there are.
        seed: of all random numbers.
    """

    mixup: float
    cutmix: float
    classes: int
    seed: int

    def __call__(self, images: Tensor, targets: Tensor, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        """Blend images [N, C, H, W] and their classes [N] to shares [N, classes]."""
        chance = random.Random(mixed("mix", self.seed, epoch, number))
        patches = self.cutmix > 0 and (self.mixup == 0 or chance.random() < 0.5)
        strength = self.cutmix if patches else self.mixup
        share = chance.betavariate(strength, strength)
        if patches:
            images, share = cutmix(images, share, chance.random(), chance.random())
        else:
            images = mixup(images, share)
        return images, _blended(targets, share, self.classes)


def mixup(images: Tensor, share: float) -> Tensor:
    """Blend each image [N, C, H, W] with the one before it in the batch, of which it gets 1 - `share`."""
    return torch.lerp(images.roll(1, 0), images, share)


def cutmix(images: Tensor, share: float, across: float, down: float) -> tuple[Tensor, float]:
    """Put a patch of the image before it in the batch into each image [N, C, H, W].

    Args:
        images: the batch, which stays as it is.
        share: of the image that is kept, before the border cuts the patch off.
        across: where the middle of the patch is, in 0 … 1 of the width.
        down: likewise of the height.

    Returns:
        The images, and the share that each really keeps.
    """
    height, width = images.shape[-2:]
    half = math.sqrt(1 - share) / 2
    top, bottom = _span(down, half, height)
    left, right = _span(across, half, width)
    result = images.clone()
    result[..., top:bottom, left:right] = images.roll(1, 0)[..., top:bottom, left:right]
    return result, 1 - (bottom - top) * (right - left) / (height * width)


def _span(middle: float, half: float, length: int) -> tuple[int, int]:
    centre, reach = int(middle * length), int(half * length)
    return max(centre - reach, 0), min(centre + reach, length)


def _blended(targets: Tensor, share: float, classes: int) -> Tensor:
    """Give the shares [N, classes] of the classes [N] and of those before them."""
    one: Any = functional.one_hot(targets, classes).float()
    return torch.lerp(one.roll(1, 0), one, share)
