"""Training images varied a little: each by itself as it is prepared, or a batch at a time where the batch is."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from torchgraft.errors import TrainError, nearest
from torchgraft.train.draws import generator

if TYPE_CHECKING:
    from torchgraft.trainplan import TrainPlan

__all__ = ["Light", "augmentation", "light", "transforms"]

TURN, SHIFT, SCALE, SHEAR = math.radians(10), 0.1, 0.1, math.radians(5)
"""At most: the angle, the share of each side, the share of the size, and the shear angle."""

_NO_TRANSFORMS = ("Transform", "Compose", "Lambda", "MixUp", "CutMix")


class Light:
    """Varies batches lightly; each sample by random numbers of its own, whatever batch it is in.

    Args:
        seed: of all random numbers.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._table: tuple[tuple[int, int], Tensor] | None = None

    def draws(self, places: Sequence[int], count: int, chance: int) -> Tensor:
        """Give the random numbers [N, 5] in 0 … 1 of some samples.

        Args:
            places: which rows.
            count: of how many.
            chance: what they are drawn for: the epoch or the variant.
        """
        if self._table is None or self._table[0] != (count, chance):
            drawn = torch.rand(count, 5, generator=generator("light", self._seed, chance))
            self._table = (count, chance), drawn
        return self._table[1].index_select(0, torch.tensor(places))

    def __call__(self, images: Tensor, targets: Any, draws: Tensor) -> tuple[Tensor, Any]:
        """Vary images [N, C, H, W], and masks [N, H, W] in the same way; other targets stay."""
        matrices = _matrices(draws)
        if isinstance(targets, Tensor) and targets.dim() == 3 and not targets.is_floating_point():
            targets = _warped(targets[:, None].float(), matrices, "nearest")[:, 0].to(targets.dtype)
        return _warped(images, matrices, "bilinear"), targets


def light(images: Tensor, draws: Tensor) -> Tensor:
    """Turn, shift, scale and shear each image [N, C, H, W] a little, by its random numbers [N, 5] in 0 … 1.

    Nothing that changes a label's meaning, so no flips. What comes in from outside repeats the border.
    """
    return _warped(images, _matrices(draws), "bilinear")


def augmentation(plan: TrainPlan) -> Callable[[Tensor], Tensor]:
    """Give the function that varies a batch `[N, C, H, W]`, drawn from torch's generator on the CPU."""
    if plan.augment != "light":
        return lambda images: images
    return lambda images: light(images, torch.rand(len(images), 5))


def _matrices(draws: Tensor) -> Tensor:
    """Give the affine maps [N, 2, 3] from the new image to the old one."""
    most = torch.tensor([TURN, 2 * SHIFT, 2 * SHIFT, SCALE, SHEAR])
    turn, across, down, scale, shear = ((draws * 2 - 1) * most).unbind(1)
    size = 1 + scale
    rows = [
        torch.stack([torch.cos(turn) / size, -torch.sin(turn + shear) / size, across], dim=1),
        torch.stack([torch.sin(turn) / size, torch.cos(turn + shear) / size, down], dim=1),
    ]
    return torch.stack(rows, dim=1)


def _warped(images: Tensor, matrices: Tensor, mode: str) -> Tensor:
    matrices = matrices.to(device=images.device, dtype=images.dtype)
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)


def transforms(plan: TrainPlan, size: tuple[int, int]) -> list[Any]:
    """Build the transforms of torchvision v2 that each training image goes through, before it is normalised.

    Args:
        plan: whose `augment` names them.
        size: height and width of the prepared image: what a random crop gives that names no size.

    Raises:
        TrainError: torchvision has no such transform, or does not take its settings.
    """
    if plan.augment == "trivial":
        # Pillow does it in half the time that tensors take: 3.0 and 4.1 ms an image of 256 pixels, all told.
        return [_transform(name, {}, size) for name in ("ToPILImage", "TrivialAugmentWide", "ToImage")]
    if isinstance(plan.augment, str):
        return []
    return [_transform(name, settings, size) for name, settings in _named(plan.augment)]


def _named(given: Sequence[Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Read a list of names, each alone or with its settings."""
    each = [{one: {}} if isinstance(one, str) else one for one in given]
    return [(name, settings or {}) for one in each for name, settings in one.items()]


def _transform(name: str, settings: Mapping[str, Any], size: tuple[int, int]) -> Any:
    from torchvision.transforms import v2

    known = {
        one: kind for one, kind in vars(v2).items()
        if inspect.isclass(kind) and issubclass(kind, v2.Transform) and one not in _NO_TRANSFORMS
    }  # fmt: skip
    if name not in known:
        raise TrainError(f"torchvision has no transform '{name}'", "train.augment", _instead(name, known))
    given = {key: _setting(key, value, size) for key, value in settings.items()}
    takes = inspect.signature(known[name]).parameters
    if name.startswith("Random") and "size" in takes and takes["size"].default is inspect.Parameter.empty:
        given.setdefault("size", list(size))
    try:
        return known[name](**given)
    except (TypeError, ValueError) as error:
        near = " ".join(nearest(key, takes) for key in given if key not in takes)
        hint = f"{near} {name} takes {', '.join(takes)}".strip()
        raise TrainError(f"{name}: {_plain(error)}", "train.augment", hint) from error


def _setting(key: str, value: Any, size: tuple[int, int]) -> Any:
    """Build the transforms that another one is given, such as those of RandomApply."""
    if key != "transforms" or not isinstance(value, Sequence):
        return value
    return [_transform(name, own, size) for name, own in _named(value)]


def _instead(name: str, known: Mapping[str, Any]) -> str:
    if name in ("MixUp", "CutMix"):
        return f"it blends whole batches: {name.lower()}: {'0.2' if name == 'MixUp' else '1.0'} beside augment"
    folded = {one.lower(): one for one in known}
    near = nearest(name.lower(), folded)
    for one, proper in folded.items():
        near = near.replace(f"{one} ", f"{proper} ").replace(f"{one}?", f"{proper}?")
    return near or "they are listed at https://docs.pytorch.org/vision/stable/transforms.html"


def _plain(error: Exception) -> str:
    return str(error).replace("__init__() ", "").split(".", 1)[-1] if "__init__" in str(error) else str(error)
