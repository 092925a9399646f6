"""Data of each kind as the sections of a sheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from torchgraft.errors import DataError
from torchgraft.features.attention import Attention, on_image, rollout
from torchgraft.features.cam import Cam
from torchgraft.features.classes import called
from torchgraft.features.filters import Filters
from torchgraft.features.images import Images, images_of
from torchgraft.features.layout import Grids
from torchgraft.features.maps import ChannelMaps
from torchgraft.features.pictures import Section, Tile, sheet
from torchgraft.features.statistics import Statistics
from torchgraft.view.canvas import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image
    from torch import Tensor

    from torchgraft.features.statistics import LayerStatistics
    from torchgraft.view.canvas import Palette

__all__ = ["attention_sections", "cam_sections", "drawn", "filter_sections", "map_sections", "statistics_sections"]


def drawn(
    found: Cam | Filters | Statistics | Sequence[ChannelMaps] | Sequence[Attention],
    images: Tensor | Images | None = None,
    *,
    title: str = "",
    over: bool = False,
    dark: bool = False,
) -> Image:
    """Draw what was found as one sheet: an image of Pillow's, which a notebook shows.

    Args:
        found: what one of the functions of this package gives.
        images: the images that it was found in, `[N, C, H, W]`; filters and statistics need none.
        title: what stands at the top.
        over: lay maps over their image.
        dark: on a dark ground.

    Raises:
        DataError: the images are missing, or the sheet would be too long.
    """
    if isinstance(found, Statistics):
        return sheet(title, statistics_sections(found), dark=dark)
    if isinstance(found, Filters):
        return sheet(title, filter_sections(found), dark=dark)
    if images is None:
        raise DataError("the images are missing", where="drawn", hint="drawn(found, images): the batch it is of")
    shown = images if isinstance(images, Images) else images_of(images)
    if isinstance(found, Cam):
        return sheet(title, cam_sections(found, shown), dark=dark)
    maps = [one for one in found if isinstance(one, ChannelMaps)]
    weights = [one for one in found if isinstance(one, Attention)]
    sections = map_sections(maps, shown, over=over)
    return sheet(title, [*sections, *attention_sections(weights, shown, Grids(shown.size), over=over)], dark=dark)


def map_sections(found: Sequence[ChannelMaps], images: Images, *, over: bool = False) -> list[Section]:
    """Lay out the maps of layers: a section for each layer and image, the image itself first."""
    return [
        _vectors(one, number, images) if one.is_vector else _maps(one, number, images, over=over)
        for one in found
        for number in range(len(images.names))
    ]


def _maps(one: ChannelMaps, number: int, images: Images, *, over: bool) -> Section:
    image = images.shown[number]
    under = image if over else None
    tiles = [
        Tile(one.maps[number, place].numpy(), f"channel {channel}", under)
        for place, channel in enumerate(one.channels)
    ]
    values = one.maps
    return Section(
        _titled(one, images, number),
        _detail(one, images, number),
        tuple(tiles),
        Tile(image, images.names[number]),
        unit="value",
        limits=(float(values.min()), float(values.max())),
    )


def _titled(one: ChannelMaps, images: Images, number: int) -> str:
    return one.name if one.call == 1 else f"{one.name}, call {one.call}"


def _detail(one: ChannelMaps, images: Images, number: int) -> str:
    shape = "×".join(map(str, one.shape))
    how = "that contribute most" if one.measure == "contribution" else "that vary most"
    if one.is_vector and one.measure == "spread":
        how = "that stand out most"
    some = f"the {len(one.channels)} of {one.of} channels {how}"
    which = some if len(one.channels) < one.of else f"all {one.of} channels"
    several = f" · {images.names[number]}" if len(images.names) > 1 else ""
    return f"{one.kind} · {shape} · {which}{several}"


def _vectors(one: ChannelMaps, number: int, images: Images) -> Section:
    """Draw one number a channel as bars."""
    values = one.maps[number, :, 0, 0].tolist()

    def paint(axes: Axes, palette: Palette) -> None:
        colours = [palette.accent if value >= 0 else palette.bad for value in values]
        axes.bar(range(len(values)), values, color=colours, width=0.7)
        axes.set_xlim(-0.6, max(len(values), 16) - 0.4)
        axes.axhline(0, color=palette.faint, lw=0.8)
        axes.set_xticks(range(len(values)), [str(channel) for channel in one.channels])
        axes.tick_params(labelsize=6.5, length=0)
        axes.set_xlabel("channel", size=7)
        axes.set_ylabel("value", size=7)

    return Section(_titled(one, images, number), _detail(one, images, number), paint=paint, inches=1.5)


def cam_sections(cam: Cam, images: Images) -> list[Section]:
    """Lay out where a model looks: each image, and the same with the map over it."""
    tiles: list[Tile] = []
    for number, name in enumerate(images.names):
        chance = f"{called(cam.names[number])} · {percent(cam.chances[number])}"
        tiles += [
            Tile(images.shown[number], name),
            Tile(cam.images[number].numpy(), chance, images.shown[number]),
        ]
    title = {"grad-cam": "Grad-CAM", "score-cam": "Score-CAM"}[cam.method]
    shape = "×".join(map(str, cam.maps.shape[1:]))
    nothing = "" if float(cam.maps.max()) > 0 else " · nothing here speaks for the class: the map is 0 everywhere"
    detail = f"at {cam.at}, {shape} · each map from its least to its greatest value{nothing}"
    return [Section(title, detail, tuple(tiles), unit="of greatest", columns=4, limits=(0, 1))]


def filter_sections(filters: Filters) -> list[Section]:
    """Lay out filters: in colour where there are three input channels, else each input channel by itself."""
    weights = filters.weights
    shape = "×".join(map(str, (filters.of, *weights.shape[1:])))
    few = (
        f"the {len(weights)} of {filters.of} filters" if len(weights) < filters.of else f"all {filters.of} filters"
    )
    what = f"{filters.kind} · {shape} · {few}, the largest norm first"
    if weights.shape[1] == 3:
        ends = weights.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
        coloured = (0.5 + weights / (2 * ends)).permute(0, 2, 3, 1).numpy()
        tiles = [Tile(one, f"filter {number}") for one, number in zip(coloured, filters.filters, strict=True)]
        detail = f"{what} · red, green, blue around grey, each filter by its own greatest weight"
        return [Section(filters.name, detail, tuple(tiles))]
    inputs = min(weights.shape[1], 8)
    tiles = [
        Tile(one[place].numpy(), f"filter {number}" + (f", input {place}" if weights.shape[1] > 1 else ""))
        for one, number in zip(weights, filters.filters, strict=True)
        for place in range(inputs)
    ]
    some = f", {inputs} of {weights.shape[1]} inputs" if inputs < weights.shape[1] else ""
    return [Section(filters.name, what + some, tuple(tiles), unit="weight", columns=inputs if inputs > 2 else 8)]


def attention_sections(
    found: Sequence[Attention], images: Images, grids: Grids, *, over: bool = False
) -> list[Section]:
    """Lay out the attention of each layer, head by head, and what comes of all layers in a row."""
    sections = [
        section
        for number in range(len(images.names))
        for one in found
        for section in _attention(one, number, images, grids, over=over)
    ]
    followed = _rolled(found, images, grids) if len(found) > 1 else None
    return ([followed] if followed is not None else []) + sections


def _attention(one: Attention, number: int, images: Images, grids: Grids, *, over: bool) -> list[Section]:
    heads, count = one.weights.shape[1], one.weights.shape[-1]
    alone = one.weights.shape[0] == len(images.names)
    several = f" · {images.names[number]}" if len(images.names) > 1 else ""
    places = on_image(one.weights[number], grids) if alone else None
    if places is not None:
        under = images.shown[number] if over else None
        tiles = [Tile(places[head].float().cpu().numpy(), f"head {head}", under) for head in range(heads)]
        whose = "of the class token" if _has_class_token(count, grids) else "of all tokens on the mean"
        detail = f"{one.kind} · {heads} heads, {count} tokens · attention {whose}{several}"
        first = Tile(images.shown[number], images.names[number])
        return [Section(one.path, detail, tuple(tiles), first, unit="attention")]
    weights = one.weights if alone else one.weights.float().mean(0, keepdim=True)
    if not alone and number:
        return []
    mean = weights[number if alone else 0].float().cpu()
    tiles = [Tile(mean[head].numpy(), f"head {head}") for head in range(heads)]
    windows = "" if alone else f", on the mean of {one.weights.shape[0]} windows"
    shape = "×".join(map(str, mean.shape[1:]))
    return [Section(one.path, f"{one.kind} · queries × keys, {shape}{windows}", tuple(tiles), unit="attention")]


def _has_class_token(count: int, grids: Grids) -> bool:
    grid = grids.of_tokens(count)
    return grid is not None and grid[2] > 0


def _rolled(found: Sequence[Attention], images: Images, grids: Grids) -> Section | None:
    shapes = {tuple(one.weights.shape[i] for i in (0, -2, -1)) for one in found}
    if len(shapes) != 1 or next(iter(shapes))[0] != len(images.names):
        return None
    places = on_image(rollout(found), grids)
    if places is None:
        return None
    large = nn.functional.interpolate(places[:, None].float(), images.size, mode="bilinear", align_corners=False)
    tiles: list[Tile] = []
    for number, name in enumerate(images.names):
        values = large[number, 0].cpu().numpy()
        tiles += [Tile(images.shown[number], name), Tile(values, "rollout", images.shown[number])]
    detail = f"of {len(found)} layers, heads on the mean, half of each layer passed on as it is"
    return Section("Attention rollout", detail, tuple(tiles), unit="attention", columns=4)


def statistics_sections(found: Statistics) -> list[Section]:
    """Lay out statistics: a line for each layer with mean ± std, histogram, zeros and dead channels."""
    inches = 0.5 + 0.19 * len(found)
    return [
        Section(
            f"{len(found)} layers",
            "mean ± standard deviation · histogram from the least to the greatest value · zeros and dead channels",
            paint=lambda axes, palette: _statistics(axes, palette, found.layers),
            inches=inches,
        )
    ]


def _statistics(axes: Axes, palette: Palette, layers: Sequence[LayerStatistics]) -> None:
    axes.set_axis_off()
    count = len(layers)
    spans = ((0.0, 0.36, "mean ± std"), (0.41, 0.32, "histogram"), (0.78, 0.08, "zeros"), (0.91, 0.08, "dead"))
    parts = [axes.inset_axes((left, 0, width, 1)) for left, width, _ in spans]
    for part, (_, _, name) in zip(parts, spans, strict=True):
        part.set_ylim(count - 0.5, -0.5)
        part.set_title(name, size=7.5, weight="normal", pad=4)
        part.tick_params(labelsize=6.5, length=0)
        part.set_yticks([])
    rows = range(count)
    means, stds = [one.mean for one in layers], [one.std for one in layers]
    parts[0].errorbar(means, rows, xerr=stds, fmt="o", ms=2.5, lw=1, color=palette.accent, ecolor=palette.soft)
    parts[0].axvline(0, color=palette.faint, lw=0.7)
    parts[0].set_yticks(rows, [_shown(one) for one in layers])
    _histograms(parts[1], palette, layers)
    for part, shares in ((parts[2], [one.zeros for one in layers]), (parts[3], [one.dead for one in layers])):
        part.barh(rows, shares, height=0.6, color=palette.accent if part is parts[2] else palette.bad)
        part.set_xlim(0, 1)
        part.set_xticks([0, 0.85], ["0", "100\u00a0%"])


def _histograms(axes: Any, palette: Palette, layers: Sequence[LayerStatistics]) -> None:
    """Draw each histogram on its own line, the fullest bin as high as the line."""
    for row, one in enumerate(layers):
        counts = torch.tensor(one.counts, dtype=torch.float32)
        if not float(counts.max()) > 0:
            continue
        ends = torch.linspace(0, 1, len(counts) + 1)
        heights = 0.85 * counts / counts.max()
        axes.stairs(
            row + 0.42 - heights.numpy(), ends.numpy(), baseline=row + 0.42, fill=True, color=palette.accent
        )
    axes.set_xlim(0, 1)
    axes.set_xticks([0.05, 0.93], ["least", "greatest"])


def _shown(one: LayerStatistics) -> str:
    name = one.name if len(one.name) <= 28 else f"…{one.name[-27:]}"
    return name if one.call == 1 else f"{name} ({one.call})"
