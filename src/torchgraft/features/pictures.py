"""What was seen, as a sheet of pictures: sections one below the other, each with tiles on one scale."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchgraft.errors import DataError
from torchgraft.view.canvas import DARK, LIGHT, Palette, label, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

__all__ = ["Section", "Tile", "sheet"]

COLUMNS = 8
_WIDTH = 10.0
_EDGE = 0.25
_TILE = 1.02
_CAPTION = 0.2
_HEAD = 0.52
_SCALE = 0.85
_GAP = 0.06
_BOLD, _PLAIN = 0.0092, 0.0075
"""Inches that a letter takes on average, for each point of its size, rather too many than too few."""

_MOST_INCHES = 160.0
"""A sheet that is higher than this is no picture any more: 32,000 dots."""


@dataclass(frozen=True)
class Tile:
    """One small picture.

    Attributes:
        values: `[h, w]` on the scale of its section, or `[h, w, 3]` in colours from 0 to 1.
        caption: what stands above it.
        under: `[H, W, 3]`: an image that the values lie over.
    """

    values: Any
    caption: str = ""
    under: Any = None


@dataclass(frozen=True)
class Section:
    """Tiles that belong together, on one scale.

    Attributes:
        title: such as the name of a layer.
        detail: what stands beside it: class, shape, how the tiles were chosen.
        tiles: from left to right, then from above.
        lead: stands at the left of all of them.
        unit: what the scale measures; no scale is drawn without it.
        columns: how many tiles stand side by side.
        limits: the ends of the scale; those of the values where they are not given.
        paint: draws the section in another way, on axes of `inches` height.
        inches: see `paint`.
    """

    title: str
    detail: str = ""
    tiles: tuple[Tile, ...] = ()
    lead: Tile | None = None
    unit: str = ""
    columns: int = COLUMNS
    limits: tuple[float, float] | None = None
    paint: Callable[[Axes, Palette], None] | None = None
    inches: float = 0.0

    @property
    def width(self) -> float:
        """Inches of the sheet that it needs, with its title and its scale."""
        if self.paint is not None:
            return _WIDTH
        across = min(len(self.tiles), self.columns) + (self.lead is not None)
        tiles = across * (self.tile + _GAP) + (_SCALE if self.unit else 0)
        words = _letters(self.title) * 10 * _BOLD + _letters(self.detail) * 8 * _PLAIN + 0.15
        return min(2 * _EDGE + max(tiles, words), _WIDTH)

    @property
    def height(self) -> float:
        """Inches, with the title."""
        if self.paint is not None:
            return _HEAD + self.inches
        rows = -(-len(self.tiles) // self.columns)
        return _HEAD + rows * self.pitch

    @property
    def pitch(self) -> float:
        """Inches from one row of tiles to the next: wide tiles need less."""
        sizes = [(one.values if one.under is None else one.under).shape[:2] for one in self.tiles]
        return self.tile * min(max((height / width for height, width in sizes), default=1.0), 1.0) + _CAPTION

    @property
    def tile(self) -> float:
        """Inches of a tile's side: fewer tiles are larger, up to twice."""
        columns = self.columns + (self.lead is not None)
        return min((_WIDTH - 2 * _EDGE - _SCALE) / columns, 2 * _TILE) - _GAP


def sheet(title: str, sections: Sequence[Section], *, note: str = "", dark: bool = False) -> Image:
    """Draw sections one below the other.

    Args:
        title: what stands at the top.
        sections: what is drawn.
        note: what else a reader has to know, such as that the weights are random.
        dark: on a dark ground.

    Raises:
        DataError: it would be too long to be a picture.
    """
    palette = DARK if dark else LIGHT
    told = max(_letters(title) * 13 * _BOLD, _letters(note) * 8 * _PLAIN) + 2 * _EDGE
    width = min(max([told, *(one.width for one in sections)]), _WIDTH)
    head = 0.45 + (0.2 if note else 0)
    height = head + sum(one.height for one in sections) + _EDGE
    if height > _MOST_INCHES:
        raise DataError(
            f"the sheet would be {height * 2.54:.0f} cm long",
            where=title,
            hint="ask for fewer layers, images or channels",
        )

    def paint(figure: Figure) -> None:
        figure.set_layout_engine("none")  # every part has its place
        place = _Place(figure, (width, height), palette)
        place.text(_EDGE, 0.12, title, size=13, weight="bold")
        if note:
            place.text(_EDGE, 0.38, note, colour=palette.bad)
        top = head
        for one in sections:
            _section(place, one, top)
            top += one.height

    return picture((width, height), palette, paint)


def _letters(words: str) -> int:
    """Count letters; those of Chinese, Japanese and Korean are twice as wide."""
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in words)


class _Place:
    """A figure measured in inches from its upper left corner."""

    def __init__(self, figure: Figure, size: tuple[float, float], palette: Palette) -> None:
        self.figure, self.palette = figure, palette
        self.width, self.height = size

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Give axes at a place."""
        low = self.height - top - height
        return self.figure.add_axes(
            (left / self.width, low / self.height, width / self.width, height / self.height)
        )

    def text(
        self, left: float, top: float, words: str, *, size: float = 8, weight: str = "normal", colour: str = ""
    ) -> Any:
        """Write words, their upper left corner at a place."""
        return self.figure.text(
            left / self.width, 1 - top / self.height, words, size=size, weight=weight, va="top",
            color=colour or self.palette.ink,
        )  # fmt: skip


def _section(place: _Place, one: Section, top: float) -> None:
    written = place.text(_EDGE, top + 0.1, one.title, size=10, weight="bold")
    box = written.get_window_extent()
    place.text(_EDGE + box.width / place.figure.dpi + 0.12, top + 0.125, one.detail, colour=place.palette.soft)
    if one.paint is not None:
        axes = place.axes(_EDGE + 2.1, top + _HEAD - 0.1, _WIDTH - 2 * _EDGE - 2.1, one.inches - 0.15)
        one.paint(axes, place.palette)
        return
    scale = _scale(one)
    start = _EDGE
    if one.lead is not None:
        _tile(place, one.lead, (start, top + _HEAD - 0.1, one.tile), scale)
        start += one.tile + _GAP
    for number, tile in enumerate(one.tiles):
        left = start + (number % one.columns) * (one.tile + _GAP)
        above = top + _HEAD - 0.1 + (number // one.columns) * one.pitch
        _tile(place, tile, (left, above, one.tile), scale)
    if one.unit and scale is not None:
        _bar(place, one, top, scale)


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    colours: str


def _scale(one: Section) -> _Scale | None:
    """Put all tiles of a section on one scale: two colours around 0 where there are values on both sides."""
    import numpy as np

    plain = [tile.values for tile in one.tiles if tile.values.ndim == 2]
    if not plain:
        return None
    if one.limits is not None:
        low, high = one.limits
    else:
        finite = np.concatenate([values[np.isfinite(values)].ravel() for values in plain])
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low < 0 < high:
        end = max(-low, high)
        return _Scale(-end, end, "RdBu_r")
    return _Scale(low, high if high > low else low + 1, "magma")


def _tile(place: _Place, tile: Tile, at: tuple[float, float, float], scale: _Scale | None) -> None:
    left, top, side = at
    place.text(
        left, top, label(tile.caption, width=max(16, int(side / 0.06))), size=6.5, colour=place.palette.soft
    )
    height, width = tile.values.shape[:2] if tile.under is None else tile.under.shape[:2]
    room = side - 0.02
    wide, high = (room, room * height / width) if width >= height else (room * width / height, room)
    axes = place.axes(left, top + 0.14, wide, high)
    axes.set_axis_off()
    extent = (0, width, height, 0)
    if tile.under is not None:
        axes.imshow(tile.under, extent=extent, aspect="auto", interpolation="bilinear")
    if tile.values.ndim == 3:
        axes.imshow(tile.values.clip(0, 1), extent=extent, aspect="auto", interpolation="nearest")
    elif scale is not None:
        axes.imshow(
            tile.values, extent=extent, aspect="auto", vmin=scale.low, vmax=scale.high, cmap=scale.colours,
            interpolation="nearest" if tile.under is None else "bilinear", alpha=1 if tile.under is None else 0.55,
        )  # fmt: skip


def _bar(place: _Place, one: Section, top: float, scale: _Scale) -> None:
    """Draw the scale of a section at its right."""
    import numpy as np

    left = place.width - _EDGE - _SCALE + 0.16
    axes = place.axes(left, top + _HEAD + 0.06, 0.1, max(min(one.pitch - _CAPTION, 1.2) - 0.1, 0.4))
    ramp = np.linspace(1, 0, 128)[:, None]
    axes.imshow(ramp, aspect="auto", cmap=scale.colours, extent=(0, 1, scale.low, scale.high))
    axes.set_xticks([])
    axes.yaxis.tick_right()
    middle = 0.0 if scale.low < 0 < scale.high else (scale.low + scale.high) / 2
    axes.set_yticks([scale.low, middle, scale.high], [f"{one:.3g}" for one in (scale.low, middle, scale.high)])
    axes.tick_params(labelsize=6.5, length=0, pad=2)
    for side in axes.spines.values():
        side.set_visible(False)
    place.text(left, top + _HEAD - 0.1, one.unit, size=6.5, colour=place.palette.soft)
