"""A drawing as SVG."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from torchgraft.graph.colours import LIGHT
from torchgraft.graph.drawing import BREAK, Box, Drawing
from torchgraft.graph.layout import laid_out
from torchgraft.graph.opening import walk
from torchgraft.graph.tones import Tone, line_of, lines, names, tone
from torchgraft.graph.words import told
from torchgraft.view.places import MARKS

__all__ = ["svg"]

_FONT = "'DejaVu Sans', Verdana, sans-serif"
_SIZES = {"label": 13, "kind": 11, "detail": 10.5, "times": 11, "shape": 10}
"""Sizes of texts by what they are, in pixels; layout.js measures with the same."""

_MARGIN = 24
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""What XML can't hold in any way, but a module's name can."""

_RED = "\0"
"""Begins a line of the head that is red; XML can't hold it."""

_LEAST = 420
"""Pixels: a narrower picture would break its title into pieces."""


def svg(drawing: Drawing) -> str:
    """Write a drawing as SVG: title and facts, boxes with tooltips, edges with shapes, a legend of the colours."""
    placed = laid_out(drawing)
    boxes = {box.id: box for box in walk(drawing.root)}
    shown = [boxes[spot["id"]] for spot in placed["boxes"]]
    width = max(placed["width"], _LEAST, len(drawing.title) * 11 + 2 * _MARGIN)
    facts = _lines(drawing.facts, width)
    key = _placed_key(shown, placed, width)
    top = 34 + 17 * len(facts)
    foot = top + placed["height"]
    height = foot + 20 * (key[-1].row + 1 if key else 0) + (12 if key else 0)
    shift = round((width - placed["width"]) / 2, 1)
    size = f'width="{_n(width)}" height="{_n(height)}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {_n(width)} {_n(height)}" '
        f'font-family="{_FONT}" fill="{LIGHT.ink}">',
        MARKS[".svg"].decode(),
        f"<title>{escape(drawing.title)}</title>",
        _arrows(placed["edges"]),
        f'<rect {size} fill="{LIGHT.page}"/>',
        *_head(drawing.title, facts),
        f'<g transform="translate({_n(shift)} {top})">',
        *(_box(boxes[spot["id"]], spot) for spot in placed["boxes"]),
        *(line for edge in placed["edges"] for line in _edge(edge)),
        "</g>",
        *(line for entry in key for line in _entry(entry, foot)),
        "</svg>",
    ]
    return _FORBIDDEN.sub("\ufffd", "\n".join(lines) + "\n")


# the head


def _lines(facts: Iterable[tuple[str, str]], width: float) -> list[str]:
    """Put facts beside each other as long as they fit, and break those that are too long."""
    most = int((width - 2 * _MARGIN) / 6.7)
    lines: list[str] = []
    for name, value in facts:
        part = f"{name} {value}"
        if lines and name != BREAK and len(lines[-1]) + len(part) + 5 < most:
            lines[-1] += f"  ·  {part}"
        else:
            lines += [f"{_RED if name == BREAK else ''}{one}" for one in textwrap.wrap(part, most)]
    return lines


def _head(title: str, facts: Sequence[str]) -> Iterator[str]:
    yield f'<text x="{_MARGIN}" y="32" font-size="16" font-weight="bold">{escape(title)}</text>'
    for number, line in enumerate(facts):
        colour = LIGHT.removed if line.startswith(_RED) else LIGHT.soft
        yield _words(_MARGIN, 51 + 17 * number, 11, line.removeprefix(_RED), colour)


def _words(x: float, y: float, size: float, text: str, colour: str = LIGHT.soft) -> str:
    return f'<text x="{_n(x)}" y="{_n(y)}" font-size="{size}" fill="{colour}">{escape(text)}</text>'


# boxes


def _box(box: Box, spot: dict[str, Any]) -> str:
    colours = tone(box, open=spot["open"])
    behind = _rect(spot, box, colours, 4) if box.times > 1 else ""
    texts = "".join(_text(one) for one in spot["texts"])
    return (
        f"<g id={quoteattr(box.id)}><title>{escape(told(box))}</title>{behind}{_rect(spot, box, colours)}"
        f"{_stripe(box, spot, colours)}{texts}</g>"
    )


def _rect(spot: dict[str, Any], box: Box, colours: Tone, aside: float = 0) -> str:
    """Draw the frame of a box; one that stands for several has another behind it, a little aside."""
    around = spot["h"] / 2 if box.role in ("input", "output") else 8 if spot["open"] else 5
    dashes = ' stroke-dasharray="4 3"' if box.role == "constant" or box.mark == "removed" else ""
    place = (
        f'x="{_n(spot["x"] + aside)}" y="{_n(spot["y"] + aside)}" width="{_n(spot["w"])}" height="{_n(spot["h"])}"'
    )
    wide = f' stroke-width="{1.8 if box.mark else 1}"'
    return f'<rect {place} rx="{_n(around)}" fill="{colours.fill}" stroke="{colours.line}"{wide}{dashes}/>'


def _stripe(box: Box, spot: dict[str, Any], colours: Tone) -> str:
    """Draw what training changes at the left side of a box: all, nothing, or a part."""
    high = (spot["h"] - 10) / max(len(colours.stripe), 1)
    return "".join(
        f'<rect x="{_n(spot["x"] + 3)}" y="{_n(spot["y"] + 5 + high * number)}" width="4" height="{_n(high)}" '
        f'rx="1.5" fill="{colour}"/>'
        for number, colour in enumerate(colours.stripe)
    )


def _text(one: dict[str, Any]) -> str:
    role = one["role"]
    weight = ' font-weight="bold"' if role in ("label", "times") else ""
    anchor = ' text-anchor="middle"' if one.get("align") == "middle" else ""
    colour = {"label": LIGHT.ink, "times": LIGHT.accent}.get(role, LIGHT.soft)
    place = f'x="{_n(one["x"])}" y="{_n(one["y"])}"'
    return f'<text {place} font-size="{_SIZES[role]}"{weight}{anchor} fill="{colour}">{escape(one["text"])}</text>'


# edges


def _colour(edge: dict[str, Any]) -> str:
    return line_of(edge["mark"], skip=edge["skip"])


def _arrows(edges: Sequence[dict[str, Any]]) -> str:
    """Give the heads of arrows, one for each colour that is there."""
    heads = "".join(
        f'<marker id="to-{colour[1:]}" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 .5L8 4L0 7.5z" fill="{colour}"/></marker>'
        for colour in dict.fromkeys(_colour(edge) for edge in edges)
    )
    return f"<defs>{heads}</defs>"


def _edge(edge: dict[str, Any]) -> Iterator[str]:
    colour = _colour(edge)
    wide = 1.7 if edge["mark"] or edge["skip"] else 1.2
    arrow = f' marker-end="url(#to-{colour[1:]})"' if edge["target"] else ""
    yield f'<path d="{edge["path"]}" fill="none" stroke="{colour}" stroke-width="{wide}"{arrow}/>'
    label = edge["label"]
    if label:
        yield _words(label["x"], label["y"], _SIZES["shape"], label["text"])


# the legend


@dataclass(frozen=True)
class _Entry:
    row: int
    x: float
    name: str
    tone: Tone | str
    """Of a box; of a line, its colour."""


def _placed_key(shown: Sequence[Box], placed: dict[str, Any], width: float) -> list[_Entry]:
    """Place the entries of the legend in rows."""
    said: list[tuple[str, Tone | str]] = list(names(shown))
    said += lines({edge["mark"] for edge in placed["edges"]} - {box.mark for box in shown})
    if any(edge["skip"] and not edge["mark"] for edge in placed["edges"]):
        said.append(("goes past what lies between", LIGHT.accent))
    entries: list[_Entry] = []
    row, x = 0, float(_MARGIN)
    for name, colours in said:
        wide = 24 + len(name) * 6.8
        if x > _MARGIN and x + wide > width - _MARGIN:
            row, x = row + 1, float(_MARGIN)
        entries.append(_Entry(row, x, name, colours))
        x += wide + 12
    return entries


def _entry(entry: _Entry, foot: float) -> Iterator[str]:
    y, colours = foot + 20 * entry.row, entry.tone
    if isinstance(colours, str):
        yield f'<path d="M{_n(entry.x)} {_n(y + 6)}h14" stroke="{colours}" stroke-width="1.7"/>'
    else:
        spot = {"x": entry.x, "y": y - 1, "w": 15, "h": 14, "open": False}
        yield _rect(spot, Box("", "", ""), colours) + "".join(
            f'<rect x="{_n(entry.x + 2.5)}" y="{_n(y + 1.5 + 9 / len(colours.stripe) * number)}" width="3.5" '
            f'height="{_n(9 / len(colours.stripe))}" fill="{colour}"/>'
            for number, colour in enumerate(colours.stripe)
        )
    yield _words(entry.x + 22, y + 10, 11, entry.name)


def _n(number: float) -> str:
    return f"{number:.1f}".rstrip("0").rstrip(".") if number % 1 else str(int(number))
