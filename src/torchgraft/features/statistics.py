"""What the values of each layer look like: mean, spread, dead channels, histogram."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchgraft.features.hooks import Capture
from torchgraft.features.keeping import Keeping
from torchgraft.features.seen import Feature
from torchgraft.view.canvas import percent

if TYPE_CHECKING:
    from torchgraft.graft import Graft

__all__ = ["LayerStatistics", "Statistics", "layer_statistics"]

_BINS = 48


@dataclass(frozen=True)
class LayerStatistics:
    """The values of one call of a layer, over all images.

    Attributes:
        name: path of the layer, with the place of the tensor where it gives several.
        kind: the class of the layer.
        call: which call it is, from 1.
        shape: of the tensor.
        mean: of all values that are finite.
        std: their standard deviation, over all of them.
        low: the least.
        high: the greatest.
        zeros: the share that is exactly 0.
        dead: the share of channels that are 0 everywhere, in every image.
        channels: how many channels there are.
        broken: the share of values that are NaN or infinite.
        counts: how many values are in each of the bins between `low` and `high`, which are all as wide.
    """

    name: str
    kind: str
    call: int
    shape: tuple[int, ...]
    mean: float
    std: float
    low: float
    high: float
    zeros: float
    dead: float
    channels: int
    broken: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Statistics:
    """The layers in the order of the pass; printing shows a table."""

    layers: tuple[LayerStatistics, ...]

    def __iter__(self) -> Iterator[LayerStatistics]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def cells(self) -> list[tuple[str, ...]]:
        """Give a table: a line of names, then a line for each layer."""
        head = ("layer", "kind", "shape", "mean", "std", "min", "max", "zeros", "dead channels", "")
        return [head, *(_cells(one) for one in self.layers)]

    def as_data(self) -> list[dict[str, Any]]:
        """Give plain data, for JSON: a number that is none is null."""
        return [{key: _plain(value) for key, value in asdict(one).items()} for one in self.layers]

    def __str__(self) -> str:
        cells = self.cells()
        wide = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join(
            "  ".join(
                one.ljust(size) if place < 3 else one.rjust(size)
                for place, (one, size) in enumerate(zip(row, wide, strict=True))
            ).rstrip()
            for row in cells
        )


def layer_statistics(graft: Graft, *inputs: Any, at: tuple[str, ...] = ()) -> Statistics:
    """Measure the values that layers give, without keeping them.

    Args:
        graft: the model; it runs once, in evaluation mode.
        inputs: what the forward takes.
        at: selectors of layers; where none is named, every layer that holds no other.

    Raises:
        SelectionError: a selector matches nothing.
    """
    leaves = [path for path, one in graft.module.named_modules() if path and not any(one.children())]
    keeping = Keeping(measured=_measured)
    chosen = Capture(graft, at or leaves, keeping, inputs=False, gradients=False, detach=True, stop=True)
    chosen.run(*inputs)
    return Statistics(tuple(_statistics(one) for one in chosen.seen))


def _measured(tensor: Tensor, side: int) -> Tensor:
    """Write what is told of a tensor in one: shape, figures, counts."""
    whole = tensor.abs() if tensor.is_complex() else tensor
    values = whole.detach().float()
    finite = values[values.isfinite()] if not bool(values.isfinite().all()) else values
    total = max(values.numel(), 1)
    low, high = (float(finite.min()), float(finite.max())) if finite.numel() else (math.nan, math.nan)
    std, mean = torch.std_mean(finite, correction=0) if finite.numel() else (math.nan, math.nan)
    dead, channels = _dead(values, side)
    figures = [
        float(mean), float(std), low, high, float((values == 0).sum()) / total, dead, channels,
        1 - finite.numel() / total,
    ]  # fmt: skip
    counts = _counts(finite, low, high)
    return torch.tensor([len(tensor.shape), *tensor.shape, *figures, *counts], dtype=torch.float64)


def _dead(values: Tensor, side: int) -> tuple[float, int]:
    if values.dim() < 2 or not values.numel():
        return 0.0, 0
    side = side % values.dim()
    others = tuple(dim for dim in range(values.dim()) if dim != side)
    alive = values.abs().amax(others) > 0
    return 1 - float(alive.float().mean()), values.shape[side]


def _counts(finite: Tensor, low: float, high: float) -> list[int]:
    if not finite.numel():
        return [0] * _BINS
    if low == high:  # torch would widen the bins by 1 to both sides
        return [finite.numel() if place == _BINS // 2 else 0 for place in range(_BINS)]
    return [int(one) for one in torch.histc(finite.cpu(), _BINS, low, high)]


def _statistics(one: Feature) -> LayerStatistics:
    told = one.tensor.tolist()
    dims = int(told[0])
    shape = tuple(int(size) for size in told[1 : dims + 1])
    mean, std, low, high, zeros, dead, channels, broken, *counts = told[dims + 1 :]
    return LayerStatistics(
        one.name, one.kind, one.call, shape, mean, std, low, high, zeros, dead, int(channels), broken,
        tuple(int(count) for count in counts),
    )  # fmt: skip


def _cells(one: LayerStatistics) -> tuple[str, ...]:
    name = one.name if one.call == 1 else f"{one.name} (call {one.call})"
    figures = [_figure(number) for number in (one.mean, one.std, one.low, one.high)]
    dead = f"{round(one.dead * one.channels)} of {one.channels}" if one.dead else ""
    zeros = percent(one.zeros) if one.zeros else ""
    broken = f"{percent(one.broken)} NaN or infinite" if one.broken else ""
    return (name, one.kind, "×".join(map(str, one.shape)), *figures, zeros, dead, broken)


def _figure(number: float) -> str:
    return "" if math.isnan(number) else f"{number:.3g}"


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
