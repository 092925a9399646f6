"""A drawing in a file: the ending says the format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torchgraft.errors import StoreError
from torchgraft.graph.drawing import Drawing

__all__ = ["kind_of", "written"]


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


class _Format(NamedTuple):
    """What writes a format, and how its files begin, in small letters."""

    write: Callable[[Drawing], bytes]
    begins: tuple[bytes, ...]


_FORMATS = {
    ".svg": _Format(_svg, (b"<svg", b"<?xml")),
    ".png": _Format(_png, (b"\x89png",)),
    ".html": _Format(_html, (b"<!doctype html", b"<html")),
    ".dot": _Format(_dot, (b"digraph", b"strict digraph", b"graph")),
    ".json": _Format(_json, (b'{"version": 1, "title":',)),
}


def kind_of(to: str | Path) -> str:
    """Give the ending of a file's name.

    Raises:
        StoreError: nothing is written in files of that name.
    """
    ending = Path(to).suffix.lower()
    if ending not in _FORMATS:
        said = (
            f"a drawing is not written to a file that ends in '{ending}'" if ending else "the name has no ending"
        )
        hint = f"end it in one of {', '.join(_FORMATS)}, such as {Path(to).stem or 'model'}.svg"
        raise StoreError(said, where=str(to), hint=hint)
    return ending


def written(drawing: Drawing, to: str | Path) -> Path:
    """Write a drawing in the format that the file's ending names; the file is whole, or as it was.

    Raises:
        StoreError: it can't be written, or another file is there that is no such drawing.
    """
    from torchgraft.store.files import explained, write_files

    path = Path(to)
    form = _FORMATS[kind_of(path)]
    _check(path, form)
    content = form.write(drawing)
    with explained("the drawing can't be written", path.parent, needed=len(content)):
        write_files([(path, [content])])
    return path


def _check(path: Path, form: _Format) -> None:
    """Refuse what would fail later, or cost a file that is something else."""
    if not path.parent.is_dir():
        raise StoreError(
            f"there is no folder {path.parent}", where=str(path), hint="make it first, or name another"
        )
    if path.is_dir():
        raise StoreError("a folder of that name is there", where=str(path), hint="name another file")
    if path.exists() and path.stat().st_size:
        with open(path, "rb") as file:
            start = file.read(64).lstrip().lower()
        if not start.startswith(form.begins):
            raise StoreError(
                f"the file that is there is no {path.suffix[1:].upper()} drawing, and would be lost",
                where=str(path),
                hint="name another file, or move that one away",
            )
