"""How a training image is prepared: with the plan's random transforms, and with its mask where it has one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchgraft.errors import TrainError
from torchgraft.train.augment import transforms

if TYPE_CHECKING:
    from torchgraft.preprocess import Preprocess
    from torchgraft.trainplan import TrainPlan

__all__ = ["preparation"]

_NO_MASKS = ("AutoAugment", "RandAugment", "TrivialAugmentWide", "AugMix")
"""What torchvision does not do to a mask as it does to the image."""


def preparation(
    preprocess: Preprocess, plan: TrainPlan, *, train: bool, paired: bool = False
) -> Callable[..., Any]:
    """Give the function from a PIL image to a tensor [C, H, W]; in training, with the plan's transforms in it.

    Args:
        preprocess: what every image goes through.
        plan: whose `augment` names what training images go through besides.
        train: they are training images.
        paired: the function takes a mask, uint8 [H, W], too, and gives both; what comes in from outside the
            image is 255 there, which nobody judges.

    Raises:
        TrainError: torchvision has no such transform, does not take its settings, or does not do it to masks.
    """
    before = transforms(plan, preprocess.size) if train else []
    transform = preprocess.transform(before=before)
    if not paired:
        return transform
    for one in before:
        if type(one).__name__ in _NO_MASKS:
            raise TrainError(
                f"{type(one).__name__} does not vary a mask with its image",
                where="train.augment",
                hint="name transforms, such as [RandomHorizontalFlip, {RandomRotation: {degrees: 10}}]",
            )
    return _Paired(transform)


class _Paired:
    """Prepares an image and its mask alike."""

    def __init__(self, transform: Callable[..., Any]) -> None:
        self._transform = transform

    def __call__(self, image: Any, mask: Any) -> tuple[Tensor, Tensor]:
        from torchvision.tv_tensors import Mask

        # Every transform fills with 0. Counted from 1, with 255 for 0, that is what nobody judges.
        raised = Mask(torch.as_tensor(mask, dtype=torch.uint8) + 1)
        prepared, varied = self._transform(image, raised)
        return prepared, varied.as_subclass(Tensor) - 1
