"""Images as a model takes them, and as they look to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchgraft.errors import DataError
from torchgraft.features.early import decoded

if TYPE_CHECKING:
    from torchgraft.preprocess import Preprocess

__all__ = ["Images", "images_of", "read_images"]


@dataclass(frozen=True)
class Images:
    """Images that go into a model.

    Attributes:
        tensor: `[N, C, H, W]`, prepared.
        names: one for each.
        shown: `[N, H, W, 3]` from 0 to 1: what is left of each image after its preparation.
    """

    tensor: Tensor
    names: tuple[str, ...]
    shown: Any

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return (self.tensor.shape[-2], self.tensor.shape[-1])


def read_images(paths: Sequence[Path], preprocess: Preprocess) -> Images:
    """Read image files and prepare them as for training.

    Raises:
        DataError: one can't be read.
    """
    transform = preprocess.transform()
    tensor = torch.stack([transform(decoded(path)) for path in paths])
    return images_of(tensor, preprocess, names=[path.name for path in paths])


def images_of(tensor: Tensor, preprocess: Preprocess | None = None, *, names: Sequence[str] = ()) -> Images:
    """Take a batch `[N, C, H, W]` that is prepared already.

    Args:
        tensor: the batch.
        preprocess: how it was prepared, to show it as it was; without it, from its least to its greatest value.
        names: what the images are called.

    Raises:
        DataError: it is no batch of images.
    """
    if tensor.dim() != 4 or tensor.shape[1] not in (1, 3):
        raise DataError(
            f"{list(tensor.shape)} is no batch of images", where="images", hint="give [N, 1, H, W] or [N, 3, H, W]"
        )
    plain = tensor.detach().cpu().float()
    if preprocess is not None and len(preprocess.mean) == plain.shape[1]:
        shape = (1, -1, 1, 1)
        plain = plain * torch.tensor(preprocess.std).view(shape) + torch.tensor(preprocess.mean).view(shape)
    else:
        low, high = plain.amin((1, 2, 3), keepdim=True), plain.amax((1, 2, 3), keepdim=True)
        plain = (plain - low) / (high - low).clamp(min=1e-12)
    shown = plain.clamp(0, 1).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    return Images(tensor, tuple(names) or tuple(f"image {n}" for n in range(1, len(tensor) + 1)), shown)
