"""Where boxes and edges lie: layout.js, the same that the page uses, run by QuickJS."""

from __future__ import annotations

import json
from typing import Any

from torchgraft.graph.data import as_data
from torchgraft.graph.drawing import Drawing
from torchgraft.graph.scripts import layout_script

__all__ = ["laid_out"]

_SHIM = "globalThis.structuredClone = x => x === undefined ? undefined : JSON.parse(JSON.stringify(x));\n"
"""What dagre takes from browsers and QuickJS does not have."""

_RUN = (
    "\nglobalThis.run = text => { const one = JSON.parse(text); return JSON.stringify(layout(one, one.opened)); };"
)

_STACK = 64 * 1024 * 1024
"""Bytes: dagre walks long chains by recursion."""


def laid_out(drawing: Drawing) -> dict[str, Any]:
    """Place a drawing, with the boxes open that it says.

    Returns:
        `width`, `height`, `boxes` and `edges`, as layout.js describes them, in pixels.
    """
    import quickjs

    context = quickjs.Context()
    context.set_max_stack_size(_STACK)
    context.eval(_SHIM + layout_script() + _RUN)
    return dict(json.loads(context.get("run")(json.dumps(as_data(drawing)))))
