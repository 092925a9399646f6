"""The pictures of the report as PNG bytes, from plain data: learning curves, confusion matrix, samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchgraft.history import figure_name, is_share, shown
from torchgraft.view.canvas import LIGHT, Palette, flat, label, percent, picture, png

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from PIL.Image import Image

    from torchgraft.history import Epoch, Evaluation, History

__all__ = [
    "TINY",
    "WRITTEN",
    "Sample",
    "confusion",
    "curves",
    "drawn_figure",
    "eight_bit",
    "figure_of",
    "figure_value",
    "ranked",
    "samples",
]

TINY = 64
"""Images up to this many pixels a side are enlarged with hard pixels; the larger ones are smoothed."""
WRITTEN = 20
"""Up to this many classes the counts stand in the cells of the confusion matrix."""
LOSS = "loss"
NAMED = 60
"""Up to this many classes every row of the confusion matrix has its name."""


@dataclass(frozen=True)
class Sample:
    """One image or text, what it is, what the model took it for, and the probability it gave to that."""

    image: Image | None
    target: str
    prediction: str
    confidence: float
    text: str = ""

    @property
    def right(self) -> bool:
        """Whether the model was right."""
        return self.prediction == self.target


def ranked(samples: Iterable[Sample]) -> list[Sample]:
    """Put the wrong ones first, the surest mistake leading; then the right ones, the least sure leading."""
    return sorted(samples, key=lambda one: (one.right, one.confidence if one.right else -one.confidence))


def eight_bit(image: Image) -> Image:
    """Give the image as `L` or `RGB`: deep greys stretched to what they span, transparency on white."""
    import PIL.Image

    if image.mode in ("L", "RGB"):
        return image
    if image.mode[0] in "IF":
        grey = image.convert("F")
        low, high = (float(side) for side in grey.getextrema())  # type: ignore[arg-type]
        scale = 255 / (high - low or 1)
        return grey.point(lambda value: value * scale - low * scale).convert("L")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def curves(history: History, palette: Palette = LIGHT) -> bytes:
    """Draw the loss and the figure that states are judged by over the epochs, the best epoch marked.

    The learning rate is a strip below them.
    """
    drawn = picture((9.2, 4.2), palette, lambda figure: _curves(figure, history, palette))
    return png(flat(drawn))


def confusion(evaluation: Evaluation, palette: Palette = LIGHT) -> bytes:
    """Draw targets against predictions; a cell is as strong as the root of its share of the row."""
    count = len(evaluation.classes)
    side = 2.1 + 0.44 * max(count, 4) if count <= WRITTEN else 9.2
    drawn = picture((side, side), palette, lambda figure: _confusion(figure, evaluation, palette))
    return png(flat(drawn))


def samples(chosen: Sequence[Sample], palette: Palette = LIGHT) -> bytes:
    """Draw the samples in the given order, six in a row, each with its prediction and confidence."""
    columns = min(max(len(chosen), 3), 6)
    rows = max(math.ceil(len(chosen) / columns), 1)
    size = (1.53 * columns, 1.95 * rows)
    return png(picture(size, palette, lambda figure: _samples(figure, chosen, (rows, columns), palette)))


# curves


def _curves(figure: Figure, history: History, palette: Palette) -> None:
    grid = figure.add_gridspec(2, 2, height_ratios=(7, 1), wspace=0.06, hspace=0.08)
    loss, judged, rate = (figure.add_subplot(grid[at]) for at in ((0, 0), (0, 1), (1, slice(None))))
    if not history.epochs:
        figure.clear()
        figure.text(0.5, 0.5, "no epoch was run", ha="center", color=palette.soft)
        return
    best = next((epoch for epoch in history.epochs if epoch.number == history.best), None)
    name = drawn_figure(history)
    loss.set_title("loss")
    judged.set_title(figure_name(name))
    for axes, kind in ((loss, LOSS), (judged, name)):
        _pair(axes, history.epochs, kind, palette)
    _scale_loss(loss, history.epochs)
    if is_share(name):
        _scale_share(judged, history.epochs, name)
    _rate(rate, history, palette)
    loss.legend(loc="lower right", bbox_to_anchor=(1, 1.025), ncols=2, labelcolor=palette.ink)
    for axes in (loss, judged, rate):
        _epoch_axis(axes, history.epochs)
    if best:
        _mark(loss, best, best.val_loss, f"{best.val_loss:.3f}", palette)
        value = figure_of(best, "val", name)
        _mark(judged, best, value, f"best: {figure_value(name, value)}", palette)
        rate.axvline(best.number, color=palette.accent, linewidth=0.8, alpha=0.5)


def drawn_figure(history: History) -> str:
    """Name the figure that is drawn beside the loss: the one that states are judged by, or the first."""
    if history.metric != LOSS:
        return history.metric
    return next((name for epoch in history.epochs for name in epoch.val), LOSS)


def figure_of(epoch: Epoch, part: str, name: str) -> float:
    """Give a figure of the samples of one `part`, `train` or `val`; nan where there is none."""
    if name == LOSS:
        return float(getattr(epoch, f"{part}_loss"))
    figures: dict[str, float] = getattr(epoch, part)
    return figures.get(name, math.nan)


def figure_value(name: str, value: float) -> str:
    """Write a figure: a share as per cent."""
    return percent(value) if is_share(name) else shown(name, value)


def _pair(axes: Axes, epochs: Sequence[Epoch], kind: str, palette: Palette) -> None:
    """Training in grey, validation in the accent colour above it; points where they stay apart."""
    numbers = [epoch.number for epoch in epochs]
    marker = "o" if len(epochs) <= WRITTEN else ""
    for part, name, color, width in (
        ("train", "training", palette.soft, 1.3),
        ("val", "validation", palette.accent, 2.0),
    ):
        values = [_finite(figure_of(epoch, part, kind)) for epoch in epochs]
        if all(math.isnan(value) for value in values):
            continue
        axes.plot(numbers, values, color=color, linewidth=width, label=name, marker=marker, markersize=3.2)
    axes.grid(True, axis="y")


def _scale_loss(axes: Axes, epochs: Sequence[Epoch]) -> None:
    """Losses that span decades are read on a logarithmic axis, which is said."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    values = _all(epochs, "loss")
    if not values or min(values) <= 0 or max(values) / min(values) < 100:
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) / min(values) < 1000 else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title("loss, logarithmic")


def _scale_share(axes: Axes, epochs: Sequence[Epoch], kind: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    values = _all(epochs, kind) or [0.0, 1.0]
    room = max(0.08 * (max(values) - min(values)), 0.01)
    axes.set_ylim(max(min(values) - 2 * room, -0.01), min(max(values) + room, 1.01))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(value * 100, 6):g} %"))


def _epoch_axis(axes: Axes, epochs: Sequence[Epoch]) -> None:
    from matplotlib.ticker import MaxNLocator

    first, last = epochs[0].number, epochs[-1].number
    room = max(0.5, 0.012 * (last - first))
    axes.set_xlim(first - room, last + room)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))


def _rate(axes: Axes, history: History, palette: Palette) -> None:
    """The learning rate as steps; its figures stand in the title, since a strip has no room for an axis."""
    rates = [_finite(epoch.lr) for epoch in history.epochs]
    edges = [epoch.number - 0.5 for epoch in history.epochs] + [history.epochs[-1].number + 0.5]
    axes.stairs(rates, edges, fill=True, color=palette.soft, alpha=0.35, linewidth=0)
    axes.set_yticks([])
    axes.set_ylim(0, max([rate for rate in rates if math.isfinite(rate)], default=0) * 1.05 or 1)
    axes.set_xlabel("epoch")
    words = f"learning rate {_short(rates[0])}"
    if len(set(rates)) > 1:
        words = f"learning rate: {_short(max(rates))} at most, {_short(rates[-1])} at the end"
    axes.set_title(words, fontsize=8, fontweight="normal", color=palette.soft, pad=3)
    if history.ended == "interrupted":
        notice = f"interrupted after epoch {history.epochs[-1].number}"
        axes.set_title(notice, loc="right", fontsize=8, color=palette.bad, pad=3)


def _mark(axes: Axes, best: Epoch, value: float, words: str, palette: Palette) -> None:
    """A ring around the best epoch, its value beside it on the side where there is room."""
    if not math.isfinite(value):
        return
    axes.axvline(best.number, color=palette.accent, linewidth=0.8, alpha=0.5)
    axes.plot(
        [best.number], [value], "o", markersize=8, markeredgewidth=1.8,
        markerfacecolor=palette.paper, markeredgecolor=palette.accent, zorder=5,
    )  # fmt: skip
    left, right = axes.get_xlim()
    late = best.number > (left + right) / 2
    high = axes.transLimits.transform(axes.transScale.transform((best.number, value)))[1] > 0.5
    axes.annotate(
        f"{words}\nepoch {best.number}", (best.number, value), textcoords="offset points",
        xytext=(-9 if late else 9, -12 if high else 12), ha="right" if late else "left",
        va="top" if high else "bottom", color=palette.accent, fontweight="bold", fontsize=8.5, zorder=6,
        bbox={"facecolor": palette.paper, "edgecolor": "none", "pad": 1.5, "alpha": 0.8},
    )  # fmt: skip


def _all(epochs: Sequence[Epoch], kind: str) -> list[float]:
    both = (figure_of(epoch, part, kind) for epoch in epochs for part in ("train", "val"))
    return [value for value in both if math.isfinite(value)]


def _finite(value: float) -> float:
    """Infinity would stretch the axis out of all use; a gap shows it just as well."""
    return value if math.isfinite(value) else math.nan


def _short(value: float) -> str:
    return f"{value:.2g}" if math.isfinite(value) else "–"


# confusion matrix


def _confusion(figure: Figure, evaluation: Evaluation, palette: Palette) -> None:
    import numpy as np

    counts = np.asarray(evaluation.confusion, dtype=float).reshape((len(evaluation.classes),) * 2)
    colors = _shades(counts, palette)
    axes = figure.add_subplot()
    axes.imshow(colors, interpolation="nearest")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlabel("taken for", fontweight="bold", labelpad=6)
    axes.set_ylabel("true class", fontweight="bold", labelpad=6)
    _name_cells(axes, evaluation.classes)
    if len(counts) <= WRITTEN:
        axes.set_xticks(np.arange(len(counts) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(counts) + 1) - 0.5, minor=True)
        axes.grid(which="minor", axis="both", color=palette.paper, linewidth=2)
        axes.tick_params(which="minor", length=0)
        _write_counts(axes, counts, colors, palette)
    figure.supxlabel("blue right, red wrong; the stronger, the larger the share of its row",
                     fontsize=7.5, color=palette.soft)  # fmt: skip


def _shades(counts: NDArray[np.float64], palette: Palette) -> NDArray[np.float64]:
    """Mix each cell from the empty colour to its hue; the root lets a rare mistake be seen."""
    import numpy as np
    from matplotlib.colors import to_rgb

    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    strength = np.sqrt(share)[..., None]
    hue = np.broadcast_to(np.array(to_rgb(palette.bad)), (*counts.shape, 3)).copy()
    hue[np.diag_indices(len(counts))] = to_rgb(palette.accent)
    mixed: NDArray[np.float64] = np.array(to_rgb(palette.cell)) * (1 - strength) + hue * strength
    return mixed


def _name_cells(axes: Axes, classes: Sequence[str]) -> None:
    """Name every class while there is room, then every n-th; long names stand aslant below."""
    step = 1 if len(classes) <= NAMED else math.ceil(len(classes) / 32)
    size = 8.5 if len(classes) <= WRITTEN else 6.5
    places = list(range(0, len(classes), step))
    labels = [label(classes[place], f"#{place + 1}") for place in places]
    axes.set_yticks(places, labels, fontsize=size)
    if max(map(len, labels), default=0) <= 3 and len(classes) <= WRITTEN:
        axes.set_xticks(places, labels, fontsize=size)
    else:
        turned = 90 if len(classes) > WRITTEN else 45
        axes.set_xticks(places, labels, fontsize=size, rotation=turned, rotation_mode="anchor",
                        ha="right", va="center" if turned == 90 else "top")  # fmt: skip


def _write_counts(axes: Axes, counts: NDArray[np.float64], colors: NDArray[np.float64], palette: Palette) -> None:
    digits = len(f"{int(counts.max(initial=0)):d}")
    size = min(9.0, 40 / max(digits, 1))
    for (row, column), count in zip(_cells(len(counts)), counts.flat, strict=True):
        if count:
            dark = float(colors[row, column] ** 2.2 @ (0.2126, 0.7152, 0.0722)) < 0.19
            axes.text(column, row, f"{int(count)}", ha="center", va="center", fontsize=size,
                      fontweight="bold" if row == column else "normal",
                      color="#ffffff" if dark else "#14181c")  # fmt: skip


def _cells(side: int) -> list[tuple[int, int]]:
    return [(row, column) for row in range(side) for column in range(side)]


# samples


def _samples(figure: Figure, chosen: Sequence[Sample], shape: tuple[int, int], palette: Palette) -> None:
    places = list(figure.subplots(*shape, squeeze=False).flat)
    for axes in places:
        axes.set_axis_off()
    for axes, sample in zip(places, chosen, strict=False):
        _sample(axes, sample, palette)


def _sample(axes: Axes, sample: Sample, palette: Palette) -> None:
    """One tile: the image in a coloured edge, a mark and words below, as colour must not be the only sign."""
    import numpy as np

    assert sample.image is not None
    image = eight_bit(sample.image).copy()
    tiny = max(image.size) <= TINY
    if not tiny:
        image.thumbnail((320, 320))
    color = palette.good if sample.right else palette.bad
    axes.set_axis_on()
    axes.imshow(np.asarray(image.convert("RGB")), interpolation="nearest" if tiny else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(visible=True, color=color, linewidth=1.8)
    mark = "✓" if sample.right else "✗"
    axes.set_xlabel(f"{mark} {label(sample.prediction)}  {percent(sample.confidence, 0)}",
                    color=color, fontweight="bold", fontsize=8.5, labelpad=4)  # fmt: skip
    below = "" if sample.right else f"is {label(sample.target)}"
    axes.annotate(below, (0.5, 0), (0, -17), xycoords="axes fraction", textcoords="offset points",
                  ha="center", va="top", fontsize=8, color=palette.soft)  # fmt: skip
