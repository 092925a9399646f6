"""`torchgraft sources [PATTERN]`: the models that there are."""

from __future__ import annotations

import inspect
import json as text
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from torchgraft.cli.console import console
from torchgraft.errors import SourceError, nearest

if TYPE_CHECKING:
    from torchgraft.sources.base import Offer, Source

__all__ = ["sources"]


def sources(pattern: str = "", /, *, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """List where base models come from, or every model that matches.

    Parameters
    ----------
    pattern
        A part of the name, or a glob: resnet, 'resnet*', 'timm:*vit*', 'torchvision:*'. Without it the kinds of
        sources are listed.
    json
        Print one JSON object a line instead of a table.
    """
    rows = list(_matching(pattern)) if pattern else list(_kinds())
    if not rows:
        raise SourceError(f"no model is called like '{pattern}'", where=pattern, hint=_near(pattern))
    if json:
        for row in rows:
            print(text.dumps(row, ensure_ascii=False))
        return 0
    from rich.table import Table

    table = Table(*rows[0], box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(", ".join(one) if isinstance(one, list) else one for one in row.values()))
    console().print(table)
    return 0


def _kinds() -> Iterator[dict[str, str]]:
    """Describe every kind of source; no library of models is imported for it."""
    from torchgraft.sources.base import schemes

    for scheme, cls in schemes().items():
        what = (inspect.getdoc(cls) or "").partition("\n")[0]
        yield {"source": f"{scheme}:{cls.form}", "gives": what}


def _matching(pattern: str) -> Iterator[dict[str, str | list[str]]]:
    scheme, rest = _parted(pattern)
    for kind, offer in _offers(scheme):
        if _matches(offer.name, rest):
            weights = list(offer.weights)
            yield {"source": f"{kind}:{offer.name}", "weights": weights or ["none"], "here": offer.there}


def _parted(pattern: str) -> tuple[str, str]:
    """Take a scheme off a pattern; a colon may also stand in a name (`hf-hub:…`).

    Raises:
        SourceError: there is no such scheme.
    """
    scheme, colon, rest = pattern.partition(":")
    if not colon or scheme == "*":
        return "", rest or pattern
    if scheme not in _schemes():
        known = _schemes()
        hint = nearest(scheme, known) or f"one of {', '.join(known)}"
        raise SourceError(f"there is no source '{scheme}'", where=pattern, hint=hint)
    return scheme, rest


def _offers(scheme: str) -> Iterator[tuple[str, Offer]]:
    for kind, cls in _schemes().items():
        if scheme in ("", kind):
            yield from ((kind, offer) for offer in cls.offers())


def _schemes() -> dict[str, type[Source]]:
    from torchgraft.sources.base import schemes

    return schemes()


def _matches(name: str, pattern: str) -> bool:
    glob = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    return fnmatchcase(name.lower(), glob.lower())


def _near(pattern: str) -> str:
    scheme, rest = _parted(pattern)
    plain = rest.replace("*", "")
    names = [offer.name for _, offer in _offers(scheme)]
    return nearest(plain, names) or "torchgraft sources lists where models come from; 'timm:*' all of timm's"
