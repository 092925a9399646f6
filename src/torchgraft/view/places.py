"""Where a picture or page may go: every file we write carries a mark, and no other file is written over."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torchgraft.errors import StoreError

__all__ = ["DRAWN", "MARKS", "check_place", "is_ours", "marked_png"]

MARKS = {
    ".svg": b"<!-- drawn by torchgraft -->",
    ".png": b"Software\0torchgraft",
    ".html": b'<meta name="generator" content="torchgraft draw">',
    ".dot": b"// drawn by torchgraft\n",
    ".json": b'{"generator": "torchgraft"',
}
"""What a file of ours has near its beginning, by its ending; a PNG in a tEXt chunk."""

DRAWN = tuple(MARKS)
"""The endings of files that drawings are written to."""

_PNG = b"\x89PNG\r\n\x1a\n"
_HEAD = 4096
"""Bytes within which a mark stands."""


def check_place(
    to: str | Path,
    endings: Iterable[str] = DRAWN,
    *,
    what: str = "a drawing",
    inputs: Iterable[Path] = (),
    makes_folder: bool = False,
) -> str:
    """Refuse a file that can't be written or would cost another, before anything is made; give its ending.

    Args:
        to: the file.
        endings: those that it may have.
        what: what is to be written, for messages.
        inputs: files that are read, which are never written over.
        makes_folder: a folder that is missing will be made.

    Raises:
        StoreError: says why.
    """
    path, known = Path(to), tuple(endings)
    ending = path.suffix.lower()
    if ending not in known:
        said = f"{what} is not written to a file that ends in '{ending}'" if ending else "the name has no ending"
        stem = path.stem or "model"
        more = f"end it in one of {', '.join(known)}, such as " if len(known) > 1 else "--to "
        raise StoreError(said, where=str(to), hint=f"{more}{stem}{known[0]}")
    if not makes_folder and not path.parent.is_dir():
        raise StoreError(
            f"there is no folder {path.parent}", where=str(path), hint="make it first, or name another"
        )
    if path.is_dir():
        raise StoreError("a folder of that name is there", where=str(path), hint="name another file")
    if path.exists() and any(one.exists() and path.samefile(one) for one in inputs):
        raise StoreError(
            "this is the file that is read, and would be lost", where=str(path), hint="name another file"
        )
    if not is_ours(path):
        raise StoreError(
            f"a file is there that is no {ending[1:].upper()} of torchgraft's, and would be lost",
            where=str(path),
            hint="name another file, or remove that one",
        )
    return ending


def is_ours(path: Path) -> bool:
    """Tell whether a file carries the mark of its kind; one that is not there or empty costs nobody anything."""
    if not path.exists() or not path.stat().st_size:
        return True
    ending = path.suffix.lower()
    with open(path, "rb") as file:
        start = file.read(_HEAD)
    if ending == ".png":
        return start.startswith(_PNG) and MARKS[ending] in _texts(start)
    if ending in (".dot", ".json"):
        return start.lstrip().startswith(MARKS[ending])
    return ending in MARKS and MARKS[ending] in start


def marked_png(content: bytes) -> bytes:
    """Put the mark into a PNG, behind its header."""
    from zlib import crc32

    body = b"tEXt" + MARKS[".png"]
    chunk = len(MARKS[".png"]).to_bytes(4, "big") + body + crc32(body).to_bytes(4, "big")
    behind = len(_PNG) + 25  # IHDR: length, name, 13 bytes, sum
    return content[:behind] + chunk + content[behind:]


def _texts(start: bytes) -> list[bytes]:
    """Give the tEXt chunks that stand before the pixels of a PNG."""
    found, at = [], len(_PNG)
    while at + 8 <= len(start) and start[at + 4 : at + 8] != b"IDAT":
        size = int.from_bytes(start[at : at + 4], "big")
        if start[at + 4 : at + 8] == b"tEXt":
            found.append(start[at + 8 : at + 8 + size])
        at += size + 12
    return found
