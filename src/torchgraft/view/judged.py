"""Pictures of what was judged other than classes: quantities predicted against true ones, masks over images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchgraft.view.canvas import LIGHT, Palette, flat, label, percent, picture, png
from torchgraft.view.plots import TINY, eight_bit

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from PIL.Image import Image

    from torchgraft.history import Evaluation

__all__ = ["Overlay", "class_colours", "overlays", "predicted"]

PANELS = 6
"""So many quantities are drawn; of more, the first."""
WIDTH = 8.4
"""Inches: a narrower drawing is blown up on the page, its letters too."""
POINTS = 3000
"""So many samples are drawn as points at most, evenly chosen."""
NOT_JUDGED = 255
HUES = (
    "#4477aa",
    "#ee6677",
    "#228833",
    "#ccbb44",
    "#66ccee",
    "#aa3377",
    "#ee8866",
    "#44bb99",
    "#99ddff",
    "#ffaabb",
)
"""Colours of classes that colour-blind readers can tell apart (Tol, 2021), taken round and round."""


@dataclass(frozen=True)
class Overlay:
    """One image with what its pixels are and what the model took them for.

    Attributes:
        image: as the model saw it, `height` × `width`.
        truth: classes of the pixels, row by row, a byte each; 255 where none is judged.
        guess: the predicted ones.
        iou: mean over the classes that occur.
    """

    image: Image
    truth: bytes
    guess: bytes
    iou: float


def predicted(evaluation: Evaluation, palette: Palette = LIGHT) -> bytes:
    """Draw each quantity, predicted against true, a panel each; on the line both are equal."""
    count = min(len(evaluation.classes), PANELS)
    columns = min(count, 3)
    rows = math.ceil(count / columns)
    side = 4.6 if count == 1 else 3.1
    drawn = picture(
        (max(WIDTH, side * columns), side * rows),
        palette,
        lambda figure: _panels(figure, evaluation, (rows, columns), palette),
    )
    return png(flat(drawn))


def _panels(figure: Figure, evaluation: Evaluation, shape: tuple[int, int], palette: Palette) -> None:
    places = list(figure.subplots(*shape, squeeze=False).flat)
    for number, axes in enumerate(places):
        if number >= len(evaluation.classes):
            axes.set_axis_off()
            continue
        name = label(evaluation.classes[number], f"#{number + 1}", width=28)
        truths = [row[number] for row in evaluation.truths]
        guesses = [row[number] for row in evaluation.guesses]
        _panel(axes, truths, guesses, name, palette)
        axes.set_xlabel("true", fontweight="bold", labelpad=4)
        if number % shape[1] == 0:
            axes.set_ylabel("predicted", fontweight="bold", labelpad=4)


def _panel(axes: Axes, truths: Sequence[float], guesses: Sequence[float], name: str, palette: Palette) -> None:
    """Points with the line of equality; the same span both ways, so that the line is a diagonal."""
    step = max(1, math.ceil(len(truths) / POINTS))
    pairs = [(x, y) for x, y in zip(truths[::step], guesses[::step], strict=True) if math.isfinite(x + y)]
    low, high = (edge(value for pair in pairs for value in pair) for edge in (min, max)) if pairs else (0.0, 1.0)
    room = 0.04 * (high - low or 1.0)
    span = (low - room, high + room)
    axes.plot(span, span, color=palette.soft, linewidth=1, zorder=1)
    alpha = 0.75 if len(pairs) < 300 else 0.35
    axes.scatter([x for x, _ in pairs], [y for _, y in pairs], s=12, color=palette.accent, alpha=alpha,
                 linewidths=0, zorder=2)  # fmt: skip
    axes.set(xlim=span, ylim=span, aspect="equal", title=name)
    axes.grid(True, axis="both")


def overlays(chosen: Sequence[Overlay], classes: Sequence[str], palette: Palette = LIGHT) -> bytes:
    """Draw samples in rows: the image, the true mask over it, the predicted one; a legend of the classes below."""
    there = sorted({code for one in chosen for code in (*one.truth, *one.guess)} - {NOT_JUDGED})
    size = (WIDTH, 2.75 * len(chosen) + 0.35 + 0.25 * math.ceil(len(there) / 5))
    return png(picture(size, palette, lambda figure: _rows(figure, chosen, classes, there, palette)))


def _rows(
    figure: Figure, chosen: Sequence[Overlay], classes: Sequence[str], there: Sequence[int], palette: Palette
) -> None:
    from matplotlib.patches import Patch

    places = figure.subplots(len(chosen), 3, squeeze=False)
    for row, one in zip(places, chosen, strict=True):
        for axes, codes in zip(row, (None, one.truth, one.guess), strict=True):
            _over(axes, one.image, codes)
        row[0].set_ylabel(f"IoU {percent(one.iou)}", fontweight="bold", color=palette.ink)
    for axes, title in zip(places[0], ("image", "true", "predicted"), strict=True):
        axes.set_title(title)
    colours = class_colours(len(classes))
    patches = [Patch(color=colours[code], label=label(_name(classes, code), f"#{code + 1}")) for code in there]
    figure.legend(handles=patches, loc="outside lower center", ncols=5, labelcolor=palette.ink)


def _name(classes: Sequence[str], code: int) -> str:
    return classes[code] if code < len(classes) else f"(class {code})"


def _over(axes: Axes, image: Image, codes: bytes | None) -> None:
    """An image, with a mask over it; what is not judged is veiled in grey."""
    import numpy as np

    pixels = np.asarray(eight_bit(image).convert("RGB"), dtype=float) / 255
    if codes is not None:
        pixels = _mixed(pixels, np.frombuffer(codes, dtype=np.uint8).reshape(pixels.shape[:2]))
    tiny = max(pixels.shape[:2]) <= TINY
    axes.imshow(pixels, interpolation="nearest" if tiny else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _mixed(pixels: NDArray[Any], codes: NDArray[np.uint8]) -> NDArray[Any]:
    import numpy as np
    from matplotlib.colors import to_rgb

    table = np.full((256, 3), 0.6)
    for code, colour in enumerate(class_colours(NOT_JUDGED)):
        table[code] = to_rgb(colour)
    grey = pixels.mean(axis=2, keepdims=True)
    mixed: NDArray[Any] = 0.4 * grey + 0.6 * table[codes]
    return mixed


def class_colours(count: int) -> list[str]:
    """Give a colour for each class; the same for the same number wherever it is drawn."""
    return [HUES[number % len(HUES)] for number in range(count)]
