"""Training images varied a little, a batch at a time and where the batch is."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from torchgraft.recipe import TrainPlan

__all__ = ["augmentation", "light"]

TURN, SHIFT, SCALE, SHEAR = math.radians(10), 0.1, 0.1, math.radians(5)
"""At most: the angle, the share of each side, the share of the size, and the shear angle."""


def augmentation(plan: TrainPlan) -> Callable[[Tensor], Tensor]:
    """Give the function that varies a batch `[N, C, H, W]` as the plan says."""
    return {"none": lambda images: images, "light": light}[plan.augment]


def light(images: Tensor) -> Tensor:
    """Turn, shift, scale and shear each image a little, drawn from torch's generator on the CPU.

    Nothing that changes a label's meaning, so no flips. What comes in from outside repeats the border.
    """
    count = len(images)
    turn, across, down, scale, shear = (torch.rand(5, count) * 2 - 1) * torch.tensor(
        [[TURN], [2 * SHIFT], [2 * SHIFT], [SCALE], [SHEAR]]
    )
    size = 1 + scale
    rows = [
        torch.stack([torch.cos(turn) / size, -torch.sin(turn + shear) / size, across], dim=1),
        torch.stack([torch.sin(turn) / size, torch.cos(turn + shear) / size, down], dim=1),
    ]
    matrices = torch.stack(rows, dim=1).to(device=images.device, dtype=images.dtype)
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
