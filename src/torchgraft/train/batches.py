"""From samples to batches: images transformed, shuffled by seed and epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from torchgraft.recipe import TrainPlan

if TYPE_CHECKING:
    from PIL.Image import Image

    from torchgraft.data import Samples

__all__ = ["batches", "sizes_of"]

_MEMORY = 512 * 2**20
"""So many bytes of transformed images are kept in memory: the transform is the same in every epoch."""


class _Images(Dataset[tuple[Tensor, Tensor]]):
    """Samples behind a transform; fetches whole batches, and keeps transformed images while there is room."""

    def __init__(self, samples: Samples, transform: Callable[[Image], Tensor], room: int) -> None:
        self._samples = samples
        self._transform = transform
        self._kept: dict[int, Tensor] = {}
        self._room = room

    def __len__(self) -> int:
        return len(self._samples)

    def _image(self, index: int) -> Tensor:
        if index in self._kept:
            return self._kept[index]
        image = self._transform(self._samples[index][0])
        if self._room > 0:
            self._kept[index] = image
            self._room -= image.nbytes
        return image

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        images = torch.stack([self._image(index) for index in indices])
        return images, torch.tensor([self._samples.labels[index] for index in indices])


def batches(
    samples: Samples,
    transform: Callable[[Image], Tensor],
    plan: TrainPlan,
    *,
    train: bool,
    seed: int = 0,
) -> DataLoader[Any]:
    """Give the batches of one set: images `[N, C, H, W]` and labels `[N]`.

    Training batches are shuffled from `seed`; a last batch of one sample is left out, since BatchNorm can't
    take it.
    """
    alone = train and len(samples) > plan.batch and len(samples) % plan.batch == 1
    return DataLoader(
        _Images(samples, transform, _MEMORY // max(plan.workers, 1)),
        batch_size=plan.batch,
        shuffle=train,
        drop_last=alone,
        num_workers=plan.workers,
        persistent_workers=plan.workers > 0,
        collate_fn=_as_it_is,
        generator=torch.Generator().manual_seed(seed),
    )


def sizes_of(loader: DataLoader[Any]) -> list[int]:
    """Count the samples of each batch of an epoch."""
    size, count = loader.batch_size or 1, len(loader.dataset)  # type: ignore[arg-type]
    rest = 0 if loader.drop_last else count % size
    return [size] * (count // size) + [rest] * bool(rest)


def _as_it_is(batch: Any) -> Any:
    return batch
