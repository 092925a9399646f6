"""The loss over the learning rate, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torchgraft.errors import StoreError

if TYPE_CHECKING:
    from torchgraft.searching.rate import RateSearch

__all__ = ["draw_rates"]


def draw_rates(found: RateSearch, path: str | Path) -> Path:
    """Draw what a range test found; the suffix of the file says the format, such as `rate.png`.

    Raises:
        StoreError: it can't be written there.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(found.rates, found.losses, ".", color="#b9c2cc", markersize=4, label="loss of a step")
    axes.plot(found.rates, found.smooth, color="#1f4e79", linewidth=2, label="smoothed")
    for name, rate, colour in (
        ("valley", found.valley, "#2a9d8f"),
        ("a tenth of the least", found.tenth, "#bc6c25"),
    ):
        axes.axvline(rate, color=colour, linestyle=":", label=f"{name}: {rate:.1e}")
    axes.axvline(found.suggestion, color="#d1495b", linewidth=1.5, label=f"steepest fall: {found.suggestion:g}")
    least, first = min(found.smooth), found.smooth[0]
    axes.set_ylim(least - 0.1 * (first - least), first + 0.6 * (first - least))
    axes.set_xscale("log")
    axes.set_xlabel("learning rate of the optimizer; groups keep their ratio to it")
    axes.set_ylabel("training loss")
    axes.legend(fontsize="small", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    place = Path(path)
    try:
        figure.savefig(place, dpi=150)
    except (OSError, ValueError) as error:
        raise StoreError(
            f"the plot can't be written: {error}", where=str(place), hint="name a file such as rate.png"
        ) from error
    return place
