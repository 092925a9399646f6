"""What a search found, in words and drawn with letters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torchgraft.params.groups import aligned

if TYPE_CHECKING:
    from torchgraft.searching.batch import BatchSearch
    from torchgraft.searching.rate import RateSearch

__all__ = ["batch_text", "rate_text"]

WIDE, HIGH = 64, 11


def rate_text(found: RateSearch) -> str:
    """Draw the loss over the rate, and name the suggestion."""
    return "\n".join(
        [
            *_curve(found),
            "",
            f"suggestion           {found.suggestion:g}  the steepest fall (the plan has {found.own:g})",
            *(f"  {name:<18} {rate:g}" for name, rate in found.scaled),
            f"a tenth of the least {found.tenth:.1e}",
            f"valley               {found.valley:.1e}",
        ]
    )


def _curve(found: RateSearch) -> list[str]:
    low, high = math.log10(found.rates[0]), math.log10(found.rates[-1])
    least = min(found.smooth)
    most = min(max(found.smooth), found.smooth[0] + (found.smooth[0] - least))  # what breaks goes off the top
    rows = [[" "] * WIDE for _ in range(HIGH)]
    for rate, loss in zip(found.rates, found.smooth, strict=True):
        across = round((math.log10(rate) - low) / (high - low) * (WIDE - 1))
        up = (loss - least) / (most - least) if most > least else 0.0
        if up <= 1.0:
            rows[HIGH - 1 - round(up * (HIGH - 1))][across] = "•"
    place = round((math.log10(found.suggestion) - low) / (high - low) * (WIDE - 1))
    for row in rows:
        if 0 <= place < WIDE and row[place] == " ":
            row[place] = "┊"
    labels = {0: f"{most:.3g}", HIGH - 1: f"{least:.3g}"}
    lines = [f"{labels.get(n, ''):>8} │{''.join(row).rstrip()}" for n, row in enumerate(rows)]
    return ["    loss", *lines, f"{'':>8} └{'─' * WIDE}", f"{'':>9} {_scale(low, high)}"]


def _scale(low: float, high: float) -> str:
    """Write the powers of ten below the curve."""
    line = [" "] * (WIDE + 8)
    for power in range(math.ceil(low), math.floor(high) + 1):
        place = round((power - low) / (high - low) * (WIDE - 1))
        text = f"1e{power}"
        if not "".join(line[max(place - 1, 0) : place + len(text) + 1]).strip():
            line[place : place + len(text)] = text
    return "".join(line).rstrip() + "   rate"


def batch_text(found: BatchSearch) -> str:
    """Give the sizes that were tried as a table, and the advice."""
    rows = [("batch", "memory", "", "", "samples/s", "")]
    for one in found.sizes:
        size = one.peak if one.peak is not None else one.predicted
        rows.append(
            (
                str(one.batch),
                "" if size is None else _size(size),
                "measured" if one.peak is not None else "predicted" if size is not None else "",
                "fits" if one.fits else "too large",
                f"{one.speed:,.0f}" if one.speed is not None else "",
                ", ".join(
                    word
                    for word, batch in (
                        ("the plan's", found.own),
                        ("largest", found.largest),
                        ("advised", found.advised),
                    )
                    if batch == one.batch
                ),
            )
        )
    table = aligned(rows, left=(2, 3, 5))
    return "\n".join([f"{found.name} in {found.place}", "", *table, "", *found.advice()])


def _size(count: int) -> str:
    from torchgraft.memory.room import spoken

    return spoken(count)
