"""A drawing in a file: the ending says the format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torchgraft.graph.drawing import Drawing
from torchgraft.view.places import check_place

__all__ = ["written"]


def _svg(drawing: Drawing) -> bytes:
    from torchgraft.graph.svg import svg

    return svg(drawing).encode()


def _png(drawing: Drawing) -> bytes:
    from torchgraft.graph.png import png

    return png(drawing)


def _html(drawing: Drawing) -> bytes:
    from torchgraft.graph.page import page

    return page(drawing).encode()


def _dot(drawing: Drawing) -> bytes:
    from torchgraft.graph.dot import dot

    return dot(drawing).encode()


def _json(drawing: Drawing) -> bytes:
    from torchgraft.graph.data import as_json

    return (as_json(drawing) + "\n").encode()


_WRITERS: dict[str, Callable[[Drawing], bytes]] = {
    ".svg": _svg,
    ".png": _png,
    ".html": _html,
    ".dot": _dot,
    ".json": _json,
}


def written(drawing: Drawing, to: str | Path) -> Path:
    """Write a drawing in the format that the file's ending names; the file is whole, or as it was.

    Raises:
        StoreError: it can't be written, or another file is there that is no drawing of ours.
    """
    from torchgraft.store.files import write_whole

    path = Path(to)
    write_whole(path, _WRITERS[check_place(path)](drawing), what="the drawing")
    return path
