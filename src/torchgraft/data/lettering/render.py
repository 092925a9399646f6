"""Render letters the way scikit-learn's handwritten digits were made: written, scanned, counted down to 8x8.

The digits are bitmaps of 32x32 that fill their height, cut into 8x8 blocks whose dark pixels were counted
(Kaynak, 1995: Optical Recognition of Handwritten Digits). A letter is kept as the signed distance to its outline,
so that a pen of any width can write it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from torchgraft.data.base import Progress
from torchgraft.data.lettering.classes import CLASSES
from torchgraft.data.lettering.fonts import FONTS, coverage, draw

__all__ = ["LEVELS", "render"]

LEVELS = 16
"""Dark pixels in a full 4x4 block."""

_GLYPH = 64
"""The side of a stored glyph, margin included."""
_MARGIN = 10
"""Room for thicker strokes around a glyph."""
_SIDE = 48
"""The side of a warped glyph."""
_CHUNK = 2000
"""Letters that are rendered together."""


def render(
    count: int, seed: int, *, classes: Sequence[str] = CLASSES, progress: Progress | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Render random letters in random fonts, the same for the same seed.

    Returns:
        images `[count, 8, 8]`, ink 255 in steps of 1/16, and the labels `[count]`.
    """
    rng = torch.Generator().manual_seed(seed)
    fields, starts, sizes = _glyphs(tuple(classes))
    labels = torch.randint(len(classes), (count,), generator=rng)
    picks = starts[labels] + (torch.rand(count, generator=rng) * sizes[labels]).long()
    parts, done = [], 0
    for pick in torch.split(picks, _CHUNK):
        parts.append(_scanned(fields[pick], rng))
        done += len(pick)
        if progress is not None:
            progress(done, count)
    ink = torch.cat(parts).squeeze(1)
    return (ink * (255 / LEVELS)).round().to(torch.uint8).numpy(), labels.numpy()


@functools.lru_cache(maxsize=2)
def _glyphs(classes: tuple[str, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Give every glyph's signed distances, positive inside, and each class's first row and number of rows."""
    fields, sizes = [], []
    for character in classes:
        held = [font for font in FONTS if character in coverage(font)]
        fields += [_field(character, font) for font in held]
        sizes.append(len(held))
    count = torch.tensor(sizes)
    # Drawn at twice the size: the mean of four distances is smoother than the distance of a coarse bitmap.
    stacked = torch.tensor(np.stack(fields), dtype=torch.float32)[:, None]
    return F.avg_pool2d(stacked, 2) / 2, count.cumsum(0) - count, count


def _field(character: str, font: str) -> NDArray[np.float64]:
    drawn = draw(character, font, 2 * (_GLYPH - 2 * _MARGIN), stretch=False)
    ink = np.pad(drawn, 2 * _MARGIN) > 0.5
    inside: NDArray[np.float64] = ndimage.distance_transform_edt(ink)
    outside: NDArray[np.float64] = ndimage.distance_transform_edt(~ink)
    return inside - outside


def _scanned(fields: Tensor, rng: torch.Generator) -> Tensor:
    """Write glyphs `[N, 1, 64, 64]` by hand and count them down to `[N, 1, 8, 8]`, 0 to 16."""
    written = _written(fields, rng)
    grid = _box_grid((written > 0).float(), rng)
    ink = F.grid_sample(written, grid, padding_mode="border", align_corners=False) > 0
    speckle = torch.rand(ink.shape, generator=rng) < _uniform(0.0, 0.005, (len(fields), 1, 1, 1), rng)
    return (F.avg_pool2d((ink ^ speckle).float(), 4) * LEVELS).round()


def _written(fields: Tensor, rng: torch.Generator) -> Tensor:
    """Warp glyphs and write them with rough pens of random widths; ink is where the result is positive."""
    count = len(fields)
    pen = _pen(fields, rng)
    grid = _warp_grid(count, rng)
    warped = F.grid_sample(fields, grid, padding_mode="border", align_corners=False) + pen
    noise = torch.randn((count, 1, 12, 12), generator=rng)
    rough = F.interpolate(noise, size=(_SIDE, _SIDE), mode="bilinear")
    return warped + rough * _uniform(0.0, 0.5, (count, 1, 1, 1), rng)


def _pen(fields: Tensor, rng: torch.Generator) -> Tensor:
    """Draw how much wider each glyph is written than it is printed."""
    half_stroke = fields.amax((1, 2, 3))
    inner = fields[..., _MARGIN:-_MARGIN, _MARGIN:-_MARGIN].flatten(1)
    # Erode little, or thin serifs vanish, and fill at most 45 % of the box.
    pen = (_uniform(3.2, 6.2, (len(fields),), rng) - half_stroke).clamp(-0.5, 3.5)
    fullest = -inner.kthvalue(int(0.55 * inner.shape[1]), dim=1).values
    return torch.minimum(pen, fullest.clamp_min(-0.5))[:, None, None, None]


def _warp_grid(count: int, rng: torch.Generator) -> Tensor:
    """Give a sampling grid with random rotation, shear, anisotropic scale and elastic warp."""
    turn, shear = _uniform(-0.25, 0.25, (count,), rng), _uniform(-0.4, 0.4, (count,), rng)
    wide, high = _uniform(0.8, 1.5, (count,), rng), _uniform(1.0, 1.1, (count,), rng)
    cos, sin, zero = turn.cos(), turn.sin(), torch.zeros(count)
    top = torch.stack([wide * cos, wide * (shear * cos - sin), zero], 1)
    bottom = torch.stack([high * sin, high * (shear * sin + cos), zero], 1)
    grid = F.affine_grid(torch.stack([top, bottom], 1), [count, 1, _SIDE, _SIDE], align_corners=False)
    # Two scales of elastic warp: whole parts of a letter move, and strokes bend.
    for cells, reach in ((3, 0.15), (6, 0.06)):
        knots = torch.randn((count, 2, cells, cells), generator=rng) * reach
        bend = F.interpolate(knots, size=(_SIDE, _SIDE), mode="bicubic", align_corners=True)
        grid = grid + bend.permute(0, 2, 3, 1)
    return grid


def _box_grid(ink: Tensor, rng: torch.Generator) -> Tensor:
    """Give a 32x32 grid over each ink's bounding box: full height, own width, jittered position."""
    count = len(ink)
    (left, right), (top, bottom) = _reach(ink, 2), _reach(ink, 3)
    half_x, half_y = (_half(low, high) for low, high in ((left, right), (top, bottom)))
    # The digits fill the height of their bitmap and 3 to 7 of the 8 columns.
    aspect = (half_x / half_y * _uniform(0.65, 1.0, (count,), rng)).clamp(0.25, 0.78)
    scale_x, scale_y = half_x / aspect, half_y * _uniform(0.97, 1.06, (count,), rng)
    shift = (left + right) / 2 + scale_x * torch.randn(count, generator=rng) * 0.08
    zero = torch.zeros(count)
    rows = [torch.stack([scale_x, zero, shift], 1), torch.stack([zero, scale_y, (top + bottom) / 2], 1)]
    return F.affine_grid(torch.stack(rows, 1), [count, 1, 32, 32], align_corners=False)


def _reach(ink: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Give where the ink begins and ends, -1 to 1, once `axis` is flattened away."""
    place = (torch.arange(_SIDE) + 0.5) * 2 / _SIDE - 1
    filled = ink.amax(axis).squeeze(1) > 0
    low = torch.where(filled, place, 9.0).amin(1).clamp(-1, 1)
    return low, torch.where(filled, place, -9.0).amax(1).clamp(-1, 1)


def _half(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp_min(0.1) / 2 + 1 / _SIDE


def _uniform(low: float, high: float, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=rng)
