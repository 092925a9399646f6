"""A drawing as plain data, for JSON and for the page."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from typing import Any

from torchgraft.graph.drawing import Box, Drawing, Edge

__all__ = ["VERSION", "as_data", "as_json"]

VERSION = 1
"""The version of the format."""


def as_data(drawing: Drawing) -> dict[str, Any]:
    """Give a drawing as plain data; what has its default is left out."""
    return {
        "generator": "torchgraft",
        "version": VERSION,
        "title": drawing.title,
        "facts": [list(fact) for fact in drawing.facts],
        "opened": sorted(drawing.opened),
        "root": _box(drawing.root),
    }


def as_json(drawing: Drawing) -> str:
    """Write a drawing as JSON on one line."""
    return json.dumps(as_data(drawing), ensure_ascii=False)


def _defaults(cls: type) -> dict[str, Any]:
    return {one.name: one.default for one in fields(cls)}


_BOX = [(name, default) for name, default in _defaults(Box).items() if name not in ("boxes", "edges")]
_EDGE = list(_defaults(Edge).items())


def _box(box: Box) -> dict[str, Any]:
    held = {
        name: _plain(one) for name, default in _BOX if (one := getattr(box, name)) != default or default is MISSING
    }
    if box.boxes:
        held["boxes"] = [_box(child) for child in box.boxes]
    if box.edges:
        held["edges"] = [_edge(edge) for edge in box.edges]
    return held


def _edge(edge: Edge) -> dict[str, Any]:
    return {name: one for name, default in _EDGE if (one := getattr(edge, name)) != default or default is MISSING}


def _plain(one: Any) -> Any:
    return list(one) if isinstance(one, tuple) else one
