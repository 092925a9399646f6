"""What every picture stands on: a palette, a canvas, fonts that are there, and how shares are written.

matplotlib is imported when a picture is drawn, pyplot never: no window system, no current figure, no settings
of the caller changed or obeyed.
"""

from __future__ import annotations

import functools
import io
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchgraft.view.places import marked_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

__all__ = ["DARK", "DPI", "LIGHT", "Palette", "flat", "label", "percent", "picture", "png", "trim"]

DPI = 200
_LOCK = threading.Lock()
_FALLBACK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Microsoft YaHei",
    "Arial Unicode MS",
)


@dataclass(frozen=True)
class Palette:
    """The colours of a picture; `paper` is the card it lies on, `cell` an empty cell of the matrix."""

    paper: str
    cell: str
    ink: str
    soft: str
    faint: str
    accent: str
    good: str
    bad: str


LIGHT = Palette("#ffffff", "#f4f5f6", "#1c2126", "#66707a", "#e3e6e9", "#2463c4", "#1a7f4b", "#c8372d")
DARK = Palette("#1b1f24", "#242930", "#e7eaed", "#98a2ad", "#343b43", "#79aef5", "#5cc88d", "#f2857b")


def percent(share: float, digits: int = 1) -> str:
    """Write a share of 1 as per cent; only what is really all reads 100 %, only what is none 0 %."""
    if not math.isfinite(share):
        return "–"
    if share in (0, 1):
        return f"{share * 100:.0f}\u00a0%"
    step = 10.0**-digits
    return f"{min(max(share * 100, step), 100 - step):.{digits}f}\u00a0%"


def trim(name: str, width: int = 16) -> str:
    """Shorten a name in its middle, where names of one family differ least, and put it on one line."""
    name = " ".join(name.split())
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return f"{name[: width - 1 - tail]}…{name[-tail:]}"


def picture(size: tuple[float, float], palette: Palette, paint: Callable[[Figure], None]) -> Image:
    """Run `paint` on a figure of `size` inches and give what it drew; style and lock hold until then."""
    import PIL.Image
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with _LOCK, style.context(_style(palette), after_reset=True):
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        paint(figure)
        canvas.draw()
        whole = PIL.Image.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba()))
        return whole.convert("RGB")


def png(image: Image) -> bytes:
    """Give an image as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return marked_png(buffer.getvalue())


def flat(image: Image) -> Image:
    """Keep 256 colours, all that a drawing without photographs has to the eye: a third of the size."""
    from PIL.Image import Dither, Quantize

    # Median cut keeps the paper exactly; the others shift it, and the picture would show on its card.
    return image.quantize(256, Quantize.MEDIANCUT, dither=Dither.NONE)


def _style(palette: Palette) -> dict[str, Any]:
    """The settings of every picture; names are text, so no dollar sign starts a formula."""
    return {
        "font.family": _families(),
        "font.size": 9,
        "text.parse_math": False,
        "text.color": palette.ink,
        "axes.edgecolor": palette.faint,
        "axes.facecolor": "none",
        "axes.labelcolor": palette.soft,
        "axes.titlecolor": palette.ink,
        "axes.titlelocation": "left",
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.grid.axis": "y",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "figure.facecolor": palette.paper,
        "grid.color": palette.faint,
        "grid.linewidth": 0.7,
        "xtick.color": palette.faint,
        "ytick.color": palette.faint,
        "xtick.labelcolor": palette.soft,
        "ytick.labelcolor": palette.soft,
        "ytick.left": False,
        "legend.frameon": False,
        "legend.borderpad": 0,
        "legend.borderaxespad": 0,
    }


@functools.cache
def _families() -> list[str]:
    """The font that matplotlib brings, then those here that know more scripts."""
    from matplotlib import font_manager

    here = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in _FALLBACK_FONTS if name in here)]


@functools.cache
def _glyphs() -> frozenset[int]:
    """Every character that the fonts here can draw."""
    from matplotlib import font_manager

    paths = [font_manager.findfont(name) for name in _families()]
    return frozenset(code for path in paths for code in font_manager.get_font(path).get_charmap())


def label(name: str, instead: str = "", width: int = 16) -> str:
    """Trim a name to what the fonts can draw: `instead` of one they can't, or a question mark for a sign."""
    name = trim(name, width)
    missing = {sign for sign in name if ord(sign) not in _glyphs()}
    if missing and instead:
        return instead
    return "".join("?" if sign in missing else sign for sign in name)
