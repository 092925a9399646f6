"""The layout as JavaScript, for the page and for QuickJS alike."""

from __future__ import annotations

import functools
from importlib.resources import files

__all__ = ["layout_script"]

_PARTS = ("dagre.min.js", "texts.js", "flow.js", "ranks.js", "lanes.js", "layout.js")
"""In the order in which they need each other; layout.js says what they give."""


@functools.cache
def layout_script() -> str:
    """Give the script that defines `layout(drawing, opened)`; it needs `structuredClone` and no DOM."""
    folder = files("torchgraft.graph")
    return "\n".join((folder / part).read_text(encoding="utf-8") for part in _PARTS)
