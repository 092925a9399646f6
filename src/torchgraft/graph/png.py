"""A drawing as PNG, by resvg, with the letters of DejaVu Sans on every machine."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from torchgraft.graph.drawing import Drawing
from torchgraft.graph.svg import svg
from torchgraft.view.places import marked_png

__all__ = ["png"]

_ZOOM = 2
_MOST = 16_000
"""Pixels on a side that common viewers still open."""


def png(drawing: Drawing) -> bytes:
    """Write a drawing as PNG, at twice the size of the SVG where that is not too large."""
    return marked_png(rendered(svg(drawing)))


def rendered(text: str) -> bytes:
    """Turn SVG into PNG."""
    import resvg_py

    head = text[: text.index(">")]
    sizes = [float(head.split(f' {name}="')[1].split('"')[0]) for name in ("width", "height")]
    zoom = min(_ZOOM, _MOST / max(sizes))
    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=text,
            skip_system_fonts=True,
            font_files=_fonts(),
            font_family="DejaVu Sans",
            sans_serif_family="DejaVu Sans",
            width=max(1, round(sizes[0] * zoom)),
        )
    )


@cache
def _fonts() -> list[str]:
    """Give the files of DejaVu Sans that come with matplotlib."""
    import matplotlib

    home = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [str(home / name) for name in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")]
