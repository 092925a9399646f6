"""The drawing as one HTML file that needs nothing else: pan, zoom, search, open, look at details.

Drawing ──> data (JSON) ──┐
layout_script(), *.js ────┼──> page()
page.css, colours ────────┘
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from torchgraft.graph.colours import DARK, LIGHT
from torchgraft.graph.data import as_data
from torchgraft.graph.scripts import layout_script

if TYPE_CHECKING:
    from torchgraft.graph.drawing import Drawing

__all__ = ["page"]

_PARTS = ("model.js", "paint.js", "view.js", "panel.js", "search.js", "page.js")
"""In the order in which they need each other."""


def page(drawing: Drawing) -> str:
    """Give the whole page as HTML; it asks the network for nothing, and its policy forbids it to."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("torchgraft.graph", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = page_script()
    return environment.get_template("page.html.jinja").render(
        title=drawing.title,
        facts=drawing.facts,
        data=embedded(as_data(drawing)),
        script=script,
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        css=_text("page.css"),
        light=dataclasses.asdict(LIGHT),
        dark=dataclasses.asdict(DARK),
    )


def embedded(data: dict[str, Any]) -> str:
    """Write data as JSON that may stand within a script element, whatever names the user gave."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


@functools.cache
def page_script() -> str:
    """Give all the JavaScript of the page."""
    return "\n" + "\n".join((layout_script(), *(_text(part) for part in _PARTS))) + "\n"


def _text(name: str) -> str:
    return (files("torchgraft.graph") / name).read_text(encoding="utf-8")
