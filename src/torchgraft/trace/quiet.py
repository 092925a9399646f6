"""What torch prints by itself where a pass breaks off, kept from the user: the trace tells it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["unprinted"]


@contextmanager
def unprinted() -> Iterator[None]:
    """Keep graphs of torch.fx from printing a traceback of their code before they raise what a trace tells."""
    home: Any = sys.modules.get("torch.fx.graph_module")
    if home is None or "print" in vars(home):
        yield
        return
    home.print = lambda *_, **__: None  # a name of the module, which goes before the built-in one
    try:
        yield
    finally:
        del home.print
